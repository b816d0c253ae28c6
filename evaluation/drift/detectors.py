"""Which detectors watch a reference: those of its texts, and one for each column that it has values in."""

from typing import Any, Final

from ratchet.agent.errors import BadInput
from ratchet.evaluation.drift.categories import CategoryDetector
from ratchet.evaluation.drift.message import BEHAVIOUR_NUMBERS, OUTCOME_NUMBERS, Group
from ratchet.evaluation.drift.scores import (
    FIXED,
    Detector,
    FixedDetector,
    NoveltyDetector,
    NumberDetector,
    SurfaceDetector,
    UncertaintyDetector,
    WindowView,
)
from ratchet.evaluation.drift.shift import ShiftDetector

_MIN_TEXTS: Final = 10


def fit_detectors(fit: WindowView, calibrate: WindowView) -> list[Detector]:
    """Those for which the reference has something: learned from one half of it, ranked against the other.

    Raises:
        BadInput: it has no text and no column with ten values.
    """
    fixed: list[FixedDetector | None] = []
    learned: list[ShiftDetector | CategoryDetector | None] = []
    if len(fit.texts) >= _MIN_TEXTS:
        fixed += [NoveltyDetector.fit(fit), SurfaceDetector.fit(fit), UncertaintyDetector.fit(fit)]
        learned.append(ShiftDetector.fit(fit))
    columns: dict[str, Group] = dict.fromkeys(BEHAVIOUR_NUMBERS, "behaviour")
    columns |= dict.fromkeys(sorted({key for row in fit.rows for key in row.numbers}), "behaviour")
    columns |= dict.fromkeys(OUTCOME_NUMBERS, "outcome")
    numbers = [NumberDetector.fit((fit, calibrate), name, group) for name, group in columns.items()]
    names = ["tool", *sorted({key for row in fit.rows for key in row.categories})]
    learned += [CategoryDetector.fit(fit, name, "behaviour") for name in names]
    ready_fixed = [one for one in fixed if one is not None]
    ready_numbers = [one for one in numbers if one is not None]
    ready_learned = [one for one in learned if one is not None]
    if not ready_fixed and not ready_numbers and not ready_learned:
        raise BadInput("the reference has no text and no column with ten values: nothing to watch")
    for ranked in ready_fixed:
        ranked.absorb(calibrate)
    for follower in ready_learned:
        follower.calibrate(calibrate)
    return [*ready_fixed, *ready_numbers, *ready_learned]


def restored_detector(state: dict[str, Any]) -> Detector:
    """The detector that its `to_state` stored."""
    if state["kind"] == ShiftDetector.kind:
        return ShiftDetector.from_state(state)
    if state["kind"] == CategoryDetector.kind:
        return CategoryDetector.from_state(state)
    return FIXED[state["kind"]].from_state(state)
