"""Users' own callables that take 50 ms: sync and async, one after another and many at once.

python tests/bench/bench_callable.py [--cases 200] [--latency 0.05] [--concurrency 1,8]
"""

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime

from ratchet import Case, Project
from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.rollout.loop import run

STARTED = datetime(2026, 1, 5, tzinfo=UTC)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that an answer takes")
    parser.add_argument("--concurrency", default="1,8")
    given = parser.parse_args()

    def waits(question: str) -> str:
        time.sleep(given.latency)
        return "left"

    async def awaits(question: str) -> str:
        await asyncio.sleep(given.latency)
        return "left"

    cases, failed = [Case(inputs={"question": str(n)}) for n in range(given.cases)], 0
    for at_once in map(int, given.concurrency.split(",")):
        for function in (waits, awaits):
            project = Project(
                name="own", agent=function, effects="none", score=lambda _, said: float(said == "left")
            )
            agent = make_agent(
                project, first_candidate(project, None, None), {}, endpoint={"concurrency": at_once}
            )
            began, busy = time.perf_counter(), time.process_time()
            traces = run(agent, cases, project.environment, at=lambda _: STARTED)
            took, busy = time.perf_counter() - began, time.process_time() - busy
            failed += sum(trace.score != 1 for trace in traces)
            ideal = given.cases * given.latency / at_once
            kind = "async" if function is awaits else "sync"
            print(
                f"{given.cases} calls of {given.latency * 1000:.0f} ms, {kind}, {at_once} at once: {took:.2f} s "
                f"(ideal {ideal:.2f} s; {busy:.2f} s of processor time)",
                flush=True,
            )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
