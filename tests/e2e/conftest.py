"""What the end-to-end tests share: one finished demo, made by the command itself in a home of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SIZE = "0.15"


class Finished(NamedTuple):
    """A demo that ran to its end."""

    home: Path
    story: dict[str, Any]
    stderr: str


def _environment(home: Path) -> dict[str, str]:
    """Of a person who set nothing but the home."""
    foreign = ("RATCHET_", "MLFLOW_TRACKING", "PREFECT_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    kept = {"RATCHET_CACHE": os.environ["RATCHET_CACHE"]} if "RATCHET_CACHE" in os.environ else {}
    return own | kept | {"RATCHET_HOME": str(home), "COLUMNS": "140"}


@pytest.fixture(scope="session")
def start_demo() -> Callable[[Path], "subprocess.Popen[str]"]:
    """Start `ratchet demo`, small, in a home, or go on with the demo that stands there."""

    def start(home: Path) -> "subprocess.Popen[str]":
        # As in a terminal: who starts the tests in the background hands down an ignored Ctrl-C.
        listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        code = f"{listening}; from ratchet.flows.cli import main; main()"
        command = [sys.executable, "-c", code, "demo", "--auto-approve", "--size", SIZE, "--json"]
        return subprocess.Popen(
            command,
            env=_environment(home),
            cwd=home.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture(scope="session")
def run_demo(start_demo: Callable[[Path], "subprocess.Popen[str]"]) -> Callable[[Path], Finished]:
    """The demo to its end."""

    def run(home: Path) -> Finished:
        process = start_demo(home)
        stdout, stderr = process.communicate(timeout=1500)
        assert process.returncode == 0, stderr[-4000:]
        return Finished(home, json.loads(stdout), stderr)

    return run


@pytest.fixture(scope="session")
def demo(run_demo: Callable[[Path], Finished], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The demo, once for all tests; they only read it."""
    return run_demo(tmp_path_factory.mktemp("demo") / "home")


@pytest.fixture
def demo_home(demo: Finished, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished demo's home, for what reads it in this process."""
    monkeypatch.setenv("RATCHET_HOME", str(demo.home))
    return demo.home
