"""Approve and promote: of what is proven, the best; by a person, or by a policy that needs none."""

from pathlib import Path

from prefect import task

from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.agent.project import load_project
from ratchet.agent.record import Record
from ratchet.evaluation.gate.approval import ApprovalSettings
from ratchet.infra.registry.agents import upstream_of
from ratchet.infra.registry.approval import waiting_approval
from ratchet.infra.registry.registry import promote, set_alias
from ratchet.infra.review.rounds import end_round
from ratchet.tasks.gate import GateRound
from ratchet.tasks.golden import play_golden
from ratchet.tasks.labels import LabelRequest


class RoundOutcome(Record):
    """What a round came to."""

    best: str | None = None
    """The proven challenger that is best on cases that all proven ones played."""
    promoted: bool = False
    reason: str


@task(name="promote")
def promote_best(
    name: str,
    gated: GateRound,
    *,
    approved_by: str | None,
    asked: LabelRequest | None = None,
    folder: str | None = None,
) -> RoundOutcome:
    """Point `challenger` to the best proven one, and `champion` too if a policy approves what is proven in full.

    `asked`: how far people are with what they teach; until they are, their round goes on. `folder`: where the project
    lies, to play the golden set: what loses a case of it waits for a person, whatever the policy.
    """
    decision = _decide(name, gated, approved_by, folder)
    if asked is not None and not asked.enough:
        return decision.model_copy(update={"reason": f"{decision.reason}; {asked.reason}"})
    end_round(name)  # last: a run killed before asks nobody anew, and its next promotes what this one proved
    return decision


def _decide(name: str, gated: GateRound, approved_by: str | None, folder: str | None) -> RoundOutcome:
    best = gated.best
    if best is None:
        return RoundOutcome(reason=f"{_nothing_proven(gated)}; the champion stays")
    upstream = upstream_of(load_project(Path(folder))) if folder is not None else None
    try:
        set_alias(name, best.candidate_id, "challenger", upstream=upstream)
    except (BadInput, ServiceUnavailable) as error:  # what is proven stays so: a person lets it serve later
        return RoundOutcome(best=best.candidate_id, reason=f"{best.reason}; not promoted: {error}")
    waiting = waiting_approval(name, best.candidate_id)
    policy = waiting.served_by(approved_by) if waiting else approved_by
    golden = play_golden(folder, best.candidate_id) if folder else None
    regressed = golden is not None and golden.regressed
    if policy is None or best.verdict.screening or regressed:
        nobody = f"; {policy} promotes nothing that was only screened" if policy else ""
        if golden is not None and (regressed or policy is None):
            nobody = f"; {golden.words}" + (
                f", which {policy} does not promote" if regressed and policy else ""
            )
        who = f" ({waiting.asked})" if waiting and waiting.policy != ApprovalSettings() else ""
        reason = f"{best.reason}{nobody}; waits for `ratchet approve {best.candidate_id}`{who}"
        return RoundOutcome(best=best.candidate_id, reason=reason)
    promote(name, best.candidate_id, approved_by=policy, reason=best.reason, upstream=upstream)
    return RoundOutcome(best=best.candidate_id, promoted=True, reason=best.reason)


def _nothing_proven(gated: GateRound) -> str:
    n_open = sum(bool(one.stopped) for one in gated.judged)
    if gated.judged:
        waits = f" ({_tests(n_open)} open{_waiting(gated.waiting)})" if n_open else ""
        return f"none of {len(gated.judged)} challengers is proven to be better{waits}"
    if gated.problems:
        return "no challenger was tested: see the problems"
    return "no challenger was tested: nothing new was learned, or too few fresh cases are left for the gate"


def _tests(n: int) -> str:
    return "1 test stays" if n == 1 else f"{n} tests stay"


def _waiting(n: int) -> str:
    return f": {n} questions wait for people" if n > 1 else ": 1 question waits for people" if n else ""
