"""`ratchet serve`, as a process of its own, before a scripted endpoint and a real MLflow."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import httpx
import psutil
import pytest
from tests.infra.chat_server import TOOL_CALL, Gate, Served, Upstream, upstream, write_project

from ratchet.agent.candidate import Predictor
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.alias_moves import point
from ratchet.infra.registry.registry import champion, register
from ratchet.infra.traces.lookup import look_up_traces

KEY = {"Authorization": "Bearer second"}
CHAT = "/v1/chat/completions"
pytestmark = pytest.mark.server


class Service(NamedTuple):
    """A served project, its endpoint and its name."""

    served: Served
    scripted: Upstream
    name: str

    def ask(self, content: Any, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        asked = {"model": f"ratchet/{self.name}", "messages": [{"role": "user", "content": content}]} | body
        return httpx.post(self.served.url + CHAT, json=asked, headers=KEY | (headers or {}), timeout=20)


@pytest.fixture(scope="module")
def service(mlflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One process for all tests that do not kill it."""
    name = "test-serve"
    folder = tmp_path_factory.mktemp("served")
    with upstream() as (scripted, address):
        write_project(folder, name, address)
        told = {"RATCHET_SERVE_KEYS": "first, second", "RATCHET_LM_API_KEY": "sk-upstream"}
        told |= {"RATCHET_SERVE_MAX_BODY": "4096", "RATCHET_HOME": str(mlflow_home)}
        served = Served(folder, **told).ready()
        try:
            yield Service(served, scripted, name)
        finally:
            served.stop()
        assert "sk-upstream" not in served.log.read_text()


@pytest.fixture(autouse=True)
def _same_mlflow(mlflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(mlflow_home))


def test_an_answer_comes_as_it_is_under_its_version_and_its_trace(service):
    answer = service.ask(
        "where?", {"x-ratchet-session": "s-1"}, temperature=0.5, user="u-1", unheard_of={"a": 1}
    )
    now = champion(service.name)
    assert (answer.status_code, answer.headers["x-ratchet-version"]) == (200, now.candidate_id)
    assert answer.json()["odd"] == [1]
    assert "version one" in answer.json()["choices"][0]["message"]["content"]
    sent = service.scripted.asked[-1]
    assert (sent["model"], sent["temperature"], sent["unheard_of"]) == ("scripted", 0.5, {"a": 1})
    assert service.scripted.keys == {"Bearer sk-upstream"}
    by_user = service.ask("who?", user="u-1")
    service.served.sent(KEY)
    found = look_up_traces(service.name, [one.headers["x-ratchet-trace"] for one in (answer, by_user)]).traces
    trace, other = (found[one.headers["x-ratchet-trace"]].trace for one in (answer, by_user))
    messages = [{"role": "user", "content": "where?"}]
    assert trace.case.inputs == {"messages": messages, "temperature": 0.5, "unheard_of": {"a": 1}}
    assert (trace.candidate_id, trace.session_id, other.session_id) == (now.candidate_id, "s-1", "u-1")
    assert "version one" in trace.answer
    assert (trace.usage.input_tokens, trace.usage.output_tokens, trace.error) == (3, 2, None)


def test_a_stream_passes_event_by_event_and_ends_when_its_trace_is_on_disk(service):
    body = {
        "model": f"ratchet/{service.name}",
        "messages": [{"role": "user", "content": "wait"}],
        "stream": True,
    }
    url = service.served.url + CHAT
    with httpx.stream("POST", url, json=body, headers=KEY, timeout=20) as answer:
        lines = (line for line in answer.iter_lines() if line)
        first = next(lines)  # the endpoint says the second word only after this
        service.scripted.go_on.set()
        rest = list(lines)
    assert json.loads(first.removeprefix("data: "))["choices"][0]["delta"]["content"] == "version "
    assert (rest[-1], answer.headers["content-type"]) == ("data: [DONE]", "text/event-stream")
    service.served.sent(KEY)
    trace_id = answer.headers["x-ratchet-trace"]
    trace = look_up_traces(service.name, [trace_id]).traces[trace_id].trace
    assert (trace.answer.split()[:2], trace.usage.input_tokens) == (["version", "one"], 3)


def test_tools_go_up_and_their_calls_come_down_and_stand_on_the_trace(service):
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    answer = service.ask("order 4711?", tools=tools)
    assert answer.json()["choices"][0]["message"]["tool_calls"] == [TOOL_CALL]
    assert service.scripted.asked[-1]["tools"] == tools
    service.served.sent(KEY)
    trace_id = answer.headers["x-ratchet-trace"]
    trace = look_up_traces(service.name, [trace_id]).traces[trace_id].trace
    assert trace.answer == {"tool_calls": [{"name": "look_up", "arguments": {"order": 4711}}]}
    assert trace.case.inputs["tools"] == tools


def test_what_the_upstream_refuses_is_passed_on_and_no_redirect_is_followed(service):
    refused = service.ask("fail")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert refused.json() == {"error": {"message": "slow down"}}
    elsewhere = service.ask("elsewhere")
    assert elsewhere.status_code == 502
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            service.served.url + CHAT,
            json={
                "model": f"ratchet/{service.name}",
                "messages": [{"role": "user", "content": "wait for ever"}],
            },
            headers=KEY,
            timeout=0.7,
        )
    assert service.scripted.left.wait(10), "the upstream still works for a caller who has left"
    service.served.sent(KEY)
    ids = [one.headers["x-ratchet-trace"] for one in (refused, elsewhere)]
    errors = [look_up_traces(service.name, ids).traces[one].trace.error for one in ids]
    assert [error.kind for error in errors] == ["infrastructure", "infrastructure"]


def test_without_a_key_or_with_too_much_or_the_wrong_thing_nothing_is_asked(service):
    before = len(service.scripted.asked)
    url = service.served.url
    assert httpx.post(url + CHAT, json={}).status_code == 401
    assert httpx.post(url + CHAT, json={}, headers={"Authorization": "Bearer third"}).status_code == 401
    assert httpx.get(url + "/metrics").status_code == 401
    assert service.ask("x" * 5000).status_code == 413
    assert (
        httpx.post(url + CHAT, content=b"{}", headers=KEY | {"Content-Type": "text/plain"}).status_code == 415
    )
    assert (
        httpx.post(url + CHAT, content=b"{", headers=KEY | {"Content-Type": "application/json"}).status_code
        == 400
    )
    assert service.ask("hi", model="gpt-5").status_code == 404
    assert service.ask("hi", model=f"ratchet/{service.name}@0000").status_code == 404
    assert (
        "access-control-allow-origin"
        not in httpx.options(
            url + CHAT,
            headers=KEY | {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        ).headers
    )
    assert len(service.scripted.asked) == before


def test_feedback_becomes_a_label_and_twice_is_once(service):
    answer = service.ask("was this right?")
    said = {"trace_id": answer.headers["x-ratchet-trace"], "score": 0, "correction": "two", "rater": "ada"}
    url = service.served.url + "/v1/feedback"
    assert [httpx.post(url, json=said, headers=KEY).status_code for _ in range(2)] == [202, 202]
    assert httpx.post(url, json=said | {"score": 7}, headers=KEY).status_code == 400
    service.served.sent(KEY)
    [label] = look_up_traces(service.name, [said["trace_id"]]).traces[said["trace_id"]].labels
    assert (label.score, label.expected, label.rater, label.source) == (0.0, "two", "ada", "human")


def test_the_champion_moves_under_load_and_every_answer_is_of_the_version_that_it_names(service, tmp_path):
    first = champion(service.name)
    changed = first.candidate.model_copy(
        update={
            "predictors": {name: Predictor(instructions="version two") for name in first.candidate.predictors}
        }
    )
    memory = Memory(
        [
            Experience(
                observation="My parcel is late",
                action="respond",
                arguments={"content": "Ask the lynx."},
                trace_id="t0",
                case_id="c0",
                source="own",
            )
        ]
    )
    memory.save(path := tmp_path / "memory.jsonl")
    recalling = {"memory": memory.memory_id, "topology": changed.topology.model_copy(update={"recalls": 1})}
    changed = changed.model_copy(update=recalling)
    second = register(service.name, changed, files={"memory": path}, seen_case_ids=[], cost={})

    async def asked_until_switched() -> list[tuple[str, str]]:
        answers: list[tuple[str, str]] = []
        done = asyncio.Event()

        async def ask(session: aiohttp.ClientSession) -> None:
            body = {
                "model": f"ratchet/{service.name}",
                "messages": [{"role": "user", "content": "slow"}],
            }
            while not done.is_set():
                async with session.post(service.served.url + CHAT, json=body) as response:
                    content = (await response.json())["choices"][0]["message"]["content"]
                    answers.append((response.headers["x-ratchet-version"], content))

        async def switch() -> None:
            connection = connect(service.name)
            for to in (second, first, second):
                await asyncio.to_thread(point, connection, "champion", to.number)
                seen = len(answers)
                async with asyncio.timeout(30):
                    while to.candidate_id not in {version for version, _ in answers[seen:]}:
                        await asyncio.sleep(0.02)
            done.set()

        async with aiohttp.ClientSession(headers=KEY) as session:
            await asyncio.gather(switch(), *(ask(session) for _ in range(8)))
        return answers

    answers = asyncio.run(asked_until_switched())
    says = {first.candidate_id: "version one", second.candidate_id: "version two"}
    assert {version for version, _ in answers} == set(says)
    assert all(says[version] in content for version, content in answers)
    recalled = service.ask("My parcel is late!", model=f"ratchet/{service.name}@{second.number}")
    assert recalled.headers["x-ratchet-version"] == second.candidate_id
    sent = [message["content"] for message in service.scripted.asked[-1]["messages"]]
    assert sent == ["version two", "My parcel is late", "Ask the lynx.", "My parcel is late!"]
    service.served.sent(KEY)
    trace_id = recalled.headers["x-ratchet-trace"]
    trace = look_up_traces(service.name, [trace_id]).traces[trace_id].trace
    assert (trace.attempts[0].recalled, trace.memory_id) == (("t0",), memory.memory_id)
    listed = httpx.get(service.served.url + "/v1/models", headers=KEY).json()["data"]
    assert [one["id"] for one in listed][:1] == [f"ratchet/{service.name}"]


IN_PYTHON = '''"""A callable with one part."""

import ratchet

manner = ratchet.prompt("manner", default="politely")


def support(question: str, loud: bool = False) -> dict:
    if question == "break":
        raise ValueError("no such order")
    said = f"{manner()}: {question}"
    return {"said": said.upper() if loud else said, "trial": ratchet.is_trial()}


project = ratchet.Project(name="__NAME__", agent=support, parts=[manner], proposers=())
'''


def test_an_agent_in_python_answers_cases_and_hears_what_people_say(tmp_path, project):
    folder = tmp_path / "python"
    folder.mkdir()
    (folder / "project.py").write_text(IN_PYTHON.replace("__NAME__", project))
    served = Served(folder).ready()
    try:

        def ask(**body: Any) -> httpx.Response:
            return httpx.post(
                served.url + "/v1/act", json=body, headers={"x-ratchet-session": "s"}, timeout=20
            )

        with ThreadPoolExecutor(8) as pool:
            asked = [{"question": f"order {number}?", "loud": number == 3} for number in range(8)]
            answers = list(pool.map(lambda inputs: ask(inputs=inputs), asked))
        assert answers[3].json()["answer"] == {"said": "POLITELY: ORDER 3?", "trial": False}
        broken, wrong = ask(inputs={"question": "break"}), ask(inputs=["question"])
        assert (broken.status_code, wrong.status_code) == (500, 400)
        assert "no such order" in broken.json()["error"]["message"]
        assert served.status(CHAT, {"model": f"ratchet/{project}", "messages": []}) == 404
        assert served.status("/v1/act", {}, host="evil.example") == 403
        said = {"trace_id": answers[0].json()["trace_id"], "comment": "thanks"}
        [sender] = psutil.Process(served.process.pid).children()
        sender.kill()  # another takes over where it was
        assert served.status("/v1/feedback", said | {"score": 1}) == 202
        served.sent()
    finally:
        served.stop()
    found = look_up_traces(project, [one.headers["x-ratchet-trace"] for one in (*answers, broken)]).traces
    trace = found[said["trace_id"]]
    assert (trace.trace.answer["said"], trace.trace.session_id) == ("politely: order 0?", "s")
    assert (
        trace.trace.candidate_id == champion(project).candidate_id == answers[0].headers["x-ratchet-version"]
    )
    assert [(label.score, label.comment) for label in trace.labels] == [(1.0, "thanks")]
    assert found[broken.headers["x-ratchet-trace"]].trace.error is not None


def test_a_kill_under_load_loses_no_answer_that_was_given(mlflow_home, tmp_path, project):
    with upstream() as (_, address):
        folder = write_project(tmp_path / "killed", project, address)
        served = Served(folder).ready()
        body = {"model": f"ratchet/{project}", "messages": [{"role": "user", "content": "hello"}]}
        given: list[str] = []

        async def load() -> None:
            async with aiohttp.ClientSession() as session:

                async def ask() -> None:
                    while True:
                        try:
                            async with session.post(served.url + CHAT, json=body) as response:
                                assert response.status == 200
                                await response.read()
                                given.append(response.headers["x-ratchet-trace"])
                        except (aiohttp.ClientError, ConnectionError):
                            return

                async def kill() -> None:
                    while len(given) < 150:
                        await asyncio.sleep(0.01)
                    served.kill()

                await asyncio.gather(kill(), *(ask() for _ in range(16)))

        asyncio.run(load())
        again = Served(folder).ready()
        journals = mlflow_home / "serve" / project / "journals"
        again.until(lambda: len(list(journals.iterdir())) == 1, "the dead one's journal was not sent")
        again.stop()
    found = look_up_traces(project, given).traces
    assert len(given) == len(set(given)) >= 150
    assert set(found) == set(given)
    assert not list(journals.iterdir())


def test_nobody_notices_that_mlflow_is_down(mlflow_server, tmp_path, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    gate = Gate(int(mlflow_server.rpartition(":")[2]))
    gate.open()
    try:
        with upstream() as (_, address):
            folder = write_project(tmp_path / "down", project, address)
            told = {
                "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{gate.port}",
                "RATCHET_HOME": str(tmp_path / "home"),
            }
            served = Served(folder, **told).ready()

            async def sessions() -> list[str]:
                given = []
                connector = aiohttp.TCPConnector(limit=64)
                async with aiohttp.ClientSession(connector=connector) as session:

                    async def talk(number: int) -> None:
                        body = {"model": f"ratchet/{project}", "user": f"session {number}"}
                        body["messages"] = [{"role": "user", "content": f"I am {number}"}]
                        for turn in range(2):
                            if turn == 1:
                                await both_down
                            async with session.post(served.url + CHAT, json=body) as response:
                                assert response.status == 200
                                await response.read()
                                given.append(response.headers["x-ratchet-trace"])

                    both_down = asyncio.get_running_loop().create_future()
                    talks = [asyncio.create_task(talk(number)) for number in range(200)]
                    while len(given) < 100:
                        await asyncio.sleep(0.01)
                    await asyncio.to_thread(gate.shut)
                    both_down.set_result(None)
                    await asyncio.gather(*talks)
                return given

            given = asyncio.run(sessions())
            assert served.metric("ratchet_unsent") > 0
            assert httpx.get(f"{served.url}/readyz").status_code == 200
            gate.open()
            served.sent()
            served.stop()
    finally:
        gate.end()
    found = look_up_traces(project, given).traces
    assert len(found) == len(set(given)) == 400
    assert sorted(one.trace.session_id for one in found.values()) == sorted(
        f"session {number}" for number in range(200) for _ in range(2)
    )
