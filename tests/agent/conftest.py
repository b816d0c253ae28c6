"""What the tests of the agent share: the real embedded LM, real BFCL cases, scripted environments and LMs."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from hypothesis import settings

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Observation, Option, Outcome
from ratchet.agent.environments.tool_calling import case_observation, expected_tool, live_cases
from ratchet.agent.kinds.program import View
from ratchet.agent.lm.embedded import smollm2
from ratchet.agent.lm.smollm2 import SmolLM2
from ratchet.agent.optimize.evidence import Example
from ratchet.agent.optimize.work import Work

settings.register_profile("agent", deadline=None, max_examples=40)
settings.load_profile("agent")

AT = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def lm() -> SmolLM2:
    """The real one; at the very first time on a machine its weights are dequantized (30–45 s)."""
    torch.set_num_threads(min(torch.get_num_threads(), 2))
    return smollm2()


@pytest.fixture
def at() -> Callable[[int], datetime]:
    return lambda index: AT.replace(minute=index)


@pytest.fixture
def work(tmp_path) -> Work:
    """Where a proposer under test works."""
    return Work(folder=tmp_path)


@pytest.fixture(scope="session")
def short_cases() -> list[Case]:
    """Real requests with two short tools each: cheap for the embedded LM."""
    cases = [c for c in live_cases("live_multiple") if len(c.inputs["tools"]) in (2, 3)]
    return sorted(cases, key=lambda c: (len(c.inputs["request"]) > 90, c.case_id))[:24]


@pytest.fixture(scope="session")
def examples(short_cases: list[Case]) -> list[Example]:
    return [
        Example(
            view=View(case_id=case.case_id, observation=case_observation(case)),
            answer=expected_tool(case.expected),
            trace_id=f"{index:032x}",
        )
        for index, case in enumerate(short_cases)
    ]


@dataclass
class ScriptedEnvironment:
    """Scripted: the right action is the case's `expected`; `break_in` raises there, at that many calls."""

    options: tuple[str, ...] = ("left", "right")
    n_steps: int = 1
    break_in: str = ""
    scored: bool = True
    returns: dict[str, Any] = field(default_factory=dict)
    resets: int = 0
    taken: list[str] = field(default_factory=list)

    def reset(self, case: Case) -> Observation:
        self.case, self.taken = case, []
        self.resets += 1
        if self.break_in == "reset" or (self.break_in == "second reset" and self.resets == 2):
            raise ConnectionError("the world is gone")
        return self.returns.get("reset", self._see())

    def step(self, action: Action) -> tuple[Observation, bool]:
        if self.break_in == "step":
            raise ConnectionError("the world is gone")
        self.taken.append(action.name)
        return self.returns.get("step", (self._see(), len(self.taken) >= self.n_steps))

    def outcome(self) -> Outcome:
        if self.break_in == "outcome":
            raise ConnectionError("the world is gone")
        if not self.scored:
            return Outcome()
        right = self.taken[-1] == self.case.expected
        feedback = "" if right else "Try the other one."
        return self.returns.get("outcome", Outcome(score=float(right), feedback=feedback))

    def _see(self) -> Observation:
        text = f"{self.case.inputs['request']} (step {len(self.taken)})"
        return Observation(text=text, options=tuple(Option(name=name) for name in self.options))


@pytest.fixture
def scripted_environment() -> type[ScriptedEnvironment]:
    return ScriptedEnvironment


@dataclass
class ScriptedEndpoint:
    """Scripted LM behind OpenAI's /v1/chat/completions.

    `answer` maps the prompt to text, (status, text) or (status, text, headers).
    """

    url: str
    answer: Callable[[str], Any] = lambda prompt: "left"
    prompts: list[str] = field(default_factory=list)
    came: list[float] = field(default_factory=list)
    """When each prompt came, in seconds of a clock that only goes forward."""
    inside: int = 0
    most_inside: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, prompt: str) -> Any:
        with self.lock:
            self.prompts.append(prompt)
            self.came.append(time.monotonic())
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            return self.answer(prompt)
        finally:
            with self.lock:
                self.inside -= 1


class ManyAtOnce(ThreadingHTTPServer):
    request_queue_size = 64


@pytest.fixture
def scripted_endpoint() -> Iterator[ScriptedEndpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            content = body["messages"][-1]["content"]
            prompt = content if isinstance(content, str) else "".join(part["text"] for part in content)
            said = endpoint.ask(prompt)
            status, text, headers = (*said, {})[:3] if isinstance(said, tuple) else (200, said, {})
            message = {"role": "assistant", "content": text}
            reply = {
                "id": "1", "object": "chat.completion", "created": 0, "model": "scripted",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
            }  # fmt: skip
            sent = json.dumps(reply if status == 200 else {"error": {"message": text}}).encode()
            try:
                self.send_response(status)
                for header in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(*header)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client timed out: that is the test

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ManyAtOnce(("127.0.0.1", 0), Handler)
    endpoint = ScriptedEndpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield endpoint
    server.shutdown()
    thread.join()
    server.server_close()
