"""Where an LM behind an endpoint is asked. The address is part of a candidate; the key never is.

Why without an address nothing is asked: LiteLLM would take the vendor's public host, and a user's requests would
leave the house because a variable was not set in one of many shells.
"""

import re
from typing import Any, Final

from agent.errors import BadInput
from agent.weights import NAME

VENDOR: Final = "vendor"
"""The address that stands for the host that LiteLLM knows for the model's vendor: asked only where it is said."""
ADDRESS: Final = r"^(vendor|https?://[^\s@?#]+)$"
"""Without user, password or query: these hold keys, and an address is recorded."""
_REMEDY: Final = (
    "set RATCHET_LM_API_BASE to its server, such as http://localhost:8000/v1, "
    "or to `vendor` for the vendor's own host"
)


def address_of(model: str, api_base: str | None) -> str | None:
    """The address at which `model` is asked; None for the embedded LM, which is in the process.

    Raises:
        BadInput: there is none, or it is not an address.
    """
    if model == NAME:
        return None
    if not api_base:
        raise BadInput(f"LM {model} has no address: {_REMEDY}")
    if not re.fullmatch(ADDRESS, api_base):  # not shown: what is wrong with it may be that it holds a key
        raise BadInput(
            f"the address of LM {model} is not http(s)://host/path without user, password and query: {_REMEDY}; "
            "a key belongs in RATCHET_LM_API_KEY"
        )
    return api_base


def as_asked(model: str, endpoint: dict[str, Any]) -> dict[str, Any]:
    """What LiteLLM is told of the endpoint (`api_base`, `api_key`, `timeout`)."""
    told = endpoint | {"api_base": address_of(model, endpoint.get("api_base"))}
    return {name: value for name, value in told.items() if (name, value) != ("api_base", VENDOR)}
