"""What the fault matrix plays with: one project in a home of its own, runs that may be killed, and what must hold.

Decision: everything heavy is imported once and each run is a fork of that: a run takes seconds instead of half a
minute, so that a matrix of some eighty faults ends. A run is killed by itself with SIGKILL at the n-th thing that it
writes (an SQL statement that changes something, a file that is opened for writing or renamed) within a stage:
the same place each time, where a clock would hit another one.
"""

import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.conftest import scripted_project

NAME = "matrix"
STAGES = ("collect_new", "serve_waiting", "curate_round", "propose", "gate_candidates", "promote_best")
FIRST, SECOND = 40, 20
"""Requests of the first and of the second week."""
LIMIT_S = 300.0
HANGS = 124
"""Status of a run that was given up after `LIMIT_S`."""


@dataclass(frozen=True)
class Place:
    """A home and a project's folder."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def folder(self) -> Path:
        return self.root / "project"

    def ask(self, n: int) -> None:
        """The first `n` requests have come so far."""
        texts = [f"{i:03d}{chr(97 + i % 26) * 9} goes {('left', 'right')[i % 2]}" for i in range(n)]
        (self.folder / "requests.json").write_text(json.dumps(texts))


def new_place(root: Path, template: Path | None = None) -> Place:
    """A project that waits for its first week; `template`: a home whose MLflow is made already."""
    place = Place(root)
    place.folder.mkdir(parents=True)
    (place.folder / "project.py").write_text(scripted_project(NAME))
    place.ask(FIRST)
    if template is not None:
        shutil.copytree(template, place.home)
    return place


@dataclass(frozen=True)
class Fault:
    """What a run suffers."""

    stage: str = ""
    at: int = 0
    """Kill at this write of the stage, from 1; 0 = never."""
    file_limit: int | None = None
    """No file may grow beyond this many bytes."""
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int
    """0 = done; -9 = killed."""
    report: dict[str, Any] | None = None
    line: str | None = None
    """What a person reads of an error."""
    trace: str | None = None
    """Traceback of an error that nobody foresaw."""
    writes: dict[str, int] = field(default_factory=dict)
    """By stage, of the innermost that was at work."""


def improve(place: Place, fault: Fault | None = None) -> Ended:
    """`ratchet improve` in a process of its own, from beginning to end."""
    return finish(start(place, fault))


def start(place: Place, fault: Fault | None = None) -> tuple[int, Path]:
    """Begin a run; what it says comes by `finish`."""
    answer = place.root / f"answer-{time.monotonic_ns()}.json"
    pid = os.fork()
    if pid == 0:
        _child(lambda: _improve(place, fault or Fault()), place, answer, fault or Fault())
    return pid, answer


def finish(run: tuple[int, Path]) -> Ended:
    """Wait for the run; one that does not end is a fault, too."""
    status = _status(run[0])
    said = json.loads(run[1].read_text()) if run[1].exists() else {}
    return Ended(status=status, **said)


def look(place: Place, what: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Ask something of the home, in a process of its own that nothing disturbs."""
    answer = place.root / f"look-{time.monotonic_ns()}.json"
    pid = os.fork()
    if pid == 0:
        _child(lambda: {"report": what()}, place, answer, Fault())
    ended = finish((pid, answer))
    return ended.report or {"error": ended.line or (ended.trace or "").strip().splitlines()[-1:]}


def _status(pid: int) -> int:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return HANGS


def _child(act: Callable[[], dict[str, Any]], place: Place, answer: Path, fault: Fault) -> None:
    """Never returns: the parent's life must not go on in a fork."""
    os.chdir(place.root)
    os.environ["RATCHET_HOME"] = str(place.home)
    os.environ.update(dict(fault.environment))
    log = os.open(place.root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    said: dict[str, Any] = {}
    code = 0
    try:
        said = act()
    except BaseException as error:  # noqa: BLE001  told to the parent, whatever it is
        import traceback

        from ratchet.infra.failures import in_one_line

        code, line = 2, in_one_line(error)
        said = {"line": line} if line else {"trace": "".join(traceback.format_exception(error))}
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    answer.write_text(json.dumps(said))
    os._exit(code)


def _improve(place: Place, fault: Fault) -> dict[str, Any]:
    import importlib

    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_LOCAL_STORAGE_PATH,
        temporary_settings,
    )

    from ratchet.evaluation.gate.settings import GateSettings
    from ratchet.flows.project_settings import ImproveSettings
    from ratchet.infra.traces import service_clock
    from ratchet.infra.traces import write as trace_store

    flow_module = importlib.import_module("ratchet.flows.improve")
    places = {"propose": importlib.import_module("ratchet.tasks.propose")}

    counter = _Counter(fault.stage, fault.at)
    for stage in STAGES:
        place_of = places.get(stage, flow_module)
        setattr(place_of, stage, counter.within(stage, getattr(place_of, stage)))
    if fault.file_limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.file_limit, resource.RLIM_INFINITY))
    given = dict(fault.environment)
    if (hours := given.get("FAULTS_CLOCK_H")) is not None:
        service_clock.here = trace_store.here = lambda: datetime.now(UTC) + timedelta(hours=float(hours))
    rules = ImproveSettings(gate=GateSettings(min_cases=2, batch=8), approved_by="a policy")
    changed = {PREFECT_LOCAL_STORAGE_PATH: place.home / "prefect" / "results"}
    if "PREFECT_API_URL" in given:
        changed |= {PREFECT_API_URL: given["PREFECT_API_URL"], PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(changed):
        report = flow_module.improve(str(place.folder), rules)
    return {"report": report.model_dump(mode="json"), "writes": counter.writes}


class _Counter:
    """Counts what each stage writes, and ends the process at one of these writes."""

    def __init__(self, stage: str, at: int) -> None:
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        self.stage, self.at, self.inside = stage, at, ""
        self.writes: dict[str, int] = {}
        event.listen(Engine, "after_cursor_execute", self._statement)
        sys.addaudithook(self._audit)

    def within(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            around, self.inside = self.inside, stage
            try:
                return call(*arguments, **options)
            finally:
                self.inside = around

        return counted

    def _statement(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE"):
            self._count()

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        wrote = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (wrote and ".lock" not in str(arguments[0])) or event == "os.rename":
            self._count()

    def _count(self) -> None:
        if self.inside:
            self.writes[self.inside] = n = self.writes.get(self.inside, 0) + 1
            if self.inside == self.stage and n == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


def facts() -> dict[str, Any]:
    """What stands in MLflow and below the home."""
    from ratchet.infra.registry.ledger import read_ledger
    from ratchet.infra.registry.registry import champion, version_history
    from ratchet.infra.store.collected import newest_traces
    from ratchet.infra.traces.write import collect

    traces = [trace.case.case_id for trace in collect(NAME).traces]
    versions = version_history(NAME)
    serving = champion(NAME)
    return {
        "traces": len(traces),
        "cases": len(set(traces)),
        "collected": newest_traces(NAME).n_rows,
        "versions": len(versions),
        "candidates": len({version.candidate_id for version in versions}),
        "tests": [[entry.candidate, entry.decision] for entry in read_ledger(NAME).current],
        "champion": serving.number if serving else None,
        "promotions": sum(event.action == "promoted" for v in versions for event in v.events),
    }


def faults_of(found: dict[str, Any], expected: Sequence[dict[str, Any]], served: int) -> list[str]:
    """What is lost or doubled, in words; empty = nothing. `expected`: what undisturbed runs may come to."""
    if "error" in found:
        return [f"cannot be read: {found['error']}"]
    wrong = []
    if found["cases"] < served or found["collected"] < served:
        wrong.append(f"LOST {served - min(found['cases'], found['collected'])} of {served} traces")
    if (most := max(found["traces"], found["collected"])) > found["cases"]:
        wrong.append(f"DOUBLED {most - found['cases']} traces")
    if found["versions"] > found["candidates"]:
        wrong.append("DOUBLED a version")
    if len({candidate for candidate, _ in found["tests"]}) < len(found["tests"]):
        wrong.append("DOUBLED a test")
    for name in ("champion", "promotions", "tests"):
        count, *fine = [len(side[name]) if name == "tests" else side[name] for side in (found, *expected)]
        if count not in fine:
            wrong.append(f"{name}: {count} instead of {' or '.join(map(str, dict.fromkeys(fine)))}")
    return wrong
