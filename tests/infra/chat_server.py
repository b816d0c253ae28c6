"""For tests of `ratchet serve`: a scripted upstream that says what it was sent, and the served process itself."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from aiohttp import web

ROOT = Path(__file__).parents[2]
PROJECT = '''"""Answered by a scripted endpoint."""

from ratchet import Project
from ratchet.agent.kinds.chat_endpoint import Chat

project = Project(
    name="__NAME__", agent=Chat(upstream="__UPSTREAM__", model="scripted", system="version one"),
    effects="none", proposers=(),
)
'''
TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look_up", "arguments": '{"order": 4711}'},
}


class Upstream:
    """An endpoint that answers with the prompt that it got; scripted by the user's words."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.left = threading.Event()
        """Somebody who waited for an answer has gone."""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.keys.add(request.headers.get("Authorization", ""))
        said = body["messages"][-1]["content"]
        if said == "fail":
            limits = {"Retry-After": "7", "x-ratelimit-remaining-requests": "0"}
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers=limits)
        if said == "elsewhere":
            raise web.HTTPTemporaryRedirect("http://127.0.0.1:9/v1/chat/completions")
        if said == "wait for ever":
            try:
                await asyncio.sleep(60)
            finally:
                self.left.set()
        if body.get("stream"):
            return await self._stream(request, body)
        await asyncio.sleep(0.1 if said == "slow" else 0.01)
        message: dict[str, Any] = {"role": "assistant", "content": body["messages"][0]["content"]}
        if body.get("tools"):
            message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        return web.json_response({"choices": [{"index": 0, "message": message}], "usage": usage, "odd": [1]})

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        words = body["messages"][0]["content"].split()
        for number, word in enumerate(words):
            if number and body["messages"][-1]["content"] == "wait":
                await asyncio.to_thread(self.go_on.wait, 20)
            delta = {"choices": [{"index": 0, "delta": {"content": f"{word} "}}]}
            await response.write(f"data: {json.dumps(delta)}\n\n".encode())
        usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
        await response.write(f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())
        return response


@contextmanager
def upstream() -> Iterator[tuple[Upstream, str]]:
    """The endpoint in a thread of its own, and its address."""
    scripted, loop, ready = Upstream(), asyncio.new_event_loop(), threading.Event()
    port = free_port()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", scripted.chat)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()
        await ended.wait()
        await runner.cleanup()

    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    yield scripted, f"http://127.0.0.1:{port}/v1"
    loop.call_soon_threadsafe(ended.set)
    thread.join()
    loop.close()


class Served:
    """`ratchet serve`, as a user starts it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        told = os.environ | {"PYTHONPATH": str(ROOT / ".src")} | environment
        command = [sys.executable, "-c", "from ratchet.flows.cli import main; main()", "serve"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--poll", "0.1"],
                cwd=folder,
                env=told,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ready(self) -> "Served":
        """Wait until a version is loaded."""
        self.until(lambda: self.status("/readyz") == 200, "never ready")
        return self

    def until(self, holds: Any, otherwise: str, timeout_s: float = 90) -> None:
        """Look again and again; a process that has died says so."""
        end = time.monotonic() + timeout_s
        while not holds():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < end, f"{otherwise}:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.05)

    def status(self, path: str, body: Any = None, host: str = "") -> int:
        """How a request is answered; 0 = not at all."""
        method, headers = "GET" if body is None else "POST", {"Host": host} if host else {}
        try:
            return httpx.request(method, self.url + path, json=body, headers=headers, timeout=10).status_code
        except httpx.TransportError:
            return 0

    def metric(self, name: str, headers: dict[str, str] | None = None) -> float:
        """One number of /metrics."""
        text = httpx.get(f"{self.url}/metrics", headers=headers, timeout=10).text
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])

    def sent(self, headers: dict[str, str] | None = None) -> None:
        """Wait until MLflow has all that was answered."""
        self.until(lambda: self.metric("ratchet_unsent", headers) == 0, "not all was sent", timeout_s=240)

    def kill(self) -> None:
        """As a machine that loses its power would: both processes, at once."""
        both = psutil.Process(self.process.pid)
        for process in (*both.children(), both):
            process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        """As a supervisor does; uvicorn ends what is under way, and then by the signal that it was given."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == -signal.SIGTERM, self.log.read_text()[-3000:]


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_project(folder: Path, name: str, address: str) -> Path:
    """A project that is answered by the endpoint at this address."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.py").write_text(PROJECT.replace("__NAME__", name).replace("__UPSTREAM__", address))
    return folder


class Gate:
    """A way to a server that can be shut, as a network that fails."""

    def __init__(self, port: int) -> None:
        self._to, self.port = port, free_port()
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def open(self) -> None:
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def shut(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)

    def end(self) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._open |= {writer, there_writer}

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            except ConnectionError:
                pass
            finally:
                target.close()

        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))
        self._open -= {writer, there_writer}
