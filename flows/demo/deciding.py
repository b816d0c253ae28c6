"""People and the gate in turns: the gate asks where versions differ, people answer, the tests go on until they end.

A night lies between two turns in production; here a turn is the gate's part of `improve`, and nothing is asked anew
of what teaches.
"""

from collections.abc import Sequence

from ratchet.agent.record import Record
from ratchet.evaluation.gate.plays import Play
from ratchet.evaluation.gate.trial import TrialState
from ratchet.flows.commands.report import say
from ratchet.flows.demo.simulated_annotator import answer_comparisons
from ratchet.flows.demo.weeks import DEMO_PROJECT, FOLDER
from ratchet.flows.improve import ImproveReport
from ratchet.flows.project_settings import ImproveSettings
from ratchet.infra.registry.gate_cases import read_open_test
from ratchet.infra.registry.registry import version_history
from ratchet.tasks.curate import RoundData
from ratchet.tasks.gate import GateResult, GateRound, gate_candidates
from ratchet.tasks.promote import promote_best
from ratchet.tasks.trials import ACCURACY


class Asked(Record):
    """Of how many fresh cases people were asked which answer is right."""

    played: int = 0
    """Cases that the round's tests used; each would have needed a label before anybody saw two answers to it."""
    asked: int = 0


class Round(Record):
    """A round of `improve`, with what came of its tests once people had answered."""

    report: ImproveReport
    people: Asked = Asked()


def decided(report: ImproveReport, rules: ImproveSettings) -> Round:
    """Let people and the gate take turns until no question is left, then promote the best of what is proven."""
    if report.data is None:
        return Round(report=report)
    gated, people = take_turns(report.data, [], rules, before=report.judged)
    decision = report.decision
    if not decision.promoted:
        decision = promote_best(DEMO_PROJECT, gated, approved_by=rules.approved_by)
    return Round(
        report=report.model_copy(update={"judged": gated.judged, "decision": decision}), people=people
    )


def take_turns(
    data: RoundData, challengers: Sequence[str], rules: ImproveSettings, before: Sequence[GateResult] = ()
) -> tuple[GateRound, Asked]:
    """What the tests of these, and of those in `before`, come to when people answer whatever they are asked."""
    answer_comparisons()  # what `improve` asked
    gated = gate_candidates(str(FOLDER), data, challengers, rules.gate, rules.raters)
    judged = {one.candidate_id: one for one in (*before, *gated.judged)}
    while gated.waiting and answer_comparisons():
        gated = gate_candidates(str(FOLDER), data, [], rules.gate, rules.raters)
        judged |= {one.candidate_id: one for one in gated.judged}
    mine = {*challengers, *(one.candidate_id for one in before)}
    judged = {candidate_id: one for candidate_id, one in judged.items() if candidate_id in mine}
    versions = {version.candidate_id: version for version in version_history(DEMO_PROJECT)}
    for candidate_id, one in judged.items():  # a test that ended before a kill is only on its version's page
        version = versions[candidate_id]
        verdict = version.verdict or one.verdict
        stopped = one.stopped if verdict.decision == "continue" else ""
        accuracy = version.scores.get(ACCURACY)
        judged[candidate_id] = GateResult(
            candidate_id=candidate_id, verdict=verdict, accuracy=accuracy, stopped=stopped
        )
    return gated.model_copy(update={"judged": tuple(judged.values())}), _asked(list(judged))


def _asked(candidates: Sequence[str]) -> Asked:
    stored = (read_open_test(DEMO_PROJECT, one) for one in candidates)
    plays: list[Play] = [play for text in stored if text for play in TrialState.from_json(text).plays]
    used = {play.case_id for play in plays if play.is_evidence}
    return Asked(played=len(used), asked=len({play.case_id for play in plays if play.question} & used))


def show_people(people: Asked) -> None:
    """How many labels it saved that people are asked only where versions differ."""
    if people.played:
        alike = people.played - people.asked
        say(
            f"people were asked about {people.asked} of {people.played} fresh cases, which answer is right; on "
            f"{alike} all versions answered the same: {alike} labels saved (before, each of the {people.played} "
            "needed one)"
        )
