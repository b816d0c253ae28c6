"""Experience replay over whole runs: the steps of trajectories that won become the memory, and its vote is weighed.

A run keeps what was done, not what was offered; `replayed` plays the same actions again to see the options, which
are needed to weigh the memory's vote against the LM. Source: Sarukkai et al., Self-Generated In-Context Examples
(2025).
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from pydantic import Field

from ratchet.agent.environment import Environment, Observation
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.decision import View
from ratchet.agent.lm.of_candidate import lm_type
from ratchet.agent.memory.ranking import RecallSettings
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import WON, Credit, Experience, goal_of, tally, winning_steps
from ratchet.agent.optimize.budget import Budget, BudgetSpent
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import spread, usable
from ratchet.agent.optimize.memory_curation import CurationSettings, curate_memory, imported_steps, where_from
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.vote_weights import Grid, accuracies, tune
from ratchet.agent.optimize.work import Work, built_in_only
from ratchet.agent.record import Record
from ratchet.agent.rollout.rollout import HISTORY
from ratchet.agent.trace import Trace


class Trajectories(Record):
    """Remember the steps of runs that won, and of failed ones that feedback put right."""

    name: str = "trajectories"
    recalls: int = Field(default=3, ge=1, le=20)
    """Steps shown in the prompt."""
    curation: CurationSettings = CurationSettings()
    recall: RecallSettings | None = None
    """None = as configured."""
    tune_on: int = Field(default=60, ge=1)
    """Steps that the memory's vote is weighed on, each without its own case's experience."""
    repairs: int = Field(default=16, ge=0)
    """Failed cases that are played again with feedback; what then wins is remembered, too."""
    imported: int = Field(default=200, ge=0)
    """Runs of other agents, from imported logs, that may be remembered, too: those most like what the agent meets."""
    budget: Budget = Budget()
    """What it may spend; a run's own (`[budget]` of `ratchet.toml`) holds beside it."""

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The parent with a curated memory of steps that won."""
        built_in_only(parent.candidate)
        if parent.candidate.topology.roles:
            raise NothingToPropose("a team's roles learn from decisions: `replay` gives each role its memory")
        mended = self.repaired(parent, evidence.own_rollouts, work)
        examples = [e for run in (*evidence.own_rollouts, *mended) for e in replayed(run, work.environment())]
        views = [e.view for e in spread(examples, self.tune_on)]
        views += [first_view(run) for run in lost(evidence.own_rollouts)[-self.tune_on :]]
        steps = [step for run in (*evidence.rollouts, *mended) for step in winning_steps(run)]
        steps += imported_steps(evidence.memory, views, self.imported)
        if not steps:
            raise NothingToPropose(
                f"none of {len(evidence.rollouts)} runs won, and no imported one is like them"
            )
        return self.remembering(parent, steps, examples, work, credit=tally(evidence.rollouts))

    def remembering(
        self,
        parent: Registered,
        steps: Iterable[Experience],
        examples: Sequence[Example],
        work: Work,
        *,
        credit: Mapping[str, Credit] | None = None,
    ) -> Proposal:
        """The parent with the best of these steps as its memory.

        Args:
            parent: what is changed; its prompts and adapter stay.
            steps: everything that may be remembered.
            examples: won steps with what was offered (`replayed`): the memory learns from them what there was to
                choose from, and its vote is weighed on them; none = it stays.
            work: where the memory is written.
            credit: what came of showing steps, where they do not carry it yet.
        """
        recall, embed = work.recall(self.recall)
        whole = Memory(with_offered(steps, examples), settings=recall, embed=embed)
        curated = curate_memory(whole, self.curation, credit=credit, embed=embed)
        memory = curated.memory
        memory.save(path := work.file(f"memory/{memory.memory_id}.jsonl"))
        topology = parent.candidate.topology.model_copy(update={"recalls": self.recalls})
        draft = parent.candidate.model_copy(update={"memory": memory.memory_id, "topology": topology})
        sample, tuned = spread(usable(examples, draft.extra_options), self.tune_on), None
        if sample and lm_type(draft.base_model).scores_options:  # else there is nothing to weigh against
            program = work.program(draft, {**parent.files, "memory": path})
            grid = Grid(retrieval=(topology.retrieval_weight,))
            with (
                suppress(BudgetSpent),  # without their weighing the steps are a version all the same
                work.progress(f"{self.name}: weighing the memory", len(sample)) as done,
            ):
                tuned = tune(program, sample, grid, progress=done)
                topology = tuned.topology
        left_out = "".join(f", {count} left out: {reason}" for reason, count in curated.left_out.items())
        return Proposal(
            candidate=draft.model_copy(update={"topology": topology}),
            files={"memory": path},
            note=f"Remembers {len(memory.experiences)} steps of {curated.kept} trajectories that won{left_out}"
            f"{where_from(memory)}; "
            f"shows {topology.recalls}, vote {topology.recall_weight:g} nats.",
            parameters=accuracies(tuned),
            cost={"lm_calls": float(tuned.lm_calls if tuned else 0)},
        )

    def repaired(self, parent: Registered, runs: Sequence[Trace], work: Work) -> Sequence[Trace]:
        """What the parent wins, with feedback, of the newest cases that nobody won; none where nothing scores it."""
        chosen = lost(runs)[-self.repairs :] if self.repairs else []
        if not chosen:
            return ()
        with work.progress(f"{self.name}: playing what failed again", len(chosen)) as done:
            cases = {run.case.case_id: run.case for run in chosen}
            return work.repair(parent.candidate, parent.files, chosen, cases, progress=done)


def lost(runs: Sequence[Trace]) -> list[Trace]:
    """The newest run of each case that was scored and that no run won."""
    won = {run.case.case_id for run in runs if run.score is not None and run.score >= WON}
    scored = [run for run in runs if run.score is not None]
    return list({run.case.case_id: run for run in scored if run.case.case_id not in won}.values())


def first_view(run: Trace) -> View:
    """What the agent saw first; what it was offered is not known."""
    seen = run.attempts[0].steps[0].observation if run.attempts and run.attempts[0].steps else ""
    return View(case_id=run.case.case_id, observation=Observation(text=seen), goal=goal_of(run.case))


def with_offered(steps: Iterable[Experience], examples: Iterable[Example]) -> list[Experience]:
    """The steps with what was offered at each, as far as the examples tell."""
    offered = {
        (e.trace_id, e.view.observation.text, e.answer): tuple(o.name for o in e.view.observation.options)
        for e in examples
    }
    return [
        step.model_copy(update={"options": names})
        if (names := offered.get((step.trace_id, step.observation, step.action))) and not step.options
        else step
        for step in steps
    ]


def replayed(trace: Trace, environment: Environment) -> list[Example]:
    """The steps of a winning trajectory with what was offered at each, up to where the world does otherwise.

    Args:
        trace: a run; one that did not win gives nothing.
        environment: a fresh one of the same kind.
    """
    if trace.error is not None or trace.score is None or trace.score < WON or not trace.attempts:
        return []
    found, names = [], list[str]()
    seen, done = environment.reset(trace.case), False
    for step in trace.attempts[-1].steps:
        offered = {option.name for option in seen.options}
        if done or seen.text != step.observation or step.action.name not in offered:
            break
        view = View(
            case_id=trace.case.case_id,
            observation=seen,
            goal=goal_of(trace.case),
            done=tuple(names[-HISTORY:]),
        )
        found.append(Example(view=view, answer=step.action.name, trace_id=trace.trace_id, source="own"))
        names.append(step.action.name)
        seen, done = environment.step(step.action)
    return found
