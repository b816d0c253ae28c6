"""Weights: a LoRA adapter that learns to rank the right option first, from the agent's own traces.

The loss is the cross-entropy over the case's options (not over the vocabulary), with what stands beside the LM
at run time (similarity, the memory's vote) already added: the weights learn what those leave over. Only the
layers above the shared trunk are trained, so a case's trunk activations are computed once for all epochs.
Source: Hu et al., LoRA (2021); listwise softmax loss: Cao et al., ListNet (2007), top-one probability.
"""

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from ratchet.agent.errors import BadInput, NothingToPropose
from ratchet.agent.kinds.program import Program
from ratchet.agent.lm.adapters import TRUNK
from ratchet.agent.lm.lm import Prompt, Training
from ratchet.agent.lm.of_candidate import lm_type
from ratchet.agent.optimize.budget import Budget
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import learned_options, newest_first, usable
from ratchet.agent.optimize.proposer import Proposal, Registered, Work, built_in_only
from ratchet.agent.optimize.team import role_by_role
from ratchet.agent.optimize.vote_weights import MIN_TUNING, tune
from ratchet.agent.record import Record, folder_hash

if TYPE_CHECKING:
    import torch


class Lora(Record):
    """Train the embedded LM's upper layers on what was right; actions that people named anew become options."""

    name: str = "lora"
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
    budget: Budget = Budget()
    """What it may spend; a run's own (`[budget]` of `ratchet.toml`) holds beside it."""

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The parent with a fresh adapter; its prompts and memory stay. A team's roles in turn, each with its own."""
        built_in_only(parent.candidate)
        if not lm_type(parent.candidate.base_model).is_trainable:
            raise NothingToPropose(
                f"it trains the embedded LM, and the agent runs on {parent.candidate.base_model}"
            )
        if parent.candidate.topology.roles:
            return role_by_role(self, parent, evidence, work)
        before = parent.candidate.extra_options
        extra = {option.name: option for option in (*before, *learned_options(evidence.examples))}
        draft = parent.candidate.model_copy(update={"extra_options": tuple(extra.values()), "adapter": None})
        held, known = self.held_out(usable(evidence.examples, draft.extra_options), work.seed)
        if not known:
            raise NothingToPropose(
                f"none of {len(evidence.examples)} examples has an answer that the agent can give"
            )
        files = {label: path for label, path in parent.files.items() if label != "adapter"}
        with work.progress(f"{self.name}: training", len(known) * self.epochs) as done:
            digest, losses = train(
                work.program(draft, files),
                known,
                work.folder / "adapters",
                self,
                seed=work.seed,
                progress=done,
            )
        adapter = work.folder / "adapters" / digest
        draft = draft.model_copy(update={"adapter": digest})
        if len(held) >= MIN_TUNING:
            topology, _ = tune(work.program(draft, {**files, "adapter": adapter}), held)
            draft = draft.model_copy(update={"topology": topology})
        return Proposal(
            candidate=draft,
            files={"adapter": adapter},
            note=f"LoRA on {len(known)} cases, loss {losses[0]:.2f} → {losses[-1]:.2f} nats"
            + "".join(f"; learned to answer {name}" for name in extra if name not in {o.name for o in before})
            + ".",
            parameters={"n_examples": len(known), "loss": [round(x, 4) for x in losses]},
            cost={"lm_calls": float(len(known) * self.epochs)},
        )

    def held_out(self, examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
        """A random share to tune on, and the rest to train on; within the budget, the newest first."""
        ordered = newest_first(examples)[: self.max_examples]
        random.Random(seed).shuffle(ordered)
        n_held = int(len(ordered) * self.tune_share)
        return ordered[:n_held], ordered[n_held:]


def train(
    program: Program,
    examples: Sequence[Example],
    folder: Path,
    settings: Lora,
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
        BadInput: no examples, or an answer that is not among its options.
    """
    import torch
    from peft import LoraConfig

    if not examples:
        raise BadInput("LoRA needs at least 1 example, got 0: label some traces first")
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        layers_to_transform=list(range(settings.first_layer, 30)),
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
    """One optimizer step over a batch, one case at a time; returns the summed loss."""
    import torch

    optimizer.zero_grad()
    total = 0.0
    for prompt, prior, answer, weight in batch:
        score = training.log_probs(prompt) + prior
        loss = weight * torch.nn.functional.cross_entropy(score[None], torch.tensor([answer]))
        (loss / len(batch)).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    optimizer.step()
    return total


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
