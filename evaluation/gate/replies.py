"""What people's replies to the gate's questions come to, and who is asked next.

Decision: a question is settled by the first people whose words agree with enough weight, and stays so until one of
them takes it back; later ones change nothing. Why: whoever floods could otherwise unsettle what others answered. What
is not settled counts against whom it may harm (`ratchet.evaluation.gate.trial`), so leaving replies out by who gave
them and when, as is done here, can make a test slower and never wrong.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from ratchet.agent.record import Json
from ratchet.evaluation.data.labels import ANONYMOUS, contradict
from ratchet.evaluation.data.raters import RaterSettings, held_back, rater_name
from ratchet.evaluation.data.scorers import same
from ratchet.evaluation.gate.questions import Question, Reply, Settled

MOST_PASSES: Final = 3
"""People who may skip a question or call its rubric unclear; with the third it stays unanswered."""
Picks = tuple[bool, ...]
"""Of each answer, in the order shown, whether it is right."""


def picks_of(question: Question, reply: Reply) -> Picks:
    """Which answers a reply calls right; of one in own words, those that say the same.

    The words of `better` are compared as scorers compare them: case, spaces and quotes do not count.
    """
    if reply.better is not None:
        return tuple(same(reply.better, answer) for answer in question.answers)
    return tuple(place in reply.good for place in range(len(question.answers)))


def settle_replies(
    questions: Mapping[str, Question], replies: Sequence[Reply], rules: RaterSettings, now: datetime
) -> dict[str, Settled]:
    """What is settled, by question; a question that is not in it is unanswered.

    Of each rater the newest reply to a question counts, once; whoever gave no name is one rater, and not heard where
    somebody with a name replied. A reply above the limits of `rules` counts once somebody else says the same.

    Args:
        questions: by id; replies to others, or that name an answer that the question does not have, do not count.
        replies: all of them, in any order.
        rules: how many must agree, weights and limits.
        now: replies dated later do not count.
    """
    counted = counted_replies(questions, replies, rules, now)
    found = {name: _settled(questions[name], said, rules) for name, said in counted.items()}
    return {name: one for name, one in found.items() if one is not None}


def people_wanted(
    questions: Mapping[str, Question], replies: Sequence[Reply], rules: RaterSettings, now: datetime
) -> dict[str, int]:
    """How many people, beside those who replied already, each question still needs; 0 = nobody more is asked.

    Who skips passes a question on, twice at most; where those wanted do not agree, one more is asked, then none.
    """
    counted = counted_replies(questions, replies, rules, now)
    return {name: _wanted(one, counted.get(name, ()), rules) for name, one in questions.items()}


def next_rater(question_id: str, replied: Iterable[str], names: Sequence[str]) -> str | None:
    """Which of the people in `names` is asked next; each begins with other questions. None = all of them replied."""
    done = {rater_name(one) for one in replied}
    first = int(question_id, 16) % len(names) if names else 0
    return next((one for one in [*names[first:], *names[:first]] if rater_name(one) not in done), None)


def counted_replies(
    questions: Mapping[str, Question], replies: Sequence[Reply], rules: RaterSettings, now: datetime
) -> dict[str, list[Reply]]:
    """The replies that count, by question, in the order in which they came to count."""
    replies = [reply for reply in replies if reply.created_at <= now]
    held = held_back(replies, rules)
    free: dict[str, dict[str, Reply]] = defaultdict(dict)
    over: dict[str, dict[str, Reply]] = defaultdict(dict)
    for place in sorted(range(len(replies)), key=lambda place: replies[place].created_at):
        reply = replies[place]
        question = questions.get(reply.question_id)
        if question is None or rules.weight_of(reply.rater) == 0:
            continue
        if all(0 <= one < len(question.answers) for one in reply.good):
            (over if place in held else free)[reply.question_id][rater_name(reply.rater)] = reply
    return {name: _in_order(questions[name], free[name], over.get(name, {})) for name in free}


def _in_order(question: Question, free: dict[str, Reply], over: dict[str, Reply]) -> list[Reply]:
    """One reply a rater; what is above the limits from when somebody else says the same."""
    counted = {rater: (reply.created_at, reply) for rater, reply in free.items()}
    for rater, reply in over.items():
        since = [
            one.created_at
            for other, one in free.items()
            if other != rater
            and reply.outcome == one.outcome == "answered"
            and picks_of(question, reply) == picks_of(question, one)
        ]
        if since and rater not in free:
            counted[rater] = (max(reply.created_at, min(since)), reply)
    if any(reply.outcome == "answered" for rater, (_, reply) in counted.items() if rater != ANONYMOUS):
        counted.pop(ANONYMOUS, None)
    return [reply for _, reply in sorted(counted.values(), key=lambda one: (one[0], one[1].rater))]


def _settled(question: Question, said: Sequence[Reply], rules: RaterSettings) -> Settled | None:
    behind: dict[Picks, float] = defaultdict(float)
    answered: list[Reply] = []
    passes = 0
    for reply in said:
        if reply.outcome != "answered":
            passes += 1
            if passes == MOST_PASSES:
                return None
            continue
        answered.append(reply)
        behind[picks_of(question, reply)] += rules.weight_of(reply.rater)
        picks = _agreed(behind, rules.per_item)
        if picks is not None:
            return _as_settled(question, picks, answered, reply.created_at, rules)
    return None


def _agreed(behind: Mapping[Picks, float], wanted: float) -> Picks | None:
    """What enough weight stands behind; where one more than wanted were heard, what most say of each answer."""
    for picks, weight in behind.items():
        if weight >= wanted:
            return picks
    total = sum(behind.values())
    if total < wanted + 1:
        return None
    right = [
        sum(weight for picks, weight in behind.items() if picks[n]) for n in range(len(next(iter(behind))))
    ]
    return None if any(2 * one == total for one in right) else tuple(2 * one > total for one in right)


def _as_settled(
    question: Question, picks: Picks, answered: Sequence[Reply], at: datetime, rules: RaterSettings
) -> Settled:
    mine = [reply for reply in answered if picks_of(question, reply) == picks]
    return Settled(
        question_id=question.question_id,
        good=tuple(place for place, right in enumerate(picks) if right),
        better=_best_words([reply for reply in mine if reply.better is not None], rules),
        settled_at=at,
        raters=tuple(reply.rater for reply in (mine or answered)),
    )


def _best_words(wrote: Sequence[Reply], rules: RaterSettings) -> Json | None:
    """The words that most weight stands behind, the first of equals; none where equals contradict each other."""
    weights = [
        sum(rules.weight_of(other.rater) for other in wrote if same(one.better, other.better))
        for one in wrote
    ]
    best = [one.better for one, weight in zip(wrote, weights, strict=True) if weight == max(weights)]
    if any(contradict(best[0], other, free=True) for other in best[1:]):
        return None
    return best[0] if best else None


def _wanted(question: Question, said: Sequence[Reply], rules: RaterSettings) -> int:
    behind: dict[Picks, float] = defaultdict(float)
    answered = [reply for reply in said if reply.outcome == "answered"]
    for reply in answered:
        behind[picks_of(question, reply)] += rules.weight_of(reply.rater)
    over = len(said) - len(answered) >= MOST_PASSES or len(answered) > rules.per_item + 1
    if over or _settled(question, said, rules) is not None:
        return 0
    return 1 if len(behind) > 1 else math.ceil(rules.per_item - sum(behind.values()))
