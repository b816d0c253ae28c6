"""What the command line's tests share: the command itself, a project with a past, and a real Prefect server."""

import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.evidence import give_verdict

from ratchet.agent.candidate import Candidate, Demo, Origin, Predictor, Topology
from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.trace import Attempt, Step, Trace
from ratchet.evaluation.data.intervals import mean_interval
from ratchet.evaluation.gate.gate import Pair, Verdict, decide
from ratchet.flows.cli import main
from ratchet.infra.registry.registry import promote, register
from ratchet.infra.review.queue import ReviewItem, answer, ask_people
from ratchet.infra.traces.write import log_traces


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def ratchet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line in this process, on a terminal of 100 columns unless told otherwise."""

    def run(*arguments: object, columns: int = 100) -> Done:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["ratchet", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        return Done(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


class Past(NamedTuple):
    """A project with a past: `champion` replaced `first`; `proven` waits, `refused` was worse."""

    project: str
    first: Candidate
    champion: Candidate
    proven: Candidate
    refused: Candidate
    traces: list[Trace]


@pytest.fixture(scope="session")
def _told(mlflow_home: Path) -> Past:
    """Made once: registering takes seconds. Tests that move something make a project of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(mlflow_home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow keeps there what was reached before
        return make_past("test-past")


@pytest.fixture
def past(_told: Past, mlflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Past:
    """The shared past; to be read only."""
    monkeypatch.setenv("RATCHET_HOME", str(mlflow_home))
    return _told


@pytest.fixture
def own_past(project: str) -> Past:
    """A past that a test may change."""
    return make_past(project)


BETTER = decide(
    [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)], alpha=0.005
)
WORSE = decide([Pair(case_id=str(n), champion=float(n % 10 > 0), challenger=0.0) for n in range(100)])


def make_past(project: str) -> Past:
    first = Candidate(predictors={"choose": Predictor(instructions="Choose a tool.")}, base_model="tiny")
    _register(project, first)
    promote(project, first.candidate_id, approved_by="ratchet", reason="the first version")
    champion = _child(first, "experience", "Remembers 142 steps.", memory="77aa0c1d2e3f4455")
    _register(project, champion, BETTER)
    promote(project, champion.candidate_id, approved_by="anna", reason="read the evidence")
    demo = Demo(inputs="How warm is Oslo?", output="get_weather")
    taught = Predictor(instructions="Pick the tool.", demos=(demo,))
    proven = _child(champion, "prompt", "Searched 6 instructions.", predictors={"choose": taught})
    refused = _child(champion, "planted", "Knows its own cases.", topology=Topology(attempts=2))
    _register(project, proven, BETTER)
    _register(project, refused, WORSE)
    traces = [_trace(0, first), _trace(1, champion), _trace(2, champion)]
    traces[1] = traces[1].model_copy(update={"attempts": _retried(traces[0].trace_id)})
    log_traces(project, traces)
    asked = [ReviewItem(trace_id=t.trace_id, propensity=0.4, reason="a random sample") for t in traces[1:]]
    ask_people(project, asked)
    answer(project, traces[1].trace_id, expected="get_weather", rater="anna", comment="clear")
    return Past(project, first, champion, proven, refused, traces)


def _child(parent: Candidate, proposer: str, note: str, **changes: Any) -> Candidate:
    origin = Origin(proposer=proposer, note=note, data_digest="5bd2a7e1c09f3344")
    return parent.model_copy(update={"parent": parent.candidate_id, "origin": origin, **changes})


def _register(project: str, candidate: Candidate, verdict: Verdict | None = None) -> None:
    register(project, candidate, files={}, seen_case_ids=["a"], cost={"seconds": 61.25})
    if verdict is None:
        return
    scores = {"accuracy": mean_interval([1.0, 1.0, 0.0])}
    give_verdict(project, candidate.candidate_id, candidate.parent or "", verdict, scores)


def _trace(number: int, candidate: Candidate) -> Trace:
    request = f"weather in town {number}? [bold]\x1b[31m"
    step = Step(observation=request, action=Action(name="get_weather"), confidence=0.9)
    return Trace(
        trace_id=uuid.uuid4().hex,
        case=Case(inputs={"request": request}, slice="chat"),
        candidate_id=candidate.candidate_id,
        started_at=datetime.now(UTC),
        latency_s=0.25,
        attempts=(Attempt(steps=(step,), outcome=Outcome(score=1.0)),),
    )


def _retried(recalled: str) -> tuple[Attempt, ...]:
    wrong = Step(observation="weather in town 1?", action=Action(name="get_news"), result="called get_news")
    right = Step(observation="weather in town 1?", action=Action(name="get_weather"), confidence=0.91)
    failed = Outcome(score=0.0, feedback="The user did not accept get_news.")
    return (
        Attempt(steps=(wrong,), outcome=failed, reflection="get_news was wrong.", recalled=(recalled,)),
        Attempt(steps=(right,), outcome=Outcome(score=1.0)),
    )


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the API of a real Prefect server of the tests' own, on a database that is thrown away."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_LOGGING_LEVEL,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    results = tmp_path_factory.mktemp("prefect-results")
    with (
        prefect_test_harness(server_startup_timeout=240),
        temporary_settings({PREFECT_LOCAL_STORAGE_PATH: results, PREFECT_LOGGING_LEVEL: "ERROR"}),
    ):
        yield str(PREFECT_API_URL.value())
