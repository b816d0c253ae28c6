"""Learning from what people preferred: DPO from answers picked side by side, KTO from thumbs up and down.

Decision: TRL's trainers as they are, on texts that are rendered here by the very template that SFT trains with.
Only people's verdicts come here, each counts the same. The base itself is the reference: the adapter switched off.
Sources: Rafailov et al., DPO (2023); Ethayarajh et al., KTO (2024).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ratchet.agent.errors import BadInput
from ratchet.agent.optimize.budget import Meter
from ratchet.agent.optimize.weights.chat_template import rendered_turn
from ratchet.agent.optimize.weights.configuration import LoraSettings
from ratchet.agent.optimize.weights.conversations import Conversation
from ratchet.agent.optimize.weights.distributed import world_size
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

LEAST_OF_EACH: Final = 2
"""Thumbs up, and down, below which KTO learns nothing: it weighs one kind against the other."""


def train_preferences(
    base: str | None,
    rows: Sequence[tuple[Conversation, Conversation]] | Sequence[tuple[Conversation, bool]],
    folder: Path,
    settings: LoraSettings,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
    meter: Meter | None = None,
) -> tuple[str, list[float]]:
    """Train an adapter on preferences and save it below `folder`.

    Args:
        base: the model, as `Lora.base` names it; None = the embedded one.
        rows: [n] pairs of a conversation with the better answer and the same with the worse one (DPO), or of a
            conversation and whether its answer is good (KTO).
        folder: where `<hash>/` with weights, configuration and manifest is written.
        settings: rank, epochs, …
        seed: of the first weights and of the order.
        progress: called with the rows done since the last call (n × epochs in all).
        meter: looked at between steps.

    Returns:
        The adapter's content hash, and the mean loss of each epoch.

    Raises:
        BadInput: nothing to learn from, or a model that cannot be loaded.
        BudgetSpent: before the first step.
    """
    if not rows:
        raise BadInput("learning from preferences needs at least 1, got 0: let people compare answers first")
    compares = not isinstance(rows[0][1], bool)
    data: list[Json] = [[dict(a), b if isinstance(b, bool) else dict(b)] for a, b in rows]
    method = "dpo" if compares else "kto"
    job = job_of(method, base, data, folder, settings, seed=seed, progress=progress, meter=meter)
    if not compares:
        _check_thumbs([bool(good) for _, good in rows])
    with quiet():
        loaded = load_base(job)
        texts = [_text(loaded.tokenizer, first) for first, _ in rows]
        columns: dict[str, list[Any]] = {"prompt": [prompt for prompt, _ in texts]}
        if compares:
            columns["chosen"] = [said for _, said in texts]
            columns["rejected"] = [_text(loaded.tokenizer, worse)[1] for _, worse in rows]  # type: ignore[arg-type]
        else:
            columns["completion"] = [said for _, said in texts]
            columns["label"] = [bool(good) for _, good in rows]
        trainer = _trainer(loaded, columns, job)
    a_step = trainer.args.train_batch_size * world_size()
    steps = -(-len(rows) // a_step)
    digest, losses = run(
        trainer,
        job,
        done_of_step=lambda step: min(a_step, len(rows) - step % steps * a_step),
        n_preferences=len(rows),
    )
    return digest, mean_by(losses, [steps * (epoch + 1) for epoch in range(settings.epochs)])


def _text(tokenizer: Any, conversation: Conversation) -> tuple[str, str]:
    """What the model reads, and what it says last."""
    if "pieces" in conversation:
        *read, (_, said) = conversation["pieces"]
        return "".join(text for _, text in read), said
    return rendered_turn(tokenizer, conversation["messages"], conversation.get("tools"))


def _check_thumbs(thumbs: Sequence[bool]) -> None:
    n_up, n_down = sum(thumbs), len(thumbs) - sum(thumbs)
    if min(n_up, n_down) < LEAST_OF_EACH:
        raise BadInput(
            f"KTO weighs thumbs up against thumbs down, and there are {n_up} and {n_down}: it needs at least "
            f"{LEAST_OF_EACH} of each; use sft for what is right alone"
        )


def _trainer(loaded: Base, columns: dict[str, list[Any]], job: Job) -> Any:
    from datasets import Dataset

    if job.method == "dpo":
        from trl.trainer.dpo_config import DPOConfig as Config
        from trl.trainer.dpo_trainer import DPOTrainer as Trainer
    else:
        from trl.trainer.kto_config import KTOConfig as Config  # type: ignore[assignment]
        from trl.trainer.kto_trainer import KTOTrainer as Trainer  # type: ignore[assignment]
    n = len(columns["prompt"])
    size = min(max(-(-job.settings.batch_size // world_size()), 2), n)
    args = arguments(
        Config,
        job,
        loaded.here,
        steps=job.settings.epochs * -(-n // (size * world_size())),
        per_device_train_batch_size=size,
        num_train_epochs=job.settings.epochs,
        max_length=job.settings.max_length,
    )
    trainer: Any = Trainer(
        model=loaded.model,
        args=args,
        train_dataset=Dataset.from_dict(columns),
        processing_class=loaded.tokenizer,
        peft_config=loaded.lora,
    )
    return in_half(trainer)
