"""The demo's simulated annotator: answers what was queued, and only that, from BFCL's answer key.

It writes through the same call that a person's answer takes, and the demo says that it does.
"""

from ratchet.agent.environments.tool_calling import expected_tool
from ratchet.flows.demo.weeks import DEMO_PROJECT, weeks
from ratchet.infra.review.queue import answer, pending
from ratchet.tasks.collect import traces_by_id
from ratchet.tasks.progress import progress

SIMULATED_RATER = "stand-in"


def answer_queue() -> int:
    """Answer every pending question; returns how many."""
    split = weeks()
    key = {case.case_id: case.expected for case in (*split.usual, *split.drifted)}
    waiting = pending(DEMO_PROJECT)
    traces = traces_by_id(DEMO_PROJECT)
    with progress("simulated annotator: answering the review queue", len(waiting)) as advance:
        for item in waiting:
            case_id = traces[item.trace_id].case.case_id
            answer(DEMO_PROJECT, item.trace_id, expected=expected_tool(key[case_id]), rater=SIMULATED_RATER)
            advance(1)
    return len(waiting)
