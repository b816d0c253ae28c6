"""An LM endpoint that answers after 50 ms: calls alone, and the whole `improve` of what `ratchet init` writes.

python tests/bench/bench_endpoint.py [--cases 600] [--latency 0.05] [--concurrency 1,8] [--improve 1,8]
Both one call after another, and many at once. The endpoints are local, canned for the calls and the desk's scripted
one for `improve`, each in a process of its own; no LM, no network. A round of `improve` has a home of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from tempfile import TemporaryDirectory

import httpx

from ratchet import Action, Case, Observation, Option, Outcome
from ratchet.agent.kinds.program import Program, base_candidate
from ratchet.agent.rollout.loop import run
from ratchet.flows.template.desk import scripted_llm
from ratchet.infra.settings import prepare_environment

STARTED = datetime(2026, 1, 5, tzinfo=UTC)
ROUND = """
import json, os, sys, time
from pathlib import Path

from ratchet.agent.lm.endpoint import Endpoint
from ratchet.agent.lm.lm import Prompt
from ratchet.flows.commands.init import copy_template
from ratchet.flows.commands.run_here import start_server
from ratchet.flows.improve import improve
from ratchet.infra.mlflow_client import connect

folder = Path(sys.argv[1])
copy_template(folder)
connect("my_agent")
start_server()
Endpoint("openai/scripted", api_base=os.environ["RATCHET_LM_API_BASE"], api_key="none").write(Prompt("Ready?", ""))
began, busy = time.perf_counter(), time.process_time()
report = improve(str(folder))
took = {"seconds": time.perf_counter() - began, "busy": time.process_time() - busy}
verdicts = [f"{one.verdict.decision} {one.verdict.gain:+.2f}" for one in report.judged]
print(json.dumps(took | {"verdicts": ", ".join(verdicts)}))
"""


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
    parser.add_argument("--improve", default="1,8", help="calls at once of whole rounds; empty = none")
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
    if settings := [int(at_once) for at_once in given.improve.split(",") if at_once]:
        compare_rounds(given.latency, settings)
    return int(failed > 0)


def compare_rounds(latency: float, settings: list[int]) -> None:
    """Whole rounds, the first setting against each other one; what a round takes without waiting is told, too."""
    rest = improve_round(0, settings[-1])
    first, *others = [improve_round(latency, at_once) for at_once in settings]
    for at_once, took in zip(settings[1:], others, strict=True):
        print(
            f"{at_once} at once instead of {settings[0]}: `improve` {first / took:.1f} × as fast, "
            f"its waiting {(first - rest) / max(took - rest, 1e-3):.1f} ×"
        )


def improve_round(latency: float, at_once: int) -> float:
    """Seconds that the first `improve` of a new project takes, without what MLflow, Prefect and LiteLLM need to start."""
    with TemporaryDirectory() as folder, desk(latency) as address:
        asked = {
            "RATCHET_LM": "openai/scripted",
            "RATCHET_LM_API_BASE": address,
            "RATCHET_LM_API_KEY": "none",
        }
        asked |= {"RATCHET_LM_CONCURRENCY": str(at_once), "RATCHET_HOME": f"{folder}/home"}
        command = [sys.executable, "-c", ROUND, f"{folder}/support"]
        done = subprocess.run(command, env=os.environ | asked, stdout=subprocess.PIPE, check=True, text=True)
        calls = httpx.get(address.replace("/v1", "/calls")).json()["calls"]
    told = json.loads(done.stdout.splitlines()[-1])
    print(
        f"`improve` of the template, {calls} calls of {latency * 1000:.0f} ms, {at_once} at once: "
        f"{told['seconds']:.1f} s ({told['busy']:.1f} s of processor time); {told['verdicts']}",
        flush=True,
    )
    return float(told["seconds"])


@contextmanager
def desk(latency: float) -> Iterator[str]:
    """Address of the template's scripted endpoint, in a process of its own."""
    command = [sys.executable, scripted_llm.__file__, "--port", "0", "--latency-ms", str(latency * 1000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


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
