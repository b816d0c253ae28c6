"""One round of `improve` in one process, and on two workers of Ray and of Dask: the same verdicts, and the seconds.

python tests/bench/bench_workers.py [--workers local,ray,dask] [--cases 120] [--seconds 0.2]
A callable that takes so many seconds for an answer, one call at a time; its proposers make two versions. Each round
is a process with a home of its own; verdicts are compared without the latency, which each round measures anew. About a
minute each on two idle cores, most of it set-up. A runner that is not installed is named and left out:
pip install "ratchet-loop[ray,dask]".
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PROJECT = """
import time
from dataclasses import dataclass

import ratchet
from ratchet.agent.optimize.proposer import Proposal

system = ratchet.prompt("system", default="Say it again.")


def shout(text):
    time.sleep(__SECONDS__)
    return text.upper() if "LOUD" in system() else text


@dataclass(frozen=True)
class Says:
    name: str
    text: str

    def propose(self, parent, evidence, work):
        said = parent.candidate.predictors["system"].model_copy(update={"instructions": self.text})
        return Proposal(candidate=parent.candidate.model_copy(update={"predictors": {"system": said}}))


def words(n):
    return f"{n:03d}{chr(97 + n % 26) * 9} {n * 7919 % 9973}"


project = ratchet.Project(
    name="shout", agent=shout, parts=[system], effects="none", scores_itself=True,
    score=lambda case, answer: float(answer == case.inputs["text"].upper()),
    traffic=lambda: [ratchet.Case(inputs={"text": words(n)}) for n in range(__CASES__)],
    proposers=(Says("same", "Say it once more."), Says("loud", "Say it LOUD.")),
)
"""
ROUND = """
import json, sys, time

from ratchet.infra.settings import prepare_environment

prepare_environment()
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.commands.run_here import start_server
from ratchet.flows.improve import improve
from ratchet.flows.project_settings import ImproveSettings
from ratchet.tasks import gate

if __name__ == "__main__":
    start_server()
    took, whole = [], gate._play

    def timed(*args):
        began = time.perf_counter()
        try:
            return whole(*args)
        finally:
            took.append(time.perf_counter() - began)

    gate._play = timed
    report = improve(sys.argv[1], ImproveSettings(workers=sys.argv[2], gate=GateSettings(min_cases=8, batch=16)))
    judged = [
        [one.candidate_id, one.verdict.model_dump(mode="json", exclude={"latency"})] for one in report.judged
    ]
    print(json.dumps({"judged": judged, "gate_s": sum(took), "problems": report.problems}))
"""


def one_round(workers: str, cases: int, seconds: float) -> dict[str, Any]:
    """What a round came to: `judged` (candidate and verdict, in order), `gate_s`, `problems`."""
    with TemporaryDirectory() as folder:
        text = PROJECT.replace("__SECONDS__", str(seconds)).replace("__CASES__", str(cases))
        Path(folder, "project.py").write_text(text)
        Path(folder, "round.py").write_text(ROUND)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        environment |= {
            "RATCHET_HOME": f"{folder}/home",
            "RATCHET_LM_CONCURRENCY": "1",
            "PREFECT_LOGGING_LEVEL": "ERROR",
        }
        command = [sys.executable, f"{folder}/round.py", folder, workers]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the round on {workers} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def installed(workers: str) -> bool:
    """Whether Prefect's task runner for it can be imported."""
    return workers == "local" or importlib.util.find_spec(f"prefect_{workers}") is not None


def main() -> None:
    """Print a line for each kind of worker; fail where verdicts differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", default="local,ray,dask")
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=0.2)
    given = parser.parse_args()
    first = None
    for workers in given.workers.split(","):
        if not installed(workers):
            print(f'{workers:6} not installed: pip install "ratchet-loop[{workers}]"')
            continue
        found = one_round(workers, given.cases, given.seconds)
        first = first or found
        same = found["judged"] == first["judged"]
        decided = ", ".join(f"{one[:8]} {verdict['decision']}" for one, verdict in found["judged"])
        print(
            f"{workers:6} gate {found['gate_s']:6.1f} s   same verdicts: {'yes' if same else 'NO'}   {decided}"
        )
        for problem in found["problems"]:
            print(f"       {problem}")
        if not same:
            raise SystemExit("the verdicts differ")


if __name__ == "__main__":
    main()
