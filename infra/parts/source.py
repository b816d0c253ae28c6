"""Where a process that serves learns what its parts are: the version that MLflow's alias points to, by session.

Decision: a conversation is answered by one version, and its traces name that one. A session stays with the version
that it began with as long as that one serves or served just before; one that was rolled back or withdrawn loses its
sessions at once, but for an answer that is under way. Outside a session, a trace stays with the version that its
first part was read from.

`share`: the arm is drawn by the hash of project and session, so that every process draws the same. Where there is no
challenger the champion answers for certain, and the trace says so: propensity 1.
"""

import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from ratchet.agent.part_values import PartValues
from ratchet.agent.parts import Session, declared, read_from
from ratchet.agent.trace import RECALLED
from ratchet.infra.parts.draw import place_of
from ratchet.infra.parts.follow import Follower
from ratchet.infra.parts.serving import Asked, ServedVersion, Serving
from ratchet.infra.registry.alias_names import CHALLENGER, CHAMPION

_KEPT: Final = 10_000
"""Sessions, and traces, whose version is remembered."""
_RECALLED: Final = 200
"""Examples that a trace names at most: MLflow's tag holds 8,000 characters."""
KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")
_installed = False
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assigned:
    """Which version answers, and how it came to."""

    version: ServedVersion
    arm: str
    propensity: float
    """Probability of this arm for a session that began then."""
    drawn: bool
    """Whether it belongs to a session with a share."""

    def tags(self) -> dict[str, str]:
        """As they stand on a trace."""
        tags = {"candidate_id": self.version.candidate_id, "mlflow.linkedPrompts": self.version.linked}
        if self.drawn:
            tags |= {"ratchet.arm": self.arm, "ratchet.propensity": f"{self.propensity:g}"}
        return tags


class ServedParts:
    """The `Source` of a process that serves. Safe for use from several threads."""

    def __init__(self) -> None:
        self._follower = Follower()
        self._lock = threading.Lock()
        self._sessions: OrderedDict[tuple[str, str], Assigned] = OrderedDict()
        self._traces: OrderedDict[tuple[str, str], Assigned] = OrderedDict()
        self._shown: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._blocks: WeakKeyDictionary[Session, dict[str, Assigned]] = WeakKeyDictionary()

    def values(self, kind: str, part: str, session: Session | None) -> PartValues | None:
        """Those of the version that serves this session, which the active trace then names."""
        asked = Asked(kind, part)
        serving = self._follower.known(asked).of(asked)
        if serving is None:
            return None
        trace_id = _active_trace()
        key = serving.project, f"{trace_id} {session.session_id if session else ''}"
        with self._lock:
            before = self._traces.get(key)
            assigned = before or (self._of_block(serving, session) if session else _champion(serving))
            if assigned is not None and trace_id and before is None:
                _keep(self._traces, key, assigned)
                _mark_trace(assigned)
        return None if assigned is None else assigned.version.values

    def shown(self, trace_ids: Sequence[str]) -> None:
        """The active trace names them, and those of earlier calls within it: what came of them is counted by that."""
        if not trace_ids or not (trace_id := _active_trace()):
            return
        with self._lock:
            known = (*self._shown.get(trace_id, ()), *trace_ids)
            _keep(self._shown, trace_id, tuple(dict.fromkeys(known))[:_RECALLED])
            told = ",".join(self._shown[trace_id])
        _tag_trace({RECALLED: told}, "which examples it was shown")

    @contextmanager
    def around(self, session: Session) -> Iterator[None]:
        """Traces that are made within carry the session's id and version."""
        asked = [Asked(kind, name) for kind, name in declared()]
        known = self._follower.known(*asked)
        serving = {one.project: one for part in asked if (one := known.of(part)) is not None}
        with self._lock:
            assigned = [self._of_block(one, session) for one in serving.values()]
        if "mlflow" not in sys.modules:
            yield
            return
        from mlflow.tracing import context

        tags = assigned[0].tags() if len(assigned) == 1 and assigned[0] is not None else None
        with context(tags=tags, session_id=session.session_id):
            yield

    def _of_block(self, serving: Serving, session: Session) -> Assigned | None:
        """What answers from the beginning of the `with` to its end, as its traces say; the lock is held."""
        block = self._blocks.setdefault(session, {})
        if serving.project not in block and (assigned := self._of_session(serving, session)) is not None:
            block[serving.project] = assigned
        return block.get(serving.project)

    def _of_session(self, serving: Serving, session: Session) -> Assigned | None:
        """What the session began with, if that still counts, else what it begins with now; the lock is held."""
        key = serving.project, session.session_id
        before = self._sessions.get(key)
        if before is not None and before.version.number in serving.aliases.values():
            self._sessions.move_to_end(key)
            return before
        assigned = draw(serving, session)
        if assigned is not None:
            _keep(self._sessions, key, assigned)
        return assigned


def draw(serving: Serving, session: Session) -> Assigned | None:
    """The version for a session that begins now."""
    champion, challenger = serving.at(CHAMPION), serving.at(CHALLENGER)
    drawn = session.share > 0
    if champion is None or not drawn or challenger is None or challenger is champion:
        return None if champion is None else Assigned(champion, CHAMPION, 1.0, drawn)
    if place_of(serving.project, session.session_id) < session.share:
        return Assigned(challenger, CHALLENGER, session.share, drawn)
    return Assigned(champion, CHAMPION, 1 - session.share, drawn)


def _champion(serving: Serving) -> Assigned | None:
    champion = serving.at(CHAMPION)
    return None if champion is None else Assigned(champion, CHAMPION, 1.0, drawn=False)


def _keep(kept: "OrderedDict[KeyT, ValueT]", key: KeyT, value: ValueT) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _KEPT:
        kept.popitem(last=False)


def _active_trace() -> str:
    """Id of the trace that this code runs in; empty where there is none, or MLflow is not in use."""
    if "mlflow.tracking" not in sys.modules:
        return ""
    import mlflow

    return mlflow.get_active_trace_id() or ""


def _mark_trace(assigned: Assigned) -> None:
    _tag_trace(assigned.tags(), f"that {assigned.version.candidate_id} answers")


def _tag_trace(tags: dict[str, str], what: str) -> None:
    import mlflow

    try:
        mlflow.update_current_trace(tags=tags)
    except Exception:
        logger.warning("the trace does not say %s", what, exc_info=True)


def install() -> None:
    """Let this process read its parts from MLflow, once; nothing is asked before a part is."""
    global _installed
    if not _installed:
        _installed = True
        read_from(ServedParts())
