"""Tiny random models, whole as the hub has them: a Llama of two layers with a byte-level tokenizer of its own."""

from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    whole = Tokenizer(models.BPE())
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(SPECIAL), initial_alphabet=letters, show_progress=False
    )
    whole.train_from_iterator(["where is my order, please", "the capital of Norway is Oslo"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=whole,
        unk_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_model(folder: Path, *, kind: str = "llama", seed: int = 0, tied: bool = True) -> Path:
    """A model with its tokenizer in a folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    config = AutoConfig.for_model(
        kind, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(tokenizer), max_position_embeddings=512, tie_word_embeddings=tied, initializer_range=0.3,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,  # its row is zero, and could not be learned
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_adapter(base: Path, below: Path, *, seed: int = 1) -> Path:
    """An adapter that changes what the model says, below a folder, named by its hash."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from ratchet.agent.lm.adapter_files import base_hash, keep_adapter
    from ratchet.agent.lm.adapters import peft_quietly

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    with peft_quietly():
        wrapped = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    wrapped.save_pretrained(str(below / "written"), save_embedding_layers=False)
    digest = keep_adapter(
        below / "written", below, base_model=str(base), base_hash=base_hash(base), data_digest="none"
    )
    return below / digest
