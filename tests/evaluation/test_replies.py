"""What people's replies come to: each counts once, floods and weightless ones not at all, and a third decides."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from ratchet.agent.case import Case
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.questions import Question, Reply
from ratchet.evaluation.gate.replies import next_rater, people_wanted, settle_replies

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=365)


def question(n=0, answers=("left", "right")):
    return Question(case=Case(inputs={"request": str(n)}), trace_id=f"{n:032x}", answers=answers)


def reply(asked, rater="ann", good=(0,), *, minutes=0.0, **changes):
    if "better" in changes or changes.get("outcome", "answered") != "answered":
        good = ()
    return Reply(
        question_id=asked.question_id,
        rater=rater,
        good=good,
        created_at=NOW + timedelta(minutes=minutes),
        **changes,
    )


def settled(asked, replies, now=LATER, **rules):
    found = settle_replies({asked.question_id: asked}, replies, RaterSettings(**rules), now)
    return found.get(asked.question_id)


def good(asked, replies, **rules):
    found = settled(asked, replies, **rules)
    return None if found is None else found.good


def wanted(asked, replies, **rules):
    return people_wanted({asked.question_id: asked}, replies, RaterSettings(**rules), LATER)[
        asked.question_id
    ]


def test_one_answer_settles_where_one_is_wanted_and_what_comes_after_it_changes_nothing():
    asked = question()
    first, second = reply(asked), reply(asked, "bob", (1,), minutes=5)
    found = settled(asked, [second, first])
    assert (found.good, found.raters, found.settled_at) == ((0,), ("ann",), NOW)
    assert settled(asked, []) is None
    assert (wanted(asked, []), wanted(asked, [first])) == (1, 0)


def test_a_rater_s_newest_word_counts_once_whenever_it_comes_and_however_often():
    asked = question()
    changed = [reply(asked), reply(asked, minutes=60 * 24 * 9, good=(1,)), reply(asked)]
    found = settled(asked, changed)
    assert (found.good, found.settled_at) == ((1,), NOW + timedelta(days=9))
    assert settled(asked, changed, now=NOW + timedelta(days=8)).good == (0,)
    assert good(asked, [reply(asked, minutes=n) for n in range(50)], per_item=2) is None
    assert good(asked, [reply(asked, " ANN "), reply(asked, "ann", minutes=1)], per_item=2) is None
    taken_back = [reply(asked), reply(asked, outcome="skip", minutes=1)]
    assert (good(asked, taken_back), wanted(asked, taken_back)) == (None, 1)


def test_all_who_gave_no_name_are_one_and_are_not_heard_where_somebody_with_a_name_replied():
    asked = question()
    nameless = [reply(asked, "default"), reply(asked, "", (0,), minutes=1)]
    assert good(asked, nameless) == (0,)
    assert good(asked, nameless, per_item=2) is None
    assert good(asked, [*nameless, reply(asked, "ann", (1,), minutes=2)]) == (1,)
    assert good(asked, [*nameless, reply(asked, "ann", outcome="skip", minutes=2)]) == (0,)


def test_who_skips_passes_a_question_on_twice_and_then_it_stays_unanswered():
    asked = question()
    passes = [
        reply(asked, "ann", outcome="skip"),
        reply(asked, "bob", outcome="unclear", minutes=1),
        reply(asked, "cleo", outcome="skip", minutes=2),
    ]
    assert [wanted(asked, passes[:n]) for n in range(4)] == [1, 1, 1, 0]
    answer = reply(asked, "dora", minutes=3)
    assert good(asked, [*passes[:2], answer]) == (0,)
    assert good(asked, [*passes, answer]) is None


def test_where_two_are_wanted_both_must_agree_and_of_two_who_do_not_a_third_decides():
    asked = question()
    two = [reply(asked, "ann"), reply(asked, "bob", minutes=1)]
    found = settled(asked, two, per_item=2)
    assert (found.good, found.raters, found.settled_at) == ((0,), ("ann", "bob"), NOW + timedelta(minutes=1))
    split = [reply(asked, "ann"), reply(asked, "bob", (1,), minutes=1)]
    assert (good(asked, split, per_item=2), wanted(asked, split, per_item=2)) == (None, 1)
    third = [*split, reply(asked, "cleo", (1,), minutes=2)]
    assert (good(asked, third, per_item=2), wanted(asked, third, per_item=2)) == ((1,), 0)
    assert good(asked, [*split, reply(asked, "cleo", (0, 1), minutes=2)], per_item=2) == (0, 1)
    assert good(asked, [*split, reply(asked, "cleo", (), minutes=2)], per_item=2) == ()
    assert wanted(asked, [], per_item=2) == 2


def test_words_of_one_s_own_say_of_each_answer_whether_it_says_the_same():
    asked = question(answers=("42", "in Oslo", "in Rome"))
    found = settled(asked, [reply(asked, better=" In Oslo. ")])
    assert (found.good, found.better) == ((1,), " In Oslo. ")
    agree = [reply(asked, "ann", better="Bergen"), reply(asked, "bob", better="bergen.", minutes=1)]
    assert (settled(asked, agree, per_item=2).good, settled(asked, agree, per_item=2).better) == (
        (),
        "Bergen",
    )
    differ = [reply(asked, "ann", better="Bergen"), reply(asked, "bob", better="Kiev", minutes=1)]
    assert (settled(asked, differ, per_item=2).good, settled(asked, differ, per_item=2).better) == ((), None)
    same = [reply(asked, "ann", (1,)), reply(asked, "bob", better="in oslo", minutes=1)]
    assert settled(asked, same, per_item=2).better == "in oslo"


def test_weights_decide_how_many_it_takes():
    asked = question()
    two = [reply(asked, "ann"), reply(asked, "bob", minutes=1)]
    assert good(asked, two[:1], weights={"Ann": 0.5}) is None
    assert good(asked, two, weights={"Ann": 0.5, "bob": 0.5}) == (0,)
    assert good(asked, two, weights={"ann": 0, "bob": 0}) is None
    assert good(asked, two[:1], weights={"ann": 2}, per_item=2) == (0,)
    assert good(asked, two[:1], others=0) is None
    assert good(asked, two[:1], others=0, weights={"ann": 1}) == (0,)
    expert = [reply(asked, "ann", (1,)), *[reply(asked, name, minutes=1) for name in ("bob", "cleo")]]
    assert good(asked, expert, weights={"ann": 2.5}, per_item=3) == (1,)


def test_replies_to_what_was_not_asked_or_not_shown_or_not_yet_said_do_not_count():
    asked = question()
    strange = [reply(question(1)), reply(asked, good=(5,)), reply(asked, "bob", minutes=60)]
    assert settle_replies({asked.question_id: asked}, strange, RaterSettings(), NOW) == {}


def test_a_flood_from_one_source_settles_nothing_until_others_say_the_same():
    asked = [question(n) for n in range(300)]
    known = {one.question_id: one for one in asked}
    rules = RaterSettings(most_per_hour=100)
    flood = [reply(one, "bot", minutes=n / 10) for n, one in enumerate(asked)]
    assert settle_replies(known, flood, rules, LATER) == {}
    slow = [reply(one, "bot", minutes=n) for n, one in enumerate(asked)]
    assert len(settle_replies(known, slow, rules, LATER)) == 300
    confirmed = [reply(asked[0], "ann", minutes=90), reply(asked[1], "ann", (1,), minutes=91)]
    found = settle_replies(known, [*flood, *confirmed], rules, LATER)
    assert [found[one.question_id].good for one in asked[:2]] == [(0,), (1,)]
    assert len(found) == 2
    two = settle_replies(known, [*flood, *confirmed], rules.model_copy(update={"per_item": 2}), LATER)
    assert [(one.good, one.raters) for one in two.values()] == [((0,), ("ann", "bot"))]


def test_what_is_held_back_follows_from_who_and_when_and_not_from_what_was_said():
    asked = [question(n) for n in range(60)]
    known = {one.question_id: one for one in asked}
    rules = RaterSettings(most_per_hour=20, most_share=0.7)
    draw = random.Random(0)

    def replies(say):
        times = random.Random(1)
        return [
            reply(one, times.choice(["ann", "bob", "bob", "bob"]), say(), minutes=times.uniform(0, 300))
            for one in asked
        ]

    settled_then = {
        tuple(sorted(settle_replies(known, replies(say), rules, LATER)))
        for say in (lambda: (0,), lambda: (1,), lambda: (draw.randrange(2),))
    }
    (one,) = settled_then
    assert 0 < len(one) < 60


def test_one_rater_s_share_of_all_answers_can_be_bounded():
    asked = [question(n) for n in range(100)]
    known = {one.question_id: one for one in asked}
    said = [reply(one, "bot" if n % 10 else "ann", minutes=30 * n) for n, one in enumerate(asked)]
    assert len(settle_replies(known, said, RaterSettings(), LATER)) == 100
    bounded = settle_replies(known, said, RaterSettings(most_share=0.5), LATER)
    assert 10 < len(bounded) < 40


def test_who_is_next_is_spread_over_the_people_and_nobody_twice():
    names = ("ann", "bob", "cleo")
    firsts = [next_rater(question(n).question_id, (), names) for n in range(300)]
    assert all(60 < firsts.count(name) < 140 for name in names)
    asked = question()
    order = []
    while (one := next_rater(asked.question_id, order, names)) is not None:
        order.append(one)
    assert sorted(order) == sorted(names)
    assert next_rater(asked.question_id, (), ()) is None


@pytest.mark.parametrize("wrong", [{"per_item": 0}, {"weights": {"ann": -1}}, {"most_share": 0}])
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(ValueError, match="greater than"):
        RaterSettings(**wrong)
