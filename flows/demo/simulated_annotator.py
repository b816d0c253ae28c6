"""The demo's simulated annotator: answers what was queued, and only that, from BFCL's answer key.

It writes through the same calls that a person's answer takes, and the demo says that it does.
"""

from datetime import UTC, datetime

from ratchet.agent.environments.tool_calling import expected_tool
from ratchet.evaluation.gate.questions import Reply
from ratchet.flows.demo.weeks import DEMO_PROJECT, weeks
from ratchet.infra.review.comparisons import pending_comparisons, reply
from ratchet.infra.review.queue import answer, pending
from ratchet.tasks.collect import traces_by_id
from ratchet.tasks.progress import progress

SIMULATED_RATER = "stand-in"


def answer_queue() -> int:
    """Answer every pending trace; returns how many."""
    right = _key()
    waiting = pending(DEMO_PROJECT)
    traces = traces_by_id(DEMO_PROJECT)
    with progress("simulated annotator: answering the review queue", len(waiting)) as advance:
        for item in waiting:
            case_id = traces[item.trace_id].case.case_id
            answer(DEMO_PROJECT, item.trace_id, expected=right[case_id], rater=SIMULATED_RATER)
            advance(1)
    return len(waiting)


def answer_comparisons() -> int:
    """Say of every pending comparison which of its answers are right, none where none is; returns how many."""
    right = _key()
    waiting = pending_comparisons(DEMO_PROJECT)
    with progress("simulated annotator: comparing answers", len(waiting)) as advance:
        for question in waiting:
            is_right = [answer == right[question.case.case_id] for answer in question.answers]
            said = Reply(
                question_id=question.question_id,
                rater=SIMULATED_RATER,
                good=tuple(place for place, yes in enumerate(is_right) if yes),
                created_at=datetime.now(UTC),
            )
            reply(DEMO_PROJECT, said)
            advance(1)
    return len(waiting)


def _key() -> dict[str, str]:
    """The right tool, by case id."""
    split = weeks()
    return {case.case_id: expected_tool(case.expected) for case in (*split.usual, *split.drifted)}
