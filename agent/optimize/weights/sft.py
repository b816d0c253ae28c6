"""Supervised fine-tuning: the loss is on the agent's own tokens, each with the weight of its conversation.

TRL's trainer does the rest (its loss knows no weights, and on a CPU it calculates the vocabulary's logits of every
token: here only of those that something is learned from).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ratchet.agent.errors import BadInput
from ratchet.agent.optimize.budget import Meter
from ratchet.agent.optimize.weights.chat_template import Encoded, encode
from ratchet.agent.optimize.weights.configuration import LoraSettings, cut, worth_compiling
from ratchet.agent.optimize.weights.conversations import Conversation, Piece
from ratchet.agent.optimize.weights.distributed import world_size
from ratchet.agent.optimize.weights.rows import IGNORED, Collator, Item, rows_of
from ratchet.agent.optimize.weights.training import (
    Base,
    Job,
    arguments,
    in_half,
    job_of,
    load_base,
    mean_by,
    quiet,
    run,
)
from ratchet.agent.record import Json


def train_sft(
    base_folder: Path | str | None,
    conversations: Sequence[Conversation],
    folder: Path,
    settings: LoraSettings,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
    meter: Meter | None = None,
) -> tuple[str, list[float]]:
    """Train an adapter on conversations and save it below `folder`.

    Args:
        base_folder: the model, as `Lora.base` names it; None = the embedded one.
        conversations: [n].
        folder: where `<hash>/` with weights, configuration and manifest is written.
        settings: rank, epochs, …
        seed: of the first weights and of the order of conversations.
        progress: called with the conversations done since the last call (n × epochs in all).
        meter: looked at between steps; where the budget is spent, the adapter is what was trained until then.

    Returns:
        The adapter's content hash, and the mean loss (nats a token) of each epoch.

    Raises:
        BadInput: no conversations, one without a turn of the agent's, a model that cannot be loaded.
        BudgetSpent: before the first step.
    """
    if not conversations:
        raise BadInput("SFT needs at least 1 conversation, got 0: label some traces first")
    base = None if base_folder is None else str(base_folder)
    data: list[Json] = [dict(one) for one in conversations]
    job = job_of("sft", base, data, folder, settings, seed=seed, progress=progress, meter=meter)
    with quiet():
        loaded = load_base(job)
        items = [item_of(loaded.tokenizer, one, settings.max_length) for one in conversations]
        trainer, ends = sft_trainer(loaded, items, job)
    rows = trainer.train_dataset["items"]
    a_step = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * world_size()
    digest, losses = run(
        trainer,
        job,
        done_of_step=lambda step: sum(len(row) for row in rows[step * a_step : (step + 1) * a_step]),
        n_conversations=len(items),
    )
    return digest, mean_by(losses, [-(-end // a_step) for end in ends])


def item_of(tokenizer: Any, conversation: Conversation, max_length: int) -> Item:
    """The conversation's last `max_length` tokens, and which of them are learned.

    Raises:
        BadInput: none of them is.
    """
    if "pieces" in conversation:
        read = _pieces(tokenizer, conversation["pieces"])
    else:
        read = encode(tokenizer, conversation["messages"], conversation.get("tools"))
    ids, own = read.ids[-max_length:], read.own[-max_length:]
    if not any(own[1:]):
        raise BadInput("a conversation holds no token of the agent's to learn: leave it out")
    labels = [token if mine else IGNORED for token, mine in zip(ids, own, strict=True)]
    return Item(ids, labels, conversation.get("weight", 1.0))


def _pieces(tokenizer: Any, pieces: Sequence[Piece]) -> Encoded:
    ids: list[int] = []
    own: list[bool] = []
    for whose, text in pieces:
        new = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += new
        own += [whose == "own"] * len(new)
    return Encoded(ids, own)


def sft_trainer(loaded: Base, items: Sequence[Item], job: Job) -> tuple[Any, list[int]]:
    """TRL's trainer over rows that are laid out for all epochs, and the row after each epoch's last."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig

    lengths = [len(one.ids) for one in items]
    settings, here = job.settings, loaded.here
    room = max(here.row, max(lengths))
    rows: list[list[int]] = []
    ends = []
    for epoch in range(settings.epochs):
        together = -(-settings.batch_size // world_size())
        rows += rows_of(lengths, room=room, seed=job.seed * 1000 + epoch, together=together)
        ends.append(len(rows))
    a_step = max(1, round(settings.batch_size * len(rows) / (settings.epochs * len(items))))
    mine = -(-a_step // world_size())
    config = loaded.model.config.get_text_config()
    pieces = cut(here, mine, room, config.num_hidden_layers, config.hidden_size)
    compiled = worth_compiling(here, loaded.model.num_parameters(), settings.epochs * sum(lengths))
    if compiled:  # for one shape: a last batch of fewer rows would be compiled anew
        rows += [[]] * (-len(rows) % (pieces.rows * world_size()))
        for layer in loaded.model.get_decoder().layers:
            layer.compile()
    steps = -(-len(rows) // (mine * world_size()))
    args = arguments(
        SFTConfig,
        job,
        here,
        steps=steps,
        per_device_train_batch_size=pieces.rows,
        gradient_accumulation_steps=pieces.times,
        gradient_checkpointing=pieces.recompute,
        use_liger_kernel=here.liger and not compiled,
        num_train_epochs=1,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    pad = loaded.tokenizer.pad_token_id or 0
    trainer = _weighted()(
        model=loaded.model,
        args=args,
        train_dataset=Dataset.from_dict({"items": rows}),
        data_collator=Collator(items, pad, multiple=128 if here.device == "cuda" else 1),
        processing_class=loaded.tokenizer,
        peft_config=loaded.lora,
    )
    return in_half(trainer), ends


def _weighted() -> type[Any]:
    """TRL's `SFTTrainer` with a weight for each token, in the order of its rows."""
    import torch
    from torch.utils.data import SequentialSampler
    from trl.trainer.sft_trainer import SFTTrainer

    class WeightedSFT(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            rows: Any = self.train_dataset if train_dataset is None else train_dataset
            return SequentialSampler(rows)

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            """Mean over the tokens that are learned of weight × negative log-likelihood (nats)."""
            labels, weights = inputs["labels"][:, 1:], inputs["weights"][:, 1:]
            seen = {
                "input_ids": inputs["input_ids"],
                "position_ids": inputs["position_ids"],
                "use_cache": False,
            }
            learned = labels != IGNORED
            n = learned.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
            if labels.device.type == "cuda":
                said = -model(**seen, labels=inputs["labels"], fused_lm_head=True).log_probs
                loss = (said * weights).sum() / n
            else:
                at = learned.any(0).nonzero()[:, 0]
                logits = model(**seen, logits_to_keep=at).logits.float()
                said = torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), labels[:, at].flatten(), ignore_index=IGNORED, reduction="none"
                )
                loss = (said * weights[:, at].flatten()).sum() / n
            n_tokens = torch.tensor(inputs["input_ids"].numel(), device=labels.device)
            self._total_train_tokens += int(self.accelerator.gather(n_tokens).sum())
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
            # `n` is of all processes' rows, and their gradients are averaged
            return loss if num_items_in_batch is None else loss * world_size()

    return WeightedSFT
