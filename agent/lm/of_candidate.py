"""Which LM a candidate runs on: the one place where that is told from a name."""

from pathlib import Path
from typing import Any

from ratchet.agent.candidate import Candidate
from ratchet.agent.lm.base_models import LOCAL
from ratchet.agent.lm.embedded import Embedded
from ratchet.agent.lm.endpoint import Endpoint, checked_address
from ratchet.agent.lm.lm import LM
from ratchet.agent.lm.local import Local
from ratchet.agent.lm.weights import EMBEDDED_MODEL


def lm_type(model: str) -> type[Embedded] | type[Local] | type[Endpoint]:
    """The kind of LM that has this name: it answers the questions for a candidate that nobody plays."""
    if model == EMBEDDED_MODEL:
        return Embedded
    return Local if model.startswith(LOCAL) else Endpoint


def lm_for(candidate: Candidate, adapter: Path | None = None, endpoint: dict[str, Any] | None = None) -> LM:
    """The LM that a candidate runs on.

    Args:
        candidate: the agent.
        adapter: the folder of the adapter that it names.
        endpoint: what `Endpoint` takes beside the model; an address that is set wins over the recorded one, since a
            server may have moved. Of an adapter the server's own (`dynamic_lora.py`) is asked.

    Raises:
        BadInput: an LM behind an endpoint without an address.
    """
    kind = lm_type(candidate.base_model)
    if kind is Embedded:
        return Embedded(adapter)
    if kind is Local:
        return Local(candidate.base_model, adapter)
    told = {"api_base": candidate.api_base, "adapter": candidate.adapter}
    return Endpoint(candidate.base_model, **told | (endpoint or {}))


def address_of(model: str, api_base: str | None) -> str | None:
    """The address at which `model` is asked; None for one in this process.

    Raises:
        BadInput: there is none, or it is not an address.
    """
    return checked_address(model, api_base) if lm_type(model) is Endpoint else None
