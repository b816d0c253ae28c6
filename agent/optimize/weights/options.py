"""Weights: a LoRA adapter that learns to rank the right option first, from the agent's own traces.

The loss is the cross-entropy over the case's options (not over the vocabulary), with what stands beside the LM
at run time (similarity, the memory's vote) already added: the weights learn what those leave over. Only the
layers above the shared trunk are trained, so a case's trunk activations are computed once for all epochs.
Source: Hu et al., LoRA (2021); listwise softmax loss: Cao et al., ListNet (2007), top-one probability.
"""

import random
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.program import Program
from ratchet.agent.lm.adapters import TRUNK
from ratchet.agent.lm.lm import Prompt, Training
from ratchet.agent.lm.side_by_side import longest_first
from ratchet.agent.optimize.evidence import Example
from ratchet.agent.optimize.weights.configuration import LoraSettings
from ratchet.agent.record import folder_hash

if TYPE_CHECKING:
    import torch


def train(
    program: Program,
    examples: Sequence[Example],
    folder: Path,
    settings: LoraSettings,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[str, list[float]]:
    """Train an adapter for `program`'s prompts and save it below `folder`.

    Args:
        program: the agent without adapter; its prompts and priors are what the adapter is trained under.
        examples: [n]; those whose answer is not among the options are refused.
        folder: where `<hash>/` with safetensors and configuration is written.
        settings: rank, epochs, …
        seed: of the first weights and of the order of examples.
        progress: called with the number of examples done since the last call (n × epochs in all).

    Returns:
        The adapter's content hash, and the mean loss (nats) of each epoch.

    Raises:
        BadInput: no examples, an answer that is not among its options, or a layer that is not trained.
    """
    import torch
    from peft import LoraConfig

    if not examples:
        raise BadInput("LoRA needs at least 1 example, got 0: label some traces first")
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        layers_to_transform=list(range(_first(settings), 30)),
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
    prepared = [_prepare(program, example) for example in examples]
    losses = []
    with program.lm.training(config, seed=seed) as training:
        optimizer = torch.optim.AdamW(training.parameters, lr=settings.learning_rate)
        # the warm-up ends on a whole step: OneCycleLR divides by its length minus one
        steps = max(settings.epochs * -(-len(prepared) // settings.batch_size), 3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=steps, pct_start=max(0.1, 2 / steps)
        )
        order = list(range(len(prepared)))
        shuffle = random.Random(seed)
        for _ in range(settings.epochs):
            shuffle.shuffle(order)
            total = 0.0
            for start in range(0, len(order), settings.batch_size):
                batch = [prepared[i] for i in order[start : start + settings.batch_size]]
                total += _update(training, batch, optimizer)
                schedule.step()
                progress(len(batch))
            losses.append(total / len(prepared))
        return _save(training, folder), losses


def _first(settings: LoraSettings) -> int:
    first = TRUNK if settings.first_layer is None else settings.first_layer
    if not TRUNK <= first <= 29:
        raise BadInput(
            f'first_layer is {first}: with method "options" the embedded LM\'s layers {TRUNK} to 29 are trained, '
            "those below are shared"
        )
    return first


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


def _update(training: Training, batch: Sequence[Prepared], optimizer: "torch.optim.Optimizer") -> float:
    """One optimizer step over a batch, each case by itself, summed in order; returns the summed loss."""
    import torch

    def one(prepared: Prepared) -> tuple[float, Sequence[torch.Tensor]]:
        prompt, prior, answer, weight = prepared
        score = training.log_probs(prompt) + prior
        loss = weight * torch.nn.functional.cross_entropy(score[None], torch.tensor([answer]))
        return float(loss.detach()), torch.autograd.grad(loss / len(batch), training.parameters)

    made = longest_first(partial(training.each, one), batch, lambda prepared: len(prepared.prompt.text))
    losses, gradients = zip(*made, strict=True)
    for parameter, *parts in zip(training.parameters, *gradients, strict=True):
        parameter.grad = torch.stack(parts).sum(dim=0)
    optimizer.step()
    return float(sum(losses))


def _save(training: Training, folder: Path) -> str:
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
    training.save(partial)
    digest = folder_hash(partial)
    if not (target := folder / digest).exists():
        partial.replace(target)
    else:
        shutil.rmtree(partial)
    return digest
