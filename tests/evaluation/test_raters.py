"""Which labels count: weights and limits hold for what teaches and judges, and more weight prevails."""

from datetime import UTC, datetime, timedelta

from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.data.raters import RaterSettings, heard, held_back

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def label(trace="t", rater="ann", expected="a", *, seconds=0, **changes):
    fields = {"trace_id": trace, "rater": rater, "expected": expected, "source": "human", "asked": True}
    fields |= {"propensity": 0.5, "created_at": NOW + timedelta(seconds=seconds)}
    return Label(**(fields | changes))


def counted(labels, **rules):
    return [(one.trace_id, one.rater, one.expected) for one in heard(labels, RaterSettings(**rules))]


def test_without_rules_of_its_own_a_project_hears_everybody_and_of_each_the_newest():
    given = [label(), label(rater="bob", expected="b", seconds=1), label(seconds=2, expected="c")]
    assert counted(given) == [("t", "bob", "b"), ("t", "ann", "c")]


def test_who_weighs_nothing_is_not_heard_and_a_judge_is_not_a_rater():
    judge = label(rater="ann", source="judge", asked=False, propensity=None)
    assert heard([label(), judge], RaterSettings(weights={"ANN": 0})) == [judge]
    assert counted([label(), label(rater="bob", seconds=1)], others=0, weights={"bob": 1}) == [
        ("t", "bob", "a")
    ]


def test_what_two_say_stands_against_a_third_and_one_against_one_is_a_dispute():
    one, other, third = (
        label(),
        label(rater="bob", expected="b"),
        label(rater="cleo", expected="B", seconds=1),
    )
    assert sorted(rater for _, rater, _ in counted([one, other])) == ["ann", "bob"]
    assert sorted(rater for _, rater, _ in counted([one, other, third])) == ["bob", "cleo"]
    assert counted([one, other], weights={"ann": 2}) == [("t", "ann", "a")]
    scores = [
        label(rater=name, expected=None, score=score) for name, score in zip("abc", (1, 0, 0.5), strict=True)
    ]
    assert sorted(rater for _, rater, _ in counted(scores)) == ["b", "c"]


def test_two_wordings_of_a_long_answer_do_not_outvote_each_other():
    given = [label(rater=name, expected=f"It is {name} who knows best.") for name in "abc"]
    assert len(counted(given)) == 3


def test_a_flood_of_answers_neither_teaches_nor_judges_and_a_slow_rater_does():
    flood = [label(str(n), "bot", seconds=n) for n in range(200)]
    assert counted(flood, most_per_hour=100) == []
    assert counted([*flood, label("7", seconds=9000)], most_per_hour=100) == [
        ("7", "bot", "a"),
        ("7", "ann", "a"),
    ]
    assert len(counted([label(str(n), "bot", seconds=60 * n) for n in range(200)], most_per_hour=100)) == 200
    before_and_after = [label("x", "bot", seconds=-4000), *flood, label("y", "bot", seconds=4000)]
    assert [trace for trace, _, _ in counted(before_and_after, most_per_hour=100)] == ["x", "y"]


def test_feedback_that_nobody_asked_for_is_limited_where_the_project_says_so():
    thumbs = [label(str(n), "app", asked=False, propensity=None) for n in range(50)]
    assert len(counted(thumbs, most_per_hour=10)) == 50
    assert counted(thumbs, most_per_hour=10, limit_feedback=True) == []


def test_the_limits_hold_among_a_hundred_thousand_answers():
    many = [label(str(n), f"r{n % 7}", seconds=n) for n in range(2000)] * 50
    assert len(held_back(many, RaterSettings(most_per_hour=100))) == len(many)
