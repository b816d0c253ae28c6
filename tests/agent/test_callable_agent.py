"""Users' own callables: how they are called, for how long, and whose failure it was."""

import asyncio
import dataclasses
import functools
import subprocess
import sys
import threading
from datetime import UTC, datetime
from types import SimpleNamespace

import pydantic
import pytest

import ratchet
from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.case import Case
from ratchet.agent.kinds.callable import inputs_of
from ratchet.agent.limits import Limits
from ratchet.agent.project import Project
from ratchet.agent.rollout.loop import run

NOW = datetime(2026, 11, 25, tzinfo=UTC)
SYSTEM = ratchet.prompt("system", default="Be kind.")


def agent_of(function, effects="none", **settings):
    project = Project(
        name="own", agent=function, parts=[SYSTEM], effects=effects, score=lambda case, answer: 1.0
    )
    return make_agent(project, first_candidate(project, None, None), {}, **settings), project


def play(function, *inputs, limits=None, serving=False, **settings):
    agent, project = agent_of(function, **settings)
    cases = [Case(inputs=one) for one in inputs or ({"question": "q"},)]
    agent = agent.serving() if serving else agent
    return run(agent, cases, project.environment, at=lambda _: NOW, limits=limits)


class Status(Exception):
    """As OpenAI's client raises it."""

    def __init__(self, status: int, retry_after: str | None = None) -> None:
        super().__init__(f"status {status}")
        self.status_code = status
        headers = {} if retry_after is None else {"retry-after": retry_after}
        self.response = SimpleNamespace(status_code=status, headers=headers)


class APIConnectionError(Exception):
    """As OpenAI's client calls it."""


@dataclasses.dataclass
class Reply:
    team: str
    sure: float


class Ticket(pydantic.BaseModel):
    team: str
    opened: datetime


def completion(text):
    return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(role="assistant", content=text))])


@pytest.mark.parametrize(
    ("returned", "answer"),
    [
        (Reply("heron", 0.9), {"team": "heron", "sure": 0.9}),
        (Ticket(team="heron", opened=NOW), {"team": "heron", "opened": "2026-11-25T00:00:00Z"}),
        ([Reply("heron", 1.0)], [{"team": "heron", "sure": 1.0}]),
        (completion("heron"), "heron"),
        (completion("heron").choices[0].message, "heron"),
        (SimpleNamespace(output_text="heron"), "heron"),
        ((part for part in ("her", "on")), "heron"),
        (("heron", None), ["heron", None]),
    ],
)
def test_what_clients_and_records_hold_is_the_answer(returned, answer):
    (trace,) = play(lambda question: returned)
    assert (trace.error, trace.answer) == (None, answer)


@pytest.mark.parametrize("returned", [object(), float("nan"), completion, threading.Lock()])
def test_what_is_neither_text_nor_json_is_the_agent_s_failure_in_a_line(returned):
    (trace,) = play(lambda question: returned)
    assert trace.error.kind == "agent"
    assert "return a text, or what JSON can hold" in trace.error.message


class Desk:
    """A class instance, sync and async."""

    def __call__(self, question: str) -> str:
        return f"called {question}"

    async def later(self, question: str) -> str:
        await asyncio.sleep(0)
        return f"awaited {question} {SYSTEM()}"


class LaterDesk:
    async def __call__(self, question: str) -> str:
        return f"awaited {question}"


def only_positional(question, /, tone="kind"):
    return f"{question} {tone}"


def takes_any(**inputs):
    return inputs["question"]


def with_rest(question, *rest, **options):
    return [question, list(rest), options]


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (Desk(), "called q"),
        (Desk().later, "awaited q Be kind."),
        (LaterDesk(), "awaited q"),
        (functools.partial(Desk().later), "awaited q Be kind."),
        (functools.partial(only_positional, tone="dry"), "q dry"),
        (lambda question: Desk().later(question), "awaited q Be kind."),
        (only_positional, "q kind"),
        (takes_any, "q"),
        (with_rest, ["q", [], {}]),
    ],
)
def test_whatever_can_be_called_is_called_with_the_inputs_by_name(function, answer):
    (trace,) = play(function)
    assert (trace.error, trace.answer) == (None, answer)


def test_inputs_fit_the_parameters_or_the_request_is_the_only_one_needed():
    def two(order, reason, tone="kind"):
        return [order, reason, tone]

    assert inputs_of(Desk(), {"request": "r"}, "r") == {"question": "r"}
    assert inputs_of(two, {"order": 1, "reason": "late"}, "r") == {"order": 1, "reason": "late"}
    assert inputs_of(takes_any, None, "r") == {"request": "r"}
    noted = {"question": "q", "rest": ["a"], "options": {"tone": "dry"}}  # as MLflow's tracer notes a call
    assert play(with_rest, noted)[0].answer == ["q", ["a"], {"tone": "dry"}]
    (trace,) = play(two, {"request": "r"})
    assert trace.error.kind == "infrastructure"
    assert "the agent takes (order, reason, tone) and the case holds (request)" in trace.error.message


def test_many_run_at_once_the_coroutines_on_one_loop_each_with_its_own_version():
    seen, loops = [], set()

    async def later(question: str) -> str:
        loops.add(asyncio.get_running_loop())
        seen.append(1)
        while len(seen) < 8:  # ends only if eight are under way
            await asyncio.sleep(0.001)
        return f"{SYSTEM()} {ratchet.is_trial()}"

    meeting = threading.Barrier(8, timeout=20)

    def now(question: str) -> str:
        meeting.wait()
        return f"{SYSTEM()} {ratchet.is_trial()}"

    for function in (later, now):
        traces = play(function, *({"question": str(n)} for n in range(8)), endpoint={"concurrency": 8})
        assert [trace.answer for trace in traces] == ["Be kind. True"] * 8
    play(later)
    assert len(loops) == 1  # a client that was made with the module stays bound to it
    assert play(now, serving=True, limits=Limits(seconds=0.01))[0].stopped == "seconds"
    meeting.abort()


async def hangs(question: str) -> str:
    await asyncio.sleep(60)
    return "late"


async def blocks(question: str) -> str:
    RELEASE.wait(60)
    return "late"


def waits(question: str) -> str:
    RELEASE.wait(60)
    return "late"


RELEASE = threading.Event()


@pytest.mark.parametrize("function", [hangs, waits])
def test_a_call_beyond_its_time_is_given_up_and_the_trace_says_by_which_limit(function):
    RELEASE.clear()
    (limited,) = play(function, limits=Limits(seconds=0.05))
    assert (limited.error.kind, limited.stopped) == ("agent", "seconds")
    assert "limits.seconds" in limited.error.message
    (unlimited,) = play(function, seconds=0.05)
    assert (unlimited.error.kind, unlimited.stopped) == ("infrastructure", None)
    assert "RATCHET_AGENT_TIMEOUT_S" in unlimited.error.message
    RELEASE.set()


def test_a_coroutine_that_blocks_the_loop_costs_itself_and_not_the_next(monkeypatch):
    monkeypatch.setattr("ratchet.agent.bounded_call.GRACE_S", 0.05)
    RELEASE.clear()
    (stuck,) = play(blocks, seconds=0.05)
    assert "its event loop is blocked" in stuck.error.message
    assert play(LaterDesk())[0].answer == "awaited q"
    RELEASE.set()


def test_a_process_ends_although_a_call_that_was_given_up_still_runs():
    code = (
        "import time; from ratchet.agent.bounded_call import GivenUp, call\n"
        "try: call(lambda: time.sleep(600), seconds=0.05)\n"
        "except GivenUp: print('given up')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "given up\n", ended.stderr


@pytest.mark.parametrize(
    ("error", "kind", "calls"),
    [
        (Status(429, "0"), None, 2),
        (Status(503), None, 2),
        (APIConnectionError("gone"), None, 2),
        (TimeoutError(), None, 2),
        (Status(429, "3600"), "infrastructure", 1),
        (Status(429, "Wed, 21 Oct 2122 07:28:00 GMT"), "infrastructure", 1),
        (Status(401), "infrastructure", 1),
        (Status(400), "agent", 1),
        (Status(404), "agent", 1),
        (KeyError("tool"), "agent", 1),
        (SystemExit(3), "agent", 1),
    ],
)
def test_what_may_succeed_later_is_tried_again_and_what_failed_is_somebody_s(error, kind, calls, monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    asked = []

    def fails_once(question: str) -> str:
        asked.append(question)
        if len(asked) == 1:
            raise error
        return "heron"

    (trace,) = play(fails_once)
    assert len(asked) == calls
    assert (trace.error and trace.error.kind, trace.answer) == (kind, None if kind else "heron")


def test_what_frameworks_raise_from_a_lost_connection_is_no_failure_of_the_agent(monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)

    def wraps(question: str) -> str:
        try:
            raise APIConnectionError("gone")
        except APIConnectionError as error:
            raise RuntimeError("the graph failed") from error

    assert play(wraps)[0].error.kind == "infrastructure"


@pytest.mark.parametrize(("effects", "calls"), [("none", 5), ("guarded", 1), (None, 1)])
def test_a_real_request_is_not_made_twice_unless_it_has_no_effects(effects, calls, monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    asked = []

    def books(question: str) -> str:
        asked.append(question)
        raise Status(503)

    play(books, effects=effects, serving=True)
    assert len(asked) == calls


def test_an_agent_of_whose_tools_nobody_said_what_they_change_is_not_played_again_and_serves():
    acted = []
    (trace,) = play(lambda question: acted.append(question) or "done", effects=None)
    assert not acted
    assert trace.error.kind == "infrastructure"
    assert 'Project(effects="none")' in trace.error.message
    assert (
        play(lambda question: acted.append(question) or "done", effects=None, serving=True)[0].answer
        == "done"
    )
    assert acted == ["q"]


def test_nothing_is_tried_again_beyond_the_time_that_the_case_may_take():
    asked = []

    def fails(question: str) -> str:
        asked.append(question)
        raise Status(503)

    (trace,) = play(fails, limits=Limits(seconds=0.2))
    assert (len(asked), trace.error.kind) == (1, "infrastructure")
