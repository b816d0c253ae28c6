"""Propose: every proposer makes a challenger of what this round may learn from; one that fails stops nobody."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow.compute as pc
from prefect import task
from pydantic import Field

from ratchet.agent.build import documents_of
from ratchet.agent.environment import Environment
from ratchet.agent.errors import BadInput, NothingToPropose, ServiceUnavailable, named
from ratchet.agent.kinds.answering import Answering
from ratchet.agent.kinds.chat_endpoint import Chat
from ratchet.agent.kinds.program import View
from ratchet.agent.memory.library import Library
from ratchet.agent.memory.ranking import Retriever
from ratchet.agent.memory.snapshot import read_snapshot
from ratchet.agent.optimize.budget import Budget, BudgetSpent
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.optimize.evidence import Evidence, Example, Preference, Thumb
from ratchet.agent.optimize.examples import superseding
from ratchet.agent.optimize.forgetting import Forget, would_forget
from ratchet.agent.optimize.proposer import Proposal, Proposer, Registered, budget_of, made_by, recipe_of
from ratchet.agent.optimize.work import Work
from ratchet.agent.project import Project, load_project
from ratchet.agent.record import Record, content_hash
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import LabelledCase, answer_name, case_text, kept_for_gate
from ratchet.evaluation.data.contamination import planted
from ratchet.evaluation.data.scorers import same
from ratchet.infra.failures import in_one_line, keep_traceback
from ratchet.infra.reflection_lm import reflection_lm
from ratchet.infra.registry.agents import build
from ratchet.infra.registry.forgotten import forgotten
from ratchet.infra.registry.fruitless import forget_fruitless, record_fruitless, spent_on
from ratchet.infra.registry.gate_cases import spent_cases
from ratchet.infra.registry.registry import fetch_files, register, seen_case_ids, version_history, version_of
from ratchet.infra.store.collected import TRACES, collected_traces, columns_of, newest_traces
from ratchet.infra.store.dataset_store import DatasetVersion, column_of, read_dataset
from ratchet.infra.store.experience import library_view, recall_of_snapshots
from ratchet.infra.store.project_state import CALLS, project_folder
from ratchet.tasks.caching import cached_by
from ratchet.tasks.code_edits import edited_version
from ratchet.tasks.curate import RoundData, TrainingExample
from ratchet.tasks.progress import progress

OWN = 5000
"""Newest traces of a candidate that a rewriter of tools is shown."""
NOTHING_BETTER: Final = "found nothing better than what serves"


class Made(Record):
    """What a proposer came to: a candidate, or why there is none."""

    candidate_id: str | None = None
    nothing: str = ""
    cost: dict[str, float] = Field(default_factory=dict)
    """What it took, by unit: calls, tokens, usd, seconds."""


class Proposed(Record):
    """What all proposers of a round came to."""

    challengers: tuple[str, ...] = ()
    """Candidate ids, the last one made first."""
    nothing_new: dict[str, str] = Field(default_factory=dict)
    """Proposer → why it made nothing: no test is spent on it."""
    problems: tuple[str, ...] = ()
    """One line for each proposer that failed."""
    cost: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Proposer → what it spent, by unit; also where that came to nothing."""


def propose_each(
    folder: str,
    proposers: Sequence[Proposer],
    data: RoundData,
    *,
    seed: int,
    stacked: bool = False,
    edits: bool = False,
    budget: Budget | None = None,
) -> Proposed:
    """Let each proposer change the champion, or, `stacked`, what the one before it made; each within the budget.

    Both in turn (prompts, weights, prompts) is `stacked` with one proposer twice: each step is a candidate of its own
    with the step before as its parent; one that makes nothing is passed over. The gate tests the last first.
    Source: Soylu et al., BetterTogether (2024).

    `edits`: what people changed themselves is tested first: the code's own parts, and the champion without what they
    had it forget.
    """
    project = load_project(Path(folder))
    name = project.name
    if project.no_replay:  # what cannot be tested need not be made
        return Proposed(problems=(project.no_replay,))
    made: list[str] = []
    nothing_new: dict[str, str] = {}
    problems: list[str] = []
    cost: dict[str, dict[str, float]] = {}
    for called, proposer in named_steps(proposers):
        parent = [data.champion, *made][-1 if stacked else 0]
        try:
            one = propose(folder, proposer, parent, data, seed, budget)
        except Exception as error:  # noqa: BLE001  whatever broke in one, what the others made is still gated
            with suppress(ServiceUnavailable):
                cost[called] = spent_on(name, scope_of(name, proposer, parent, data, seed))
            said = in_one_line(error) or named(error)
            if not isinstance(error, BudgetSpent | TaughtByGate):
                said += f"; its traceback is in {keep_traceback(name, proposer.name, error)}"
            problems.append(f"proposer {called} made nothing: {said}")
            continue
        cost[called] = one.cost
        if one.candidate_id in (None, data.champion):
            nothing_new[called] = one.nothing or NOTHING_BETTER
        else:
            made.append(one.candidate_id)
    made += forgetting_version(folder, name, data, seed) if edits else []
    edited = edited_version(project, data.champion) if edits else None
    made += [edited] if edited else []
    return Proposed(
        challengers=tuple(dict.fromkeys(reversed(made))),
        nothing_new=nothing_new,
        problems=tuple(problems),
        cost={name: amounts for name, amounts in cost.items() if amounts},
    )


def named_steps(proposers: Sequence[Proposer]) -> list[tuple[str, Proposer]]:
    """The proposers by name, one that comes several times by its step, too."""
    names = [one.name for one in proposers]
    return [
        (one.name if names.count(one.name) == 1 else f"{one.name} (step {n})", one)
        for n, one in enumerate(proposers, start=1)
    ]


def forgetting_version(folder: str, name: str, data: RoundData, seed: int) -> list[str]:
    """The champion without the entries that people had it forget; nothing where it has none of them."""
    gone = forgotten(name)
    if not gone.entries:
        return []
    serving = registered(name, data.champion)
    if not would_forget(serving.candidate, serving.files, gone):
        return []
    made = propose(folder, Forget(forgotten=gone.entries), data.champion, data, seed)
    return [made.candidate_id] if made.candidate_id not in (None, data.champion) else []


def propose(
    folder: str, proposer: Proposer, parent: str, data: RoundData, seed: int, budget: Budget | None = None
) -> Made:
    """One challenger of this parent, registered; made once for the same proposer, evidence, parent, seed and budget.

    Raises:
        BudgetSpent: before there was anything to propose; a start with more of it pays none of those calls again.
    """
    name = load_project(Path(folder)).name
    scope, bound = scope_of(name, proposer, parent, data, seed), budget_of(proposer, budget or Budget())
    key = scope if bound == Budget() else content_hash([scope, bound.model_dump(mode="json")])
    return _propose(folder, proposer, parent, data, seed, bound, scope, key)


def scope_of(name: str, proposer: Proposer, parent: str, data: RoundData, seed: int) -> str:
    """Hash of the proposal: calls that were paid for the very same one are not paid again, whatever its budget."""
    return content_hash([name, recipe_of(proposer), data.digest, parent, seed])


@task(name="propose", task_run_name="propose {proposer.name}", **cached_by("key", result=Made))
def _propose(
    folder: str,
    proposer: Proposer,
    parent: str,
    data: RoundData,
    seed: int,
    budget: Budget,
    scope: str,
    key: str,
) -> Made:
    project = load_project(Path(folder))
    calls = Calls(project_folder(project.name) / CALLS, scope=scope)
    work = work_of(project, seed, calls=calls, budget=budget)
    try:
        proposal, why = _proposal(project, proposer, registered(project.name, parent), data, work), ""
    except NothingToPropose as reason:
        proposal, why = None, str(reason)
    except Exception as error:
        record_fruitless(
            project.name, scope, proposer.name, in_one_line(error) or named(error), work.meter.spent.by_unit
        )
        raise
    cost = work.meter.spent.by_unit
    if proposal is None:
        record_fruitless(project.name, scope, proposer.name, why or NOTHING_BETTER, cost)
        work.calls.forget()
        return Made(nothing=why or NOTHING_BETTER, cost=cost)
    register(
        project.name,
        proposal.candidate,
        files=proposal.files,
        seen_case_ids=proposal.seen_case_ids,
        cost=proposal.cost,
        documents=documents_of(project, proposal.candidate),
        dataset=_learned_from(data, proposal.candidate.origin.data_digest),
    )
    forget_fruitless(project.name, scope)
    work.calls.forget()
    return Made(candidate_id=proposal.candidate.candidate_id, cost=cost)


def _proposal(
    project: Project, proposer: Proposer, parent: Registered, data: RoundData, work: Work
) -> Proposal | None:
    """What the proposer makes of what this round may learn from; nothing of it is the gate's."""
    with ExitStack() as stack:
        memory = partial(_opened, stack, project.name, data)
        evidence = evidence_of(project, parent.candidate.candidate_id, data, memory)
        proposal = made_by(proposer, parent, evidence, work)
    if proposal is not None:
        refuse_leak(project.name, proposal, parent, data)
    return proposal


def _opened(stack: ExitStack, name: str, data: RoundData) -> Retriever:
    return stack.enter_context(memory_of(name, data))


class TaughtByGate(BadInput):
    """A proposer was taught by cases that must judge what it made; nothing is registered, and no label was spent."""


def refuse_leak(name: str, proposal: Proposal, parent: Registered, data: RoundData) -> None:
    """Refuse a candidate that was made from cases which are kept for the gate.

    Raises:
        TaughtByGate: it says that it saw one, or shows one as an example, which its parent did not.
    """
    labelled = read_dataset(data.labelled, LabelledCase)
    withheld = kept_for_gate(labelled, spent_cases(name))
    withheld = {case_id: text for case_id, text in withheld.items() if case_id not in parent.seen}
    training = [case_text(one.case.case) for one in read_dataset(data.training, TrainingExample)]
    found = planted(withheld, proposal.seen_case_ids, _shown(proposal), known=training)
    if found:
        told = f"{found[0]} and {len(found) - 1} more" if len(found) > 1 else f"case {found[0]}"
        raise TaughtByGate(
            f"it was taught by what must judge it: {told} {'are' if len(found) > 1 else 'is'} kept for the gate; "
            "nothing was registered and no label is spent: let it read `evidence` alone"
        )


def _shown(proposal: Proposal) -> Iterator[tuple[str | None, str]]:
    """Case and request of every example in the candidate's prompts and memory."""
    for one in proposal.candidate.predictors.values():
        yield from ((demo.case_id, demo.inputs) for demo in one.demos)
    for label, path in proposal.files.items():
        if label.split(".")[0].startswith("memor"):
            yield from ((step.case_id, step.observation) for step in read_snapshot(path)[1])


def _learned_from(data: RoundData, digest: str | None) -> DatasetVersion | None:
    """The dataset of this digest; of several together the training cases."""
    known = {one.digest: one for one in _parts(data).values()}
    return known.get(digest, data.training) if digest else None


def _parts(data: RoundData) -> dict[str, DatasetVersion]:
    """What may be learned from, by the name that evidence has for it."""
    parts = {
        "examples": data.training,
        "rollouts": data.rollouts,
        "preferences": data.preferences,
        "thumbs": data.thumbs,
    }
    return {name: one for name, one in parts.items() if one is not None}


def registered(name: str, candidate_id: str) -> Registered:
    """A candidate of the registry, with its files and what it has seen."""
    candidate = version_of(name, candidate_id).candidate
    return Registered(candidate, fetch_files(name, candidate_id), seen_case_ids(name, candidate_id))


def work_of(project: Project, seed: int, *, calls: Calls | None = None, budget: Budget | None = None) -> Work:
    """The project's folder, world and LMs; `calls` keeps what this proposal paid, `budget` bounds it."""
    return Work(
        folder=project_folder(project.name),
        environment=project.environment,
        scored=project.labelled_environment or _told_by_people(project),
        writer=partial(reflection_lm, chat=project.agent if isinstance(project.agent, Chat) else None),
        calls=calls or Calls(),
        budget=budget or Budget(),
        limits=project.limits,
        seed=seed,
        agent=lambda candidate, files: build(project, candidate, dict(files)),
        recall=recall_of_snapshots,
        may_retry=project.scores_itself and _tries_again(project),
        progress=progress,
    )


def _told_by_people(project: Project) -> Callable[[], Environment] | None:
    """Where an agent that answers a case whole has no scorer: an answer is worth 1 where it says what people said."""
    if project.agent is None or project.score is not None:
        return None
    alike = project.same or same
    return partial(
        Answering, lambda case, answer: None if case.expected is None else float(alike(case.expected, answer))
    )


def _tries_again(project: Project) -> bool:
    """Whether another attempt is served and harms nobody; a chat endpoint passes each request on once."""
    if isinstance(project.agent, Chat):
        return False
    return project.effects == "none" or not callable(project.agent)


def memory_of(name: str, data: RoundData) -> AbstractContextManager[Retriever]:
    """The library's steps of the runs that may teach in this round, ours and imported ones."""
    ids = (column_of(runs, "trace_id") for runs in (data.rollouts, data.imported))
    return library_view(name, {str(one) for column in ids for one in column})


def evidence_of(
    project: Project, parent: str, data: RoundData, memory: Callable[[], Retriever] = Library
) -> Evidence:
    """What this round may learn from; each part is read when a proposer asks for it."""
    return Evidence(
        examples=lambda: as_examples(project, read_dataset(data.training, TrainingExample)),
        served=lambda: served_by(project.name, parent),
        rollouts=lambda: read_dataset(data.rollouts, Trace),
        preferences=lambda: read_dataset(data.preferences, Preference) if data.preferences else (),
        thumbs=lambda: read_dataset(data.thumbs, Thumb) if data.thumbs else (),
        memory=memory,
        versions=frozenset(version.candidate_id for version in version_history(project.name)),
        digests={name: one.digest for name, one in _parts(data).items()},
    )


def as_examples(project: Project, training: Sequence[TrainingExample]) -> list[Example]:
    """What the agent would have seen of each case, without what a person answered otherwise later."""
    found = [
        Example(
            view=View(
                case_id=one.case.case_id,
                observation=project.environment().reset(one.case.case),
                inputs=one.case.case.inputs,
            ),
            answer=answer_name(one.case.answer),
            call=one.case.answer,
            weight=one.weight,
            trace_id=one.case.trace_id,
            seen_at=one.case.case.seen_at,
            source="human" if one.case.source == "human" else "own",
            said_at=one.case.said_at,
            supersedes=one.case.supersedes,
            expected=one.case.case.expected,
            said=one.case.said,
            session_id=one.case.session_id,
        )
        for one in training
    ]
    return superseding(found)


def served_by(name: str, candidate_id: str) -> list[Trace]:
    """What the candidate itself did in production; everybody's traces where it has served nothing yet: the newest."""
    stored = columns_of(TRACES, newest_traces(name), "trace_id", "candidate_id")
    own = stored.filter(pc.equal(stored.column("candidate_id"), candidate_id))
    ids: list[str] = (own if own.num_rows else stored).column("trace_id").to_pylist()
    return collected_traces(name, ids[-OWN:])
