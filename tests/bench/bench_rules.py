"""Twelve hidden rules behind a scripted endpoint: how many each optimizer finds, and what they are worth, by calls.

The endpoint answers a request about a topic right only where the prompt holds the topic's rule. Asked to improve a
prompt, it adds the rules that the feedback in front of it names, and nothing else: so every optimizer gets the same
pupil and the same writer, and what differs is how it spends its calls. 36 cases to write from, 24 to choose by, 36 to
test. Printed: rules found and accuracy on the test cases for `Prompts(optimizer="gepa")`, `dspy.GEPA` and
`mlflow.genai.optimize_prompts`, the calls that the endpoint really got (cases and texts), and seconds; then whether a kill -9 at three
points ends with the same candidate. About two minutes on 2 cores.

    python tests/bench/bench_rules.py [--calls 100,150,200,300] [--seeds 3] [--only ours,dspy,mlflow] [--kills 3]
"""

import argparse
import json
import logging
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.candidate import Candidate
from ratchet.agent.case import Case
from ratchet.agent.environment import Observation
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.chat_endpoint import Chat
from ratchet.agent.kinds.decision import View
from ratchet.agent.lm.endpoint import Endpoint
from ratchet.agent.optimize.budget import Budget
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.prompts.instructions import split
from ratchet.agent.optimize.prompts.prompts import Prompts
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.work import Work
from ratchet.agent.project import Project
from ratchet.evaluation.data.scorers import exact

TOPICS = ("refund", "parcel", "login", "invoice", "warranty", "coupon",
          "roaming", "battery", "screen", "newsletter", "donation", "passport")  # fmt: skip
TEAMS = ("heron", "lynx", "otter", "wren", "badger", "stoat",
         "plover", "marten", "curlew", "vole", "dunlin", "shrew")  # fmt: skip
RULES = dict(zip(TOPICS, TEAMS, strict=True))
TRAIN, VALIDATION, TEST = 36, 24, 36
FIRST = "Name the team that solves the request."
RULE = re.compile(r"\b([a-z]+) goes to ([a-z]+)\b")
REQUESTS = tuple(
    f"No. {n}: I have a question about my {TOPICS[n % 12]}." for n in range(TRAIN + VALIDATION + TEST)
)


def topic_of(text: str) -> str:
    """What the last request in the text is about."""
    found = re.findall(r"about my ([a-z]+)\.", text)
    return found[-1] if found else ""


def right(request: str) -> str:
    return RULES[topic_of(request)]


def feedback(request: str) -> str:
    """What a person says of the answer: it names the rule."""
    return f"{topic_of(request)} goes to {right(request)}"


def rules_in(text: str) -> int:
    return sum(RULES.get(topic) == team for topic, team in dict(RULE.findall(text)).items())


def asks_for_a_text(text: str) -> bool:
    """Whether it is the writer's turn: GEPA and ours ask for a text between fences, DSPy for a field."""
    return "```" in text or "new_instruction" in text


def scripted(text: str) -> str:
    """The endpoint's answer: a writer's where it is asked for a new text, else a pupil's."""
    if not asks_for_a_text(text):
        said = dict(RULE.findall(text)).get(topic_of(text), "nobody")
        return _as_field("team", said, text) if "[[ ## completed ## ]]" in text else said
    by_field = "new_instruction" in text
    old = (
        text.rpartition("[[ ## current_instruction ## ]]")[2].split("[[ ##")[0]
        if by_field
        else text.split("```")[1]
    )
    named = dict(RULE.findall(text))
    new = [f"{a} goes to {b}." for a, b in named.items() if f"{a} goes to {b}" not in old]
    written = "\n".join([old.strip(), *new])
    return _as_field("new_instruction", written, text) if by_field else f"```\n{written}\n```"


def _as_field(name: str, said: str, text: str) -> str:
    """As DSPy asks for it: an object where it says so, else between its marks."""
    if "a JSON object" in text:
        return json.dumps({name: said})
    return f"[[ ## {name} ## ]]\n{said}\n\n[[ ## completed ## ]]"


class Endpoint12(ThreadingHTTPServer):
    """OpenAI's /v1/chat/completions in front of the script; counts what a pupil and what a writer was asked."""

    daemon_threads, request_queue_size = True, 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}/v1"
        self.calls: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.at: tuple[int, Callable[[], None]] | None = None
        """What to do before this many calls are answered."""

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is what is measured."""

    def came(self, text: str) -> None:
        with self.lock:
            self.calls["writer" if asks_for_a_text(text) else "pupil"] += 1
            if self.at is not None and self.calls.total() == self.at[0]:
                self.at[1]()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Endpoint12

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = "\n".join(_content(one) for one in asked["messages"])
        self.server.came(text)
        said = scripted(text)
        message = {"role": "assistant", "content": said}
        body = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "scripted",
             "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
             "usage": {"prompt_tokens": len(text) // 4, "completion_tokens": len(said) // 4, "total_tokens": 1}}
        ).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _content(message: dict[str, Any]) -> str:
    said = message.get("content") or ""
    return said if isinstance(said, str) else "".join(part.get("text", "") for part in said)


@contextmanager
def serving() -> Iterator[Endpoint12]:
    server = Endpoint12()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def accuracy(text: str) -> float:
    """On the test cases, with this prompt; asked of the script itself, so that it counts as nobody's call."""
    test = REQUESTS[TRAIN + VALIDATION :]
    return statistics.fmean(scripted(f"{text}\n{request}") == right(request) for request in test)


def project_at(address: str) -> Project:
    chat = Chat(upstream=address, model="scripted", system=FIRST)
    return Project(name="rules", agent=chat, score=exact, proposers=())


def known() -> list[Example]:
    """The 60 requests, each with what a person said of it; a day has one about each topic, and is on one side."""
    cases = [Case(inputs={"messages": [{"role": "user", "content": text}]}) for text in REQUESTS]
    return [
        Example(
            view=View(case_id=case.case_id, observation=Observation(text=text), inputs=case.inputs),
            answer=right(text),
            call=right(text),
            trace_id=f"{n:032x}",
            said=feedback(text),
            session_id=f"day {n // 12}",
        )
        for n, (case, text) in enumerate(zip(cases, REQUESTS[: TRAIN + VALIDATION], strict=False))
    ]


def work_at(address: str, folder: Path, seed: int) -> Work:
    project, at = project_at(address), {"api_key": "none", "num_retries": 0}
    return Work(
        folder=folder,
        environment=project.environment,
        agent=lambda candidate, files: make_agent(project, candidate, files, endpoint=at),
        writer=lambda candidate: Endpoint("openai/scripted", api_base=address, **at),
        calls=Calls(folder / "calls.db", "bench"),
        seed=seed,
    )


def ours(server: Endpoint12, calls: int, seed: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        made = propose(server.address, Path(folder), calls, seed)
    return FIRST if made is None else made.predictors["system"].instructions


def propose(address: str, folder: Path, calls: int, seed: int) -> Candidate | None:
    """The candidate that `Prompts` makes, or goes on to make."""
    proposer = Prompts(optimizer="gepa", budget=Budget(calls=calls), validation=VALIDATION)
    parent = Registered(first_candidate(project_at(address), None, None))
    try:
        made = made_by(proposer, parent, Evidence(examples=known()), work_at(address, folder, seed))
    except NothingToPropose as reason:
        print(f"    {reason}", file=sys.stderr)
        return None
    return None if made is None else made.candidate


def sides(seed: int) -> tuple[list[str], list[str]]:
    """The same requests to write from and to choose by for everybody."""
    training, validation = split(known(), VALIDATION, seed)
    return [e.view.observation.text for e in training], [e.view.observation.text for e in validation]


def by_dspy(server: Endpoint12, calls: int, seed: int) -> str:
    import dspy

    lm = dspy.LM("openai/scripted", api_base=server.address, api_key="none", cache=False)

    def metric(gold: Any, pred: Any, trace: Any = None, name: Any = None, part: Any = None) -> Any:
        return dspy.Prediction(score=float(pred.team == gold.team), feedback=feedback(gold.request))

    def row(text: str) -> Any:
        return dspy.Example(request=text, team=right(text)).with_inputs("request")

    training, validation = sides(seed)
    with dspy.context(lm=lm), redirect_stdout(StringIO()):
        student = dspy.Predict(dspy.Signature("request -> team", FIRST))
        search = dspy.GEPA(metric=metric, max_metric_calls=calls, reflection_lm=lm, seed=seed, num_threads=8)
        found = search.compile(student, trainset=list(map(row, training)), valset=list(map(row, validation)))
    return str(found.signature.instructions)


def by_mlflow(server: Endpoint12, calls: int, seed: int) -> str:
    import mlflow
    import openai
    from mlflow.entities import Feedback
    from mlflow.genai.optimize import GepaPromptOptimizer
    from mlflow.genai.scorers import scorer

    os.environ |= {"OPENAI_API_BASE": server.address, "OPENAI_API_KEY": "none"}
    client, name = openai.OpenAI(base_url=server.address, api_key="none"), f"rules-{calls}-{seed}"
    where = f"{os.environ['MLFLOW_TRACKING_URI'].removeprefix('sqlite:///')}-{name}"  # else it is ./mlruns
    mlflow.set_experiment(experiment_id=mlflow.create_experiment(name, artifact_location=where))
    uri = mlflow.genai.register_prompt(name=name, template=FIRST).uri

    def predict(request: str) -> str:
        system = mlflow.genai.load_prompt(uri).format()
        messages = [{"role": "system", "content": system}, {"role": "user", "content": request}]
        said = client.chat.completions.create(model="scripted", messages=messages)  # type: ignore[arg-type]
        return str(said.choices[0].message.content)

    @scorer
    def solved(inputs: dict[str, Any], outputs: str) -> Feedback:
        request = inputs["request"]
        return Feedback(value=float(outputs == right(request)), rationale=feedback(request))

    rows = [{"inputs": {"request": text}, "outputs": right(text)} for text in sides(seed)[0]]
    with redirect_stdout(StringIO()):
        found = mlflow.genai.optimize_prompts(
            predict_fn=predict, train_data=rows, prompt_uris=[uri], scorers=[solved],
            optimizer=GepaPromptOptimizer("openai:/scripted", max_metric_calls=calls, gepa_kwargs={"seed": seed}),
        )  # fmt: skip
    return str(found.optimized_prompts[0].template)


RUNS: dict[str, Callable[[Endpoint12, int, int], str]] = {"ours": ours, "dspy": by_dspy, "mlflow": by_mlflow}
NAMES = {"ours": 'Prompts(optimizer="gepa")', "dspy": "dspy.GEPA", "mlflow": "mlflow optimize_prompts"}


def table(calls: Sequence[int], seeds: int, only: Sequence[str]) -> None:
    print(f"{'':28}{'calls':>6}{'asked':>7}{'rules':>7}{'accuracy':>10}{'seconds':>9}   by seed", flush=True)
    for name in only:
        for budget in calls:
            found, asked, took = [], [], []
            for seed in range(seeds):
                with serving() as server:
                    began = time.perf_counter()
                    found.append(RUNS[name](server, budget, seed))
                    took.append(time.perf_counter() - began)
                    asked.append(server.calls.total())
            rules = [rules_in(text) for text in found]
            print(
                f"{NAMES[name]:28}{budget:>6}{statistics.fmean(asked):>7.0f}{statistics.median(rules):>7g}"
                f"{statistics.fmean(map(accuracy, found)):>10.2f}{statistics.fmean(took):>9.1f}   {rules}",
                flush=True,
            )


def kills(budget: int, n: int) -> bool:
    """Whether starts that are killed after a quarter, a half … of the calls end as one that is not.

    At most the eight calls that are under way at a kill are made again. One server for all: its address is part of
    a candidate.
    """
    with serving() as server:
        whole, paid = child(server, budget, [])
        places = [paid * (k + 1) // (n + 1) for k in range(n)]
        print(f"undisturbed: {whole}, {paid} calls", flush=True)
        same = True
        for some in (*([place] for place in places), places):
            again, more = child(server, budget, some)
            same = same and again == whole
            print(
                f"killed at call {', '.join(map(str, some))}: {again}, {more - paid} more calls", flush=True
            )
    return same


def child(server: Endpoint12, budget: int, places: Sequence[int]) -> tuple[str, int]:
    """The id that a process ends with, killed at these calls and started again after each, and all calls."""
    server.calls.clear()
    with tempfile.TemporaryDirectory() as folder:
        for place in [*places, 0]:
            told = [sys.executable, __file__, "--child", server.address, folder, str(budget)]
            process = subprocess.Popen(told, stdout=subprocess.PIPE, text=True)
            server.at = (place, process.kill) if place else None
            said, _ = process.communicate()
            assert process.returncode == (-signal.SIGKILL if place else 0), (
                f"it ended with {process.returncode}"
            )
    return said.strip(), server.calls.total()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", default="100,150,200,300")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="ours,dspy,mlflow")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        address, folder, budget = given.child
        made = propose(address, Path(folder), int(budget), 0)
        print(made.candidate_id if made else "nothing")
        return 0
    calls = [int(one) for one in given.calls.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        table(calls, given.seeds, given.only.split(","))
    return 0 if given.kills == 0 or kills(calls[-1], given.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
