"""How low or high a share can be, given how often it was seen: exact once, or at every look.

Why two: what is shown once has the exact interval of a fixed number of audits; a licence is looked at after each
audit, and there a fixed-n bound would sooner or later be cleared by chance.
Sources: Clopper & Pearson (1934); Robbins (1970), the mixture martingale of a Bernoulli sequence with the prior of
Krichevsky & Trofimov; Ville (1939).
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Final

Bound = Callable[[int, int, float], float]
"""(successes, trials, alpha) -> one end of an interval that misses the true share with probability alpha at most."""
_HALF: Final = 0.5
_EDGE: Final = 1e-12


@lru_cache(maxsize=4096)
def exact_low(successes: int, n: int, alpha: float) -> float:
    """Lower end by Clopper and Pearson, one-sided; 0 without trials."""
    from scipy.stats import beta

    return 0.0 if successes == 0 else float(beta.ppf(alpha, successes, n - successes + 1))


def exact_high(successes: int, n: int, alpha: float) -> float:
    """Upper end; 1 without trials."""
    return 1.0 - exact_low(n - successes, n, alpha)


@lru_cache(maxsize=4096)
def anytime_low(successes: int, n: int, alpha: float) -> float:
    """Lower end that holds at all n together: with probability 1 − alpha it is never above the true share."""
    from scipy.optimize import brentq

    if successes == 0:
        return 0.0
    failures, mean = n - successes, successes / n
    limit = _log_mixture(successes, failures) + math.log(alpha)

    def too_unlikely(p: float) -> float:
        return limit - successes * math.log(p) - (failures * math.log1p(-p) if failures else 0.0)

    top = min(mean, 1 - _EDGE)
    if too_unlikely(top) >= 0:  # rounding alone: the mixture never beats the best share by so much
        return 0.0
    return float(brentq(too_unlikely, _EDGE, top)) if too_unlikely(_EDGE) > 0 else 0.0


def anytime_high(successes: int, n: int, alpha: float) -> float:
    """The same for the upper end."""
    return 1.0 - anytime_low(n - successes, n, alpha)


def _log_mixture(successes: int, failures: int) -> float:
    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    return log_beta(successes + _HALF, failures + _HALF) - log_beta(_HALF, _HALF)
