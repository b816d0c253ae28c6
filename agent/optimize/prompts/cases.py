"""The cases that instructions are written from and chosen by: what is known to be right, and what failed.

Why what failed although nobody says what is right there: where a scorer judges every run (a ticket closes, a test
passes) only won runs are examples, and from these an LM can learn nothing but that all is well.
"""

from ratchet.agent.environment import Observation
from ratchet.agent.kinds.decision import View
from ratchet.agent.memory.steps import goal_of
from ratchet.agent.optimize.evidence import NOBODY, Evidence, Example
from ratchet.agent.optimize.trajectories import lost
from ratchet.agent.trace import Trace


def playable(evidence: Evidence) -> list[Example]:
    """Examples that can be played again, and own runs that their scorer called lost, of `source` `nobody`."""
    known = [example for example in evidence.examples if example.view.inputs]
    ids = {example.view.case_id for example in known}
    failed = [run for run in lost(evidence.own_rollouts) if run.case.inputs and run.case.case_id not in ids]
    return [*known, *map(_unsolved, failed)]


def _unsolved(run: Trace) -> Example:
    steps = run.attempts[-1].steps if run.attempts else ()
    seen = steps[0].observation if steps else goal_of(run.case)
    view = View(
        case_id=run.case.case_id,
        observation=Observation(text=seen),
        inputs=run.case.inputs,
        goal=goal_of(run.case),
    )
    return Example(
        view=view,
        answer="",
        trace_id=run.trace_id,
        seen_at=run.case.seen_at,
        source=NOBODY,
        session_id=run.session_id,
    )
