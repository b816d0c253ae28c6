"""Does the agent say ever less? How varied a version's answers are, beside what its champion said before.

An agent that learns from its own successes first loses the tails: fewer words, fewer pairs of words, the same answer
to ever more requests (Shumailov et al., Nature 2024, "early model collapse"), while its accuracy may still rise. Two
looks, each with bounded false alarms: in production, blocks of answers are ranked against those of the versions
before by the drift monitor, and only a rise of repetition counts; in the gate both versions answered the same cases,
so that swapping the two answers of a case at random says what chance alone would give (exact at every size).

Why blocks: how varied an answer is, is a fact about several; blocks of exchangeable answers are exchangeable, and so
their ranks are uniform. Why one answer a case: a case that many people ask is no narrowness of the agent.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from pydantic import Field

from ratchet.agent.record import Record, as_text
from ratchet.agent.trace import Trace
from ratchet.evaluation.drift.message import Message
from ratchet.evaluation.drift.monitor import MIN_REFERENCE, DriftMonitor

BLOCK_SIZE: Final = 10
"""Answers that are one observation of how varied answers are."""
LOOK: Final = 5
"""Blocks that are looked at together."""
SWAPS: Final = 499
"""Random swaps that the gate's answers are compared with, at most."""
_ENOUGH: Final = 10
"""Swaps as wide as the real order after which nothing new will be learned (Besag & Clifford, 1991)."""
_WORD: Final = re.compile(r"\w+")


class Diversity(Record):
    """How varied some answers are; of other numbers of answers the figures are not comparable."""

    n_answers: int = Field(ge=0)
    distinct_1: float = Field(ge=0, le=1)
    """Different words as a share of all (Li et al., 2016)."""
    distinct_2: float = Field(ge=0, le=1)
    """Different pairs of neighbouring words as a share of all."""
    duplicate_share: float = Field(ge=0, le=1)
    """Share of the answers that another one said before, in the same words."""
    entropy: float = Field(ge=0)
    """Of the answers, in bits: 0 = all the same, log2 n = all different."""


class Narrowing(Record):
    """A version's answers beside the champion's at the same cases, or beside what served before."""

    champion: Diversity
    challenger: Diversity
    p_value: float = Field(gt=0, le=1)
    """Chance that two versions that are equally varied differ as much, in this direction."""


class DiversityWatch(Record):
    """What production says of the version that serves."""

    diversity: Diversity
    before: Diversity
    """Of the champion's past, on as many answers: what it is compared with."""
    e_value: float
    threshold: float
    n_blocks: int
    """Blocks of the version that were looked at."""

    @property
    def alarm(self) -> bool:
        """Whether its answers have become narrower, beyond chance."""
        return self.e_value >= self.threshold


def diversity(answers: Sequence[str]) -> Diversity:
    """How varied these answers are; case and spaces do not count."""
    texts = [" ".join(answer.casefold().split()) for answer in answers]
    words = [_WORD.findall(text) for text in texts]
    pairs = [pair for one in words for pair in pairwise(one)]
    counts = Counter(texts)
    n = len(texts)
    bits = -sum(c / n * math.log2(c / n) for c in counts.values()) if n else 0.0
    return Diversity(
        n_answers=n,
        distinct_1=_different([word for one in words for word in one]),
        distinct_2=_different(pairs),
        duplicate_share=1 - len(counts) / n if n else 0.0,
        entropy=max(bits, 0.0),
    )


def _different(items: Sequence[object]) -> float:
    return len(set(items)) / len(items) if items else 1.0


def answers_of(traces: Iterable[Trace]) -> list[str]:
    """What was answered, one a case, in the order of arrival."""
    first: dict[str, str] = {}
    for trace in traces:
        if trace.error is None and trace.action is not None:
            first.setdefault(trace.case.case_id, as_text(trace.answer))
    return list(first.values())


def watch_diversity(
    past: Sequence[str], answers: Sequence[str], *, alpha: float, seed: int = 0
) -> DiversityWatch | None:
    """Whether answers became narrower than the champion's past; None while there are too few.

    Where the past is too short the version's own first answers complete it, so that a first version is compared with
    its beginning. Without a change an alarm comes at most once in 1/alpha looks on average.

    Args:
        past: answers of the versions that served before, in order.
        answers: of the version that serves, in order.
        alpha: false alarms per look.
        seed: of the monitor.
    """
    lacking = max(MIN_REFERENCE - len(past) // BLOCK_SIZE, 0) * BLOCK_SIZE
    usual, watched = _blocks([*past, *answers[:lacking]]), _blocks(answers[lacking:])
    if len(usual) < MIN_REFERENCE or not watched:
        return None
    monitor = DriftMonitor([_as_message(one) for one in usual], alpha=alpha, seed=seed)
    state = monitor.state
    for start in range(0, len(watched), LOOK):
        if not state.alarm:
            state = monitor.update([_as_message(one) for one in watched[start : start + LOOK]])
    n = min(len(usual), len(watched))
    return DiversityWatch(
        diversity=diversity([answer for one in watched[-n:] for answer in one]),
        before=diversity([answer for one in usual[-n:] for answer in one]),
        e_value=state.e_value,
        threshold=state.threshold,
        n_blocks=len(watched),
    )


def _blocks(answers: Sequence[str]) -> list[Sequence[str]]:
    whole = len(answers) - len(answers) % BLOCK_SIZE
    return [answers[start : start + BLOCK_SIZE] for start in range(0, whole, BLOCK_SIZE)]


def _as_message(block: Sequence[str]) -> Message:
    """Repetition, by whose rise alone the monitor alarms (`message.HARMLESS_FALLS`)."""
    found = diversity(block)
    return Message(
        numbers={
            "repeated_words": 1 - found.distinct_1,
            "repeated_pairs": 1 - found.distinct_2,
            "repeated_answers": found.duplicate_share,
        }
    )


def narrowing(ours: Sequence[str], theirs: Sequence[str], *, seed: int = 0) -> Narrowing | None:
    """The challenger's answers beside the champion's to the same cases, in the same order; None without any.

    The chance is exact for versions whose two answers to a case are exchangeable (Fisher's randomisation, the real
    order counted among the random ones); what is compared is the sum of the four figures, the entropy as a share.
    """
    if not ours:
        return None
    real = _variety(ours) - _variety(theirs)
    return Narrowing(
        champion=diversity(ours), challenger=diversity(theirs), p_value=_chance(ours, theirs, real, seed)
    )


def _chance(ours: Sequence[str], theirs: Sequence[str], real: float, seed: int) -> float:
    random = np.random.default_rng(seed)
    as_wide = 0
    for tried in range(1, SWAPS + 1):
        swap = random.random(len(ours)) < 0.5
        left = [b if s else a for a, b, s in zip(ours, theirs, swap, strict=True)]
        right = [a if s else b for a, b, s in zip(ours, theirs, swap, strict=True)]
        as_wide += _variety(left) - _variety(right) >= real - 1e-12
        if as_wide == _ENOUGH:
            return _ENOUGH / tried
    return (as_wide + 1) / (SWAPS + 1)


def _variety(answers: Sequence[str]) -> float:
    found = diversity(answers)
    most = math.log2(found.n_answers) if found.n_answers > 1 else 1.0
    return found.distinct_1 + found.distinct_2 - found.duplicate_share + found.entropy / most
