import math
from datetime import UTC, datetime

import numpy as np
import pytest

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.characteristics.simulation import first_crossings
from ratchet.evaluation.gate.ledger import Ledger, close_test, open_test, refresh

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def spend(ledger: Ledger, name: str, decision: str = "reject", e_value: float = 0.5) -> Ledger:
    opened = open_test(ledger, candidate=name, now=NOW)
    return close_test(opened, candidate=name, decision=decision, e_value=e_value, now=NOW)


def test_the_kth_test_gets_six_alpha_over_pi_squared_k_squared():
    ledger = Ledger(alpha=0.05)
    for k in range(1, 6):
        ledger = open_test(ledger, candidate=f"c{k}", now=NOW)
        assert ledger.entries[-1].alpha_k == pytest.approx(6 * 0.05 / (math.pi**2 * k**2))


def test_a_lifetime_never_spends_more_than_alpha():
    ledger = Ledger(alpha=0.05, smallest_alpha=1e-9)
    for k in range(300):
        ledger = spend(ledger, f"c{k}")
    assert ledger.spent < 0.05


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


def test_e_lond_gains_budget_with_each_promotion():
    plain, winning = Ledger(spending="e-LOND"), Ledger(spending="e-LOND")
    plain, winning = spend(plain, "a"), spend(winning, "a", "promote", 1000.0)
    assert winning.next_alpha == pytest.approx(2 * plain.next_alpha)
    assert Ledger().next_alpha == pytest.approx(Ledger(spending="e-LOND").next_alpha)


def lifetime(rng: np.random.Generator, better: np.ndarray, spending: str) -> tuple[int, int]:
    """Promotions, and false ones among them, of one simulated lifetime."""
    d = (rng.random((better.size, 250)) < np.where(better, 0.75, 0.5)[:, None]).astype(float) * 2 - 1
    e_values = np.exp(np.minimum(first_crossings(d, np.zeros_like(d), 0.05).log_e, 600))
    ledger, promoted = Ledger(spending=spending, smallest_alpha=1e-12), []
    for k, e_value in enumerate(e_values):
        ledger = open_test(ledger, candidate=f"c{k}", now=NOW)
        wins = e_value >= ledger.entries[-1].threshold
        decision = "promote" if wins else "reject"
        ledger = close_test(ledger, candidate=f"c{k}", decision=decision, e_value=float(e_value), now=NOW)
        promoted.append(bool(wins))
    chosen = np.array(promoted)
    return int(chosen.sum()), int((chosen & ~better).sum())


def test_family_wise_spending_bounds_any_error_and_e_lond_the_share_of_errors():
    rng = np.random.default_rng(12)
    better = np.arange(20) % 2 == 0
    wise = [lifetime(rng, better, "family-wise") for _ in range(60)]
    lond = [lifetime(rng, better, "e-LOND") for _ in range(60)]
    assert np.mean([false > 0 for _, false in wise]) <= 0.1
    assert np.mean([false / max(found, 1) for found, false in lond]) <= 0.06
    assert np.mean([found for found, _ in lond]) >= np.mean([found for found, _ in wise])


def test_exhaustion_is_shown_and_only_a_person_refreshes():
    ledger = Ledger(smallest_alpha=0.01)
    ledger = spend(ledger, "a")
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
