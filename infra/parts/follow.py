"""What a process knows of its parts, kept new: a background thread asks MLflow, whoever reads waits a second at most.

Decision: the agent's code never waits for MLflow longer than `WAIT_S`, and not at all while MLflow is known not to
answer. MLflow's own client gives up on a dead server only after 247 s, by limits that hold for the whole process; so
it is used in a daemon thread, and only once the server has answered a plain request. One look is under way at a time;
one that hangs for `STUCK_S` is left to itself. The first reader in a process also waits, once, for MLflow to be
imported and a local database to be opened, which takes seconds.
"""

import logging
import os
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ratchet.agent.errors import RatchetError, said
from ratchet.infra.parts.serving import Asked, Known
from ratchet.infra.settings import Settings

WAIT_S: Final = 1.0
STUCK_S: Final = 30.0
_OPENING_S: Final = 60.0
_SOON_S: Final = 0.3
_QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Unless the user says otherwise: importing MLflow or LiteLLM asks no host that nobody configured."""
logger = logging.getLogger(__name__)


class Follower:
    """What MLflow says of the parts that this process asks for, at most a TTL old while MLflow answers."""

    def __init__(self) -> None:
        self._known = Known()
        self._asked: set[Asked] = set()
        self._fresh_until = 0.0
        self._waits = True
        """Whether the last look came back soon, with an answer or a refusal: else nobody waits for the next."""
        self._told = False
        """Whether the log says that MLflow does not answer."""
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._look: _UnderWay | None = None

    def known(self, *asked: Asked) -> Known:
        """What is known of these parts now, after a look at MLflow where it is due."""
        if self._pid != os.getpid():  # forked: threads stay behind, and a lock may have been held
            self._begin_anew()
        with self._lock:
            new = not self._asked.issuperset(asked)
            self._asked.update(asked)
            if not asked or (not new and time.monotonic() < self._fresh_until):
                return self._known
            look, waits = self._under_way(), self._waits
        if waits and not look.wait():
            self._waits = False
        return self._known

    def _under_way(self) -> "_UnderWay":
        """The look that is under way, begun now if none is; the lock is held."""
        if self._look is None or time.monotonic() - self._look.began > STUCK_S:
            self._look = look = _UnderWay()
            threading.Thread(target=self._run, args=(look,), name="ratchet-parts", daemon=True).start()
        return self._look

    def _run(self, look: "_UnderWay") -> None:
        covered: set[Asked] = set()
        try:
            while True:
                with self._lock:
                    if self._look is not look:
                        return
                    if covered and covered >= self._asked:
                        self._told = False
                        self._end(look, soon=True)
                        return
                    covered = set(self._asked)
                found = _ask(look, covered, self._known)
                with self._lock:
                    if self._look is look:
                        self._known = found
        except Exception as error:  # noqa: BLE001  whatever MLflow does, the agent has its last values
            if not self._told:
                logger.warning("parts keep their last known values, else their defaults: %s", said(error))
            self._told = True
            kept = self._known if self._known.serving else _kept()
            with self._lock:
                if self._look is look:
                    self._known = kept
                    self._end(look, soon=time.monotonic() - look.asked < _SOON_S)
        finally:
            look.over.set()

    def _end(self, look: "_UnderWay", *, soon: bool) -> None:
        self._waits, self._look = soon, None
        self._fresh_until = time.monotonic() + look.ttl_s


class _UnderWay:
    """A look at MLflow that has begun."""

    def __init__(self) -> None:
        self.began = self.asked = time.monotonic()
        self.ttl_s = 15.0
        self.opening, self.opened, self.over = threading.Event(), threading.Event(), threading.Event()

    def wait(self) -> bool:
        """Until it is over, or a second; MLflow's import and opening come on top. Returns whether it is over."""
        if self.over.wait(WAIT_S) or not self.opening.is_set():
            return self.over.is_set()
        self.opened.wait(_OPENING_S)
        return self.over.wait(WAIT_S)


def _kept() -> Known:
    """What this machine knew of its parts before; the settings may be what is wrong."""
    try:
        from ratchet.infra.parts.kept import read_kept

        return read_kept(Settings())
    except RatchetError:  # the look failed by the same, and said so
        return Known()


def _ask(look: _UnderWay, asked: Collection[Asked], known: Known) -> Known:
    settings = Settings()
    look.asked, look.ttl_s = time.monotonic(), settings.parts_ttl_s
    require_answer(settings.tracking_uri)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if "ratchet.infra.parts.look" not in sys.modules:
        look.opening.set()
    try:
        from ratchet.infra.parts.kept import keep
        from ratchet.infra.parts.look import look_at_mlflow, open_store

        open_store(settings.tracking_uri)
    finally:
        look.opened.set()
    found = look_at_mlflow(settings, asked, known)
    keep(settings, found)
    return found


def require_answer(uri: str) -> None:
    """Do nothing if the server answers a plain request within a second, or the database's file is there.

    Raises:
        OSError: it does not.
    """
    if uri.startswith("sqlite"):
        path = Path(uri.partition("///")[2])
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: set MLFLOW_TRACKING_URI to the project's MLflow")
    if not uri.startswith(("http://", "https://")):
        return
    parts = urlsplit(uri)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}/health")
    unverified = ssl.create_default_context()  # nothing secret is sent; MLflow's client verifies
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        urllib.request.urlopen(plain.geturl(), timeout=WAIT_S, context=unverified).close()
    except urllib.error.HTTPError as refused:  # whatever its page says, it answers
        refused.close()
