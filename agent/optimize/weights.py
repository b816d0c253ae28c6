"""Weights: a LoRA adapter that learns to rank the right option first, from the agent's own traces.

The loss is the cross-entropy over the case's options (not over the vocabulary), with what stands beside the LM
at run time (similarity, the memory's vote) already added: the weights learn what those leave over. Only the
layers above the shared trunk are trained, so a case's trunk activations are computed once for all epochs.
Source: Hu et al., LoRA (2021); listwise softmax loss: Cao et al., ListNet (2007), top-one probability.
"""

import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from ratchet.agent.candidate import Candidate, Origin
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.program import Program
from ratchet.agent.lm.embedded import TRUNK, EmbeddedLM, Prompt
from ratchet.agent.lm.lm import embedded_lm, lm_type
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.optimize.proposer import Example, Proposal, learned_options, newest_first, usable
from ratchet.agent.optimize.vote_weights import tune
from ratchet.agent.record import Record, folder_hash

if TYPE_CHECKING:
    import torch

MIN_TUNING = 10
"""Fewer held-out examples than this cannot tell weights apart: those of the parent stay."""


class LoraSettings(Record):
    """What training may vary."""

    rank: int = Field(default=16, ge=1, le=256)
    epochs: int = Field(default=2, ge=1, le=50)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    batch_size: int = Field(default=8, ge=1, le=512)
    first_layer: int = Field(default=TRUNK, ge=TRUNK, le=29)
    """Layers from this one to the last get adapters."""
    max_examples: int = Field(default=2000, ge=1)
    """Budget: of more examples the newest are taken, since traffic drifts."""
    tune_share: float = Field(default=0.15, ge=0, le=0.5)
    """Share of the examples that is not trained on: the weights beside the LM are tuned on it afterwards."""
    seed: int = 0


def train(
    program: Program,
    examples: Sequence[Example],
    folder: Path,
    settings: LoraSettings,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[str, list[float]]:
    """Train an adapter for `program`'s prompts and save it below `folder`.

    Args:
        program: the agent without adapter; its prompts and priors are what the adapter is trained under.
        examples: [n]; those whose answer is not among the options are refused.
        folder: where `<hash>/` with safetensors and configuration is written.
        settings: rank, epochs, …
        progress: called with the number of examples done since the last call (n × epochs in all).

    Returns:
        The adapter's content hash, and the mean loss (nats) of each epoch.

    Raises:
        BadInput: no examples, or an answer that is not among its options.
    """
    if not program.lm.is_trainable:
        raise BadInput(
            f"LoRA trains the embedded LM, not {program.lm.model!r}: leave `lora` out of the project's proposers"
        )
    if not examples:
        raise BadInput("LoRA needs at least 1 example, got 0: label some traces first")
    import torch
    from peft import LoraConfig

    lm = embedded_lm()
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        layers_to_transform=list(range(settings.first_layer, 30)),
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
    prepared = [_prepare(program, example) for example in examples]
    losses = []
    with lm.training(config) as parameters:
        optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate)
        # the warm-up ends on a whole step: OneCycleLR divides by its length minus one
        steps = max(settings.epochs * -(-len(prepared) // settings.batch_size), 3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=steps, pct_start=max(0.1, 2 / steps)
        )
        order = list(range(len(prepared)))
        shuffle = random.Random(settings.seed)
        for _ in range(settings.epochs):
            shuffle.shuffle(order)
            total = 0.0
            for start in range(0, len(order), settings.batch_size):
                batch = [prepared[i] for i in order[start : start + settings.batch_size]]
                total += _update(lm, batch, optimizer)
                schedule.step()
                progress(len(batch))
            losses.append(total / len(prepared))
        return _save(folder), losses


def _held_out(examples: list[Example], settings: LoraSettings) -> tuple[list[Example], list[Example]]:
    """A random share to tune on, and the rest to train on; within the budget, the newest first."""
    ordered = newest_first(examples)[: settings.max_examples]
    random.Random(settings.seed).shuffle(ordered)
    n_held = int(len(ordered) * settings.tune_share)
    return ordered[:n_held], ordered[n_held:]


class Prepared(NamedTuple):
    """An example as training needs it."""

    prompt: Prompt
    prior: "torch.Tensor"
    """Nats added to the LM's log-probabilities, [n_options]."""
    answer: int
    weight: float


def _prepare(program: Program, example: Example) -> Prepared:
    import torch

    prompt, observation, recalled = program.prompt(example.view)
    names = [option.name for option in observation.options]
    if example.answer not in names:
        raise BadInput(
            f"case {example.view.case_id}: answer {example.answer!r} is not among {names}: "
            "drop the example or add the option to the candidate"
        )
    prior = torch.tensor(program.prior(observation, recalled, example.view.goal), dtype=torch.float32)
    return Prepared(prompt, prior, names.index(example.answer), example.weight)


def _update(lm: EmbeddedLM, batch: Sequence[Prepared], optimizer: "torch.optim.Optimizer") -> float:
    """One optimizer step over a batch, one case at a time; returns the summed loss."""
    import torch

    optimizer.zero_grad()
    total = 0.0
    for prompt, prior, answer, weight in batch:
        packed = lm.pack(prompt)
        score = lm.upper(lm.trunk(prompt, packed), packed) + prior
        loss = weight * torch.nn.functional.cross_entropy(score[None], torch.tensor([answer]))
        (loss / len(batch)).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    optimizer.step()
    return total


def _save(folder: Path) -> str:
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
    embedded_lm().save_adapter(partial)
    digest = folder_hash(partial)
    if not (target := folder / digest).exists():
        partial.replace(target)
    else:
        shutil.rmtree(partial)
    return digest


def propose_lora(
    parent: Candidate,
    examples: Sequence[Example],
    folder: Path,
    settings: LoraSettings,
    *,
    memory: Path | None = None,
    seen: Sequence[str] = (),
    data_digest: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Proposal:
    """The parent with a freshly trained adapter; actions that people named anew become options of its own.

    Args:
        parent: what is changed; its prompts, memory and weights beside the LM stay.
        examples: what worked, and what people said would have.
        folder: where adapters are written.
        settings: rank, epochs, …
        memory: the parent's snapshot.
        seen: cases that shaped the parent.
        data_digest: digest of the dataset that the examples come from.
        progress: called with the number of examples done since the last call (n × epochs in all).
    """
    if not lm_type(parent.base_model).is_trainable:
        raise BadInput(
            f"LoRA trains the embedded LM; the agent runs on {parent.base_model!r}: leave `lora` out of the proposers"
        )
    began = time.perf_counter()
    extra = {option.name: option for option in (*parent.extra_options, *learned_options(examples))}
    draft = parent.model_copy(
        update={"extra_options": tuple(extra.values()), "adapter": None, "parent": parent.candidate_id}
    )
    known = usable(examples, draft.extra_options)
    held, known = _held_out(known, settings)
    snapshot = Memory.load(memory) if memory else None
    digest, losses = train(Program(draft, memory=snapshot), known, folder, settings, progress=progress)
    draft = draft.model_copy(update={"adapter": digest})
    if len(held) >= MIN_TUNING:
        topology, _ = tune(Program(draft, memory=snapshot, adapter=folder / digest), held)
        draft = draft.model_copy(update={"topology": topology})
    learned = [name for name in extra if name not in {option.name for option in parent.extra_options}]
    candidate = draft.model_copy(
        update={
            "origin": Origin(
                proposer="lora",
                parameters={
                    **settings.model_dump(),
                    "n_examples": len(known),
                    "loss": [round(x, 4) for x in losses],
                },
                data_digest=data_digest,
                note=f"LoRA on {len(known)} cases, loss {losses[0]:.2f} → {losses[-1]:.2f} nats"
                + "".join(f"; learned to answer {name}" for name in learned)
                + ".",
            ),
        }
    )
    return Proposal(
        candidate=candidate,
        files={"adapter": folder / digest} | ({"memory": memory} if memory else {}),
        seen_case_ids=tuple(sorted({*seen, *(e.view.case_id for e in examples)})),
        cost={"seconds": time.perf_counter() - began, "lm_calls": float(len(known) * settings.epochs)},
    )
