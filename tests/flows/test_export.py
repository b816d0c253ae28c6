"""`ratchet export`: a version's weights for others, read back and compared; a tiny Llama."""

import json

import pytest
from tests.tiny_models import tiny_adapter, tiny_model

from ratchet.agent.candidate import Predictor
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.program import base_candidate
from ratchet.agent.lm.gguf_export import write_gguf
from ratchet.agent.lm.merged import agreement, merge
from ratchet.flows.cli import main
from ratchet.infra.registry.registry import register


@pytest.fixture
def version(project, tmp_path):
    """A version behind a server, whose base and adapter are here, and one without adapter."""
    base = tiny_model(tmp_path / "base")
    adapter = tiny_adapter(base, tmp_path)
    first = base_candidate("Answer.", model="hosted_vllm/tiny", api_base="http://localhost:8000/v1")
    tuned = first.model_copy(
        update={
            "adapter": adapter.name,
            "predictors": {"choose": Predictor(instructions="Answer in one word.")},
        }
    )
    register(project, first, files={}, seen_case_ids=[], cost={})
    register(project, tuned, files={"adapter": adapter}, seen_case_ids=[], cost={})
    return project, base, adapter


@pytest.fixture
def export(version, monkeypatch, capsys):
    def run(*told):
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr("sys.argv", ["ratchet", "export", *told, "--name", version[0]])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_an_adapter_a_merged_model_and_a_gguf_leave_the_house_and_load_elsewhere(version, export, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, base, adapter = version
    merged = merge(base, adapter)
    for form, place in (("adapter", "a"), ("merged", "m"), ("gguf", "m.gguf")):
        code, out, _ = export("2", "--to", form, str(tmp_path / "out" / place), "--json")
        answer = json.loads(out)
        assert (code, answer["form"], answer["adapter"]) == (0, form, adapter.name)
        beside = json.loads((tmp_path / "out" / answer["beside"]).read_text())
        assert beside["prompts"]["choose"] == "Answer in one word."
        if form != "adapter":
            assert answer["same_text"]
            assert answer["nats"] < 0.05
            assert beside["chat_template"] == merged.tokenizer.chat_template
    again = merge(base, tmp_path / "out" / "a")
    assert agreement(merged, again.model).nats == 0
    assert agreement(merged, AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "m")).nats == 0
    assert agreement(merged, AutoModelForCausalLM.from_pretrained(base)).nats > 1, "the base is another model"
    back = AutoTokenizer.from_pretrained(tmp_path / "out", gguf_file="m.gguf")
    text = "Hello, wörld! 1234 <|im_start|>user\n"
    assert back(text)["input_ids"] == merged.tokenizer(text)["input_ids"]
    assert back.chat_template == merged.tokenizer.chat_template
    code, out, told = export("2", "--to", "gguf", str(tmp_path / "again.gguf"), "--precision", "f32")
    assert (code, out) == (0, "")
    assert "within 0 nats of the version, writes the same" in " ".join(told.split())


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (("1", "--to", "merged", "out"), "has no adapter, it runs on hosted_vllm/tiny as it is"),
        (("2", "--to", "onnx", "out"), "--to onnx: give one of adapter, merged, gguf"),
        (("2", "--to", "merged", "."), "is there already: give a new or empty folder"),
        (("2", "--to", "gguf", "m.gguf", "--precision", "q4"), "give f16 or f32"),
    ],
)
def test_what_cannot_be_exported_is_one_line(export, told, line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, said = export(*told)
    assert (code, out) == (2, "")
    assert line in said
    assert len(said.strip().splitlines()) == 1


def test_another_base_another_architecture_and_a_file_that_is_another_model_are_refused(
    tmp_path, monkeypatch
):
    base, other = tiny_model(tmp_path / "base"), tiny_model(tmp_path / "other", seed=7, tied=False)
    adapter = tiny_adapter(base, tmp_path)
    with pytest.raises(BadInput, match="was trained on"):
        merge(other, adapter)
    qwen = tiny_model(tmp_path / "qwen", kind="qwen2")
    merged = merge(qwen, tiny_adapter(qwen, tmp_path))
    with pytest.raises(
        BadInput, match=r"architecture is qwen2, and GGUF is written for llama only.*--to merged"
    ):
        write_gguf(merged, tmp_path / "m.gguf", name="m")
    untied = merge(other, tiny_adapter(other, tmp_path))
    assert write_gguf(untied, tmp_path / "untied.gguf", name="m", precision="f32").nats < 1e-4
    monkeypatch.setattr("ratchet.agent.lm.gguf_export._neighbours", lambda values, heads: values)
    with pytest.raises(BadInput, match=r"was not written: read back, it is up to .* nats from the model"):
        write_gguf(untied, tmp_path / "m.gguf", name="m")
    assert not list(tmp_path.glob("*m.gguf*"))
