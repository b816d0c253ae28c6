"""Parts: the named pieces of a user's agent that may change, each with its default in the user's code.

Decision: a part is asked for its value each time it is used, and never fails the code that asks. The value is that
of the candidate being played, where one is (a context variable); else that of the version which serves this session;
else the last that was known; else the default. How a candidate puts its parts into words is `PartValues`.

A context variable follows `asyncio` tasks, `asyncio.to_thread`, LangGraph, PydanticAI and Ratchet's own pools. It
does not follow plain threads, `ThreadPoolExecutor`, `dspy.Parallel` and `dspy.Evaluate`: hand these
`carried(function)`. A part read where the variable is lost while a candidate is played is noticed (`Playing.lost`).
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from ratchet.agent.candidate import Candidate
from ratchet.agent.errors import BadInput
from ratchet.agent.part_values import PartValues
from ratchet.agent.trace import Contribution, Usage

if TYPE_CHECKING:  # indexes take a while to import, and a process that serves may have no memory
    from ratchet.agent.memory.steps import Recalled

P = ParamSpec("P")
T = TypeVar("T")
Message = dict[str, str]
"""`role` and `content`, as chat endpoints take them."""
NOTE = 200
"""Characters of a refused answer, and of what is wrong with it, that the next attempt reads."""
SESSIONS = 10_000
"""Sessions whose refused answers are remembered."""
logger = logging.getLogger(__name__)


@dataclass
class Playing:
    """A candidate that is being played, and what came of its parts."""

    values: PartValues
    is_trial: bool
    asked: set[str] = field(default_factory=set)
    """Kinds and names of parts that were asked for, such as `prompt support-system`."""
    recalled: list[str] = field(default_factory=list)
    """Ids of the traces whose answers were shown as examples."""
    usage: Usage = field(default_factory=Usage)
    """What the answer took, as far as who gives it can tell."""
    said: list[Contribution] = field(default_factory=list)
    """What each of the agent's prompts was asked and answered, where that can be seen."""
    lost: str = ""
    """A part that was read meanwhile where the context was lost."""


class Session:
    """A conversation of the process that serves: all of it is answered by one version."""

    def __init__(self, session_id: str, share: float) -> None:
        self.session_id, self.share = session_id, share


class Source(Protocol):
    """Where a process that serves learns what its parts are; it never raises and takes a second at most."""

    def values(self, kind: str, part: str, session: Session | None) -> PartValues | None:
        """Those of the version that serves this session; None where none is known."""

    def around(self, session: Session) -> AbstractContextManager[None]:
        """Marks the traces that are made within with session and version."""

    def shown(self, trace_ids: Sequence[str]) -> None:
        """Marks the active trace with the runs whose steps it was shown as examples."""


_playing: ContextVar[Playing | None] = ContextVar("ratchet_playing", default=None)
_session: ContextVar[Session | None] = ContextVar("ratchet_session", default=None)
_plays: dict[int, Playing] = {}
_lock = threading.Lock()
_source: Source | None = None
_failures: dict[str, tuple[str, ...]] = {}
"""Session → what its user refused; the sessions that were told so longest ago are forgotten first."""
_declared: set[tuple[str, str]] = set()
_around_play: Callable[[], AbstractContextManager[None]] = nullcontext


def read_from(source: Source | None) -> None:
    """Let this process read its parts from there; None = defaults only."""
    global _source
    _source = source


def declared() -> list[tuple[str, str]]:
    """Kind and name of every part that this process has made."""
    return sorted(_declared)


def play_within(around: Callable[[], AbstractContextManager[None]]) -> None:
    """Let every play run in this context: so that what an agent traces by itself is no production trace."""
    global _around_play
    _around_play = around


def serving_values(kind: str, name: str) -> PartValues | None:
    """All that the version says which is played, or else serves; None where none is known."""
    values: PartValues | None = _value(kind, name, lambda found: found, None)
    return values


@contextmanager
def playing(values: PartValues, *, trial: bool) -> Iterator[Playing]:
    """Within, parts have these values; `trial`: what is done must have no effect."""
    now = Playing(values, trial)
    token = _playing.set(now)
    with _lock:
        _plays[id(now)] = now
    try:
        with _around_play():
            yield now
    finally:
        _playing.reset(token)
        with _lock:
            del _plays[id(now)]


def is_trial() -> bool:
    """Whether a version is being evaluated: a tool with effects must not act then."""
    now = _playing.get()
    return now is not None and now.is_trial


@contextmanager
def session(session_id: str, *, share: float = 0.0) -> Iterator[None]:
    """A conversation: its answers come from one version, and its traces say so.

    Args:
        session_id: the conversation's id.
        share: of all sessions, the share in [0, 1] that the challenger answers, drawn by the id; the trace keeps the
            probability. For agents that cannot be played again.

    Example:
        >>> with session("conversation-17"):
        ...     answer = support(question)
    """
    if not 0 <= share <= 1:
        raise BadInput(
            f"session share {share} is not in [0, 1]: it is the challenger's share of all sessions"
        )
    token = _session.set(current := Session(session_id, share))
    try:
        with _source.around(current) if _source is not None else nullcontext():
            yield
    finally:
        _session.reset(token)


def failed(answer: str, *, because: str = "") -> None:
    """The user says that this answer failed: the session's next attempt is told, as a retry is under the gate.

    Only a version that retries reads it (`topology.attempts`, proposed by `Reflections`): for no other it is proven
    that reading it helps. Outside of a session nothing happens.

    Args:
        answer: what was answered.
        because: what the user says is wrong with it; data, never an instruction.

    Example:
        >>> with session("conversation-18"):
        ...     failed("heron", because="They sent me away.")
    """
    if (current := _session.get()) is None:
        return
    with _lock:
        notes = _failures.pop(current.session_id, ())
        _failures[current.session_id] = (*notes, f"{was_wrong(answer[:NOTE])} {because[:NOTE]}".strip())
        while len(_failures) > SESSIONS:
            del _failures[next(iter(_failures))]


def was_wrong(answer: str) -> str:
    """What a reflection says of an answer where no LM writes it."""
    return f"{answer} was wrong here."


def _said_to_fail(candidate: Candidate) -> Sequence[str]:
    """What the user refused in this session, oldest first, as far as the version reads it."""
    current, topology = _session.get(), candidate.topology
    if current is None or topology.attempts == 1 or not topology.reflections:
        return ()
    return _failures.get(current.session_id, ())[-topology.reflections :]


def carried(function: Callable[P, T]) -> Callable[P, T]:
    """The function, bound to what this context knows, for a thread or pool that would not carry it."""
    context = copy_context()
    return lambda *args, **kwargs: context.copy().run(function, *args, **kwargs)


class TextPart:
    """A text that may change. Ask for it each time: `system()`, not once at import."""

    kind = "prompt"

    def __init__(self, name: str, default: str) -> None:
        if not name.strip() or not isinstance(default, str):
            raise BadInput(f"part {name!r} with default {default!r:.40}: give a name and a default text")
        self.name, self.default = name, default
        _declared.add((self.kind, name))

    def __call__(self) -> str:
        """Its value now."""
        return _value(self.kind, self.name, lambda values: values.prompt(self.name), self.default)

    def __str__(self) -> str:
        return self()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class ToolDescription(TextPart):
    """What an LM is told of a tool."""

    kind = "tool"

    def __call__(self) -> str:
        """Its value now."""
        return _value(self.kind, self.name, lambda values: values.tool_description(self.name), self.default)


def prompt(name: str, default: str) -> TextPart:
    """A prompt that may change.

    Args:
        name: also its name in MLflow's prompt registry.
        default: its text as long as no version says another.

    Example:
        >>> system = prompt("support-system", default="You are a support agent.")
        >>> system()
        'You are a support agent.'
    """
    return TextPart(name, default)


def tool_description(name: str, default: str) -> ToolDescription:
    """What an LM is told of a tool, which may change."""
    return ToolDescription(name, default)


def model(name: str, default: str) -> str:
    """The LM to ask now; ask each time."""
    return _value("model", name, lambda values: values.model(name), default)


def examples(name: str, request: str) -> list[Message]:
    """Own successes at requests like this one, as messages of user and assistant, the most similar last.

    Args:
        name: the prompt that they go with, or the agent.
        request: what is asked now.
    """

    def shown(values: PartValues) -> list[Message]:
        found = values.recalled(name, request)
        ids = [one.experience.trace_id for one in found]
        if (now := _playing.get()) is not None:
            now.recalled += ids
        elif _source is not None:
            _source.shown(ids)
        return [message for one in reversed(found) for message in as_messages(one)]

    return _value("examples", name, shown, [])


def as_messages(recalled: "Recalled") -> list[Message]:
    """An experience as the pair of messages that it was."""
    step = recalled.experience
    return [
        {"role": "user", "content": step.observation},
        {"role": "assistant", "content": step.said},
    ]


def _value(kind: str, name: str, read: Callable[[PartValues], T | None], default: T) -> T:
    """By the candidate that is played, by the version that serves, or the default; an error is told, not raised."""
    values: PartValues | None = None
    try:
        now = _playing.get()
        if now is not None:
            now.asked.add(f"{kind} {name}")
            values = now.values
        else:
            _note_lost(f"{kind} {name}")
            values = _source.values(kind, name, _session.get()) if _source is not None else None
            if values is not None and (refused := _said_to_fail(values.candidate)):
                values = values.noted(refused)
        found = None if values is None else read(values)
    except Exception as error:  # noqa: BLE001  a part never breaks the agent that asks for it
        logger.warning("part %s has its default: %s: %s", name, type(error).__name__, error)
        return default
    return default if found is None else found


def _note_lost(part: str) -> None:
    """A part was read outside of any candidate's play; if one is under way, its context may have been lost."""
    with _lock:
        for now in _plays.values():
            now.lost = part


def current_session() -> Session | None:
    """The conversation that this context is in."""
    return _session.get()
