"""Improve: from production traces to a champion that is shown to be better. The product on one screen.

Any stage can be killed and run again: stages are idempotent, expensive ones keep their results, and what people
have not answered yet is picked up by the next run. Two runs of one project would answer every request twice:
the second waits for the first.
"""

from pathlib import Path

from prefect import flow

from ratchet.agent.errors import named
from ratchet.agent.project import Project, load_project
from ratchet.agent.record import Record
from ratchet.flows.commands.terminal import console
from ratchet.flows.project_settings import ImproveSettings, read_settings
from ratchet.infra.failures import in_one_line, keep_traceback
from ratchet.infra.registry.promotion import settle_moves
from ratchet.infra.registry.registry import record_settings
from ratchet.infra.store.project_state import project_lock
from ratchet.tasks.collect import collect_new
from ratchet.tasks.gate import GateResult, gate_candidates
from ratchet.tasks.labels import LabelRequest, ask_for_labels
from ratchet.tasks.other_model import on_model, require_address, unused_model
from ratchet.tasks.promote import RoundOutcome, promote_best
from ratchet.tasks.propose import RoundData, able, curate_round, propose
from ratchet.tasks.rollouts import FROM_ROLLOUTS
from ratchet.tasks.serve import serve_waiting


class ImproveReport(Record):
    """What a run came to."""

    served: int
    asked: LabelRequest
    lessons: RoundData | None = None
    nothing_new: tuple[str, ...] = ()
    """Proposers that found nothing better than what serves: no test is spent on them."""
    judged: tuple[GateResult, ...] = ()
    decision: RoundOutcome
    problems: tuple[str, ...] = ()
    """What could not be read or sent, each with its reason; nothing of it is lost."""


@flow(name="improve", persist_result=False, validate_parameters=True)
def improve(project: str = ".", settings: ImproveSettings | None = None) -> ImproveReport:
    """Serve → collect → people → curate → propose → evaluate and gate → promote."""
    agent, rules = load_project(Path(project)), read_settings(Path(project), ImproveSettings, settings)
    with project_lock(agent.name, "`ratchet improve`", console.print):
        return _improve(project, agent, rules)


def made_nothing(name: str, proposer: str, error: Exception) -> str:
    """The line that the report has for a proposer that failed."""
    path = keep_traceback(name, proposer, error)
    return (
        f"proposer {proposer} made nothing: {in_one_line(error) or named(error)}; its traceback is in {path}"
    )


def _improve(project: str, agent: Project, rules: ImproveSettings) -> ImproveReport:
    if rules.model:
        require_address(rules.model, rules.model_at)
    settle_moves(agent.name)
    left_over = collect_new(agent.name)
    served = serve_waiting(project)
    collection = collect_new(agent.name)
    problems = tuple(dict.fromkeys((*left_over.problems, *collection.problems)))

    asked = LabelRequest(n_asked=0, n_waiting=0)
    if not agent.scores_itself:
        asked = ask_for_labels(agent.name, collection, rules.selection, rules.seed)
        if not asked.enough:
            waiting = (
                f"{asked.n_waiting} of {asked.n_asked} questions wait for people: answer them, then run again"
            )
            return ImproveReport(
                served=served, asked=asked, decision=RoundOutcome(reason=waiting), problems=problems
            )

    with_runs = not {*(rules.proposers or agent.proposers)}.isdisjoint(FROM_ROLLOUTS)
    lessons = curate_round(
        project, collection, rules.curation, rules.selection.gate_share, with_runs=with_runs, seed=rules.seed
    )
    made: dict[str, str] = {}
    wanted = able(rules.proposers or agent.proposers, agent.name, lessons.champion)
    if rules.model:
        made["model"], wanted = on_model(agent.name, lessons.champion, rules.model, rules.model_at), []
    else:
        problems += unused_model(agent, lessons.champion)
    for proposer in wanted if lessons.training.n_rows else ():
        parent = [lessons.champion, *made.values()][-1 if rules.stacked else 0]
        runs = lessons.practice if proposer in FROM_ROLLOUTS else None
        try:
            made[proposer] = propose(
                project, agent.name, proposer, parent, lessons.training, rules.proposing, runs
            )
        except Exception as error:  # noqa: BLE001  whatever broke in one, what the others made is still gated
            problems += (made_nothing(agent.name, proposer, error),)
    challengers = [one for one in dict.fromkeys(reversed(made.values())) if one != lessons.champion]
    gated = gate_candidates(project, lessons, challengers, rules.gate)
    record_settings(agent.name, {*challengers, *(one.candidate_id for one in gated.judged)}, rules)
    decision = promote_best(agent.name, gated, approved_by=rules.approved_by)
    return ImproveReport(
        served=served,
        asked=asked,
        lessons=lessons,
        nothing_new=tuple(proposer for proposer, one in made.items() if one == lessons.champion),
        judged=gated.judged,
        decision=decision,
        problems=(*problems, *gated.problems),
    )
