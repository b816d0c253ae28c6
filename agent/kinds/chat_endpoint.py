"""A chat endpoint as the agent: where it is, and what it is told today. All of it may stand in `ratchet.toml`.

Why a record and no code: whoever calls an OpenAI-compatible endpoint has nothing to rewrite but the address.
"""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.lm.adapter_name import adapter_name
from ratchet.agent.record import Record, StageSettings
from ratchet.agent.settings_table import checked, read_toml

SYSTEM: Final = "system"
"""The prompt of such an agent."""
_PREFIX: Final = "openai/"
MODEL: Final = "model"
"""Its model part."""
ScorerName = Literal["exact", "contains", "numeric", "json_fields", "tool_call"]
_ADDRESS: Final = r"https?://[^\s@?#]+"


def _checked_address(upstream: str) -> str:
    if not re.fullmatch(_ADDRESS, upstream):  # not shown: what is wrong with it may be that it holds a key
        raise ValueError(
            "the address is not http(s)://host/path without user, password and query: give the endpoint's, such as "
            "http://localhost:8000/v1; a key belongs in RATCHET_LM_API_KEY"
        )
    return upstream


class Chat(Record):
    """An OpenAI-compatible endpoint behind `ratchet serve`."""

    upstream: Annotated[str, AfterValidator(_checked_address)]
    """Its address, such as `http://localhost:8000/v1`, without user, password and query; no other host is asked. The
    key is `RATCHET_LM_API_KEY`."""
    model: str = Field(min_length=1)
    """What the endpoint calls the LM that answers today; a version keeps the one that it was proven with."""
    system: str = ""
    """The system message that clients send today, or that they are to get; empty = as they send it."""

    @property
    def lm(self) -> str:
        """The model's name in candidates, as LiteLLM says it."""
        return lm_name(self.model)


def lm_name(model: str) -> str:
    """What candidates call an endpoint's model."""
    return f"{_PREFIX}{model.removeprefix(_PREFIX)}"


def model_name(candidate: Candidate) -> str:
    """What the endpoint calls the model that a candidate is on, or the adapter of it."""
    if candidate.adapter is not None:
        return adapter_name(candidate.adapter)
    return candidate.models.get(MODEL) or candidate.base_model.removeprefix(_PREFIX)


def chat_candidate(chat: Chat) -> Candidate:
    """The agent of the first day: exactly what clients get from the endpoint today."""
    return Candidate(
        kind="chat",
        predictors={SYSTEM: Predictor(instructions=chat.system)},
        replaces=chat.system,
        base_model=chat.lm,
        api_base=chat.upstream,
    )


class ChatProject(StageSettings):
    """The table `agent` of `ratchet.toml`: a project whose agent is a chat endpoint, without a line of Python."""

    name: str
    """Lower case, digits, `-` and `_`: names the experiment and the model in MLflow; clients ask `ratchet/NAME`."""
    upstream: Annotated[str, AfterValidator(_checked_address)]
    """The endpoint's address, such as `http://localhost:8000/v1`; no other host is asked."""
    model: Annotated[str, Field(min_length=1)]
    """What the endpoint calls the LM that answers today; later `ratchet improve --model` tries another."""
    system: str = ""
    """The system message that clients send today, or that they are to get; empty: as they send it."""
    score: ScorerName | None = None
    """What an answer is compared with the expected one by; left out: people say."""
    recalls: Annotated[int, Field(ge=0, le=20)] = 4
    """Answers that worked before, shown at a request that is like theirs."""
    prompt_calls: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Calls that a round may spend on a better system message, written by `RATCHET_REFLECTION_LM` or else by the
    endpoint's own LM; 0: none is written."""

    @property
    def chat(self) -> Chat:
        """The endpoint."""
        return Chat(upstream=self.upstream, model=self.model, system=self.system)


def chat_project(path: Path) -> ChatProject | None:
    """What the settings' table `agent` says; None where there is none.

    Raises:
        BadInput: it cannot be used; says where and why.
    """
    table = read_toml(path).get("agent")
    if table is None:
        return None
    return ChatProject(**checked(table, ChatProject, str(path), above="agent."))
