"""Prompts as something that improves: one proposer, and the optimizer that fits the kind of agent.

Decision: which optimizer changes which kind of agent is a table; each has a module with one function `search`,
imported when it is used, since DSPy and GEPA take seconds to import. Who writes instructions is not who reads them:
a strong LM (`RATCHET_REFLECTION_LM`) may write for a small one that serves.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final, Literal

from pydantic import Field

from ratchet.agent.candidate import Candidate, Kind
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.optimize.budget import Budget
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.team import role_by_role
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import Json, Record

Optimizer = Literal["auto", "few-shot", "gepa", "miprov2", "simba", "bootstrap"]
Search = Callable[["Prompts", Registered, Evidence, Work], Proposal | None]
HOMES: Final[Mapping[str, Mapping[Kind, str]]] = {
    "few-shot": {"built-in": "few_shot"},
    "gepa": {
        "built-in": "instructions",
        "callable": "instructions",
        "chat": "instructions",
        "module": "dspy_optimizers",
    },
    "miprov2": {"module": "dspy_optimizers"},
    "simba": {"module": "dspy_optimizers"},
    "bootstrap": {"module": "dspy_optimizers"},
}
"""Optimizer → kind of agent → the module beside this one whose `search` changes it."""
CHOICE_INSTRUCTIONS: Final = (
    "Read the request, then name the one option whose purpose is to do exactly that.",
    "Which option does what the request asks for?",
)


class Prompts(Record):
    """Write better instructions, or show worked examples, whatever kind of agent it is.

    Example:
        >>> Prompts(optimizer="gepa", budget=Budget(calls=200), max_chars=2000).optimizer
        'gepa'
    """

    name: str = "prompts"
    optimizer: Optimizer = "auto"
    """`gepa`: an LM writes instructions and tool descriptions by what went wrong; `few-shot`: demos and listed
    instructions for the built-in agent; `miprov2`, `simba`, `bootstrap`: DSPy's, for a `dspy.Module`. `auto`: `gepa`
    where an LM can write, which the embedded one cannot; else `few-shot`."""
    budget: Budget = Budget(calls=300)
    """Hard stops; cases played and texts written are calls."""
    validation: int = Field(default=16, ge=1)
    """Training cases on which every prompt is scored, and from which no prompt learns."""
    lead: float = Field(default=0.1, ge=0, le=1)
    """Smallest lead in mean score over the parent's prompt on these; with less nothing is proposed, because a test
    of what luck found costs the project error budget and labels."""
    max_chars: int = Field(default=4000, ge=100, le=100_000)
    """Characters that one part may have: it is paid at every call. `gepa` alone."""
    batch: int = Field(default=12, ge=1, le=50)
    """Cases from which a text is written. `gepa` alone; with its own 3 it finds 5 of twelve rules in 100 calls, with
    12 it finds 8 (`tests/bench/bench_rules.py`)."""
    demos: int = Field(default=2, ge=1, le=8)
    """Worked examples in the prompt. `few-shot` alone, as what follows."""
    programs: int = Field(default=2, ge=1, le=20)
    """Sets of random demos to try, for each instruction."""
    instructions: tuple[str, ...] = CHOICE_INSTRUCTIONS
    parameters: dict[str, Json] = Field(default_factory=dict)
    """Of a `dspy.Module`: the optimizer's own parameters as DSPy names them, such as `num_candidates`."""

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The parent with the prompt that led on cases that it was not made from."""
        chosen = self._optimizer(parent.candidate, work)
        homes = HOMES[chosen]
        if (kind := parent.candidate.kind) not in homes:
            raise NothingToPropose(
                f"optimizer {chosen!r} changes {' and '.join(homes) or 'no'} agents, and this one is a {kind}: "
                "leave optimizer out, or name another"
            )
        if chosen == "few-shot" and parent.candidate.topology.roles:
            return role_by_role(self, parent, evidence, work)
        search: Search = import_module(f"ratchet.agent.optimize.prompts.{homes[kind]}").search
        found = search(self.model_copy(update={"optimizer": chosen}), parent, evidence, work)
        if found is not None and self.optimizer == "auto" and chosen == "few-shot":
            said = (
                "no instructions were written, for want of an LM that can: set RATCHET_REFLECTION_LM to one"
            )
            found = found.model_copy(update={"note": f"{found.note}; {said}"})
        return found

    def _optimizer(self, candidate: Candidate, work: Work) -> str:
        if self.optimizer != "auto":
            return self.optimizer
        return "few-shot" if candidate.kind == "built-in" and work.writer(candidate) is None else "gepa"
