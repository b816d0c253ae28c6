"""Experience replay: decisions that worked become a memory, and how much its vote counts is tuned.

Here of examples with one right action each; `trajectories` does the same for the steps of whole runs, and
`answer_replay` for agents that answer whole, of whose answers no two need be the same.
"""

from collections.abc import Sequence
from contextlib import suppress

from pydantic import Field

from ratchet.agent.environment import Option
from ratchet.agent.lm.of_candidate import lm_type
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.answer_replay import PLAYED, SHOWN, remember_answers
from ratchet.agent.optimize.budget import Budget, BudgetSpent
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import as_decisions, as_experience, learned_options, spread, usable
from ratchet.agent.optimize.memory_curation import imported_steps, where_from
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.team import role_by_role
from ratchet.agent.optimize.vote_weights import Grid, accuracies, tune
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import Record


class Replay(Record):
    """Remember what worked, and show it where something alike is asked."""

    name: str = "replay"
    recalls: int = Field(default=1, ge=0, le=20)
    """Own successes shown in the prompt; of free answers 4, unless this is set."""
    similarity: bool = True
    """Also let the lexical similarity of request and option count, if the examples say that it helps."""
    tune_on: int = Field(default=120, ge=1)
    """Examples that the weights are tuned on, each without its own experience and without its group's; none that
    shaped the parent, if there are others. Free answers are played on 60, unless this is set: each is a call."""
    imported: int = Field(default=200, ge=0)
    """Runs of other agents, from imported logs, that may be remembered, too: those most like the examples."""
    budget: Budget = Budget()
    """What it may spend; a run's own (`[budget]` of `ratchet.toml`) holds beside it."""

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The parent with a memory of the examples, its vote and the similarity weighed; a team's roles in turn."""
        if parent.candidate.kind != "built-in":
            told = self.model_fields_set
            return remember_answers(
                parent,
                evidence,
                work,
                shown=max(self.recalls if "recalls" in told else SHOWN, 1),
                played=self.tune_on if "tune_on" in told else PLAYED,
                imported=self.imported,
            )
        if parent.candidate.topology.roles:
            return role_by_role(self, parent, evidence, work)
        before, extra = parent.candidate, learned_options(evidence.examples)
        known = usable(evidence.examples, (*before.extra_options, *extra))
        if not known:  # nothing better is nothing: a memory of no steps would only cost a test
            return None
        theirs = self.imported_decisions(evidence, known, extra)
        memory = Memory([*theirs, *(as_experience(example) for example in known)])
        memory.save(path := work.file(f"memory/{memory.memory_id}.jsonl"))
        topology = before.topology.model_copy(update={"recalls": self.recalls})
        draft = before.model_copy(
            update={
                "memory": memory.memory_id,
                "extra_options": tuple({o.name: o for o in (*before.extra_options, *extra)}.values()),
                "topology": topology,
            }
        )
        unknown = [example for example in known if example.view.case_id not in parent.seen]
        sample, tuned = spread(unknown or known, self.tune_on), None
        if lm_type(draft.base_model).scores_options:  # else there is nothing to weigh against
            grid = Grid() if self.similarity else Grid(retrieval=(topology.retrieval_weight,))
            program = work.program(draft, {**parent.files, "memory": path})
            with (
                suppress(BudgetSpent),  # without their weighing the steps are a version all the same
                work.progress(f"{self.name}: weighing the memory", len(sample)) as done,
            ):
                tuned = tune(program, sample, grid, progress=done)
                topology = tuned.topology
        return Proposal(
            candidate=draft.model_copy(update={"topology": topology}),
            files={"memory": path},
            note=f"Remembers {len(memory.experiences)} steps that worked{where_from(memory)}; "
            f"shows {topology.recalls}, vote {topology.recall_weight:g}, "
            f"similarity {topology.retrieval_weight:g} nats"
            + "".join(f"; learned to answer {option.name}" for option in extra)
            + ".",
            parameters=accuracies(tuned),
            cost={"lm_calls": float(tuned.lm_calls if tuned else 0)},
        )

    def imported_decisions(
        self, evidence: Evidence, known: Sequence[Example], extra: Sequence[Option]
    ) -> list[Experience]:
        """What other agents did that this one can do, too, where they saw something like the examples."""
        views = [example.view for example in spread(known, self.tune_on)]
        offered = {option.name for view in views for option in (*view.observation.options, *extra)}
        return as_decisions(imported_steps(evidence.memory, views, self.imported), offered)
