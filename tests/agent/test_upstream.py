"""A chat endpoint asked by the gate: what is tried again, what is refused, whose failure it is, and what it took."""

import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.case import Case
from ratchet.agent.errors import LMFailure
from ratchet.agent.kinds.chat_endpoint import Chat
from ratchet.agent.lm.upstream import Upstream, UpstreamError
from ratchet.agent.project import Project
from ratchet.agent.rollout.loop import run

BODY = {"model": "small", "messages": [{"role": "user", "content": "My parcel is late."}]}


def test_what_may_succeed_later_is_asked_again_when_the_server_says(scripted_endpoint):
    said = [(503, "busy", {"Retry-After": "0"}), (429, "slow down", {"Retry-After": "0"}), "lynx"]
    scripted_endpoint.answer = lambda _: said.pop(0)
    answer = Upstream(scripted_endpoint.url).ask(BODY)
    assert answer["choices"][0]["message"]["content"] == "lynx"
    assert len(scripted_endpoint.prompts) == 3


@pytest.mark.parametrize(
    "refusal",
    [
        (400, "too long"),
        (401, "who?"),
        (404, "what?"),
        (302, "there", {"Location": "http://127.0.0.1:9/elsewhere"}),
        (429, "tomorrow", {"Retry-After": "86400"}),
    ],
)
def test_what_will_not_succeed_is_asked_once_and_nobody_else_is(scripted_endpoint, refusal):
    scripted_endpoint.answer = lambda _: refusal
    with pytest.raises(UpstreamError, match=f"chat/completions: {refusal[0]}") as refused:
        Upstream(scripted_endpoint.url, api_key="s3cret").ask(BODY)
    assert "s3cret" not in str(refused.value)
    assert len(scripted_endpoint.prompts) == 1


def test_where_nobody_answers_that_is_said():
    with pytest.raises(UpstreamError, match="ConnectError"):
        Upstream("http://127.0.0.1:9/v1", num_retries=0).ask(BODY)


@pytest.mark.parametrize(
    "garbage", [b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": "hi"}]}']
)
def test_what_is_no_chat_completion_is_the_agent_s_failure(garbage):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(garbage)))
            self.end_headers()
            self.wfile.write(garbage)

        def log_message(self, *_):
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with pytest.raises(LMFailure, match="no chat completion"):
                Upstream(f"http://127.0.0.1:{server.server_port}/v1").ask(BODY)
        finally:
            server.shutdown()
            thread.join()


def test_cases_are_played_many_at_once_with_what_they_took_and_whose_failure_it_was(scripted_endpoint):
    gate = threading.Barrier(4, timeout=20)

    def answer(prompt):
        if "broken" in prompt:
            return 400, "no"
        gate.wait()
        return prompt.upper()

    scripted_endpoint.answer = answer
    chat = Chat(upstream=scripted_endpoint.url, model="small", system="Shout.")
    project = Project(name="desk", agent=chat, score=lambda case, said: float(said == case.expected))
    agent = make_agent(
        project, first_candidate(project, None, None), {}, endpoint={"concurrency": 4, "api_key": "k"}
    )
    asked = ["a", "b", "c", "d", "broken"]
    cases = [
        Case(inputs={"messages": [{"role": "user", "content": one}]}, expected=one.upper()) for one in asked
    ]
    traces = run(agent, cases, project.environment, at=lambda _: datetime.now(UTC))
    assert [trace.score for trace in traces] == [1, 1, 1, 1, None]
    assert {trace.answer for trace in traces[:4]} == {"A", "B", "C", "D"}
    used = traces[0].usage
    assert (used.input_tokens, used.output_tokens, used.lm_calls) == (7, 2, 1)
    assert traces[4].error.kind == "infrastructure"
    assert "400" in traces[4].error.message
