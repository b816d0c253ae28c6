"""An adapter on disk: safetensors, its configuration, and a manifest that says what it was trained on and from what.

Decision: whoever loads an adapter verifies it first. One for another base answers without complaint and wrongly, and
half a file is found out by a crash somewhere else; here both are one line before anything is calculated.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Json, Record, folder_hash

WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
MANIFEST: Final = "manifest.json"
_SAMPLES: Final = 64
_SAMPLE_BYTES: Final = 65536


class Manifest(Record):
    """Where an adapter comes from. It is part of the folder, and so of the adapter's hash."""

    base_model: str
    """Name of the model that it was trained on."""
    base_hash: str
    """`base_hash` of that model's weights."""
    data_digest: str
    """Content hash of the conversations that it was trained on."""
    weights_sha256: str
    parameters: dict[str, Json] = Field(default_factory=dict)
    losses: tuple[float, ...] = ()
    """Mean loss (nats a token) of each epoch."""


def base_hash(folder: Path) -> str:
    """Identity of a model's weights: names, sizes, and 64 samples of 64 KiB of each file.

    Not the whole files: of an 8 B model these are 16 GB, and a fine-tuned one differs everywhere.

    Raises:
        BadInput: there are no weights in the folder.
    """
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not files:
        raise BadInput(f"no weights in {folder}: give a folder with config.json and *.safetensors")
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for sample in range(_SAMPLES):
                file.seek(sample * max(size - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def keep_adapter(written: Path, folder: Path, **origin: Any) -> str:
    """Complete what peft wrote with its manifest, and move it to `folder/<hash>`; returns the hash.

    Args:
        written: a folder with weights and configuration; it is gone afterwards.
        folder: where adapters are kept.
        origin: the manifest's fields beside `weights_sha256`.
    """
    for path in written.iterdir():  # a card with the machine's paths
        if path.name not in (WEIGHTS, CONFIG):
            path.unlink()
    weights = hashlib.sha256((written / WEIGHTS).read_bytes()).hexdigest()
    manifest = Manifest(weights_sha256=weights, **origin)
    (written / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    _plain_config(written / CONFIG, manifest.base_model)
    digest = folder_hash(written)
    if (target := folder / digest).exists():
        shutil.rmtree(written)
    else:
        written.replace(target)
    return digest


def check_adapter(folder: Path, *, base: Path | None = None) -> Manifest | None:
    """Refuse an adapter that is not whole, or was trained on another base.

    Args:
        folder: weights, configuration, and the manifest, which adapters of earlier versions do not have.
        base: folder of the model that it is to be loaded on; None = not known here.

    Returns:
        The manifest; None where there is none.

    Raises:
        BadInput: no adapter, altered or truncated weights, another base.
    """
    from safetensors import SafetensorError, safe_open

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():  # peft would go and ask a hub for it
            raise BadInput(f"no adapter in {folder}: {name} is missing; give the folder that holds it")
    retrain = "fetch it anew from the registry, or train it again"
    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as tensors:
            tensors.keys()
    except SafetensorError as error:
        raise BadInput(
            f"adapter {folder.name}: {WEIGHTS} is truncated or altered ({error}): {retrain}"
        ) from None
    if not (folder / MANIFEST).is_file():
        return None
    manifest = Manifest.from_json((folder / MANIFEST).read_bytes(), where=str(folder / MANIFEST))
    if hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() != manifest.weights_sha256:
        raise BadInput(f"adapter {folder.name}: {WEIGHTS} is not what its manifest names: {retrain}")
    if base is not None and (found := base_hash(base)) != manifest.base_hash:
        raise BadInput(
            f"adapter {folder.name} was trained on {manifest.base_model} ({manifest.base_hash}), and the model in "
            f"{base} is another ({found}): load it on its own base, or train one for this model"
        )
    return manifest


def _plain_config(config: Path, base_model: str) -> None:
    """Without what differs between machines and processes: a path, and the order of sets of names."""
    values = json.loads(config.read_text())
    values["base_model_name_or_path"] = base_model
    names = {
        k: sorted(v) for k, v in values.items() if isinstance(v, list) and all(isinstance(x, str) for x in v)
    }
    config.write_text(json.dumps(values | names, indent=2, sort_keys=True) + "\n")
