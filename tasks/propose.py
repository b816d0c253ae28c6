"""Propose: every proposer makes a challenger of what this round may learn from; one that fails stops nobody."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

from prefect import task
from pydantic import Field

from ratchet.agent.build import documents_of
from ratchet.agent.errors import BadInput, NothingToPropose, ServiceUnavailable, named
from ratchet.agent.memory.ranking import Retriever
from ratchet.agent.memory.snapshot import read_snapshot
from ratchet.agent.optimize.budget import Budget, BudgetSpent
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.optimize.forgetting import Forget, would_forget
from ratchet.agent.optimize.proposer import Proposal, Proposer, Registered, budget_of, made_by, recipe_of
from ratchet.agent.optimize.work import Work
from ratchet.agent.project import Project, load_project
from ratchet.agent.record import Record, content_hash
from ratchet.evaluation.data.cases import LabelledCase, case_text, kept_for_gate
from ratchet.evaluation.data.contamination import planted
from ratchet.infra.failures import in_one_line, keep_traceback
from ratchet.infra.registry.forgotten import forgotten
from ratchet.infra.registry.fruitless import forget_fruitless, record_fruitless, spent_on
from ratchet.infra.registry.gate_cases import spent_cases
from ratchet.infra.registry.registry import register
from ratchet.infra.store.dataset_store import read_dataset
from ratchet.infra.store.project_state import CALLS, project_folder
from ratchet.tasks.caching import cached_by
from ratchet.tasks.code_edits import edited_version
from ratchet.tasks.curate import RoundData, TrainingExample
from ratchet.tasks.evidence import evidence_of, learned_from, memory_of, registered, work_of

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
        dataset=learned_from(data, proposal.candidate.origin.data_digest),
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
