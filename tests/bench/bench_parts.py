"""What a part's value costs a process that serves, and how soon a promotion reaches it.

    python tests/bench/bench_parts.py [--reads 20000] [--threads 64] [--seconds 5]

A project in a local database; a process of its own, with another home, reads it. Printed: `import ratchet`, the first
value (MLflow's import and the opening of the database included), a value that is known, within a trace and without;
looks at MLflow under `--threads` readers at a TTL of 1 s; how long after a promotion and a rollback another text is
read; and the longest read while the server's port refuses, or accepts and never answers. Exits with 1 where a read
takes longer than 1.1 s (the first value aside), or a move is seen later than TTL and a second.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

TTL_S = 1.0


def main() -> int:
    """Make the project, let another process measure, and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reads", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--reader", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.reader:
        print(json.dumps(read(given)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RATCHET_HOME"] = f"{folder}/home"
        make_project()
        told = {
            "RATCHET_HOME": f"{folder}/other",
            "RATCHET_PARTS_TTL_S": str(TTL_S),
            "MLFLOW_TRACKING_URI": f"sqlite:///{Path(folder).resolve()}/home/mlflow.db",
        }
        command = [sys.executable, __file__, "--reader", *sys.argv[1:]]
        done = subprocess.run(
            command, env=os.environ | told, stdout=subprocess.PIPE, text=True, check=True, cwd=folder
        )
        found = json.loads(done.stdout.splitlines()[-1])
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, value in found.items():
        print(f"{name:55} {value:12,.4f}" if isinstance(value, float) else f"{name:55} {value:12,}")
    late = [name for name, value in found.items() if "longest read" in name and value > 1.1]
    late += [name for name, value in found.items() if "seen after" in name and value > TTL_S + 1]
    print("\n".join(f"too long: {name}" for name in late) or "all within their bounds")
    return int(bool(late))


def make_project() -> None:
    """Two versions; the first serves, the second is proven."""
    from ratchet.agent.candidate import IN_CODE, Candidate, Predictor
    from ratchet.infra.registry.promotion import promote
    from ratchet.infra.registry.registry import register

    for text in ("first", "second"):
        prompts = {"desk-system": Predictor(instructions=text)}
        made = Candidate(kind="callable", predictors=prompts, base_model=IN_CODE)
        register("desk", made, files={}, seen_case_ids=[], cost={})
        if text == "first":
            promote("desk", made.candidate_id, approved_by="bench", reason="the first")


def read(given: argparse.Namespace) -> dict[str, float | int]:
    """What the process that serves measures."""
    found: dict[str, float | int] = {}
    began = time.perf_counter()
    import ratchet

    found["import ratchet, s"] = time.perf_counter() - began
    system = ratchet.prompt("desk-system", default="as in the code")
    began = time.perf_counter()
    assert system() == "first"
    found["first value, s"] = time.perf_counter() - began
    found["known value, microseconds"] = _microseconds(system, given.reads)
    import mlflow

    with mlflow.start_span("answer"):
        found["known value within a trace, microseconds"] = _microseconds(system, given.reads)
    longest = _side_by_side(system, given.threads, given.seconds)
    found[f"longest read of {given.threads} threads at a TTL of {TTL_S:g} s, s"] = longest
    found["promotion seen after, s"] = _seen(system, "second", "2")
    found["rollback seen after, s"] = _seen(system, "first", "1")
    for name, hangs in (("refuses", False), ("never answers", True)):
        with socket.socket() as gone:
            gone.bind(("127.0.0.1", 0))
            if hangs:
                gone.listen(100)
            os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{gone.getsockname()[1]}"
            longest = _side_by_side(system, 1, given.seconds)
            assert system() == "first"
        found[f"longest read while the server {name}, s"] = longest
    return found


def _microseconds(call: Callable[[], str], reads: int) -> float:
    began = time.perf_counter()
    for _ in range(reads):
        call()
    return (time.perf_counter() - began) / reads * 1e6


def _side_by_side(call: Callable[[], str], n: int, seconds: float) -> float:
    """Seconds that the longest read took, of `n` threads that read every few milliseconds."""
    until, longest = time.monotonic() + seconds, [0.0] * n

    def reader(place: int) -> None:
        while time.monotonic() < until:
            began = time.perf_counter()
            call()
            longest[place] = max(longest[place], time.perf_counter() - began)
            time.sleep(0.005)

    threads = [threading.Thread(target=reader, args=(place,)) for place in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(longest)


def _seen(call: Callable[[], str], text: str, number: str) -> float:
    """Seconds from the move of the alias to the first read of the new text."""
    from mlflow import MlflowClient

    uri = os.environ["MLFLOW_TRACKING_URI"]
    MlflowClient(uri, uri).set_registered_model_alias("desk", "champion", number)
    began = time.monotonic()
    while call() != text:
        time.sleep(0.005)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
