"""What worked, step by step: which steps of which trajectories are worth remembering, and what came of showing them.

Decision: a step is kept only if the trajectory that it stands in won, by the environment's outcome or a person's
verdict, never by an unaudited judge's. Credit counts how often a run that was shown an exemplar then succeeded.
Source: Sarukkai et al., Self-Generated In-Context Examples (2025).
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, model_serializer
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from ratchet.agent.case import Case
from ratchet.agent.environment import Action
from ratchet.agent.record import Json, Record, as_text
from ratchet.agent.trace import Trace

WON = 1.0
"""Outcome from which on a trajectory counts as won."""


class Experience(Record):
    """One step that led to success."""

    observation: str
    action: str
    options: tuple[str, ...] = ()
    trace_id: str
    case_id: str
    source: Literal["own", "human"]
    """`own`: the agent did this and succeeded; `human`: a person corrected it to this, or approved it."""
    goal: str = ""
    """What the whole trajectory was for."""
    thought: str = ""
    """What the actor reasoned before it acted."""
    arguments: dict[str, Json] | None = None
    result: str = ""
    """What came of the action."""
    role: str = ""
    """Which member of a team acted; empty = there is only one."""
    attempt: int = Field(default=0, ge=0)
    index: int | None = Field(default=None, ge=0)
    """Place among the steps of its attempt; None = a decision on its own, without neighbours."""
    recorded_at: datetime | None = None
    session_id: str | None = None
    """Conversation of the run, by which the split into training and gate goes; a snapshot leaves it out."""
    imported_from: str = ""
    """The agent whose log it stood in; empty = one of ours did it."""
    supersedes: tuple[str, ...] = ()
    """Traces whose answer to the same request this one replaced: a person said so later."""
    shown: int = Field(default=0, ge=0)
    """Scored runs that were shown this as an example."""
    led_to_success: int = Field(default=0, ge=0)
    """Those of them that won."""

    @property
    def said(self) -> str:
        """What was answered, as text: what a message says, or the action's name."""
        return as_text(Action(name=self.action, arguments=self.arguments).said)

    @property
    def asked(self) -> str:
        """What its case asked, as far as the step knows."""
        return self.goal or self.observation

    @property
    def trajectory(self) -> str:
        """Which steps stand next to each other."""
        return f"{self.trace_id}/{self.attempt}"

    @property
    def credit(self) -> float:
        """Share of the runs shown this that won, in (0, 1), drawn towards one half where there were few."""
        return (self.led_to_success + 1) / (self.shown + 2)

    @model_serializer(mode="wrap")
    def _brief(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields of trajectories only where they say something: a decision on its own hashes as it always did."""
        fields: dict[str, Any] = handler(self)
        return {
            name: value
            for name, value in fields.items()
            if name not in _OF_TRAJECTORIES or getattr(self, name) != _OF_TRAJECTORIES[name]
        }


_OF_TRAJECTORIES: dict[str, Any] = {
    name: field.default
    for name, field in Experience.model_fields.items()
    if name not in ("observation", "action", "options", "trace_id", "case_id", "source")
}


class Recalled(Record):
    """An experience with how similar it is to what is at hand, in [0, 1], and what stood around it."""

    experience: Experience
    similarity: float
    before: tuple[Experience, ...] = ()
    """The steps before it in its trajectory, oldest first, as far as the window reaches."""
    after: tuple[Experience, ...] = ()


def goal_of(case: Case) -> str:
    """The case's `goal`, `task`, `request` or `question`, whichever its inputs have first; else nothing."""
    texts = (case.inputs.get(name) for name in ("goal", "request", "question", "message", "text"))
    return next((text for text in texts if isinstance(text, str)), "")


def winning_steps(trace: Trace, *, person: float | None = None) -> list[Experience]:
    """The steps of the trace's last attempt if it won, else none.

    Args:
        trace: a run; one that broke has won nothing.
        person: a person's verdict on it, which outranks the environment's; a judge's must not be passed.
    """
    if trace.error is not None or not trace.attempts:
        return []
    outcome = trace.score if person is None else person
    if outcome is None or outcome < WON:
        return []
    place = len(trace.attempts) - 1
    return [
        Experience(
            observation=step.observation,
            action=step.action.name,
            trace_id=trace.trace_id,
            case_id=trace.case.case_id,
            source="own" if person is None else "human",
            goal=goal_of(trace.case),
            thought=step.thought or "",
            arguments=step.action.arguments,
            result=step.result or "",
            role="" if step.actor == "agent" else step.actor,
            attempt=place,
            index=index,
            recorded_at=trace.started_at,
            session_id=trace.session_id,
            imported_from=trace.candidate_id if trace.is_imported else "",
        )
        for index, step in enumerate(trace.attempts[-1].steps)
    ]


class Credit(Record):
    """How often a trace's steps were shown to a run that was then scored, and how often that run won."""

    shown: int = Field(default=0, ge=0)
    led_to_success: int = Field(default=0, ge=0)

    @property
    def led_to_failure(self) -> int:
        """How often a run that was shown it lost."""
        return self.shown - self.led_to_success


def tally(traces: Iterable[Trace], verdicts: Mapping[str, float] = MappingProxyType({})) -> dict[str, Credit]:
    """Credit by the id of the recalled trace, from `Attempt.recalled`; attempts without a score say nothing.

    Args:
        traces: runs of any outcome.
        verdicts: people's scores in [0, 1] by trace id, which outrank the environment's of the last attempt.
    """
    counts: dict[str, list[int]] = {}
    for trace in traces:
        for attempt in trace.attempts:
            last = attempt is trace.attempts[-1]
            score = verdicts.get(trace.trace_id, attempt.outcome.score) if last else attempt.outcome.score
            if score is None:
                continue
            for recalled in dict.fromkeys(attempt.recalled):
                count = counts.setdefault(recalled, [0, 0])
                count[0] += 1
                count[1] += score >= WON
    return {name: Credit(shown=shown, led_to_success=won) for name, (shown, won) in counts.items()}


def credited(experiences: Iterable[Experience], credit: Mapping[str, Credit]) -> list[Experience]:
    """The experiences with this credit on top of what they had."""
    none = Credit()
    return [
        e.model_copy(
            update={
                "shown": e.shown + credit.get(e.trace_id, none).shown,
                "led_to_success": e.led_to_success + credit.get(e.trace_id, none).led_to_success,
            }
        )
        for e in experiences
    ]
