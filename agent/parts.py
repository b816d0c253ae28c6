"""Parts: the named pieces of a user's agent that may change, each with its default in the user's code.

Decision: a part is asked for its value each time it is used, and never fails the code that asks. The value is that
of the candidate being played, where one is (a context variable); else that of the version which serves this session;
else the last that was known; else the default. What a candidate says of its parts is put into words in one place,
`PartValues`: what the gate plays, what a process reads and what MLflow shows is one text.

A context variable follows `asyncio` tasks, `asyncio.to_thread`, LangGraph, PydanticAI and Ratchet's own pools. It
does not follow plain threads, `ThreadPoolExecutor`, `dspy.Parallel` and `dspy.Evaluate`: hand these
`carried(function)`. A part read where the variable is lost while a candidate is played is noticed (`Playing.lost`).
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from ratchet.agent.candidate import Candidate, Demo, Predictor, share_label
from ratchet.agent.errors import BadInput
from ratchet.agent.trace import Contribution, Usage

if TYPE_CHECKING:  # indexes take a while to import, and a process that serves may have no memory
    from ratchet.agent.memory.ranking import Embed
    from ratchet.agent.memory.snapshot import Memory
    from ratchet.agent.memory.steps import Recalled

P = ParamSpec("P")
T = TypeVar("T")
Message = dict[str, str]
"""`role` and `content`, as chat endpoints take them."""
NOTE = 200
"""Characters of a refused answer, and of what is wrong with it, that the next attempt reads."""
SESSIONS = 10_000
"""Sessions whose refused answers are remembered."""
WHOLE = ""
"""Name of the experience that all prompts of an agent share."""
logger = logging.getLogger(__name__)


def prompt_text(predictor: Predictor) -> str:
    """Instructions and worked examples as one text: as an LM, a person and MLflow's registry read it."""
    demos = [
        f"### Example {n}\n{demo.inputs}\n→ {demo.output}" for n, demo in enumerate(predictor.demos, start=1)
    ]
    return "\n\n".join(part for part in (predictor.instructions, *demos) if part)


class PartValues:
    """What one candidate says of its parts."""

    def __init__(
        self,
        candidate: Candidate,
        memories: "Mapping[str, Memory] | None" = None,
        *,
        exclude_case: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        """Get ready to be asked.

        Args:
            candidate: the version.
            memories: its experience by prompt; `WHOLE` is what all prompts share.
            exclude_case: id of the case at hand, whose own answer is not recalled.
            notes: what was concluded from failed attempts at this case, oldest first.
        """
        self.candidate, self.memories, self.notes = candidate, memories or {}, notes
        self._exclude = exclude_case

    def prompt(self, name: str, *, in_words: Callable[[Demo], bool] = lambda _: True) -> str | None:
        """The prompt's text; None where the candidate knows no such prompt.

        Args:
            name: the prompt.
            in_words: which of its examples the text tells; a module shows the others in its own form.
        """
        predictor = self.candidate.predictors.get(name)
        if predictor is None:
            return None
        told = predictor.model_copy(update={"demos": tuple(d for d in predictor.demos if in_words(d))})
        return with_notes(prompt_text(told), self.notes or _said_to_fail(self.candidate))

    def tool_description(self, name: str) -> str | None:
        """What is said of the tool."""
        said = self.candidate.tools.get(name)
        return said if isinstance(said, str) or said is None else said.description

    def model(self, name: str) -> str | None:
        """The LM to ask."""
        return self.candidate.models.get(name)

    def recalled(self, name: str, request: str) -> "list[Recalled]":
        """Own successes at requests like this one, most similar first; of the prompt's own share, if it has one."""
        memory = self.memories.get(name) or self.memories.get(WHOLE)
        if memory is None or not self.candidate.topology.recalls:
            return []
        from ratchet.agent.memory.ranking import Query

        query = Query(observation=request, exclude_case=self._exclude)
        return memory.recall(query, k=self.candidate.topology.recalls)


def load_memories(
    candidate: Candidate, files: Mapping[str, Path], embeddings: "Callable[[str], Embed | None]"
) -> "dict[str, Memory]":
    """A candidate's experience by prompt, and by `WHOLE` what all of its prompts share.

    Raises:
        BadInput: a file that the candidate names is not among `files`.
        CorruptRecord: as `Memory.load` does.
    """
    named = {name: share_label(name) for name in candidate.memories}
    named |= {WHOLE: "memory"} if candidate.memory else {}
    if missing := [label for label in named.values() if label not in files]:
        raise BadInput(
            f"candidate {candidate.candidate_id} names {missing[0]} and none was given: "
            "pass the file that was registered with it"
        )
    if not named:
        return {}
    from ratchet.agent.memory.snapshot import Memory

    return {name: Memory.load(files[label], embeddings=embeddings) for name, label in named.items()}


def with_notes(text: str, notes: Sequence[str]) -> str:
    """A prompt with what earlier attempts at the same case taught, as data on lines of their own."""
    if not notes:
        return text
    listed = "\n".join(f"- {' '.join(note.split())}" for note in notes)
    return f"{text}\n\nNotes from earlier attempts at this request:\n{listed}"


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
    if current is None or topology.attempts == 1 or not topology.reflections or _playing.get() is not None:
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
        if (now := _playing.get()) is not None:
            now.recalled += [one.experience.trace_id for one in found]
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
