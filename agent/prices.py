"""What a call to an LM costs. The embedded one is free; for endpoints LiteLLM's price list speaks."""

from typing import Any

from agent.trace import Usage
from agent.weights import NAME


def price_usd(model: str, input_tokens: int, output_tokens: int) -> float | None:
    """Price in US dollars; None = it is not known."""
    if model == NAME:
        return 0.0
    import litellm

    try:
        prices = litellm.cost_per_token(model, prompt_tokens=input_tokens, completion_tokens=output_tokens)
    except Exception:  # noqa: BLE001  its way of saying that it does not know a model differs by version
        return None
    return float(sum(prices))


def usage_of(model: str, response: Any) -> Usage:
    """What one response of an endpoint consumed; no money where the price is not known."""
    n_in, n_out = response.usage.input_tokens or 0, response.usage.output_tokens or 0
    cost = price_usd(model, n_in, n_out) or 0.0
    return Usage(input_tokens=n_in, output_tokens=n_out, lm_calls=1, cost_usd=cost)
