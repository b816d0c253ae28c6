"""Who answered how much, what their word weighs, what of it is held back, and how far they agree."""

from collections.abc import Sequence

from ratchet.agent.record import Record, as_text
from ratchet.evaluation.data.agreement import (
    Opinion,
    PairAgreement,
    Reliability,
    opinions_of,
    pair_agreements,
    rubric_agreements,
)
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.data.raters import RaterSettings, held_back, rater_name
from ratchet.evaluation.data.scorers import plain
from ratchet.evaluation.gate.questions import Reply


class RaterRow(Record):
    """One rater."""

    rater: str
    weight: float
    replies: int
    """To the gate's questions, each correction, too."""
    labels: int
    passed: int
    """Replies that skipped, or called the rubric unclear."""
    held_back: int
    """Replies and labels above the limits, which count once somebody else says the same."""


class RaterReport(Record):
    """All raters of a project."""

    raters: tuple[RaterRow, ...]
    pairs: tuple[PairAgreement, ...]
    """κ of every two who answered the same, by what they answered."""
    alpha: dict[str, Reliability]
    """Krippendorff's α of all of them, by what they answered."""


def rater_report(replies: Sequence[Reply], labels: Sequence[Label], rules: RaterSettings) -> RaterReport:
    """What is known of a project's raters.

    Two replies to a question of the gate agree where they call the same answers right, or wrote the same words.

    Args:
        replies: to the gate's questions.
        labels: of people; those of judges and environments are left out.
        rules: weights and limits.
    """
    people = [one for one in labels if one.source == "human"]
    limited = [one for one in people if one.asked or rules.limit_feedback]
    held = [rater_name(replies[place].rater) for place in held_back(replies, rules)]
    held += [rater_name(limited[place].rater) for place in held_back(limited, rules)]
    said = [rater_name(one.rater) for one in replies]
    wrote = [rater_name(one.rater) for one in people]
    passed = [rater_name(one.rater) for one in replies if one.outcome != "answered"]
    opinions = [
        *(
            _opinion(one)
            for one in sorted(replies, key=lambda one: one.created_at)
            if one.outcome == "answered"
        ),
        *_of_labels(people, "the right answer", opinions_of(people, "expected")),
        *_of_labels(people, "the score", opinions_of(people, "score")),
    ]
    return RaterReport(
        raters=tuple(
            RaterRow(
                rater=name,
                weight=rules.weight_of(name),
                replies=said.count(name),
                labels=wrote.count(name),
                passed=passed.count(name),
                held_back=held.count(name),
            )
            for name in sorted({*said, *wrote})
        ),
        pairs=tuple(pair_agreements(opinions)),
        alpha=rubric_agreements(opinions),
    )


def _opinion(reply: Reply) -> Opinion:
    words = None if reply.better is None else f"wrote {plain(as_text(reply.better))}"
    said = words or " ".join(map(str, sorted(reply.good))) or "none"
    return Opinion(
        item=reply.question_id, rater=rater_name(reply.rater), said=said, rubric="which answer is right"
    )


def _of_labels(labels: Sequence[Label], what: str, opinions: Sequence[Opinion]) -> list[Opinion]:
    """Named by what was asked, and by the rubric's version where there are several."""
    several = len({one.rubric_version for one in labels}) > 1
    return [
        one.model_copy(update={"rubric": f"{what}, rubric {one.rubric}" if several else what})
        for one in opinions
    ]
