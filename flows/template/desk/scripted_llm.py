"""A scripted chat endpoint for the support desk: no LLM stands behind it, and what it does not read it does not know.

    python scripted_llm.py [--port 8399] [--latency-ms 0]

It serves OpenAI's /v1/chat/completions (streamed, too, and with tools) and /v1/models on this machine. It knows what
each request of `requests.jsonl` is about, but not which team solves that: this it reads in its prompt, in a rule
("Payments go to heron.") or in a worked example about the same topic, and obeys, right or wrong. Else it guesses, the
same each time, and is right once in four. A note that its answer was wrong lets it find the right one; asked to
reflect on a failed attempt, it writes such a note, and asked to write a prompt anew it adds the rules that the cases
in front of it tell. So an agent in front of it gets better as its prompt does, and for
no other reason: made to try Ratchet with, without a key, a bill or a download.
"""

import argparse
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOPICS = {"payments": "heron", "deliveries": "lynx", "accounts": "otter", "devices": "wren"}
TEAMS = tuple(TOPICS.values())
RULE = "Payments go to heron, deliveries to lynx, accounts to otter, devices to wren."
"""All that is to be learned."""
PORT = 8399
TEAM, TOPIC = f"({'|'.join(TEAMS)})", f"({'|'.join(TOPICS)})"
RULES = [rf"(?P<topic>{TOPIC})\W+(?:\w+\W+){{0,2}}?(?P<team>{TEAM})\b"]
RULES += [rf"\b(?P<team>{TEAM}) (?:solves|handles|takes) (?:\w+ )?(?P<topic>{TOPIC})"]
WRONG = rf"\b{TEAM}\b[^.\n]{{0,20}}\bwrong|did not work[^.\n]*?\b{TEAM}\b|\bnot (?:to )?{TEAM}\b"
WRITES = "Write the whole text anew"
"""In what `ratchet.Prompts` asks of the LM that writes instructions."""
FIELD = r"\[\[ ## (\w+) ## \]\]\s*"


@cache
def topics() -> dict[str, str]:
    """Request, in small letters → what it is about."""
    rows = {name: (HERE / name).read_text(encoding="utf-8") for name in ("requests.jsonl", "solved.jsonl")}
    solved, asked = ({row["ticket"]: row for row in map(json.loads, text.splitlines())} for text in
                     (rows["solved.jsonl"], rows["requests.jsonl"]))  # fmt: skip
    about = {team: topic for topic, team in TOPICS.items()}
    return {row["request"].lower(): about[solved[ticket]["team"]] for ticket, row in asked.items()}


def answer(messages: list[dict[str, Any]], field: str = "") -> str:
    """The team (or the topic, where the prompt asks for that) of the request that the messages end with.

    Args:
        messages: as in OpenAI's API.
        field: name of the output that is asked for, where the prompt asks for several.
    """
    prompt = "\n".join(f"{one.get('role')}: {_text(one)}" for one in messages).lower()
    last = max((n for n, one in enumerate(messages) if one.get("role") == "user"), default=0)
    start = len("\n".join(f"{one.get('role')}: {_text(one)}" for one in messages[:last]))
    found = [(at, known) for known in topics() if (at := prompt.rfind(known, start)) >= 0]
    at, request = max(found, default=(start, _asked(prompt[start:])))
    before = prompt[:at]
    if "attempt at a task failed" in prompt:
        return _reflection(prompt, request)
    if field == "topic" or (not field and re.search(r"\b(which|name the) topic\b", before)):
        return _topic(request, before)
    given = re.search(rf"(?:topic:|topic ## \]\])\s*{TOPIC}\b", prompt[start:])
    return _team(request, given[1] if given else _about(request), before, prompt)


def _team(request: str, topic: str, before: str, prompt: str) -> str:
    offered = [
        team for team in TEAMS if re.search(rf"^- {team}\b(?! was wrong)", before, re.MULTILINE)
    ] or list(TEAMS)
    said = _guess(request, offered)
    for learned in (_examples(before, TEAM), _rules(before)):
        said = learned.get(topic, said)
    wrong = {name for found in re.findall(WRONG, prompt) for name in found if name}
    if said in wrong or said not in offered:
        return TOPICS[topic] if TOPICS[topic] in offered else _guess(request, offered)
    return said


def _topic(request: str, before: str) -> str:
    right, known = _about(request), _examples(before, TOPIC)
    ruled = re.search(rf"\b{right}\b", _without_requests(before.split("user:")[0]))
    return known.get(right, right if ruled else _guess(request, list(TOPICS)))


def _examples(before: str, names: str) -> dict[str, str]:
    """What worked examples say: topic → the name that stands behind a request about it, and before the next."""
    there = [known for known in topics() if known in before]
    marks = sorted(
        (found.start(), known) for known in there for found in re.finditer(re.escape(known), before)
    )
    learned = {}
    for (start, known), (end, _) in pairwise([*marks, (len(before), "")]):
        begin = start + len(known)
        if named := re.search(rf"\b{names}\b", before[begin : min(end, begin + 200)]):
            learned[topics()[known]] = named[1]
    return learned


def _rules(before: str) -> dict[str, str]:
    before = _without_requests(before)
    return {found["topic"]: found["team"] for rule in RULES for found in re.finditer(rule, before)}


def _without_requests(text: str) -> str:
    """Some requests name a topic, too ("Log me out on all other devices"); that is no rule."""
    for known in topics():
        text = text.replace(known, "")
    return text


def _reflection(prompt: str, request: str) -> str:
    tried = re.findall(rf"did: [^\n]*?\b{TEAM}\b", prompt) or re.findall(rf"\b{TEAM}\b", prompt)
    said = tried[-1] if tried else "the answer"
    return f"{said} was wrong: this is about {_about(request)}."


def _rewritten(prompt: str) -> str:
    """The text that is shown between fences, and the rules that the cases below it tell."""
    old, learned = prompt.split("```")[1].strip(), {}
    for case in re.split(r"^Case \d+$", prompt, flags=re.MULTILINE)[1:]:
        right = re.search(rf"^Right answer: {TEAM}$", case, re.MULTILINE)
        requests = [known for known in topics() if known in case.lower()]
        if right and requests:
            learned[topics()[max(requests, key=len)]] = right[1]
    rules = [f"{topic} go to {team}" for topic, team in sorted(learned.items())]
    new = [rule for rule in rules if rule not in old.lower()]
    return f"```\n{old}{' ' + ', '.join(new).capitalize() + '.' if new else ''}\n```"


def _about(request: str) -> str:
    """The topic; of a request that is not known, that of the known one with the most words in common."""
    known = topics()
    if request in known:
        return known[request]
    words = set(re.findall(r"\w+", request))
    return known[max(known, key=lambda one: len(words & set(re.findall(r"\w+", one))))]


def _guess(request: str, among: list[str]) -> str:
    return among[hashlib.sha256(request.encode()).digest()[0] % len(among)]


def _asked(text: str) -> str:
    """The request in a message that holds none that is known."""
    fields = re.findall(rf"{FIELD}([^\n]+)", text)
    if fields:
        return str(fields[0][1])
    return text.rpartition("request:")[2].removeprefix("user:").strip()


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        content = " ".join(part.get("text", "") for part in content)
    called = [call["function"]["arguments"] for call in message.get("tool_calls") or ()]
    return " ".join([str(content), *called])


def reply(asked: dict[str, Any]) -> dict[str, Any]:
    """The assistant's message to a request of OpenAI's API: a tool call, JSON, DSPy's fields, or one word."""
    messages = asked["messages"]
    called = messages[-1].get("role") == "tool"
    if asked.get("tools") and not called and asked.get("tool_choice") != "none":
        return {"role": "assistant", "content": None, "tool_calls": [_call(asked)]}
    if called and (said := re.search(rf"\b{TEAM}\b", _text(messages[-1]).lower())):
        return {"role": "assistant", "content": said[1]}
    if WRITES in (told := _text(messages[-1])):
        return {"role": "assistant", "content": _rewritten(told)}
    outputs = _outputs(asked)
    if not outputs:
        return {"role": "assistant", "content": answer(messages)}
    texts = {name: _output(messages, name) for name in outputs}
    if "response_format" in asked or "JSON object" in _text(messages[-1]):
        return {"role": "assistant", "content": json.dumps(texts)}
    fields = "".join(f"[[ ## {name} ## ]]\n{text}\n\n" for name, text in texts.items())
    return {"role": "assistant", "content": f"{fields}[[ ## completed ## ]]"}


def _output(messages: list[dict[str, Any]], name: str) -> str:
    return "As far as the prompt says." if name == "reasoning" else answer(messages, name)


def _outputs(asked: dict[str, Any]) -> list[str]:
    """Names of what is asked for: by a JSON schema, or as DSPy's adapters list them."""
    form = asked.get("response_format") or {}
    schema = form.get("json_schema", {}).get("schema", {})
    listed = (
        "\n".join(map(_text, asked["messages"])).partition("Your output fields are:")[2].partition("\n\n")[0]
    )
    names = list(schema.get("properties", ())) or re.findall(
        r"^\d+\. `(\w+)`", listed.partition("All ")[0], re.MULTILINE
    )
    return names or (["team"] if form.get("type") in ("json_object", "json_schema") else [])


def _call(asked: dict[str, Any]) -> dict[str, Any]:
    """Of several tools the one whose description names the topic, else the first; `team` is what it would answer."""
    messages, tools = asked["messages"], [tool["function"] for tool in asked["tools"]]
    request = _asked(_text(next(one for one in reversed(messages) if one["role"] == "user")).lower())
    fitting = [tool for tool in tools if _about(request) in tool.get("description", "").lower()]
    tool = (fitting or tools)[0]
    names = tool.get("parameters", {}).get("properties", {})
    arguments = {name: answer(messages) if name == "team" else request for name in names}
    number = hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:24]
    return {"id": f"call_{number}", "type": "function",
            "function": {"name": tool["name"], "arguments": json.dumps(arguments)}}  # fmt: skip


class ScriptedLLM(ThreadingHTTPServer):
    """The endpoint on 127.0.0.1; `calls` counts what it was asked."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int = 0, latency_s: float = 0.0) -> None:
        """Bind.

        Args:
            port: 0 = any that is free.
            latency_s: seconds that an answer takes at least.
        """
        super().__init__(("127.0.0.1", port), _Handler)
        self.latency_s, self.calls = latency_s, 0
        self.address = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together
    disable_nagle_algorithm = True
    server: ScriptedLLM

    def do_GET(self) -> None:
        """Which models there are; how often it was asked."""
        model = {"id": "scripted", "object": "model", "created": 0, "owned_by": "script"}
        if self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [model]})
        elif self.path == "/calls":
            self._send(200, {"calls": self.server.calls})
        else:
            self._send(404, _error(f"no {self.path} here"))

    def do_POST(self) -> None:
        """Answer, whole or streamed."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/v1/chat/completions":
            self._send(404, _error(f"no {self.path} here"))
            return
        self.server.calls += 1
        time.sleep(self.server.latency_s)
        try:
            asked = json.loads(body)
            message = reply(asked)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self._send(400, _error(f"not a chat completion request: {error!r}"))
            return
        whole = _completion(asked, body, message)
        if asked.get("stream"):
            self._stream(whole, bool((asked.get("stream_options") or {}).get("include_usage")))
        else:
            self._send(200, whole)

    def _send(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, whole: dict[str, Any], with_usage: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in [*map(json.dumps, _chunks(whole, with_usage)), "[DONE]"]:
            data = f"data: {line}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _completion(asked: dict[str, Any], body: bytes, message: dict[str, Any]) -> dict[str, Any]:
    n_in, n_out = sum(len(_text(one).split()) for one in asked["messages"]), len(_text(message).split())
    stop = "tool_calls" if message.get("tool_calls") else "stop"
    return {
        "id": f"chatcmpl-{hashlib.sha256(body).hexdigest()[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": asked.get("model", "scripted"),
        "choices": [{"index": 0, "message": message, "finish_reason": stop, "logprobs": None}],
        "usage": {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out},  # words
    }


def _chunks(whole: dict[str, Any], with_usage: bool) -> Iterator[dict[str, Any]]:
    """The same answer word by word."""
    (choice,) = whole["choices"]
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "" if message.get("content") else None}]
    deltas += [{"content": word} for word in re.findall(r"\S+\s*", message.get("content") or "")]
    deltas += [
        {"tool_calls": [{"index": n, **call}]} for n, call in enumerate(message.get("tool_calls") or ())
    ]
    base = {name: whole[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    for delta in deltas:
        yield base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield base | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}
    if with_usage:
        yield base | {"choices": [], "usage": whole["usage"]}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


@contextmanager
def running(port: int = 0, latency_s: float = 0.0) -> Iterator[ScriptedLLM]:
    """The endpoint in a thread of this process, for as long as the block takes."""
    server = ScriptedLLM(port, latency_s)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> None:
    """Serve until Ctrl-C; the first line on stdout is the address."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=PORT, help="0 = any that is free")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="what an answer takes at least")
    given = parser.parse_args()
    server = ScriptedLLM(given.port, given.latency_ms / 1000)
    print(server.address, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
