"""The scripted endpoint of `ratchet init`: it says what its prompt says, through OpenAI's and DSPy's own clients."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import dspy
import httpx
import openai
import pytest

from ratchet.flows.template.desk import scripted_llm
from ratchet.flows.template.desk.scripted_llm import RULE, TEAMS, TOPICS, answer, reply, running, topics

ASK = "Which team solves the request? Answer with its name."
PARCEL = "Where is my parcel?"  # lynx; guessed wrong
HINT = [
    {"role": "user", "content": "Send me the tracking link again"},
    {"role": "assistant", "content": "lynx"},
]


@pytest.fixture(scope="module")
def llm():
    with running() as server:
        yield server


def ask(request, *before, system=ASK):
    return [{"role": "system", "content": system}, *before, {"role": "user", "content": request}]


def share_right(system):
    return (
        sum(answer(ask(request, system=system)) == TOPICS[topic] for request, topic in topics().items()) / 128
    )


def test_without_a_rule_it_guesses_and_with_one_it_is_right():
    assert 0.15 < share_right(ASK) < 0.35
    assert set(Counter(answer(ask(request)) for request in topics())) == set(TEAMS)
    assert share_right(f"{ASK}\n{RULE}") == 1
    assert share_right(f"{ASK} otter handles accounts.") == pytest.approx(
        0.25 + 0.75 * share_right(ASK), abs=0.1
    )


def test_a_wrong_rule_is_obeyed():
    assert answer(ask(PARCEL, system="Deliveries go to wren.")) == "wren"


def test_an_example_about_the_same_topic_teaches_and_another_does_not():
    other = [
        {"role": "user", "content": "Save button does nothing"},
        {"role": "assistant", "content": "wren"},
    ]
    assert answer(ask(PARCEL)) != "lynx"
    assert answer(ask(PARCEL, *HINT)) == "lynx"
    assert answer(ask(PARCEL, *other)) == answer(ask(PARCEL))
    assert (
        answer(ask(PARCEL, system=f"{ASK}\n\n### Example 1\nSend me the tracking link again\n→ lynx"))
        == "lynx"
    )
    assert answer(ask("17: where is the parcel?!", *HINT)) == "lynx"


def test_a_request_that_names_a_topic_is_no_rule():
    logout = [
        {"role": "user", "content": "Log me out on all other devices"},
        {"role": "assistant", "content": "otter"},
    ]
    assert answer(ask("Save button does nothing", *logout)) == answer(ask("Save button does nothing"))


def test_a_note_that_names_what_was_wrong_puts_it_right():
    guessed = answer(ask(PARCEL))
    assert answer(ask(PARCEL, system=f"{ASK}\nNote: {guessed} was wrong here.")) == "lynx"
    others = [team for team in TEAMS if team not in (guessed, "lynx")]
    assert answer(ask(PARCEL, system=f"{ASK}\nNote: {others[0]} was wrong here.")) == guessed
    failed = f"An attempt at a task failed. Say what to do differently.\nsaw: {PARCEL}\ndid: {guessed}\nended: score 0"
    assert answer([{"role": "user", "content": failed}]) == f"{guessed} was wrong: this is about deliveries."


def test_two_prompts_in_a_row_each_have_their_own_to_learn():
    first = "Which topic is the request about?"
    assert answer(ask(PARCEL, system=f"{first} payments, deliveries, accounts or devices.")) == "deliveries"
    learned = [
        {"role": "user", "content": "Is my parcel insured?"},
        {"role": "assistant", "content": "deliveries"},
    ]
    known = [{**HINT[0]}, {"role": "assistant", "content": "deliveries"}]
    assert (
        answer(ask(PARCEL, *known, system=first))
        == "deliveries"
        != answer(ask(PARCEL, *learned, system=first))
    )
    second = f"{ASK} Deliveries go to lynx."
    assert answer(ask(f"{PARCEL}\nTopic: deliveries", system=second)) == "lynx"
    assert answer(ask(f"{PARCEL}\nTopic: payments", system=second)) == answer(ask(PARCEL))


def test_the_openai_client_gets_text_streams_tools_and_usage(llm):
    client = openai.OpenAI(base_url=llm.address, api_key="none")
    messages = ask(PARCEL, *HINT)
    whole = client.chat.completions.create(model="scripted", messages=messages)
    assert whole.choices[0].message.content == "lynx"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 1 > 20
    stream = client.chat.completions.create(
        model="scripted", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "lynx"
    assert chunks[-1].usage == whole.usage
    parameters = {"type": "object", "properties": {"team": {"type": "string"}, "text": {"type": "string"}}}
    tools = [
        {"type": "function", "function": {"name": "escalate", "description": "Wake up the boss."}},
        {
            "type": "function",
            "function": {"name": "route", "description": "For deliveries.", "parameters": parameters},
        },
    ]
    first = client.chat.completions.create(model="scripted", messages=messages, tools=tools).choices[0]
    (call,) = first.message.tool_calls
    assert (first.finish_reason, call.function.name) == ("tool_calls", "route")
    assert json.loads(call.function.arguments) == {"team": "lynx", "text": PARCEL.lower()}
    messages += [first.message.model_dump(exclude_none=True)]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "sent to lynx"}]
    again = client.chat.completions.create(model="scripted", messages=messages, tools=tools)
    assert again.choices[0].message.content == "lynx"
    streamed = client.chat.completions.create(
        model="scripted", messages=messages[:-2], tools=tools, stream=True
    )
    assert [
        chunk.choices[0].delta.tool_calls[0].function.name
        for chunk in streamed
        if chunk.choices[0].delta.tool_calls
    ] == ["route"]
    assert [model.id for model in client.models.list()] == ["scripted"]


def test_what_it_does_not_take_is_said(llm):
    assert httpx.get(llm.address.replace("/v1", "/calls")).json() == {"calls": llm.calls}
    assert httpx.get(llm.address).status_code == 404
    for path, body, status in (("/nothing", {}, 404), ("/chat/completions", {"messages": 3}, 400)):
        told = httpx.post(llm.address + path, json=body)
        assert told.status_code == status
        assert told.json()["error"]["message"]


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter, dspy.JSONAdapter])
def test_a_dspy_module_gets_its_fields(llm, adapter):
    signature = dspy.Signature("request -> team", ASK)
    module = dspy.ChainOfThought(signature)
    lm = dspy.LM("openai/scripted", api_base=llm.address, api_key="none", cache=False)
    with dspy.context(lm=lm, adapter=adapter()):
        assert module(request=PARCEL).team == answer(ask(PARCEL))
        module.predict.demos = [dspy.Example(request=HINT[0]["content"], reasoning="", team="lynx")]
        said = module(request=PARCEL)
    assert (said.team, bool(said.reasoning)) == ("lynx", True)


def test_the_copy_in_a_project_runs_alone_and_says_where(tmp_path):
    desk = Path(scripted_llm.__file__).parent
    for file in desk.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    command = [sys.executable, "-I", "-S", "scripted_llm.py", "--port", "0", "--latency-ms", "5"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().strip()
            body = {"model": "scripted", "messages": ask(PARCEL, *HINT)}
            done = httpx.post(f"{address}/chat/completions", json=body)
            assert done.json()["choices"][0]["message"]["content"] == "lynx"
            assert done.elapsed.total_seconds() > 0.005
        finally:
            server.terminate()


def test_the_built_in_agents_prompt_is_read_too():
    options = "\n".join(f"- {team}: team {team}" for team in TEAMS)
    text = f"Choose.\nOptions:\n{options}\n%sRequest: {PARCEL}\nAnswer with the name of one option and nothing else."
    assert (
        reply(
            {
                "messages": [
                    {"role": "user", "content": text % "Before: Send me the tracking link again -> lynx\n"}
                ]
            }
        )["content"]
        == "lynx"
    )
    guessed = reply({"messages": [{"role": "user", "content": text % ""}]})["content"]
    assert guessed == answer(ask(PARCEL))
