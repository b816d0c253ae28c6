"""Close an open test without a verdict, by what its stored evidence is worth now.

Why from what is stored: whoever closes a test (a person, or the run that finds it against a former champion) need
not be able to play its cases; the bets made so far say what the reserve gets back, and unanswered questions count
as losses.
"""

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.ledger import Entry, open_entry
from ratchet.evaluation.gate.trial import Trial, TrialState
from ratchet.infra.mlflow_client import connect, mlflow_errors
from ratchet.infra.registry.event_log import read_log
from ratchet.infra.registry.gate_cases import read_open_test, write_open_test
from ratchet.infra.registry.ledger import close_ledger_test, read_ledger


def close_open_test(project: str, candidate: str, *, reason: str, by: str = "") -> Entry:
    """End the open test of `candidate`: its cases are spent, its share comes back by its evidence.

    One that never bet has evidence 1 and gives all of it back; one whose state cannot be read, nothing.

    Raises:
        BadInput: it has no open test, or that is proven already.
    """
    entry = open_entry(read_ledger(project), candidate)
    e_value, cases = _so_far(project, entry)
    closed = close_ledger_test(
        project,
        candidate,
        champion=entry.champion,
        opened_at=entry.opened_at,
        decision="continue",
        e_value=e_value,
        reason=reason,
        cases=cases,
        by=by,
    )
    write_open_test(project, candidate, "")
    return closed


def closed_by_people(project: str, champion: str) -> frozenset[str]:
    """Challengers whose test against this champion a person ended: the next run does not begin it anew."""
    with mlflow_errors("reading which tests people closed"):
        events = read_log(connect(project)).events
    return frozenset(e.candidate for e in events if e.kind == "close" and e.by and e.champion == champion)


def _so_far(project: str, entry: Entry) -> tuple[float, list[str]]:
    """The evidence of this very test, and the cases that it used."""
    used: list[str] = []
    try:
        text = read_open_test(project, entry.candidate)
        state = TrialState.from_json(text, where=f"the stored test of {entry.candidate}") if text else None
        if state is None or state.opened_at != entry.opened_at:
            return 1.0, []
        used = [play.case_id for play in state.plays if play.is_evidence]
        trial = Trial.resume(state, (), (), most=0)
        verdict = trial.verdict
    except BadInput:  # of another version of Ratchet, or corrupt: what it is worth is not known
        return 0.0, used
    if verdict.decision == "promote":
        raise BadInput(
            f"the test of {entry.candidate} is proven: `ratchet improve` closes it with its verdict"
        )
    return trial.e_at_closing, used
