"""A chat endpoint as the agent: where it is, and what it is told today. All of it may stand in `ratchet.toml`.

Why a record and no code: whoever calls an OpenAI-compatible endpoint has nothing to rewrite but the address.
"""

from typing import Final

from pydantic import Field

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.record import Record

SYSTEM: Final = "system"
"""The prompt of such an agent."""
MODEL: Final = "model"
"""Its model part."""
UPSTREAM: Final = r"^https?://[^\s@?#]+$"


class Chat(Record):
    """An OpenAI-compatible endpoint behind `ratchet serve`."""

    upstream: str = Field(pattern=UPSTREAM)
    """Its address, such as `http://localhost:8000/v1`, without user, password and query; no other host is asked. The
    key is `RATCHET_LM_API_KEY`."""
    model: str = Field(min_length=1)
    """What the endpoint calls the LM that answers today."""
    system: str = ""
    """The system message that clients send today, or that they are to get; empty = as they send it."""


def chat_candidate(chat: Chat, *, attempts: int = 1) -> Candidate:
    """The agent of the first day: exactly what clients get from the endpoint today."""
    return Candidate(
        kind="chat",
        predictors={SYSTEM: Predictor(instructions=chat.system)},
        base_model=f"openai/{chat.model}",
        api_base=chat.upstream,
        topology={"attempts": attempts},
    )
