"""One training of one adapter, whatever its loss: the base, the checkpoints, the budget, what is kept of it.

Decision: a training is named by what it is made of (base, data, settings, seed), and its checkpoints lie under that
name. A second start after a kill finds them and ends with the same bytes; another one never does.
"""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ratchet.agent.errors import BadInput
from ratchet.agent.lm.adapter_files import base_hash, keep_adapter
from ratchet.agent.lm.base_models import base_of
from ratchet.agent.optimize.budget import BudgetSpent, Meter
from ratchet.agent.optimize.weights.configuration import (
    LoraSettings,
    Machine,
    first_layer,
    lora_config,
    machine,
)
from ratchet.agent.optimize.weights.distributed import local_rank, world_size
from ratchet.agent.record import Json, content_hash
from ratchet.agent.trace import Usage

CHECKPOINTS: Final = 10
"""Of a whole training; two are kept, since a kill may leave half of the last."""


@dataclass(frozen=True)
class Job:
    """What is trained, on what, and where."""

    base: str
    """Name of the model, as candidates have it."""
    base_folder: Path
    settings: LoraSettings
    data_digest: str
    folder: Path
    """Where `<hash>/` of the adapter is written."""
    method: str
    seed: int = 0
    progress: Callable[[int], None] = lambda done: None
    """Called with the examples done since the last call."""
    meter: Meter = field(default_factory=Meter)

    @property
    def checkpoints(self) -> Path:
        """Their folder: the same for the same training only."""
        own = set(LoraSettings.model_fields)
        settings = self.settings.model_dump(mode="json", include=own)
        made_of: list[Json] = [
            self.method,
            base_hash(self.base_folder),
            self.data_digest,
            settings,
            self.seed,
            world_size(),
        ]
        return self.folder.parent / "training" / content_hash(made_of)


def job_of(
    method: str,
    base: str | None,
    data: Json,
    folder: Path,
    settings: LoraSettings,
    *,
    seed: int,
    progress: Callable[[int], None],
    meter: Meter | None,
) -> Job:
    """A training of this model on this data.

    Raises:
        BadInput: there is no such model.
    """
    name, base_folder = base_of(base)
    return Job(
        base=name,
        base_folder=base_folder,
        settings=settings,
        data_digest=content_hash(data),
        folder=folder,
        method=method,
        seed=seed,
        progress=progress,
        meter=meter or Meter(),
    )


@dataclass(frozen=True)
class Base:
    """A loaded model, ready for a LoRA."""

    model: Any
    tokenizer: Any
    here: Machine
    lora: Any
    """`peft.LoraConfig`"""


def load_base(job: Job) -> Base:
    """The model as this machine trains it best.

    Raises:
        BadInput: transformers cannot load it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    weights = sum(path.stat().st_size for path in job.base_folder.glob("*.safetensors"))
    here = machine(weights, job.settings.max_length)
    options: dict[str, Any] = {
        "dtype": torch.bfloat16 if here.half else torch.float32,
        "attn_implementation": here.attention,
        "local_files_only": True,
    }
    if here.device == "cuda":
        options["device_map"] = {"": local_rank()}
    if here.four_bits:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    try:
        config = AutoConfig.from_pretrained(job.base_folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(job.base_folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(job.base_folder, **options)
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0][:160]
        raise BadInput(f"transformers cannot load a causal LM from {job.base_folder}: {said}") from None
    n_layers = config.get_text_config().num_hidden_layers
    first = first_layer(job.settings, n_layers, here.device)
    return Base(model, tokenizer, here, lora_config(job.settings, model, first))


def arguments(kind: type[Any], job: Job, here: Machine, *, steps: int, **more: Any) -> Any:
    """The training's `SFTConfig`, `DPOConfig` or `KTOConfig`: silent, resumable, on this machine.

    A process uses one card: transformers would cut each step into pieces for all of them (`DataParallel`), where rows
    no longer stand in their order and the fused head says nothing. Several cards are several processes.
    """
    made = kind(
        output_dir=str(job.checkpoints),
        seed=job.seed,
        learning_rate=job.settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 10),
        max_grad_norm=1.0,
        use_cpu=here.device == "cpu",
        bf16=here.half,
        tf32=None,
        save_strategy="steps",
        save_steps=max(1, steps // CHECKPOINTS),
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        **{"gradient_checkpointing": False, **more},
    )
    made._n_gpu = min(made.n_gpu, 1)  # CUDA_VISIBLE_DEVICES, which is public, is for the whole process
    return made


def in_half(trainer: Any) -> Any:
    """Where the training is in bfloat16, what flows into the adapters stays so.

    Their weights are float32, and autocast halves them; peft would first widen each input to them.
    """
    from peft.tuners.lora import LoraLayer

    for module in trainer.model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = not trainer.args.bf16
    return trainer


def run(
    trainer: Any, job: Job, *, done_of_step: Callable[[int], int], **parameters: Json
) -> tuple[str, list[float]]:
    """Train to the end or to the budget's, from the last whole checkpoint on, and keep the adapter.

    Args:
        trainer: one of TRL's.
        job: what is trained.
        done_of_step: step, from 0 → examples that it does.
        parameters: noted in the manifest.

    Returns:
        The adapter's content hash (of several processes the first's alone), and the loss of each step.

    Raises:
        BudgetSpent: before the first step.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # it prints each step's loss
    watch = _watch(job, done_of_step)
    trainer.add_callback(watch)
    last = last_whole_checkpoint(job.checkpoints)
    if spent := _agreed(job.meter):
        raise spent
    with quiet():
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        losses = [float(one["loss"]) for one in trainer.state.log_history if "loss" in one]
        if not trainer.is_world_process_zero():
            return "", losses
        written = job.folder / f"partial-{job.checkpoints.name}"
        shutil.rmtree(written, ignore_errors=True)
        trainer.model.save_pretrained(str(written), save_embedding_layers=False)
    digest = keep_adapter(
        written,
        job.folder,
        base_model=job.base,
        base_hash=base_hash(job.base_folder),
        data_digest=job.data_digest,
        parameters={
            "method": job.method,
            "seed": job.seed,
            "steps": trainer.state.global_step,
            "layers": trainer.model.peft_config["default"].layers_to_transform,
            **job.settings.model_dump(mode="json", include={"rank", "epochs", "learning_rate", "batch_size"}),
            **parameters,
        },
        losses=tuple(round(x, 4) for x in losses),
    )
    if watch.spent is None:
        shutil.rmtree(job.checkpoints, ignore_errors=True)
    return digest, losses


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest one that was written to its end: its state is written last."""
    numbered = [(int(path.name.rpartition("-")[2]), path) for path in folder.glob("checkpoint-*")]
    for _, path in sorted(numbered, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, ValueError):  # killed while it was written
            continue
        return path
    return None


def _watch(job: Job, done_of_step: Callable[[int], int]) -> Any:
    """Counts what is done, and stops between two steps where the budget is spent."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        spent: BudgetSpent | None = None
        tokens = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            job.progress(done_of_step(state.global_step - 1))
            return control

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> Any:
            """After each step; a checkpoint is written at once where it is the last one."""
            tokens = int((logs or {}).get("num_tokens", self.tokens))
            job.meter.charge(Usage(input_tokens=max(tokens - self.tokens, 0)))
            self.tokens = tokens
            if spent := _agreed(job.meter):
                self.spent = spent
                control.should_training_stop = control.should_save = True
            return control

    return Watch()


def _agreed(meter: Meter) -> BudgetSpent | None:
    """Whether the budget is spent, by the meter of the first process, the same for all of them."""
    from torch import distributed

    said: list[str | None] = [None]
    try:
        meter.take(0)
    except BudgetSpent as error:
        said = [str(error)]
    if world_size() > 1:
        distributed.broadcast_object_list(said)
    return BudgetSpent(said[0]) if said[0] else None


@contextmanager
def quiet() -> Iterator[None]:
    """Without what transformers, TRL and peft print; their errors still come as exceptions."""
    from transformers.utils import logging as bars

    bars.disable_progress_bar()  # type: ignore[no-untyped-call]
    loggers = [logging.getLogger(name) for name in ("transformers", "trl", "peft", "accelerate", "datasets")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def mean_by(losses: Sequence[float], ends: Sequence[int]) -> list[float]:
    """Mean loss of each epoch, of the losses of all steps and the step after each epoch's last."""
    starts = [0, *ends[:-1]]
    parts = [losses[start:end] for start, end in zip(starts, ends, strict=True)]
    return [sum(part) / len(part) for part in parts if part]
