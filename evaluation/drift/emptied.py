"""Has a column come empty by chance? Exact, by the number of orders in which that could be.

Why not the drift monitor's business: it bets on values, and an empty cell has none.
"""

from math import exp, lgamma


def p_all_empty(n_reference: int, filled: int, n_current: int) -> float:
    """Probability that, of `filled` cells among all rows in random order, all lie in the reference.

    C(n_reference, filled) / C(n_reference + n_current, filled), as in Fisher's exact test; below 1 only where the
    reference has something in the column.
    """
    both = n_reference + n_current
    return exp(
        lgamma(n_reference + 1)
        - lgamma(n_reference - filled + 1)
        + lgamma(both - filled + 1)
        - lgamma(both + 1)
    )
