"""Each kind of agent as a new user has it: `init`, traffic through the user's own code in a process of its own,
traces by its own instrumentation, `improve`, `approve`, and the same process answers as the new version.

A real MLflow server and a real Prefect server; the LM is the desk's scripted endpoint.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import httpx
import mlflow
import openai
import pytest
import tenacity
from tests.flows.conftest import free_port

from ratchet.flows.template.desk import scripted_llm
from ratchet.flows.template.desk.scripted_llm import TOPICS, ScriptedLLM, running, topics
from ratchet.infra.registry.registry import champion
from ratchet.infra.review.queue import answer, pending

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server"),
    # LiteLLM's and the user's own clients keep their connections as long as the process lives
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DAYS, FRESH = 64, 24
"""Requests of the days before, and of the day after."""
LINES = (Path(scripted_llm.__file__).parent / "requests.jsonl").read_text().splitlines()
REQUESTS = [json.loads(line)["request"] for line in LINES]
PRODUCTION = """
import json, sys
import mlflow
{begin}
mlflow.set_experiment({name!r})
for line in sys.stdin:
    asked = json.loads(line)
    {call}
    if asked["flush"]:  # a second each
        mlflow.flush_trace_async_logging()
    print(json.dumps({{"answer": answer, "trace": mlflow.get_last_active_trace_id()}}), flush=True)
"""


class Answer(NamedTuple):
    answer: str
    trace: str


class Ask(Protocol):
    def __call__(self, request: str, *, flush: bool = False) -> Answer: ...


class Desk(NamedTuple):
    """A project that `ratchet init` made."""

    folder: Path
    name: str

    @contextmanager
    def production(self, begin: str, call: str) -> Iterator["Ask"]:
        """The user's own process, which answers until the block ends; `flush`: all its traces are in MLflow then."""
        code = PRODUCTION.format(begin=begin.format(name=self.name), name=self.name, call=call)
        command = [sys.executable, "-c", code]
        with subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:

            def ask(request: str, *, flush: bool = False) -> Answer:
                assert process.stdin is not None
                assert process.stdout is not None
                asked = {"request": request, "session": f"ticket: {request}", "flush": flush}
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
                return Answer(**json.loads(process.stdout.readline()))

            yield ask
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture(scope="module")
def llm() -> Iterator[ScriptedLLM]:
    with running() as server:
        yield server


@pytest.fixture
def desk(ratchet, monkeypatch, tmp_path, mlflow_server, llm, project) -> Callable[[str], Desk]:
    """`ratchet init --kind …` in an environment that names MLflow, the endpoint, and nothing else."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("OPENAI_BASE_URL", llm.address)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("RATCHET_USER", "anna")
    monkeypatch.setenv("RATCHET_PARTS_TTL_S", "0.5")
    for module in ("support", "tickets", "project"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path)  # so that what `load_project` adds is gone after the test

    def make(kind: str) -> Desk:
        made = ratchet("init", tmp_path / project, "--kind", kind, "--json")
        assert made.returncode == 0, made.stderr
        told = json.loads(made.stdout)
        return Desk(Path(told["folder"]), told["project"])

    return make


def right(request: str) -> str:
    return TOPICS[topics()[request.lower()]]


def share_right(asked: list[str], answers: list[Answer]) -> float:
    return sum(one.answer == right(request) for request, one in zip(asked, answers, strict=True)) / len(asked)


def improved(ratchet: Callable[..., Any], desk: Desk) -> str:
    """`improve`, then `approve`; the id of the version that serves from then on."""
    done = ratchet("improve", "--project", desk.folder, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == []
    best = report["decision"]["best"]
    approved = ratchet("approve", best, "--project", desk.folder, "--yes", "--json")
    assert approved.returncode == 0, approved.stderr
    version = champion(desk.name)
    assert version is not None
    assert version.candidate_id == best
    return str(best)


def before_and_after(
    ratchet: Callable[..., Any],
    desk: Desk,
    ask: Ask,
    people: Callable[[Desk, dict[str, str]], None] | None = None,
) -> None:
    """Days of traffic, a better version, and what the same process answers then."""
    past, fresh = REQUESTS[:DAYS], REQUESTS[DAYS : DAYS + FRESH]
    answers = [ask(request, flush=request == past[-1]) for request in past]
    before = share_right(past, answers)
    assert before < 0.3
    if people is not None:
        assert "wait for people" in ratchet("improve", "--project", desk.folder).stderr
        people(desk, {one.trace: request for request, one in zip(past, answers, strict=True)})
    best = improved(ratchet, desk)
    for _ in range(100):  # until this process, which asks at most so often, has seen the alias move
        if version_on(ask(fresh[0], flush=True).trace) == best:
            break
    answers = [ask(request, flush=request == fresh[-1]) for request in fresh]
    waits = tenacity.Retrying(stop=tenacity.stop_after_delay(20), wait=tenacity.wait_fixed(0.2))
    for attempt in waits:
        with attempt:
            assert {version_on(one.trace) for one in answers} == {best}
    assert share_right(fresh, answers) > 2 * before


def version_on(trace: str) -> str:
    """The version that a trace names, as MLflow has it: by its tag, or by the prompts that it is linked to."""
    found = mlflow.get_trace(trace)
    if found is None:  # `ratchet serve` sends its traces in batches
        return ""
    if "candidate_id" in found.info.tags:
        return str(found.info.tags["candidate_id"])
    for prompt in json.loads(found.info.tags.get("mlflow.linkedPrompts", "[]")):
        return str(mlflow.genai.load_prompt(prompt["name"], version=prompt["version"]).tags["candidate_id"])
    return ""


def test_a_callable(desk, ratchet):
    made = desk("callable")
    call = "with ratchet.session(asked['session']): answer = support(asked['request'])"
    with made.production("import ratchet\nfrom support import support\nmlflow.openai.autolog()", call) as ask:
        before_and_after(ratchet, made, ask)


def test_a_dspy_module(desk, ratchet):
    made = desk("dspy")
    call = "with ratchet.session(asked['session']): answer = support(request=asked['request']).team"
    with made.production(
        "import ratchet\nfrom support import support\nmlflow.dspy.autolog()",
        call,
    ) as ask:
        before_and_after(ratchet, made, ask)


def test_the_gateway(desk, ratchet, llm):
    made = desk("gateway")
    settings = made.folder / "ratchet.toml"
    told = settings.read_text().replace("http://127.0.0.1:8399/v1", llm.address)
    settings.write_text(f"{told}\n[selection]\ngate_labels = 100  # people say before anything is tested\n")
    with serving(made) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")

        def ask(request: str, *, flush: bool = False) -> Answer:
            messages = [{"role": "user", "content": request}]
            raw = client.chat.completions.with_raw_response.create(
                model=f"ratchet/{made.name}", messages=messages
            )
            return Answer(raw.parse().choices[0].message.content, f"tr-{raw.headers['x-ratchet-trace']}")

        before_and_after(ratchet, made, ask, answer_all)


def answer_all(desk: Desk, asked: dict[str, str]) -> None:
    """People say what would have been right; before that `improve` waits for them."""
    for item in pending(desk.name):
        request = asked[f"tr-{item.trace_id}"]
        answer(desk.name, item.trace_id, expected=right(request), rater="anna")


@contextmanager
def serving(desk: Desk) -> Iterator[str]:
    """Address of `ratchet serve`, ready."""
    port = free_port()
    command = [
        sys.executable,
        "-c",
        "from ratchet.flows.cli import main; main()",
        "serve",
        "--port",
        str(port),
    ]
    with subprocess.Popen([*command, "--poll", "0.2"], cwd=desk.folder) as process:
        try:
            for attempt in tenacity.Retrying(
                stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(0.2)
            ):
                with attempt:
                    httpx.get(f"http://127.0.0.1:{port}/readyz").raise_for_status()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


ALONE = """
sys.modules["ratchet"] = None  # none of it is there
import openai
mlflow.openai.autolog()
client = openai.OpenAI()

@mlflow.trace
def support(request):
    prompt = mlflow.genai.load_prompt("prompts:/{name}-system@champion", cache_ttl_seconds=1)
    messages = [dict(role="system", content=prompt.template), dict(role="user", content=request)]
    return client.chat.completions.create(model="scripted", messages=messages).choices[0].message.content
"""


def test_an_agent_that_only_loads_its_prompt_in_a_process_without_ratchet(desk, ratchet, monkeypatch):
    made = desk("callable")
    for file, old, new in (
        (
            "support.py",
            f'ratchet.examples("{made.name}-system", request)',
            "[]",
        ),  # so they go into the prompt
        ("project.py", "recalls=4", "recalls=16"),
    ):
        text = (made.folder / file).read_text()
        assert old in text
        (made.folder / file).write_text(text.replace(old, new))
    monkeypatch.delitem(sys.modules, "support")  # `init` has loaded the project as it was
    assert ratchet("improve", "--project", made.folder, "--json").returncode == 3  # its prompts are there now
    with made.production(ALONE.format(name=made.name), "answer = support(asked['request'])") as ask:
        before_and_after(ratchet, made, ask)
