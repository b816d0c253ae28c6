"""How long traces of other frameworks take to read, beside our own: the same number of each, in one MLflow.

`python tests/bench/bench_foreign.py [N]` (1,000 takes about a minute). Own traces have 3 spans; the recording of OpenAI's
client has 5, that of LangGraph 9.
"""

import base64
import json
import os
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from ratchet.agent.case import Case
from ratchet.agent.environment import Outcome, respond
from ratchet.agent.trace import Attempt, Step, Trace
from ratchet.infra.settings import prepare_environment

RECORDINGS = Path(__file__).parents[1] / "infra" / "traces" / "recordings"


def own(n: int) -> list[Trace]:
    """Traces as `ratchet` writes them."""
    step = Step(observation="Where is my order?", action=respond("On its way."))
    return [
        Trace(
            trace_id=uuid.uuid4().hex,
            case=Case(inputs={"request": f"Where is order {number}?"}),
            candidate_id="c0ffee",
            started_at=datetime.now(UTC),
            latency_s=0.5,
            attempts=(Attempt(steps=(step,), outcome=Outcome(score=1.0)),),
        )
        for number in range(n)
    ]


def log_recorded(project: str, name: str, n: int) -> None:
    """The recording n times, each under an id of its own."""
    from mlflow.entities import Span
    from mlflow.tracing.client import TracingClient

    from ratchet.infra.mlflow_client import connect

    connection = connect(project)
    told = json.loads((RECORDINGS / f"{name}.json").read_text())[-1]
    text, old = json.dumps(told["data"]["spans"]), told["data"]["spans"][0]["trace_id"]
    client = TracingClient(connection.settings.tracking_uri)
    for start in range(0, n, 100):
        spans = []
        for _ in range(start, min(start + 100, n)):
            new = uuid.uuid4().hex
            mine = text.replace(old, base64.b64encode(bytes.fromhex(new)).decode())
            mine = mine.replace(told["info"]["trace_id"], f"tr-{new}")
            spans += [Span.from_dict(one) for one in json.loads(mine)]
        client.log_spans(connection.experiment_id, spans)


def timed(project: str, n: int) -> float:
    """Seconds that reading all of a project's traces takes."""
    from ratchet.infra.traces.write import collect

    begin = time.perf_counter()
    got = collect(project)
    took = time.perf_counter() - begin
    assert (len(got.traces), got.unreadable) == (n, {}), (len(got.traces), got.problems[:3])
    return took


def main() -> None:
    """Log, read twice, print."""
    from ratchet.infra.traces.write import log_traces

    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    log_traces("own", own(n))
    log_recorded("openai", "mlflow_openai", n)
    log_recorded("langgraph", "mlflow_langgraph", n)
    for project in ("own", "openai", "langgraph"):
        first, second = timed(project, n), timed(project, n)
        print(
            f"{project:10} {n} traces: {first:.2f} s, again {second:.2f} s, {1000 * second / n:.2f} ms each"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RATCHET_HOME"] = folder
        prepare_environment()
        main()
