"""What the golden set says of a challenger: wins, losses, and what could not be played, which is no all-clear."""

from datetime import UTC, datetime

import pytest

from ratchet.agent.case import Case
from ratchet.agent.environment import Outcome, respond
from ratchet.agent.trace import Attempt, RunError, Step
from ratchet.evaluation.gate.golden import GoldenCase, golden_result

NOW = datetime(2026, 1, 5, tzinfo=UTC)
CASES = [
    GoldenCase(
        case=Case(inputs={"request": text}, expected="Yes"), trace_id="a" * 32, at=NOW, by="anna", reason="x"
    )
    for text in ("one", "two", "three")
]
IDS = [one.case_id for one in CASES]


@pytest.fixture
def plays(make_trace):
    def played(*said):
        """An answer, a score by the environment, or why it broke; one for each case."""
        found = {}
        for golden, what in zip(CASES, said, strict=True):
            text, score = (what, None) if isinstance(what, str) else ("whatever", what)
            step = Step(observation="o", action=respond(text))
            error = RunError(kind=text, message="x") if text in ("agent", "infrastructure") else None
            found[golden.case_id] = make_trace(
                case=golden.case,
                attempts=(Attempt(steps=(step,), outcome=Outcome(score=score)),),
                error=error,
            )
        return found

    return played


def test_an_answer_counts_as_the_environment_says_or_as_people_froze_it(plays):
    found = golden_result(CASES, "c", plays("yes.", "no", 0.0), plays("no", " YES", 1.0))
    assert (found.won, found.lost, found.unplayed) == ((IDS[1], IDS[2]), (IDS[0],), ())
    assert (found.n_right, found.n_champion_right, found.set_version) == (2, 1, 3)
    assert found.regressed
    assert found.words == "golden set of 3: right on 2, the champion on 1; 2 won, 1 lost"
    assert not golden_result(CASES, "c", plays("yes", "no", "no"), plays("yes", "no", "yes")).regressed


def test_the_agents_own_failure_loses_the_case_and_what_broke_is_no_all_clear(plays):
    failed = golden_result(CASES, "c", plays("yes", "yes", "yes"), plays("agent", "yes", "yes"))
    assert failed.lost == (IDS[0],)
    broken = golden_result(CASES, "c", plays("yes", "infrastructure", "yes"), plays("yes", "yes", "yes"))
    assert (broken.unplayed, broken.lost, broken.regressed) == ((IDS[1],), (), True)
    assert golden_result(CASES, "c", {}, {}).unplayed == tuple(IDS)
