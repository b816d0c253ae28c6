"""A column that came empty: the probability is the share of orders in which all of its cells lie in the reference."""

from itertools import permutations

import pytest

from ratchet.evaluation.drift.emptied import p_all_empty


@pytest.mark.parametrize(("n_reference", "filled", "n_current"), [(3, 2, 2), (2, 1, 3), (3, 3, 1), (2, 0, 2)])
def test_it_is_exact(n_reference, filled, n_current):
    rows = [1] * filled + [0] * (n_reference + n_current - filled)
    orders = list(permutations(rows))
    empty = sum(not any(order[n_reference:]) for order in orders)
    assert p_all_empty(n_reference, filled, n_current) == pytest.approx(empty / len(orders))


def test_a_column_that_was_rarely_filled_says_nothing_by_being_empty():
    assert p_all_empty(1_000, 3, 20) > 0.9
    assert p_all_empty(100, 100, 100) < 1e-50
