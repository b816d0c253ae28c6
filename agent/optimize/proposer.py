"""What every proposer takes and gives.

A proposer never promotes: it hands over a frozen candidate with everything that the gate must know about how it
was made, above all which cases it saw.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from ratchet.agent.candidate import Candidate
from ratchet.agent.environment import Option
from ratchet.agent.errors import LMFailure
from ratchet.agent.kinds.program import Decision, Program, View
from ratchet.agent.lm.endpoint import side_by_side
from ratchet.agent.memory.steps import Experience
from ratchet.agent.record import Record


class Example(Record):
    """One view, the action that is right for it, and how far that is to be trusted."""

    view: View
    answer: str
    weight: float = Field(default=1.0, ge=0)
    trace_id: str
    seen_at: datetime | None = None
    """When the case came: a budget that cannot hold all examples prefers the newest."""
    source: str = "human"
    """`human`, or `own` for what the agent did with success."""

    @property
    def is_offered(self) -> bool:
        """Whether the environment offered the right action."""
        return any(option.name == self.answer for option in self.view.observation.options)


class Proposal(Record):
    """A candidate and how it was made."""

    candidate: Candidate
    files: dict[str, Path] = Field(default_factory=dict)
    """`adapter`: folder, `memory`: JSONL file."""
    seen_case_ids: tuple[str, ...]
    """Every case that shaped the candidate, those of its ancestors included."""
    cost: dict[str, float] = Field(default_factory=dict)
    """What making it took, by unit: seconds, lm_calls, input_tokens."""


def learned_options(examples: Sequence[Example]) -> tuple[Option, ...]:
    """Actions that people named three times or more although no environment offered them, such as to abstain."""
    counts: dict[str, int] = {}
    for example in examples:
        if not example.is_offered:
            counts[example.answer] = counts.get(example.answer, 0) + 1
    return tuple(
        Option(name=name, description="None of the options above does what is asked.")
        for name, count in sorted(counts.items())
        if count >= 3
    )


def usable(examples: Sequence[Example], extra: Sequence[Option]) -> list[Example]:
    """Examples whose answer the agent can give."""
    names = {option.name for option in extra}
    return [e for e in examples if e.is_offered or e.answer in names]


def share_right(program: Program, examples: Sequence[Example]) -> tuple[float, list[Decision]]:
    """Weighted share of right choices in [0, 1], and the decisions; an LM's garbage is a wrong choice."""
    decisions = decide_each(program, [example.view for example in examples])
    right = sum(
        e.weight
        for e, d in zip(examples, decisions, strict=True)
        if d is not None and d.action.name == e.answer
    )
    weight = sum(example.weight for example in examples)
    return right / weight if weight else 0.0, [d for d in decisions if d is not None]


def decide_each(program: Program, views: Sequence[View]) -> list[Decision | None]:
    """One decision per view, in order; None where the LM's answer could not be used."""

    def act(view: View) -> Decision | None:
        try:
            return program.act(view)
        except LMFailure:  # the agent's failure, and as such counted
            return None

    return side_by_side(act, views, at_once=program.lm.at_once)


def newest_first(examples: Sequence[Example]) -> list[Example]:
    """The examples by time, newest first, those without a time last; whatever order they came in."""
    begin = datetime.min.replace(tzinfo=UTC)
    return sorted(examples, key=lambda e: (e.seen_at or begin, e.view.case_id), reverse=True)


def as_experience(example: Example) -> Experience:
    """The example as a memory entry."""
    return Experience(
        observation=example.view.observation.text,
        action=example.answer,
        options=tuple(option.name for option in example.view.observation.options),
        trace_id=example.trace_id,
        case_id=example.view.case_id,
        source="human" if example.source == "human" else "own",
    )
