"""Models whose weights are on this machine, by the names that candidates and `Lora` give them."""

from pathlib import Path
from typing import Final

from ratchet.agent.errors import BadInput
from ratchet.agent.lm.weights import EMBEDDED_MODEL, weights_folder

LOCAL: Final = "local/"
"""Prefix of an LM that transformers loads in this process: `local//models/mine`, `local/Qwen/Qwen3-0.6B`."""


def base_of(base: str | None) -> tuple[str, Path]:
    """Name and folder of a model whose weights can be had here: the embedded one, a folder, or one that the hub has.

    Args:
        base: a folder or a name on the hub, as `Lora.base` or, after `local/`, a candidate says it; None = the
            embedded one.

    Raises:
        BadInput: there is no such model here, and no hub that has it.
    """
    if base is None or base == EMBEDDED_MODEL:
        return EMBEDDED_MODEL, weights_folder()
    base = base.removeprefix(LOCAL)
    if (folder := Path(base).expanduser()).is_dir():
        if not (folder / "config.json").is_file():
            raise BadInput(f"no model in {folder}: config.json is missing; give the folder that holds it")
        return base, folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            base, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        said = str(error).splitlines()[0][:120]
        raise BadInput(
            f"base {base!r} is no folder, and the hub did not give it ({said}): name a folder"
        ) from None
    return base, Path(found)
