"""What a server with dynamic LoRA calls an adapter.

Decision: an adapter's name on the server is made of its content, `ratchet-<first 12 digits of its SHA-256>`, and
never of a version's number: a server keeps what it calculated of a prompt by the adapter's name, and a name that is
used again would answer from another one's weights. Of the whole folder, not of the weights alone: the same weights
under another `lora_alpha` answer otherwise.
"""

from typing import Final

from ratchet.agent.candidate import Candidate
from ratchet.agent.errors import BadInput

PREFIXES: Final = ("hosted_vllm/", "openai/", "litellm_proxy/")
"""LiteLLM's names for servers that are asked by OpenAI's protocol, and so may have adapters."""


def adapter_name(digest: str) -> str:
    """What a server calls the adapter of this content hash."""
    return f"ratchet-{digest[:12]}"


def through_adapter(model: str, digest: str | None) -> str:
    """The model string to ask instead of the base's: the same server's, by the adapter's name.

    Raises:
        BadInput: what answers under this model string loads no adapters.
    """
    if digest is None:
        return model
    prefix = next((one for one in PREFIXES if model.startswith(one)), None)
    if prefix is None:
        raise BadInput(
            f"LM {model} has no adapters of ours: only servers with dynamic LoRA do, as "
            f"{' or '.join(PREFIXES[:2])}…; drop the adapter, or serve its base by vLLM"
        )
    return f"{prefix}{adapter_name(digest)}"


def with_adapter(candidate: Candidate, digest: str, *, model_part: str | None = None) -> Candidate:
    """The candidate under an adapter; of a callable, whose code asks its LM by a `ratchet.model` part, that part's
    value becomes the adapter's name.

    Raises:
        BadInput: a callable, and no part was named.
    """
    changed = candidate.model_copy(update={"adapter": digest})
    if candidate.kind != "callable":
        return changed
    if model_part is None:
        raise BadInput(
            "the agent's own code asks its LM: name the `ratchet.model` part that is to ask the adapter instead"
        )
    before = candidate.models.get(model_part, "")
    prefix = next((one for one in PREFIXES if before.startswith(one)), "")
    named = {model_part: f"{prefix}{adapter_name(digest)}"}
    return changed.model_copy(update={"models": candidate.models | named})
