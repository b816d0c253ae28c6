"""Weights: a LoRA adapter from what was right, by four losses, on any causal LM that transformers loads.

Decision: the method says what is learned from. `options` ranks the embedded LM's options, as it always did; `sft`
writes what won or what people corrected; `dpo` prefers what people picked side by side, `kto` what they approved.
Which way, the candidate is the parent with another adapter, and the gate judges it like any other.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Literal

from pydantic import Field

from ratchet.agent.candidate import Candidate
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.lm.adapter_files import check_adapter
from ratchet.agent.lm.adapter_name import with_adapter
from ratchet.agent.lm.adapters import TRUNK
from ratchet.agent.lm.embedded import Embedded
from ratchet.agent.lm.of_candidate import lm_type
from ratchet.agent.optimize.budget import Budget
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import learned_options, newest_first, usable
from ratchet.agent.optimize.groups import hold_out
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.team import role_by_role
from ratchet.agent.optimize.vote_weights import MIN_TUNING, tune
from ratchet.agent.optimize.weights.configuration import LoraSettings
from ratchet.agent.optimize.weights.conversations import (
    conversations,
    decisions,
    judged,
    pairs_of,
    teller,
)
from ratchet.agent.optimize.weights.distributed import n_processes, train_distributed
from ratchet.agent.optimize.weights.options import train
from ratchet.agent.optimize.weights.preferences import train_preferences
from ratchet.agent.optimize.weights.sft import train_sft
from ratchet.agent.optimize.work import Work, built_in_only

Method = Literal["options", "sft", "dpo", "kto"]
UNITS: Final = {"sft": "conversations", "dpo": "pairs", "kto": "thumbs"}
SOURCES: Final = {
    "sft": "what people approved or corrected and runs that won",
    "dpo": "answers that people picked side by side",
    "kto": "people's thumbs up and down",
}


class Lora(LoraSettings):
    """Train an adapter on what was right; with `options`, actions that people named anew become options."""

    name: str = "lora"
    base: str | None = None
    """The model that is trained: a folder, a name on the hub, or None for the embedded LM. Of an agent behind an
    endpoint it is the model that the endpoint serves, and has to be named."""
    method: Method = "options"
    """`options` (embedded LM only), `sft`, `dpo` (side-by-side picks) or `kto` (thumbs)."""
    model_part: str | None = None
    """Of an agent in Python the `ratchet.model` part by which its code asks that model: it becomes the adapter's."""
    max_examples: int = Field(default=2000, ge=1)
    """Budget: of more examples the newest are taken, since traffic drifts."""
    tune_share: float = Field(default=0.15, ge=0, le=0.5)
    """Share of the examples that is not trained on with `options`: the weights beside the LM are tuned on it."""
    budget: Budget = Budget()
    """What it may spend; a run's own (`[budget]` of `ratchet.toml`) holds beside it."""

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The parent with a fresh adapter; its prompts and memory stay. A team's roles in turn, each with its own."""
        if self.method != "options":
            return self._from_conversations(parent, evidence, work)
        built_in_only(parent.candidate)
        if lm_type(parent.candidate.base_model) is not Embedded:
            raise NothingToPropose(
                f"it trains the embedded LM, and the agent runs on {parent.candidate.base_model}: give Lora a "
                'base and method="sft"'
            )
        if parent.candidate.topology.roles:
            return role_by_role(self, parent, evidence, work)
        return self._from_options(parent, evidence, work)

    def _from_options(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal:
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
            tuned = tune(work.program(draft, {**files, "adapter": adapter}), held)
            draft = draft.model_copy(update={"topology": tuned.topology})
        return Proposal(
            candidate=draft,
            files={"adapter": adapter},
            note=f"LoRA on {len(known)} cases, loss {losses[0]:.2f} → {losses[-1]:.2f} nats"
            + "".join(f"; learned to answer {name}" for name in extra if name not in {o.name for o in before})
            + ".",
            parameters={"n_examples": len(known), "loss": [round(x, 4) for x in losses]},
            cost={"lm_calls": float(len(known) * self.epochs)},
        )

    def _from_conversations(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal:
        """One adapter for the whole agent, on the base that is named."""
        if parent.candidate.topology.roles:
            raise NothingToPropose(
                f'method "{self.method}" trains one agent, and this is a team: use "options"'
            )
        if parent.candidate.kind == "callable" and self.model_part is None:
            raise NothingToPropose(
                "the agent's own code asks its LM: give Lora the model_part by which it does, so that it asks the "
                "adapter"
            )
        base, settings = self._base(parent.candidate)
        draft = parent.candidate.model_copy(update={"adapter": None})
        folder = work.folder / "adapters"
        rows = self._rows(draft, parent, evidence, work)
        with work.progress(f"{self.name}: training", len(rows) * self.epochs) as done:
            train_one: Any = train_sft if self.method == "sft" else train_preferences
            if n_processes(settings) > 1:
                train_one = partial(train_distributed, self.method)
            digest, losses = train_one(
                base, rows, folder, settings, seed=work.seed, progress=done, meter=work.meter
            )
        manifest = check_adapter(folder / digest)
        assert manifest is not None, "it was written with one"
        return Proposal(
            candidate=with_adapter(draft, digest, model_part=self.model_part),
            files={"adapter": folder / digest},
            note=f"LoRA by {self.method} on {len(rows)} {UNITS[self.method]}, loss {losses[0]:.2f} → "
            f"{losses[-1]:.2f}.",
            parameters={
                "n_examples": len(rows),
                "loss": [round(x, 4) for x in losses],
                "base_hash": manifest.base_hash,
                "conversations_digest": manifest.data_digest,
                "steps": manifest.parameters["steps"],
            },
        )

    def _base(self, candidate: Candidate) -> tuple[str, LoraSettings]:
        """What is trained, and how: of the LM in this process the layers below the shared trunk stay.

        Raises:
            NothingToPropose: the agent's LM is elsewhere and no base was named, or another one than the agent's.
        """
        mine = candidate.base_model
        if not lm_type(mine).is_trainable:
            if self.base is None:
                raise NothingToPropose(
                    f"the agent runs on {mine}, whose weights are not here: give Lora a base, the folder or hub name "
                    "of the model that is served"
                )
            return self.base, self
        if self.base not in (None, mine):
            raise NothingToPropose(
                f"the agent runs on {mine}, and an adapter for {self.base} would not fit: leave base out"
            )
        if lm_type(mine) is not Embedded:
            return mine, self
        first = TRUNK if self.first_layer is None else max(TRUNK, self.first_layer)
        return mine, self.model_copy(update={"first_layer": first})

    def _rows(self, draft: Candidate, parent: Registered, evidence: Evidence, work: Work) -> list[Any]:
        """What the method learns from, the newest within the budget.

        Raises:
            NothingToPropose: there is nothing.
        """
        program = None
        if draft.kind == "built-in":
            files = {label: path for label, path in parent.files.items() if label != "adapter"}
            program = work.program(draft, files)
        tell = teller(draft, program, evidence.examples if program else ())
        if self.method == "dpo":
            rows: list[Any] = pairs_of(tell, evidence.preferences[-self.max_examples :])
        elif self.method == "kto":
            rows = judged(tell, evidence.thumbs[-self.max_examples :])
        elif program is not None:
            known = newest_first(usable(evidence.examples, draft.extra_options))[: self.max_examples]
            rows = list(decisions(program, known))
        else:
            newest = newest_first(evidence.examples)[: self.max_examples]
            rows = list(conversations(draft, newest, evidence.rollouts))[: self.max_examples]
        if not rows:
            raise NothingToPropose(
                f"{self.method} learns from {SOURCES[self.method]}, and there are none yet"
            )
        return rows

    def held_out(self, examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
        """A random share to tune on, in whole groups, and the rest; within the budget, the newest first.

        The share is at least what tuning needs, where that leaves three times as many to train on.
        """
        newest = newest_first(examples)[: self.max_examples]
        n_held = int(len(newest) * self.tune_share)
        if self.tune_share and len(newest) >= 4 * MIN_TUNING:
            n_held = max(n_held, MIN_TUNING)
        return hold_out(newest, n_held, seed)
