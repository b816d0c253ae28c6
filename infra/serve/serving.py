"""Which versions answer now: one mapping, replaced whole, so that a request keeps the version that it began with."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ratchet.infra.registry.alias_names import CANARY, CHAMPION
from ratchet.infra.serve.http import Refused

PREFIX: Final = "ratchet/"


@dataclass(frozen=True)
class Deployed:
    """One version, built and ready to answer."""

    number: int
    agent: Any
    candidate_id: str
    memory_id: str | None


class Serving:
    """The versions of one project that answer."""

    def __init__(self, project: str, *, canary_share: float = 0.0) -> None:
        """Nothing is loaded yet.

        Args:
            project: as in `ratchet/<project>`.
            canary_share: of all sessions, the share in [0, 1] that the canary answers where there is one.
        """
        self.project, self._canary_share = project, canary_share
        self._by_alias: Mapping[str, Deployed] = {}

    @property
    def by_alias(self) -> Mapping[str, Deployed]:
        """What answers now."""
        return self._by_alias

    @property
    def is_ready(self) -> bool:
        """Whether there is a champion."""
        return CHAMPION in self._by_alias

    def switch(self, by_alias: Mapping[str, Deployed]) -> None:
        """From the next request on these answer; those under way keep what they have."""
        self._by_alias = dict(by_alias)

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
        if CANARY in now and self._canary_share and session_id:
            return now[CANARY if share_of(session_id) < self._canary_share else CHAMPION]
        return now[CHAMPION]

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


def share_of(session_id: str) -> float:
    """A number in [0, 1) that is the session's own: the same in every process."""
    return int.from_bytes(hashlib.sha256(session_id.encode()).digest()[:6]) / 2**48
