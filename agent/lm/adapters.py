"""LoRA adapters on one model: any number attached, one in use, at most one in training.

An adapter is verified as it is attached: one for another base would answer without complaint.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.agent.errors import BadInput
from ratchet.agent.lm.adapter_files import check_adapter
from ratchet.agent.lm.weights import EMBEDDED_MODEL
from ratchet.agent.record import content_hash

if TYPE_CHECKING:
    import torch

TRUNK = 26
"""Layers below this one (of 30) are never trained."""
FRESH = "fresh"
"""Name of the adapter in training."""


class Adapters:
    """The adapters of one model."""

    def __init__(self, model: Any, base: Path | None = None, *, first_layer: int = TRUNK) -> None:
        """`base`: the model's folder; `first_layer`: an adapter that changes a lower one is refused."""
        self._model, self._base, self._first_layer = model, base, first_layer
        self._wrapped: Any = None
        self._loaded: set[str] = set()

    @contextmanager
    def using(self, adapter: Path | None) -> Iterator[None]:
        """Calculate with this adapter, or with none."""
        if adapter is not None:
            name = self.attach(adapter)
            self._wrapped.set_adapter(name)
            self._wrapped.requires_grad_(False)
            yield
        elif self._wrapped is not None:
            with self._wrapped.disable_adapter():
                yield
        else:
            yield

    def attach(self, adapter: Path) -> str:
        """Load a LoRA adapter, once; returns its name in the model.

        Raises:
            BadInput: there is no adapter, it is not whole or of another base, or it touches the shared trunk.
        """
        from peft import LoraConfig, PeftModel

        name = str(adapter)
        if name in self._loaded:
            return _key(name)
        check_adapter(adapter, base=self._base)
        layers = LoraConfig.from_pretrained(name).layers_to_transform
        if self._first_layer and (not isinstance(layers, list) or min(layers) < self._first_layer):
            raise BadInput(
                f"adapter {name} changes layers {layers}; the embedded LM shares all below {TRUNK}: "
                f"train it with layers_to_transform={TRUNK}…29"
            )
        if self._wrapped is None:
            with peft_quietly():
                self._wrapped = PeftModel.from_pretrained(self._model, name, adapter_name=_key(name))
        else:
            self._wrapped.load_adapter(name, adapter_name=_key(name))
        self._wrapped.eval()
        self._loaded.add(name)
        return _key(name)

    @contextmanager
    def training(self, config: Any, seed: int) -> Iterator[list["torch.nn.Parameter"]]:
        """Attach a fresh adapter of this `LoraConfig`, yield its parameters, and take it off again.

        Save it inside with `save`.
        """
        import torch
        from peft import get_peft_model

        torch.manual_seed(seed)  # here and not earlier: to load the model may draw numbers, too
        if self._wrapped is None:
            with peft_quietly():
                self._wrapped = get_peft_model(self._model, config, adapter_name=FRESH)
        else:
            self._wrapped.add_adapter(FRESH, config)
        self._wrapped.set_adapter(FRESH)
        try:
            yield [p for n, p in self._wrapped.named_parameters() if f".{FRESH}." in n]
        finally:
            if self._loaded:
                self._wrapped.set_adapter(_key(min(self._loaded)))
                self._wrapped.delete_adapter(FRESH)
            else:  # nothing is left to switch to: take the wrapping off as well
                self._wrapped.unload()
                self._wrapped = None

    def save(self, folder: Path) -> None:
        """Write the adapter in training to `folder`, as safetensors and its configuration."""
        # otherwise a path of this machine stands in the file, and the hash differs on the next one
        self._wrapped.peft_config[FRESH].base_model_name_or_path = EMBEDDED_MODEL
        self._wrapped.save_pretrained(str(folder), selected_adapters=[FRESH], save_embedding_layers=False)
        for path in sorted((folder / FRESH).iterdir()):
            path.replace(folder / path.name)
        (folder / FRESH).rmdir()
        _sort_lists(folder / "adapter_config.json")
        (folder / "README.md").unlink(missing_ok=True)


@contextmanager
def peft_quietly() -> Iterator[None]:
    """Peft asks transformers for a property that is on its way out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def _sort_lists(config: Path) -> None:
    """Sets of names come out in another order in every process, and the adapter's hash with them."""
    values = json.loads(config.read_text())
    names = {
        k: sorted(v) for k, v in values.items() if isinstance(v, list) and all(isinstance(x, str) for x in v)
    }
    config.write_text(json.dumps(values | names, indent=2, sort_keys=True) + "\n")


def _key(adapter: str) -> str:
    """A module name must not contain a dot or slash."""
    return "a" + content_hash(adapter)
