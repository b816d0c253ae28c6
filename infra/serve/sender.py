"""The process beside the one that answers: it alone speaks with MLflow, so that no answer ever waits for MLflow.

`python -m ratchet.infra.serve.sender`, started by `ratchet.infra.serve.beside`. It sends what the journals hold,
batch by batch, and looks at the aliases; what it finds it says on stdout, a JSON object a line (`Report`). When its
stdin closes, the process that answered has ended: it sends what is left, as long as `LAST_S` allows, and ends.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ratchet.agent.errors import BadInput, RatchetError, ServiceUnavailable, named
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.labels import Label
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry.alias_moves import current_aliases
from ratchet.infra.registry.alias_names import CANARY, CHALLENGER, CHAMPION
from ratchet.infra.registry.first_champion import serve_first
from ratchet.infra.registry.probes import read_probes
from ratchet.infra.registry.registry import fetch_files
from ratchet.infra.registry.version import numbered, read_version
from ratchet.infra.serve.backlog import Backlog, left_behind, own
from ratchet.infra.serve.exchange import EXCHANGE, as_trace
from ratchet.infra.serve.report import Report, SenderArguments, Served, read_last, write_last
from ratchet.infra.traces.spool import spool_lines
from ratchet.infra.traces.write import attach_label, send_labels, send_traces

LINES: Final = 200
LAST_S: Final = 20.0
"""How long it goes on sending after the process that answered has ended; the rest waits for the next start."""
ALIASES: Final = (CHAMPION, CANARY, CHALLENGER)
NICE: Final = 5
"""It gives way to the process that answers."""
EVERY_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0


class AliasWatch:
    """Looks at the aliases, and tells when another version is to answer."""

    def __init__(self, given: SenderArguments, tell: Callable[[Report], None]) -> None:
        self._given, self._tell = given, tell
        self._told: dict[str, int] | None = None
        self._connection: Connection | None = None

    def run(self) -> None:
        """As long as the process lives."""
        while True:
            self._look()
            threading.Event().wait(self._given.poll_s)

    def _look(self) -> None:
        try:
            with mlflow_errors("reading who serves"):
                connection = self._connection or connect(self._given.project)
                pointed = current_aliases(connection)
                self._connection = connection
                if CHAMPION not in pointed and not self._told:
                    pointed[CHAMPION] = serve_first(self._given.project, self._given.first).number
                if pointed == self._told:
                    return
                served = {a: self._served(connection, n) for a, n in pointed.items() if a in ALIASES}
                report = Report(served=served, pointed=tuple(pointed.values()))
        except RatchetError as error:
            self._not_seen(error)
            return
        self._told = pointed
        write_last(self._given.folder, report)
        self._tell(report)

    def _served(self, connection: Connection, number: int) -> Served:
        found = numbered(connection, number)
        version, probes = read_version(connection, found), read_probes(connection, found)
        files = fetch_files(self._given.project, version.candidate_id)
        return Served(number=number, candidate=version.candidate, files=files, probes=probes)

    def _not_seen(self, error: RatchetError) -> None:
        """What was served last goes on; at a start, what was served before it."""
        self._tell(Report(warning=str(error)))
        if self._told is None and (last := read_last(self._given.folder)) is not None:
            self._told = {}
            self._tell(last)


class Sender:
    """Sends the journals' lines to MLflow, in order."""

    def __init__(self, given: SenderArguments, stop: threading.Event, tell: Callable[[Report], None]) -> None:
        self._given, self._stop, self._tell = given, stop, tell
        self._left = 0

    def run(self) -> None:
        """Until told to stop, and then until all is sent."""
        mine = own(self._given.journal)
        pause = EVERY_S
        while True:
            is_last = self._stop.is_set()
            try:
                self._send_all(mine)
                pause = EVERY_S
            except ServiceUnavailable as error:
                pause = min(2 * pause, LONGEST_PAUSE_S)
                self._tell(Report(warning=str(error)))
            else:
                if is_last:
                    mine.finish_if_left()
                    return
            (threading.Event() if is_last else self._stop).wait(pause)

    def _send_all(self, mine: Backlog) -> None:
        for batch in mine.batches(LINES):
            self._send(batch)
            self._tell(Report(sent=mine.n_sent + len(batch)))
        for backlog in left_behind(self._given.journal.parent, self._given.journal):
            try:
                for batch in backlog.batches(LINES):
                    self._send(batch)
            except ServiceUnavailable:
                backlog.release()
                raise
            backlog.finish()

    def _send(self, lines: list[bytes]) -> None:
        """Traces first: a label may speak of one in the same batch."""
        traces: dict[str, Trace] = {}
        labels: list[Label] = []
        for line in lines:
            try:
                found = _read(line)
            except Exception as error:  # noqa: BLE001  what is odd about one line must not keep the others
                self._set_aside(line, error)
                continue
            if isinstance(found, Trace):
                traces.setdefault(found.trace_id, found)
            else:
                labels.append(found)
        self._send_traces(list(traces.values()))
        for label in send_labels(self._given.project, labels) if labels else ():
            self._keep(label)

    def _send_traces(self, traces: list[Trace]) -> None:
        if not traces:
            return
        try:
            send_traces(self._given.project, traces)
        except BadInput as error:
            if len(traces) == 1:
                self._set_aside(traces[0].to_json().encode(), error)
                return
            for trace in traces:  # the others are not to blame
                self._send_traces([trace])

    def _keep(self, label: Label) -> None:
        """MLflow lacks its trace, which another process may not have sent yet: every collect tries it again."""
        try:
            attach_label(self._given.project, label)
        except BadInput as error:
            self._tell(Report(warning=str(error)))

    def _set_aside(self, line: bytes, error: Exception) -> None:
        path = self._given.folder / "set_aside.jsonl"
        spool_lines(path, [line.decode("utf-8", "replace").rstrip("\n")])
        self._tell(Report(warning=f"a trace could not be sent and is kept in {path}: {named(error)}"))


def _read(line: bytes) -> Trace | Label:
    held = json.loads(line)
    if "exchange" in held:
        return as_trace(EXCHANGE.validate_python(held["exchange"]))
    if "trace" in held:
        return Trace.model_validate(held["trace"])
    return Label.model_validate(held["label"])


def _give_way() -> None:
    os.nice(NICE)
    with contextlib.suppress(OSError):  # where sessions are not scheduled as groups
        Path("/proc/self/autogroup").write_text(str(NICE))


def main() -> None:
    """Send and look until the other end closes."""
    given = SenderArguments.from_json(sys.argv[1], where="the sender's arguments")
    _give_way()
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # what MLflow did not take is repeated here
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # meant for the process that answers, which then tells this one
        signal.signal(number, signal.SIG_IGN)
    stop, talking = threading.Event(), threading.Lock()

    def tell(report: Report) -> None:
        with (
            talking,
            contextlib.suppress(BrokenPipeError),
        ):  # nobody listens any more, and what is sent is sent
            print(report.to_json(), flush=True)

    def wait_for_the_end() -> None:
        sys.stdin.read()
        stop.set()
        threading.Event().wait(LAST_S)
        os._exit(0)  # MLflow may be down: what is left stays on disk

    for task in (wait_for_the_end, AliasWatch(given, tell).run):
        threading.Thread(target=task, daemon=True).start()
    Sender(given, stop, tell).run()


if __name__ == "__main__":
    main()
