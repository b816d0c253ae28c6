"""How much to trust what stands beside the LM: a grid over few weights, scored on examples that are left out.

The LM's log-probabilities of an example do not depend on the weights, so they are computed once and the whole
grid costs arithmetic. Each example counts twice: without its own experience, as a request of a known kind will come,
and without that of its whole group (`ratchet.agent.optimize.groups`), as one of a new kind will. Nobody knows the
shares of next week's traffic, so both count half. Left out one by one alone, examples are always of a kind that the
memory knows, and its vote is trusted where it knows nothing: on tools never served, over five splits of the demo's
requests and without the LM, right on 0.56 instead of 0.69.

An option of the candidate's own, such as "no tool fits", is ruled out where the memory knows none of those at
hand, not weighed: of what was never met nobody has said that it does not fit.

`python tests/bench/bench_unseen.py`, five splits: right on 0.75 of toolsets never served, as similarity alone, where
leaving out single examples gives 0.56 and day 1 0.39; on 0.56 of fresh requests (0.58; 0.18).

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
from ratchet.agent.kinds.program import RULED_OUT, Program
from ratchet.agent.lm.side_by_side import side_by_side
from ratchet.agent.optimize.evidence import Example
from ratchet.agent.optimize.groups import is_neighbour
from ratchet.agent.record import Json

RETRIEVAL = (0.0, 10.0, 20.0, 40.0, 80.0, 120.0, 160.0)
RECALL = (0.0, 5.0, 10.0, 20.0, 40.0)
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""What the scores are divided by before they are compared: a small LM is far too sure of itself."""
MIN_LOG_P = -1e3
"""Log-probability (nats) of an answer that was ruled out: one such example must not decide alone."""
EXTRA = (-30.0, -20.0, -10.0, -5.0, -2.5, 0.0, 2.5, 5.0, 10.0, 20.0)
MIN_TUNING = 10
"""Fewer held-out examples than this cannot tell weights apart: those of the parent stay."""
OFFERED = 5.0
"""How much offered actions count, all together, beside the candidate's own, whatever their numbers: a slice that gets
worse blocks a promotion, whatever is gained elsewhere, and people label what is doubtful, not what is usual. With 1
what comes of it harms usual requests, and the gate refuses it; with 20 what is new hardly counts."""


class Grid(NamedTuple):
    """Values to try for each weight (nats)."""

    retrieval: Sequence[float] = RETRIEVAL
    recall: Sequence[float] = RECALL
    extra: Sequence[float] = EXTRA


class TuningRow(NamedTuple):
    """One example: the LM's log-probabilities [n_options], what stands beside it [4, n_options], the answer."""

    lm: np.ndarray
    features: np.ndarray
    answer: int
    weight: float
    is_offered: bool


class Tuned(NamedTuple):
    """The likeliest weights, and how often they are right on what is left out, by weight, in [0, 1]."""

    topology: Topology
    recurring: float
    """Each example without its own experience."""
    new: float | None
    """Without that of its group; None = there are no groups to tell apart."""
    lm_calls: int


def tune(
    program: Program,
    examples: Sequence[Example],
    grid: Grid | None = None,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Tuned:
    """The likeliest weights on the examples, left out one by one and in groups.

    Give examples that the program's adapter was not trained on: it knows those by heart, and the weights would
    trust it too much. Of equally good weights the smallest are taken. A weight that has nothing to act on (no
    memory, no extra options) is left at 0, or unset.

    Raises:
        BadInput: there are no examples.
    """
    if not examples:
        raise BadInput("tuning needs at least 1 labelled example, got 0: label some traces first")
    grid = grid or Grid()
    memory, extra = bool(program.memory), bool(program.candidate.extra_options)
    program = program.with_weights(extra_where_known=memory and extra)

    def rows(example: Example) -> tuple[TuningRow, TuningRow | None, int]:
        known, others = tuning_row(program, example), _without_group(program, example)
        progress(1)
        if others is program:  # all of its group is itself
            return known, known, 1
        return (known, tuning_row(others, example), 2) if others is not None else (known, None, 1)

    made = side_by_side(rows, examples, at_once=program.lm.at_once)
    recurring, asked = [row for row, _, _ in made], sum(calls for *_, calls in made)
    new = [row for _, row, _ in made if row is not None]
    values = np.array(
        list(
            itertools.product(
                grid.retrieval,
                grid.recall if memory else (0.0,),
                grid.extra if extra else (0.0,),
                (RULED_OUT if memory and extra else 0.0,),
            )
        )
    )
    likely = likelihoods(recurring, values)
    if new:
        likely = (likely + likelihoods(new, values)) / 2
    scores = likely.max(axis=1)
    best = max(
        range(len(values)), key=lambda i: (round(float(scores[i]), 9), -float(np.abs(values[i]).sum()))
    )
    found = dict(
        zip(("retrieval_weight", "recall_weight", "extra_bias"), values[best].tolist(), strict=False)
    )
    return Tuned(
        topology=program.candidate.topology.model_copy(update=found),
        recurring=_accuracy(recurring, values[best]),
        new=_accuracy(new, values[best]) if new else None,
        lm_calls=asked,
    )


def accuracies(tuned: Tuned | None) -> dict[str, Json]:
    """What a candidate's record says of how well its weights do on what they were not to know."""
    if tuned is None:
        return {"accuracy_left_one_out": None}
    found: dict[str, Json] = {"accuracy_left_one_out": round(tuned.recurring, 4)}
    return found if tuned.new is None else found | {"accuracy_left_group_out": round(tuned.new, 4)}


def tuning_row(program: Program, example: Example) -> TuningRow:
    """What the LM, and what stands beside it, make of an example without its own experience."""
    prompt, observation, recalled = program.prompt(example.view)
    return TuningRow(
        lm=program.lm.score(prompt).log_probs,
        features=program.features(observation, recalled, example.view.goal),
        answer=[option.name for option in observation.options].index(example.answer),
        weight=example.weight,
        is_offered=example.is_offered,
    )


def _without_group(program: Program, example: Example) -> Program | None:
    """The program without what its memory knows of the example's group.

    The program itself where that is nothing beside the example's own experience; None where nothing would be left.
    """
    if program.memory is None:
        return None
    steps = program.memory.experiences
    near = [step for step in steps if is_neighbour(step, example.view)]
    if all(step.case_id == example.view.case_id for step in near):
        return program if len(near) < len(steps) else None
    if len(near) == len(steps):
        return None
    return program.with_memory(program.memory.only(lambda step: not is_neighbour(step, example.view)))


def likelihoods(rows: Sequence[TuningRow], values: np.ndarray) -> np.ndarray:
    """Mean log-likelihood (nats) at each weighting and temperature, [n_values, n_temperatures].

    An answer that is ruled out tells nothing of the weights.
    """
    total, weight = np.zeros((len(values), len(TEMPERATURES))), 0.0
    rows = [row for row in rows if not (values[0, 3] and row.features[3, row.answer])]
    offered = sum(row.weight for row in rows if row.is_offered)
    others = sum(row.weight for row in rows if not row.is_offered)
    for row in rows:
        own = row.weight * (OFFERED * others / offered if row.is_offered and others else 1.0)
        total += own * _log_p(row.lm + values @ row.features, row.answer)
        weight += own
    return total / (weight or 1.0)


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


def _log_p(scores: np.ndarray, answer: int) -> np.ndarray:
    """The answer's log-probability (nats) at each temperature, at least `MIN_LOG_P`.

    Args:
        scores: nats, [..., n_options].
        answer: its place.

    Returns:
        [..., n_temperatures].
    """
    scaled = (scores - scores.max(axis=-1, keepdims=True))[..., None, :] / np.array(TEMPERATURES)[:, None]
    log_p: np.ndarray = np.maximum(scaled[..., answer] - np.log(np.exp(scaled).sum(axis=-1)), MIN_LOG_P)
    return log_p


def _accuracy(rows: Sequence[TuningRow], values: np.ndarray) -> float:
    right = sum(row.weight * float((row.lm + values @ row.features).argmax() == row.answer) for row in rows)
    return float(right / sum(row.weight for row in rows))
