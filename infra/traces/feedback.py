"""What people, judges and programs said about a trace, under whatever name, as labels.

Why names are a setting: one team's `thumbs` is another's `correctness`, and a number that nobody said the range of is
not a score. What is not read is told, with what would make it readable; nothing is guessed and nothing dropped.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from ratchet.agent.record import Json, StageSettings
from ratchet.evaluation.data.labels import ANONYMOUS, Label
from ratchet.infra.files import cells
from ratchet.infra.traces.conversation import Assessed

SCORE: Final = "score"
EXPECTED: Final = "expected"
CORRECT: Final = "correct"
COMMENT: Final = "comment"
"""What the Review page asks beside the answer."""
_THUMBS: Final = {
    "up": 1.0, "thumbs up": 1.0, "thumbs_up": 1.0, "\N{THUMBS UP SIGN}": 1.0, "like": 1.0, "correct": 1.0,
    "down": 0.0, "thumbs down": 0.0, "thumbs_down": 0.0, "\N{THUMBS DOWN SIGN}": 0.0, "dislike": 0.0,
    "incorrect": 0.0,
}  # fmt: skip


class FeedbackNames(StageSettings):
    """Under which names labels are read from traces; any other name is told and not read."""

    scores: tuple[str, ...] = (
        SCORE, "thumbs", "user_feedback", "user-feedback", "feedback", "rating", "correctness", CORRECT, "helpful",
    )  # fmt: skip
    """Names of scores: true or false, yes or no, thumbs up or down, or a number from 0 (bad) to 1 (good)."""
    expected: tuple[str, ...] = (
        EXPECTED,
        "expected_response",
        "expected_answer",
        "correction",
        "correct_answer",
    )
    """Names of right answers, or corrections of the agent's."""
    ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """By a score's name its worst and its best value, such as `stars = [1, 5]`, where it is not 0 to 1."""

    @property
    def all_scores(self) -> tuple[str, ...]:
        """Names of scores; who says a range has said that it is one."""
        return tuple(dict.fromkeys((SCORE, *self.scores, *self.ranges)))

    @property
    def all_expected(self) -> tuple[str, ...]:
        """Names of right answers."""
        return tuple(dict.fromkeys((EXPECTED, *self.expected)))

    def kind(self, name: str) -> Literal["score", "expected"] | None:
        """What is read under the name; None = nothing is."""
        if name in self.all_scores:
            return "score"
        return "expected" if name in self.all_expected else None

    def score(self, name: str, value: Any) -> float:
        """The value in [0, 1].

        Raises:
            ValueError: it is none; says what would be.
        """
        bounds = self.ranges.get(name)
        number = _number(value)
        if number is not None and bounds is not None and not isinstance(value, bool):
            worst, best = bounds
            number = (number - worst) / (best - worst) if best != worst else math.nan
        if number is not None and 0 <= number <= 1:
            return number
        told = f"within {bounds[0]:g} to {bounds[1]:g}" if bounds else "in [0, 1]"
        remedy = "" if bounds else f"; where it has another range, set it: [feedback.ranges] {name} = [1, 5]"
        raise ValueError(f"score is {cells.excerpt(value)}, not a number {told} or pass/fail{remedy}")

    def unread(self, name: str, value: Any) -> str:
        """Why an assessment of another name is not read, and the remedy."""
        told = f" = {cells.excerpt(value)}" if value is not None else ""
        return (
            f"{name!r}{told}: not read as a label: only {', '.join((*self.all_scores, *self.all_expected))} are; "
            f"name it under [feedback] scores or expected in ratchet.toml"
        )


def _number(value: Any) -> float | None:
    if isinstance(value, str) and value.strip().casefold() in _THUMBS:
        return _THUMBS[value.strip().casefold()]
    try:
        return cells.number(value)
    except ValueError:
        return None


def labels_of(
    assessed: Iterable[Assessed], trace_id: str, names: FeedbackNames, *, seen_at: datetime
) -> tuple[list[Label], list[str]]:
    """What was said about one trace as labels, and in words what is none."""
    labels: list[Label] = []
    problems: list[str] = []
    for one in assessed:
        kind = names.kind(one.name) if one.kind is None else one.kind
        if kind == "comment" or one.name == COMMENT:
            continue
        if kind is None:
            problems.append(f"{one.rater} wrote {names.unread(one.name, one.value)}")
            continue
        try:
            said: Mapping[str, Json] = (
                {"score": names.score(one.name, one.value)}
                if kind == "score"
                else {"expected": plain_answer(one.value)}
            )
            labels.append(
                Label(
                    trace_id=trace_id,
                    source=one.source,
                    rater=one.rater or ANONYMOUS,
                    comment=one.comment,
                    created_at=one.at or seen_at,
                    **said,
                )
            )
        except ValueError as error:
            problems.append(f"{one.rater} wrote {one.name!r} = {cells.excerpt(one.value)}: {error}")
    return labels, problems


def plain_answer(value: Json) -> Json:
    """An answer as it is compared: text without the space around it."""
    return value.strip() if isinstance(value, str) else value
