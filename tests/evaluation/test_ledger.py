import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.characteristics.simulation import first_crossings
from ratchet.evaluation.gate.ledger import Ledger, close_test, open_test, refresh

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def spend(ledger: Ledger, name: str, decision: str = "reject", e_value: float = 0.5) -> Ledger:
    opened = open_test(ledger, candidate=name, now=NOW)
    return close_test(opened, candidate=name, decision=decision, e_value=e_value, now=NOW)


def test_a_test_takes_its_part_of_what_is_in_the_reserve():
    ledger, reserve = Ledger(alpha=0.05), 0.05
    for k in range(1, 10):
        ledger = open_test(ledger, candidate=f"c{k}", now=NOW)
        taken = max(0.1, 0.6 / k) * reserve
        assert ledger.entries[-1].alpha_k == pytest.approx(taken)
        reserve -= taken
        assert ledger.reserve == pytest.approx(reserve)


@pytest.mark.parametrize(
    ("decision", "e_value", "part"),
    [("promote", 1e3, 1.0), ("reject", 0.3, 0.3), ("continue", 0.0, 0.0), ("continue", 7.0, 1.0)],
)
def test_closing_gives_back_what_the_evidence_is_worth(decision, e_value, part):
    ledger = spend(Ledger(), "a", decision, e_value)
    assert ledger.entries[0].returned == pytest.approx(part * 0.03)
    assert ledger.reserve == pytest.approx(0.02 + part * 0.03)
    with pytest.raises(BadInput, match="no open test"):
        close_test(ledger, candidate="a", decision=decision, e_value=e_value, now=NOW)


def test_a_late_closing_does_not_end_the_next_test_of_the_same_candidate():
    ledger = open_test(spend(Ledger(), "a"), candidate="a", now=NOW + timedelta(days=1))
    for e_value in (0.9, 1e9):
        with pytest.raises(BadInput, match="is closed; the open one began"):
            close_test(ledger, candidate="a", decision="continue", e_value=e_value, now=NOW, opened_at=NOW)
    assert ledger.entries[1].decision is None


@pytest.mark.parametrize("e_value", [-0.1, math.nan])
def test_evidence_that_is_no_number_is_refused(e_value):
    with pytest.raises(BadInput, match="evidence is a number from 0 on"):
        spend(Ledger(), "a", "continue", e_value)


def test_a_lifetime_never_spends_more_than_alpha():
    ledger = Ledger(alpha=0.05, smallest_alpha=1e-9)
    for k in range(100):
        ledger = spend(ledger, f"c{k}", e_value=0.0)
    assert ledger.spent < 0.05


def test_sixty_tests_of_nothing_leave_enough_for_the_next():
    ledger = Ledger()
    for k in range(60):
        ledger = spend(ledger, f"c{k}", e_value=0.3)
    assert not ledger.exhausted
    assert 1 / ledger.next_alpha < 60_000


def old(ledger: Ledger, name: str, decision: str | None = None, e_value: float = 0.5) -> Ledger:
    """A test as it was opened before there was a reserve."""
    opened = open_test(ledger, candidate=name, now=NOW, gives_back=False)
    if decision is None:
        return opened
    return close_test(opened, candidate=name, decision=decision, e_value=e_value, now=NOW)


def test_tests_of_the_old_rule_keep_their_shares_and_what_they_left_goes_on():
    ledger = old(old(old(Ledger(), "a", "promote", 1e3), "b", "reject"), "open")
    assert [e.alpha_k for e in ledger.entries] == [6 * 0.05 / (math.pi * k) ** 2 for k in (1, 2, 3)]
    left = 0.05 - sum(e.alpha_k for e in ledger.entries)
    assert ledger.reserve == pytest.approx(left)
    ledger = open_test(ledger, candidate="new", now=NOW)
    assert ledger.entries[-1].k == 4
    assert ledger.entries[-1].alpha_k == pytest.approx(0.6 / 4 * left)
    ledger = close_test(ledger, candidate="open", decision="continue", e_value=5.0, now=NOW)
    assert [e.returned for e in ledger.entries[:3]] == [0, 0, 0]
    again = open_test(ledger, candidate="late", now=NOW, gives_back=False)
    assert again.entries[-1].gives_back, "once there is a reserve every share comes from it"


def test_a_candidate_has_one_open_test_at_a_time():
    ledger = open_test(Ledger(), candidate="a", now=NOW)
    with pytest.raises(BadInput, match="already has open test 1"):
        open_test(ledger, candidate="a", now=NOW)
    again = open_test(
        close_test(ledger, candidate="a", decision="continue", e_value=3, now=NOW), candidate="a", now=NOW
    )
    assert [entry.k for entry in again.entries] == [1, 2]


def test_a_promotion_below_its_threshold_is_refused():
    ledger = open_test(Ledger(), candidate="a", now=NOW)
    with pytest.raises(BadInput, match="use the entry's alpha_k"):
        close_test(ledger, candidate="a", decision="promote", e_value=25.0, now=NOW)
    closed = close_test(ledger, candidate="a", decision="promote", e_value=40.0, now=NOW)
    assert closed.entries[0].decision == "promote"


def test_closing_what_was_never_opened_is_refused():
    with pytest.raises(BadInput, match="no open test"):
        close_test(Ledger(), candidate="a", decision="reject", e_value=0.1, now=NOW)


def test_e_lond_gains_budget_with_each_promotion_and_gives_nothing_back():
    plain, winning = Ledger(spending="e-LOND"), Ledger(spending="e-LOND")
    plain, winning = spend(plain, "a"), spend(winning, "a", "promote", 1000.0)
    assert winning.next_alpha == pytest.approx(2 * plain.next_alpha)
    assert plain.entries[0].alpha_k == pytest.approx(6 * 0.05 / math.pi**2)
    assert plain.entries[0].returned == winning.entries[0].returned == 0


def lifetime(rng: np.random.Generator, better: np.ndarray, spending: str, **how: bool) -> tuple[int, int]:
    """Promotions, and false ones among them, of one simulated lifetime; promotion at any bet."""
    d = (rng.random((better.size, 100)) < np.where(better, 0.7, 0.5)[:, None]).astype(float) * 2 - 1
    tests = first_crossings(d, np.zeros_like(d), 0.05)
    ledger, promoted = Ledger(spending=spending, smallest_alpha=1e-12), []
    for k, (peak, last) in enumerate(zip(np.exp(tests.peak), np.exp(tests.log_e), strict=True)):
        ledger = open_test(ledger, candidate=f"c{k}", now=NOW, **how)
        wins = bool(peak >= ledger.entries[-1].threshold)
        decision, e_value = ("promote", peak) if wins else ("reject", last)
        ledger = close_test(ledger, candidate=f"c{k}", decision=decision, e_value=float(e_value), now=NOW)
        promoted.append(wins)
    chosen = np.array(promoted)
    return int(chosen.sum()), int((chosen & ~better).sum())


def test_family_wise_spending_bounds_any_error_and_e_lond_the_share_of_errors():
    rng = np.random.default_rng(12)
    better = np.arange(40) % 5 == 0
    wise = [lifetime(rng, better, "family-wise") for _ in range(60)]
    lond = [lifetime(rng, better, "e-LOND") for _ in range(60)]
    before = [lifetime(rng, better, "family-wise", gives_back=False) for _ in range(60)]
    assert np.mean([false > 0 for _, false in wise]) <= 0.1
    assert np.mean([false / max(found, 1) for found, false in lond]) <= 0.06
    assert np.mean([found for found, _ in wise]) >= 1.3 * np.mean([found for found, _ in before])


def test_exhaustion_is_shown_and_only_a_person_refreshes():
    ledger = Ledger(smallest_alpha=0.01)
    ledger = spend(ledger, "a", e_value=0.0)
    assert ledger.exhausted
    assert "exhausted" in ledger.summary
    with pytest.raises(BadInput, match="error budget exhausted"):
        open_test(ledger, candidate="b", now=NOW)
    fresh = refresh(ledger, granted_by="Ada", because="new quarter, new traffic", now=NOW)
    assert "granted by Ada: new quarter, new traffic" in fresh.summary
    opened = open_test(fresh, candidate="b", now=NOW)
    assert (opened.entries[-1].budget, opened.entries[-1].k) == (2, 1)
    assert len(opened.entries) == 2


def test_ledger_survives_json_and_is_frozen():
    ledger = refresh(spend(Ledger(), "a"), granted_by="Ada", because="x", now=NOW)
    assert Ledger.model_validate_json(ledger.model_dump_json()) == ledger
    with pytest.raises(ValueError, match="frozen"):
        ledger.alpha = 0.5
