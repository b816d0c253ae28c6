"""People, as the gate has them: each look passes on what was skipped, and hears whom the project's rules hear."""

from datetime import UTC, datetime

from ratchet.agent.case import Case
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.questions import Question, Reply
from ratchet.infra.review.comparisons import pending_comparisons, read_replies, reply
from ratchet.tasks.people import People


def say(asked, rater, **said):
    return Reply(question_id=asked.question_id, rater=rater, created_at=datetime.now(UTC), **said)


def test_a_look_passes_on_what_was_skipped_and_hears_only_whom_the_rules_hear(project):
    asked = [
        Question(case=Case(inputs={"request": str(n)}), trace_id=f"{n:032x}", answers=("left", "right"))
        for n in range(2)
    ]
    known = {one.question_id: one for one in asked}
    rules = RaterSettings(weights={"eve": 0})
    People(project, rules).ask(asked)
    reply(project, say(asked[0], "anna", outcome="skip"))
    reply(project, say(asked[1], "eve", good=(0,)))
    assert pending_comparisons(project) == []
    for _ in range(2):
        assert People(project, rules).settled(known) == {}
    assert pending_comparisons(project) == asked
    reply(project, say(asked[0], "ben", good=(1,)))
    reply(project, say(asked[1], "ben", good=(1,)))
    settled = People(project, rules).settled(known)
    assert [(settled[one.question_id].good, settled[one.question_id].raters) for one in asked] == [
        ((1,), ("ben",)),
        ((1,), ("ben",)),
    ]
    assert pending_comparisons(project) == []
    assert len(read_replies(project)) == 4
