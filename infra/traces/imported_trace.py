"""A conversation out of a file as a trace: another agent acted, and what it was asked is one text.

Why the text and not the inputs that the other agent had: it was called in its own way, the request is what two agents
have in common.
"""

from collections import Counter
from datetime import datetime
from typing import Any

from ratchet.agent.case import Case
from ratchet.agent.record import as_text, content_hash
from ratchet.agent.trace import IMPORTED, Trace
from ratchet.infra.traces.conversation import Conversation, trace_of
from ratchet.infra.traces.lm_calls import threads


def imported_trace(
    conversation: Conversation, *, agent: str, named: bool, seen_at: datetime
) -> tuple[Trace, Counter[str]]:
    """One conversation as another agent's trace with one attempt, and what of it was not kept.

    Args:
        conversation: what was read.
        agent: who acted, where the conversation does not say it, or where it is `named`.
        named: whether a person said who acted.
        seen_at: when it was, where the conversation does not say it.

    Raises:
        BadInput: nobody acted in it.
    """
    given = conversation.inputs
    is_one = (
        bool(conversation.messages) and len(threads(conversation.lm_calls)) < 2
    )  # of an agent of one prompt
    request = (is_one and conversation.request) or _text_of(given) or conversation.request
    inputs = given if isinstance(given, dict) and "request" in given else {"request": request}
    return trace_of(
        conversation,
        trace_id=content_hash(conversation.identity, length=32),
        candidate_id=f"{IMPORTED}{agent if named or not conversation.model else conversation.model}",
        seen_at=seen_at,
        case=Case(inputs=inputs, expected=conversation.expected),
        answer=None if is_one else conversation.output,
    )


def _text_of(given: Any) -> str:
    """Of what was asked: the text, or the one text that it holds, else all of it as JSON."""
    if isinstance(given, dict) and len(given) == 1:
        (given,) = given.values()
    return "" if given is None else as_text(given)
