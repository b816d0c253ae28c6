"""How fast a LoRA is trained: ours beside a padded `transformers.Trainer` and TRL's defaults, in the same run.

python tests/bench/bench_lora_speed.py [--small] [--traces 300] [--seconds 60]   (CPU; some 10 minutes, --small 3)
    1. `Lora()` on the demo's traces, over options and by SFT, two epochs each: minutes. To hold: at most 4 each.
    2. The same conversations once each: real tokens a second of ours, of a padded Trainer at its defaults (all layers,
       all logits, float32) and of TRL's SFTTrainer at its defaults; each for at most --seconds. To hold: 2 x padded.
python tests/bench/bench_lora_speed.py --gpu [--small] [--seconds 60]   (one CUDA card; some 8 minutes, 4 with --seconds 12)
    Random Llama shapes of 1.2 B and 8 B, rank 16 on all linear layers, lengths lognormal (median ~490, at most 2,048):
    real tokens a second and the share of the card's bf16 rate, counted as 4 N tokens. To hold: 5.5 x TRL's defaults,
    0.55 of the rate. On a CPU the clock is that of the process (seconds of all its threads): on a machine that others
use the wall's tells nothing. The rate is measured first (a matrix product of 8,192), not read from a data sheet.
Random weights: the speed is theirs, what they answer means nothing.
"""

import argparse
import gc
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.environments.tool_calling import case_observation, expected_tool, live_cases
from ratchet.agent.kinds.program import CHOOSE, Program, View
from ratchet.agent.lm.weights import EMBEDDED_MODEL, weights_folder
from ratchet.agent.optimize.evidence import Example
from ratchet.agent.optimize.weights.configuration import LoraSettings
from ratchet.agent.optimize.weights.conversations import Conversation, decisions
from ratchet.agent.optimize.weights.lora import Lora
from ratchet.agent.optimize.weights.options import train
from ratchet.agent.optimize.weights.rows import IGNORED, Item
from ratchet.agent.optimize.weights.sft import item_of, sft_trainer, train_sft
from ratchet.agent.optimize.weights.training import Base, Job, load_base, quiet

SHAPES = {
    "1.2 B": {"hidden": 2048, "inner": 8192, "layers": 16, "heads": 32, "kv": 8, "vocab": 128_256},
    "8 B": {"hidden": 4096, "inner": 14_336, "layers": 32, "heads": 32, "kv": 8, "vocab": 128_256},
    "tiny": {"hidden": 128, "inner": 256, "layers": 4, "heads": 4, "kv": 2, "vocab": 1000},
}
MEDIAN, SIGMA, LONGEST = 490, 0.7, 2048


class Speed(NamedTuple):
    """What one way of training came to."""

    real: int
    """Tokens of conversations, without padding."""
    seconds: float
    ready: float
    """Seconds until the first step was done, what is compiled for it too."""

    @property
    def rate(self) -> float:
        return self.real / self.seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--small", action="store_true", help="few traces, or a tiny shape")
    parser.add_argument("--traces", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each way, at most")
    options = parser.parse_args()
    if options.gpu:
        on_gpu(options.small, options.seconds)
    else:
        torch.set_num_threads(2)
        on_cpu(24 if options.small else options.traces, 30.0 if options.small else options.seconds)


def on_cpu(n: int, seconds: float) -> None:
    """The demo's traces on the embedded LM."""
    examples = demo_examples(n)
    program = Program(demo_candidate())
    told = decisions(program, examples)
    print(f"{n} traces of the demo, {torch.get_num_threads()} threads")
    with TemporaryDirectory() as folder:
        for name, made in [
            ("over options", lambda: train(program, examples, Path(folder) / "options", Lora())),
            ("SFT", lambda: train_sft(None, told, Path(folder) / "sft", LoraSettings(first_layer=26))),
        ]:
            began, cpu = time.perf_counter(), time.process_time()
            losses = made()[1]
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            print(
                f"  LoRA {name}: {took / 60:.1f} min by the wall, {cpu / 60:.1f} of CPU, "
                f"loss {losses[0]:.2f} -> {losses[-1]:.2f} (to hold: 4 min on two idle cores)",
                flush=True,
            )
        compare(told, seconds, Path(folder))


def demo_examples(n: int) -> list[Example]:
    """Requests as the demo serves them, with the right tool."""
    cases = [c for c in live_cases("live_multiple") if len(c.inputs["tools"]) <= 5]
    random.Random(0).shuffle(cases)
    return [
        Example(
            view=View(case_id=case.case_id, observation=case_observation(case)),
            answer=expected_tool(case.expected), trace_id=f"{i:032x}",
        )
        for i, case in enumerate(cases[:n])
    ]  # fmt: skip


def demo_candidate() -> Candidate:
    text = "Pick the option that answers the request."
    return Candidate(predictors={CHOOSE: Predictor(instructions=text)}, base_model=EMBEDDED_MODEL)


def compare(told: Sequence[Conversation], seconds: float, folder: Path) -> None:
    """Real tokens a second of each way, one after the other."""
    ways: dict[str, Callable[[Path], Any]] = {
        "ours": lambda at: our_trainer(job_at(at, weights_folder(), LoraSettings(epochs=1)), told),
        "padded Trainer": lambda at: padded_trainer(at, weights_folder(), told),
        "TRL's defaults": lambda at: trl_trainer(at, weights_folder(), told),
    }
    found: dict[str, Speed] = {}
    for name, make in ways.items():
        found[name] = timed(make(folder / name), seconds)
        print(f"  {name:16} {found[name].rate:8.1f} real tokens per CPU-second", flush=True)
    print(f"  ours / padded: {found['ours'].rate / found['padded Trainer'].rate:.2f} (to hold: 2)")


def job_at(folder: Path, base: Path, settings: LoraSettings) -> Job:
    return Job("bench", base, settings, "bench", folder / "adapters", "sft")


def our_trainer(job: Job, told: Sequence[Conversation] | None, items: Sequence[Item] | None = None) -> Any:
    with quiet():
        loaded = load_base(job)
        read = items or [item_of(loaded.tokenizer, one, job.settings.max_length) for one in told or ()]
        return sft_trainer(loaded, read, job)[0]


def padded_trainer(folder: Path, base: Path, told: Sequence[Conversation], items: Sequence[Item] = ()) -> Any:
    """`transformers.Trainer` and peft as its documentation shows them: padded batches of 8, all linear layers."""
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    with quiet():
        loaded, read = plain(folder, base, told, items)
        model = get_peft_model(loaded.model, loaded.lora)
        rows = Dataset.from_dict(
            {"input_ids": [one.ids for one in read], "labels": [one.labels for one in read]}
        )
        args = TrainingArguments(**common(folder, loaded), bf16=loaded.here.half)
        trainer: Any = Trainer(
            model=model, args=args, train_dataset=rows, data_collator=DataCollatorForSeq2Seq(loaded.tokenizer)
        )
    return trainer


def trl_trainer(folder: Path, base: Path, told: Sequence[Conversation], items: Sequence[Item] = ()) -> Any:
    """TRL's `SFTTrainer` as it comes, on tokens that are ready."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    with quiet():
        loaded, read = plain(folder, base, told, items)
        rows = Dataset.from_dict(
            {"input_ids": [one.ids for one in read], "labels": [one.labels for one in read]}
        )
        args = SFTConfig(
            **common(folder, loaded), bf16=loaded.here.half, max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        )  # fmt: skip
        trainer: Any = SFTTrainer(
            model=loaded.model, args=args, train_dataset=rows, processing_class=loaded.tokenizer,
            peft_config=loaded.lora,
        )  # fmt: skip
    return trainer


def plain(
    folder: Path, base: Path, told: Sequence[Conversation], items: Sequence[Item]
) -> tuple[Base, list[Item]]:
    """The base with a LoRA on all layers, attention as transformers picks it."""
    loaded = load_base(job_at(folder, base, LoraSettings(first_layer=0)))
    loaded.model.set_attn_implementation("sdpa")
    return loaded, list(items) or [item_of(loaded.tokenizer, one, LONGEST) for one in told]


def common(folder: Path, loaded: Base) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "num_train_epochs": 1, "report_to": "none",
        "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "seed": 0,
        "use_cpu": loaded.here.device == "cpu",
    }  # fmt: skip


def timed(trainer: Any, seconds: float) -> Speed:
    """Train for at most so long, from the second step on: the first makes ready."""
    from transformers import PrinterCallback, TrainerCallback

    class Clock(TrainerCallback):
        began, ended, real, ready = 0.0, 0.0, 0, 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = clock_now()
            if not self.began:
                self.began, self.real, self.ready = now, 0, now - called
            elif now - self.began > seconds:
                control.should_training_stop = True
            self.ended = now
            return control

    clock = Clock()
    inner = trainer.training_step

    def counted(model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        labels = inputs["attention_mask"] if "attention_mask" in inputs else inputs["weights"] > 0
        real = int(labels.sum())
        out = inner(model, inputs, *rest, **more)
        clock.real += real
        return out

    trainer.training_step = counted
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    called = clock_now()
    with quiet():
        trainer.train()
    return Speed(clock.real, clock.ended - clock.began, clock.ready)


def clock_now() -> float:
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def on_gpu(small: bool, seconds: float) -> None:
    """Random Llama shapes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peak = matmul_rate(device, 256 if small else 8192)
    print(
        f"{torch.cuda.get_device_name(0) if device == 'cuda' else 'CPU'}: {peak / 1e12:.2f} TFLOP/s in bf16"
    )
    for name in ("tiny",) if small else ("1.2 B", "8 B"):
        with TemporaryDirectory() as at:
            one_shape(name, Path(at), device, peak, 64 if small else 8192, seconds)


def one_shape(name: str, at: Path, device: str, peak: float, n: int, seconds: float) -> None:
    """The three ways on one random Llama."""
    base = random_llama(at / "base", SHAPES[name], device)
    n_weights = sum(path.stat().st_size for path in base.glob("*.safetensors")) // 2
    items = lognormal_items(n, SHAPES[name]["vocab"])
    settings = LoraSettings(epochs=1, first_layer=0, batch_size=64 if n > 512 else 8)
    ways: dict[str, Callable[[Path], Any]] = {
        "ours": lambda to: our_trainer(job_at(to, base, settings), None, items),
        "TRL's defaults": lambda to: trl_trainer(to, base, (), items),
        "padded Trainer": lambda to: padded_trainer(to, base, (), items),
    }
    found: dict[str, Speed] = {}
    for way, make in ways.items():
        try:
            speed = found[way] = timed(make(at / way), seconds)
        except torch.OutOfMemoryError:
            print(f"  {name} {way:16} out of memory", flush=True)
        else:
            share = 4 * n_weights * speed.rate / peak
            print(
                f"  {name} {way:16} {speed.rate:8.0f} real tokens/s, {share:.3f} of the rate, "
                f"first step after {speed.ready:.0f} s",
                flush=True,
            )
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    times = [
        f"{found['ours'].rate / speed.rate:.2f} x {way}" for way, speed in found.items() if way != "ours"
    ]
    print(f"  {name} ours: {', '.join(times)} (to hold: 5.5 x TRL's defaults, 0.55 of the rate)", flush=True)


def matmul_rate(device: str, n: int) -> float:
    """bf16 FLOP/s of one large matrix product, the best of three."""
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    best = math.inf
    for _ in range(4):
        began = time.perf_counter()
        for _ in range(5):
            a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 5 * 2 * n**3 / best


def random_llama(folder: Path, shape: dict[str, int], device: str) -> Path:
    """A Llama of this shape as transformers stores it, in bf16, with the embedded LM's tokenizer (never asked)."""
    import shutil

    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape["vocab"], hidden_size=shape["hidden"], intermediate_size=shape["inner"],
        num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"], num_key_value_heads=shape["kv"],
        max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, pad_token_id=2,
        tie_word_embeddings=shape["layers"] <= 16,
    )  # fmt: skip
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    for path in weights_folder().glob("*"):
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, folder)
    return folder


def lognormal_items(n: int, vocab: int) -> list[Item]:
    """Conversations of random tokens of which a third is the agent's."""
    draw = random.Random(0)
    items = []
    for _ in range(n):
        length = max(16, min(LONGEST, round(draw.lognormvariate(math.log(MEDIAN), SIGMA))))
        ids = draw.choices(range(3, vocab), k=length)
        asked = length - length // 3
        items.append(Item(ids, [IGNORED] * asked + ids[asked:], 1.0))
    return items


if __name__ == "__main__":
    main()
