"""Calls to an LM endpoint that answers after 50 ms: one after another, and many at once.

python tests/bench/bench_endpoint.py [--cases 600] [--latency 0.05] [--concurrency 1,8]
The endpoint is a local server of canned answers, in a process of its own; no LM, no network.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection

from ratchet import Action, Case, Observation, Option, Outcome
from ratchet.agent.kinds.program import Program, base_candidate
from ratchet.agent.rollout.loop import run
from ratchet.infra.settings import prepare_environment

STARTED = datetime(2026, 1, 5, tzinfo=UTC)


class World:
    """Two options, of which `left` is right."""

    def reset(self, case: Case) -> Observation:
        return Observation(text=case.inputs["request"], options=(Option(name="left"), Option(name="right")))

    def step(self, action: Action) -> tuple[Observation, bool]:
        self.name = action.name
        return Observation(text="over"), True

    def outcome(self) -> Outcome:
        return Outcome(score=float(self.name == "left"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=600)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that an answer takes")
    parser.add_argument("--concurrency", default="1,8")
    given = parser.parse_args()
    prepare_environment()  # LiteLLM reads its price list from disk
    cases = [Case(inputs={"request": f"{n}: go left"}) for n in range(given.cases)]
    failed = 0
    with endpoint(given.latency) as address:
        for at_once in map(int, given.concurrency.split(",")):
            where = {"api_base": address, "api_key": "x", "timeout": 20, "concurrency": at_once}
            program = Program(base_candidate("Pick one.", model="openai/canned"), endpoint=where)
            run(program, cases[:4], World, at=lambda i: STARTED)  # the client's own start
            began, busy = time.perf_counter(), time.process_time()
            traces = run(program, cases, World, at=lambda i: STARTED)
            took, busy = time.perf_counter() - began, time.process_time() - busy
            right = sum(trace.score == 1 for trace in traces)
            failed += len(traces) - right
            ideal = given.cases * given.latency / at_once
            print(
                f"{given.cases} calls of {given.latency * 1000:.0f} ms, {at_once} at once: {took:.1f} s "
                f"(ideal {ideal:.1f} s; {busy:.1f} s of processor time), {right} right",
                flush=True,
            )
    return int(failed > 0)


@contextmanager
def endpoint(latency: float) -> Iterator[str]:
    """Address of a server that says `left`, stopped at the end."""
    ours, theirs = get_context("spawn").Pipe()
    server = get_context("spawn").Process(target=serve, args=(theirs, latency), daemon=True)
    server.start()
    yield f"http://127.0.0.1:{ours.recv()}/v1"
    server.terminate()
    server.join()


def serve(parent: Connection, latency: float) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "left"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "canned", "choices": [choice]}
    body = json.dumps(answer | {"usage": usage}).encode()

    class Canned(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(latency)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Canned)
    server.daemon_threads = True
    parent.send(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
