"""A merged model as one GGUF file, for llama.cpp and whatever is built on it.

Decision: written here for the Llama shape alone, then read back by transformers and compared before it counts as
written; of every other shape llama.cpp's own converter knows more. Names of tensors are the `gguf` package's.
Why rows of queries and keys are laid out anew: llama.cpp turns neighbours, transformers turns halves.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from ratchet.agent.errors import BadInput
from ratchet.agent.lm.merged import Agreement, Merged, agreement

Precision = Literal["f16", "f32"]
LLAMA: Final = "llama"
MOST_NATS: Final = 0.05
"""A file that is further from the model than this is not the model."""
_NORMAL, _CONTROL, _USER = 1, 3, 4
"""llama.cpp's types of tokens."""
_OTHERWISE: Final = (
    "export it with `--to merged`, and let llama.cpp's convert_hf_to_gguf.py make the GGUF of that"
)


def write_gguf(merged: Merged, file: Path, *, name: str, precision: Precision = "f16") -> Agreement:
    """Write the model, read it back, and compare; a file that is not the model does not stay.

    Args:
        merged: the model.
        file: what is written; its folder exists.
        name: of the model, for who reads the file.
        precision: of the matrices; vectors are float32.

    Raises:
        BadInput: it is no Llama, its tokenizer is of another kind, or what was read back answers otherwise.
    """
    import torch
    from transformers import AutoModelForCausalLM

    _require_llama(merged)
    partial = file.with_name(f".{file.name}.partial")
    try:
        _write(merged, partial, name, precision)
        back = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=partial.name, dtype=torch.float32)
        found = agreement(merged, back)
        if found.nats > MOST_NATS:
            raise BadInput(
                f"{file} was not written: read back, it is up to {found.nats:.3g} nats from the model, more than "
                f"{MOST_NATS}: write it with `--precision f32`, or {_OTHERWISE}"
            )
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return found


def _require_llama(merged: Merged) -> None:
    config = merged.model.config
    if config.model_type != LLAMA:
        raise BadInput(
            f"the architecture is {config.model_type}, and GGUF is written for {LLAMA} only: {_OTHERWISE}"
        )
    if (rope := config.rope_parameters.get("rope_type", "default")) != "default":
        raise BadInput(f"its rotary positions are scaled ({rope}), which is not written here: {_OTHERWISE}")
    if _bpe(merged.tokenizer) is None:
        raise BadInput(f"its tokenizer is no byte-level BPE, which is not written here: {_OTHERWISE}")


def _bpe(tokenizer: Any) -> dict[str, Any] | None:
    """`model` of tokenizer.json where that is a byte-level BPE."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = json.loads(backend.to_str()) if backend is not None else {}
    found = whole.get("model") or {}
    is_bytes = "ByteLevel" in json.dumps([whole.get("pre_tokenizer"), whole.get("decoder")])
    return found if found.get("type") == "BPE" and is_bytes else None


def _write(merged: Merged, file: Path, name: str, precision: Precision) -> None:
    import gguf

    writer = gguf.GGUFWriter(file, LLAMA)
    try:
        writer.add_name(name)
        _add_shape(writer, merged.model.config, precision)
        _add_tokenizer(writer, merged)
        for tensor_name, values in _tensors(merged.model, precision):
            writer.add_tensor(tensor_name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add_shape(writer: Any, config: Any, precision: Precision) -> None:
    import gguf

    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    kinds = gguf.LlamaFileType
    writer.add_file_type(kinds.MOSTLY_F16 if precision == "f16" else kinds.ALL_F32)


def _add_tokenizer(writer: Any, merged: Merged) -> None:
    tokenizer, size = merged.tokenizer, merged.model.config.vocab_size
    bpe = _bpe(tokenizer)
    assert bpe is not None, "it was looked at before"
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(size)]
    kinds = [
        _NORMAL if number not in added else _CONTROL if added[number].special else _USER
        for number in range(size)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm" if _is_smollm(tokenizer) else "default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in bpe["merges"]])
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(bool(tokenizer("")["input_ids"]))
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token is not None:
            add(token)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _is_smollm(tokenizer: Any) -> bool:
    return tokenizer.vocab_size == 49152 and "SmolLM" in str(tokenizer.chat_template)


def _tensors(model: Any, precision: Precision) -> Any:
    """Names and values as llama.cpp has them, a tensor at a time: of a large model they are not held twice."""
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for ours, tensor in model.state_dict().items():
        if ours == "lm_head.weight" and config.tie_word_embeddings:
            continue
        theirs = names.get_name(ours, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise BadInput(f"GGUF has no name for the model's tensor {ours}: {_OTHERWISE}")
        values = tensor.float().numpy()
        if ours.endswith(("q_proj.weight", "q_proj.bias")):
            values = _neighbours(values, config.num_attention_heads)
        elif ours.endswith(("k_proj.weight", "k_proj.bias")):
            values = _neighbours(values, config.num_key_value_heads)
        half = precision == "f16" and values.ndim > 1
        yield theirs, np.ascontiguousarray(values.astype(np.float16 if half else np.float32))


def _neighbours(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head, [2, half] → [half, 2]."""
    parts = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.asarray(parts.swapaxes(1, 2).reshape(values.shape))
