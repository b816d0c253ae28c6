"""The demo's stand-in for people: answers what was queued, and only that, from BFCL's answer key.

It writes through the same call that a person's answer takes, and the demo says that it does.
"""

from agent.environments.tool_calling import expected_tool
from flows.demo.weeks import NAME, weeks
from infra.review_queue import answer, pending
from tasks.collect import traces_by_id
from tasks.progress import progress

RATER = "stand-in"


def answer_queue() -> int:
    """Answer every pending question; returns how many."""
    split = weeks()
    key = {case.case_id: case.expected for case in (*split.usual, *split.drifted)}
    waiting = pending(NAME)
    traces = traces_by_id(NAME)
    with progress("stand-in: answering the review queue", len(waiting)) as advance:
        for item in waiting:
            case_id = traces[item.trace_id].case.case_id
            answer(NAME, item.trace_id, expected=expected_tool(key[case_id]), rater=RATER)
            advance(1)
    return len(waiting)
