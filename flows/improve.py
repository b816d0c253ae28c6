"""Improve: from production traces to a champion that is shown to be better. The product on one screen.

Any stage can be killed and run again: stages are idempotent, expensive ones keep their results, and what people
have not answered yet is picked up by the next run. Two runs of one project would answer every request twice:
the second waits for the first.
"""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from pydantic import Field

from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.chat_endpoint import Chat
from ratchet.agent.optimize.proposer import Proposer, named_proposers
from ratchet.agent.project import Project, load_project
from ratchet.agent.record import Record
from ratchet.flows.commands.terminal import console
from ratchet.flows.project_settings import ImproveSettings, ProjectSettings, read_settings
from ratchet.infra.registry.approval import set_policy
from ratchet.infra.registry.promotion import settle_moves
from ratchet.infra.registry.registry import record_settings
from ratchet.infra.store.project_state import project_lock
from ratchet.tasks.approval import ask_for_approval, settle_approvals
from ratchet.tasks.collect import collect_new
from ratchet.tasks.curate import RoundData, curate_round
from ratchet.tasks.gate import GateResult, gate_candidates
from ratchet.tasks.judge import judge_traces
from ratchet.tasks.labels import LabelRequest, ask_for_labels
from ratchet.tasks.other_model import other_model, unused_model
from ratchet.tasks.promote import RoundOutcome, promote_best
from ratchet.tasks.propose import Proposed, propose_each
from ratchet.tasks.serve import serve_waiting, serving_version
from ratchet.tasks.trials import has_open_test
from ratchet.tasks.workers import working_on


class ImproveReport(Record):
    """What a run came to."""

    served: int
    asked: LabelRequest
    data: RoundData | None = None
    nothing_new: dict[str, str] = Field(default_factory=dict)
    """Proposer → why it made nothing; no test is spent on it."""
    cost: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Proposer → what its proposal took, by unit (calls, tokens, usd, seconds), whatever came of it."""
    judged: tuple[GateResult, ...] = ()
    decision: RoundOutcome
    problems: tuple[str, ...] = ()
    """What could not be read or sent, each with its reason; nothing of it is lost."""


@flow(name="improve", persist_result=False, validate_parameters=True)
def improve(project: str = ".", settings: ImproveSettings | None = None) -> ImproveReport:
    """Serve → collect → people → curate → propose → evaluate and gate → promote."""
    agent, rules = load_project(Path(project)), read_settings(Path(project), ImproveSettings, settings)
    with project_lock(agent.name, "`ratchet improve`", _say):
        return _improve(project, agent, rules)


def _improve(project: str, agent: Project, rules: ImproveSettings) -> ImproveReport:
    proposers = who_proposes(agent, rules)
    settle_moves(agent.name)
    set_policy(agent.name, read_settings(Path(project), ProjectSettings).approval)
    settle_approvals(agent.name)
    serving_version(agent)
    left_over = collect_new(agent.name, project, rules.feedback, rules.raters)
    served = serve_waiting(project)
    collection = collect_new(agent.name, project, rules.feedback, rules.raters)
    problems = tuple(dict.fromkeys((*left_over.problems, *collection.problems)))
    problems += judge_traces(project, collection, rules.judge, rules.selection.gate_share, seed=rules.seed)

    asked = LabelRequest(n_asked=0, n_waiting=0)
    if not agent.scores_itself:
        by_call = isinstance(agent.agent, Chat)
        asked = ask_for_labels(agent.name, collection, rules.selection, rules.seed, by_call=by_call)
        if not (asked.enough or has_open_test(agent.name)):
            return ImproveReport(
                served=served, asked=asked, decision=RoundOutcome(reason=asked.reason), problems=problems
            )

    data = curate_round(
        project, collection, rules.curation, rules.selection.gate_share, seed=rules.seed, raters=rules.raters
    )
    proposed = Proposed()
    if asked.enough:
        proposed = propose_each(
            project,
            proposers,
            data,
            seed=rules.seed,
            stacked=rules.stacked,
            edits=not rules.model,
            budget=rules.budget,
        )
    problems += () if rules.model else unused_model(agent, data.champion)
    with working_on(rules.workers):
        gated = gate_candidates(project, data, proposed.challengers, rules.gate, rules.raters)
    record_settings(agent.name, {*proposed.challengers, *(one.candidate_id for one in gated.judged)}, rules)
    decision = promote_best(agent.name, gated, approved_by=rules.approved_by, asked=asked, folder=project)
    if decision.best is not None and not decision.promoted:
        ask_for_approval(agent.name, decision.best)
    return ImproveReport(
        served=served,
        asked=asked,
        data=data,
        nothing_new=proposed.nothing_new,
        cost=proposed.cost,
        judged=gated.judged,
        decision=decision,
        problems=tuple(dict.fromkeys((*problems, *proposed.problems, *gated.problems))),
    )


def _say(text: str) -> None:
    console.print(text)  # not named in the flow itself, which travels to workers: a terminal cannot


def who_proposes(agent: Project, rules: ImproveSettings) -> Sequence[Proposer]:
    """Another LM alone, where one is to be tried; else those of the project that are named, or all."""
    if rules.model:
        return (other_model(agent, rules.model, rules.model_at),)
    names = rules.proposers
    if names is None:
        return agent.proposers
    if not rules.stacked and len(set(names)) < len(names):
        raise BadInput(
            f"proposers = {', '.join(names)}: one comes twice, and each would make the same: set "
            "stacked = true, so that each goes on from the one before, or name it once"
        )
    return named_proposers(agent.proposers, names)
