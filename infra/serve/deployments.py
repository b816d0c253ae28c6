"""Which versions answer now: one mapping, replaced whole, so that a request keeps the version that it began with.

Decision: a conversation is answered by one version. A session stays with the one that it began with as long as any
alias names that one, `previous` too, as in a process that reads its parts; one that was rolled back loses its
sessions at once. It is remembered in this process alone.
"""

import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ratchet.infra.parts.draw import place_of
from ratchet.infra.registry.alias_names import CANARY, CHAMPION
from ratchet.infra.serve.http import Refused

PREFIX: Final = "ratchet/"
SESSIONS: Final = 10_000
"""Whose version is remembered; the most silent is forgotten first."""
SILENCE_S: Final = 1800.0
"""After so long a session, or a user, begins anew, with who is champion then."""


@dataclass(frozen=True)
class Deployed:
    """One version, built and ready to answer."""

    number: int
    agent: Any
    candidate_id: str
    memory_id: str | None


class Deployments:
    """The versions of one project that answer; for use on one event loop."""

    def __init__(self, project: str, *, canary_share: float = 0.0) -> None:
        """Nothing is loaded yet.

        Args:
            project: as in `ratchet/<project>`.
            canary_share: of all sessions, the share in [0, 1] that the canary answers where there is one.
        """
        self.project, self._canary_share = project, canary_share
        self._by_alias: Mapping[str, Deployed] = {}
        self._pointed: frozenset[int] = frozenset()
        self._sessions: OrderedDict[str, tuple[Deployed, float]] = OrderedDict()

    @property
    def by_alias(self) -> Mapping[str, Deployed]:
        """What answers now."""
        return self._by_alias

    @property
    def is_ready(self) -> bool:
        """Whether there is a champion."""
        return CHAMPION in self._by_alias

    def switch(self, by_alias: Mapping[str, Deployed], pointed: Collection[int]) -> None:
        """From the next request on these answer; those under way keep what they have.

        Args:
            by_alias: what answers.
            pointed: numbers of the versions that any alias names, `previous` too: their sessions stay with them.
        """
        self._by_alias, self._pointed = dict(by_alias), frozenset(pointed)
        for session_id, (deployed, _) in list(self._sessions.items()):
            if deployed.number not in self._pointed:
                del self._sessions[session_id]  # with it goes the last that holds its memory

    def pick(self, model: Any, session_id: str | None) -> Deployed:
        """The version that answers this request.

        Raises:
            Refused: no such model or version (404), or nothing is loaded yet (503).
        """
        now = self._by_alias
        name, at, version = (model if isinstance(model, str) else "").partition("@")
        if name != f"{PREFIX}{self.project}":
            raise self._unknown(model)
        if at:
            return self._named(now, model, version)
        if CHAMPION not in now:
            raise Refused(503, "not_ready", f"{self.project} has no version loaded yet: see /readyz")
        return now[CHAMPION] if session_id is None else self._of_session(now, session_id)

    def _of_session(self, now: Mapping[str, Deployed], session_id: str) -> Deployed:
        """The one that it began with, unless that was withdrawn or the session has long been silent."""
        clock = time.monotonic()
        deployed, last = self._sessions.pop(session_id, (None, 0.0))
        if deployed is None or clock - last > SILENCE_S:
            is_canary = CANARY in now and place_of(self.project, session_id) < self._canary_share
            deployed = now[CANARY if is_canary else CHAMPION]
        self._sessions[session_id] = (deployed, clock)
        if len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return deployed

    def _named(self, now: Mapping[str, Deployed], model: Any, version: str) -> Deployed:
        for alias, deployed in now.items():
            if version in (alias, deployed.candidate_id, str(deployed.number), f"v{deployed.number}"):
                return deployed
        raise self._unknown(model)

    def _unknown(self, model: Any) -> Refused:
        there = ", ".join(self.models())
        return Refused(404, "model_not_found", f"model {model!r:.100} is not served here; there is {there}")

    def models(self) -> list[str]:
        """What may be asked for."""
        name = f"{PREFIX}{self.project}"
        return [name, *dict.fromkeys(f"{name}@{one.candidate_id}" for one in self._by_alias.values())]
