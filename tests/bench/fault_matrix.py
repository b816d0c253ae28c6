"""The fault matrix: what a person's home suffers, and what comes of it. Prints its tally, and fails if anything is lost.

Run: `python -m tests.bench.fault_matrix [--only WORD]` (some fifteen minutes on two cores; no LM, no network). The
project is scripted, MLflow is real over SQLite, Prefect's server is real. A small part of it runs with the tests
(`tests/flows/test_faults.py`).
"""

import argparse
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.faults import (
    FIRST,
    HANGS,
    SECOND,
    STAGES,
    Ended,
    Fault,
    Place,
    facts,
    faults_of,
    finish,
    improve,
    look,
    new_place,
    start,
)  # fmt: skip

LM = """
import json
from http.server import ThreadingHTTPServer
from tests.conftest import ScriptedLM

class Learner(ScriptedLM):
    def said(self, asked):
        word = super().said(asked)
        offered = [name for name in ("left", "right") if f"- {name}:" in asked]
        return word if "Before:" in asked or not offered else offered[0]

server = ThreadingHTTPServer(("127.0.0.1", 0), Learner)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Row(NamedTuple):
    """One fault and what came of it."""

    scenario: str
    wrong: list[str]
    said: str


class Matrix:
    """Plays faults in homes of their own and keeps their tally."""

    def __init__(self, folder: Path, stages: Sequence[str]) -> None:
        self.folder, self.stages = folder, stages
        self.rows: list[Row] = []
        self.made = 0
        first = self.place(empty=True)
        if look(first, _make_mlflow) != {"made": True}:
            raise RuntimeError("MLflow could not be made")
        self.template = first.home
        self.undisturbed, kept = self.place(), folder / "undisturbed"
        self.writes = whole(improve(self.undisturbed)).writes
        self.expected = {1: look(self.undisturbed, facts)}
        shutil.copytree(self.undisturbed.root, kept)
        whole(improve(self.undisturbed))
        self.expected[2] = look(self.undisturbed, facts)
        shutil.rmtree(self.undisturbed.root)
        kept.rename(self.undisturbed.root)  # as after one run
        print(f"undisturbed, after one run and after two: {self.expected}", flush=True)

    def place(self, *, empty: bool = False) -> Place:
        """A fresh project; its MLflow is made already, unless `empty`."""
        self.made += 1
        return new_place(self.folder / f"{self.made:03d}", None if empty else self.template)

    def judge(self, scenario: str, place: Place, ended: Ended, *, more: bool = True) -> None:
        """Note what is lost, doubled, or not told on one line; with `more`, after one more run, undisturbed."""
        again = improve(place) if more else ended
        wrong = [] if again.status == 0 else [f"the next run fails: {again.line or last_line(again)}"]
        # One that was killed after its verdict is done: the next run learns from it, and tests what it learned.
        fine = [self.expected[2]] if ended.status == 0 else [self.expected[1], self.expected[2]]
        wrong += faults_of(look(place, facts), fine, FIRST)
        self.note(scenario, ended, wrong)
        if not self.rows[-1].wrong:
            shutil.rmtree(place.root, ignore_errors=True)

    def note(self, scenario: str, ended: Ended, wrong: list[str]) -> None:
        """Print a row."""
        if ended.trace:
            wrong = [f"TRACEBACK {last_line(ended)}", *wrong]
        if ended.status == HANGS:
            wrong = ["HANGS", *wrong]
        said = "killed" if ended.status == -9 else ended.line or "done"
        self.rows.append(Row(scenario, wrong, said))
        word = "FAULT" if wrong else "ok   "
        print(f"{word} {scenario}: {' | '.join([said[:200], *wrong])}", flush=True)


def whole(ended: Ended) -> Ended:
    """Without this the matrix would compare with nothing."""
    if ended.status:
        raise RuntimeError(f"an undisturbed run failed: {ended.line or ended.trace}")
    return ended


def last_line(ended: Ended) -> str:
    """Of its traceback."""
    return ((ended.trace or f"status {ended.status}").strip().splitlines())[-1][:160]


def _make_mlflow() -> dict[str, Any]:
    from ratchet.infra.settings import Settings
    from ratchet.infra.stack.mlflow_database import ensure_database

    Settings().home.mkdir(parents=True, exist_ok=True)
    ensure_database(Settings())
    return {"made": True}


def kills(matrix: Matrix, times: int) -> None:
    """kill -9 at evenly spread writes of every stage."""
    for stage in matrix.stages:
        writes = matrix.writes.get(stage, 0)
        for at in spread(writes, times):
            place = matrix.place()
            ended = improve(place, Fault(stage=stage, at=at))
            matrix.judge(f"kill -9 in {stage}, write {at} of {writes}", place, ended)


def spread(n: int, times: int) -> list[int]:
    """`times` of the places 1…n, evenly, each once."""
    return sorted({max(1, round(n * (i + 0.5) / times)) for i in range(times)})


def first_start(matrix: Matrix, times: int) -> None:
    """kill -9 while MLflow's tables are made."""
    writes = improve(matrix.place(empty=True)).writes["collect_new"]
    for at in spread(writes, times):
        place = matrix.place(empty=True)
        ended = improve(place, Fault(stage="collect_new", at=at))
        matrix.judge(f"kill -9 in a home's first start, write {at} of {writes}", place, ended)


def two_at_once(matrix: Matrix, times: int) -> None:
    """Two runs of one project."""
    for i in range(min(times, 2)):
        place = matrix.place()
        both = [start(place), start(place)]
        ends = [finish(run) for run in both]
        matrix.judge(
            f"two at once ({i + 1})", place, max(ends, key=lambda ended: abs(ended.status)), more=False
        )


def services_gone(matrix: Matrix, times: int) -> None:
    """A server does not answer."""
    for name, gone in (
        ("MLflow's", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}),
        ("Prefect's", {"PREFECT_API_URL": "http://127.0.0.1:9/api"}),
    ):
        place = matrix.place()
        ended = improve(place, Fault(environment=tuple(gone.items())))
        matrix.judge(f"{name} server is gone", place, ended)


def disk_full(matrix: Matrix, times: int) -> None:
    """No file may grow beyond a limit: from what the database is, to just less than what it will be."""
    before = (matrix.template / "mlflow.db").stat().st_size
    after = (matrix.undisturbed.home / "mlflow.db").stat().st_size
    for limit in (2048, *(before + (after - before) * i // times for i in range(times))):
        place = matrix.place()
        ended = improve(place, Fault(file_limit=limit))
        matrix.judge(f"disk full at {limit // 1024} kB a file", place, ended)


def locked_database(matrix: Matrix, times: int) -> None:
    """Another program holds MLflow's database during the whole run."""
    place = matrix.place()
    with closing(sqlite3.connect(place.home / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        ended = improve(place)
    matrix.judge("MLflow's database is locked", place, ended)


def clocks(matrix: Matrix, times: int) -> None:
    """A writer's clock is two hours off; the next run's is right."""
    for hours in (2, -2):
        place = matrix.place()
        ended = improve(place, Fault(environment=(("FAULTS_CLOCK_H", str(hours)),)))
        matrix.judge(f"clock {hours:+d} h", place, ended)


def broken_files(matrix: Matrix, times: int) -> None:
    """Each file of a home, garbled, cut or deleted after the first week; then comes the second."""
    place = matrix.undisturbed
    kept = matrix.folder / "kept"
    shutil.copytree(place.root, kept)
    files = sorted(str(path.relative_to(place.home)) for path in place.home.rglob("*") if path.is_file())
    for kind in {generic(kind): kind for kind in reversed(files)}.values():  # one of each kind
        if kind.startswith(("prefect/", "logs/", "locks/")) or ".lock" in kind:
            continue
        for how, harm in HARMS.items():
            shutil.rmtree(place.root)
            shutil.copytree(kept, place.root)
            harm(place.home / kind)
            place.ask(FIRST + SECOND)
            ended = improve(place)
            found = look(place, facts)
            wrong = (
                []
                if "error" in found
                else faults_of(found, [found], FIRST + SECOND if ended.line is None else FIRST)
            )
            if kind == "mlflow.db" and how == "deleted":
                wrong = []  # what was deleted is gone
            if "error" in found and ended.line is None:
                wrong.append(f"not said: {found['error']}")
            matrix.note(f"{generic(kind)} {how}", ended, wrong)


def generic(kind: str) -> str:
    """A file's place without the ids in it."""
    return re.sub(r"[0-9a-f]{16,}|m-[0-9a-f]{20,}", "…", kind)


def _garble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for i in range(0, len(data), max(1, len(data) // 16)):
        data[i] ^= 0x41
    path.write_bytes(bytes(data))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


HARMS: dict[str, Callable[[Path], None]] = {"deleted": Path.unlink, "garbled": _garble, "cut": _cut}
SCENARIOS: dict[str, Callable[[Matrix, int], None]] = {
    "kill": kills, "first": first_start, "two": two_at_once, "gone": services_gone, "full": disk_full,
    "locked": locked_database, "clock": clocks, "files": broken_files,
}  # fmt: skip


@contextmanager
def services(folder: Path) -> Iterator[None]:
    """Prefect's server and the scripted LM, for all runs."""
    from ratchet.infra.settings import prepare_environment
    from ratchet.infra.stack.scheduler import answers
    from ratchet.infra.stack.service import Service

    prepare_environment()
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    prefect = Service(
        "Prefect",
        [sys.executable, "-m", "prefect", "--no-prompt", "server", "start", "--port", str(port)],
        lambda: answers(f"{api}/health"),
        folder / "prefect.log",
    )
    os.environ |= {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    prefect.start(os.environ, folder)
    lm = subprocess.Popen([sys.executable, "-c", LM], stdout=subprocess.PIPE, text=True)
    try:
        assert lm.stdout is not None
        os.environ |= {
            "PREFECT_API_URL": api,
            "SCRIPTED_MODEL": "openai/scripted",
            "RATCHET_LM_API_BASE": f"http://127.0.0.1:{lm.stdout.readline().strip()}/v1",
            "RATCHET_LM_API_KEY": "x",
        }
        prefect.wait_until_healthy(240)
        import dspy  # noqa: F401  once, for all forks

        import ratchet.flows.improve  # noqa: F401

        yield
    finally:
        lm.kill()
        lm.communicate()
        prefect.stop()


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def play(names: list[str], times: int, stages: Sequence[str]) -> list[Row]:
    """The rows of these scenarios; `stages`: where runs are killed."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, services(Path(folder)):
        matrix = Matrix(Path(folder) / "homes", stages)
        for name in names:
            SCENARIOS[name](matrix, times)
        return matrix.rows


def main() -> None:
    """Print every row, then the tally; exit 1 if anything was lost, doubled or told in a traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--times", type=int, default=5, help="how often each is played")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=STAGES, help="where runs are killed")
    given = parser.parse_args()
    rows = play(given.only, given.times, given.stages)
    bad = [row for row in rows if row.wrong]
    print(f"{len(rows)} faults: {len(rows) - len(bad)} with nothing lost, nothing doubled and one clear line; "
          f"{len(bad)} not")  # fmt: skip
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
