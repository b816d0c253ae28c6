"""An agent on a LiteLLM endpoint: a local server that speaks OpenAI's protocol, with a scripted LM behind it."""

import asyncio
import threading
import time
import warnings

import dspy
import pytest
from dspy.lm15 import Message, Request, TextPart
from pydantic import ValidationError

from ratchet.agent.candidate import Demo
from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.program import Program, base_candidate
from ratchet.agent.limits import Limits
from ratchet.agent.lm.endpoint import Endpoint
from ratchet.agent.lm.lean_adapter import LeanAdapter
from ratchet.agent.lm.of_candidate import address_of
from ratchet.agent.rollout.loop import run
from ratchet.agent.team.roles import as_team
from ratchet.agent.team.team import make_program

CASES = [
    Case(inputs={"request": f"{n}: go {name}"}, expected=name)
    for n, name in enumerate(["left", "right", "left"])
]


@pytest.fixture(autouse=True)
def _warnings_of_litellm():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="litellm|pydantic|openai|aiohttp|httpx")
        yield


def program(endpoint, *, attempts=1, model="openai/scripted", **settings):
    where = {"api_base": endpoint.url, "api_key": "x", "num_retries": 0, "timeout": 20} | settings
    return Program(base_candidate("Pick one.", model=model, attempts=attempts), endpoint=where)


def said_in(prompt):
    return "left" if "go left" in prompt else "right"


def test_the_right_answer_is_scored_and_its_tokens_are_counted(scripted_endpoint, scripted_environment, at):
    scripted_endpoint.answer = said_in
    traces = run(program(scripted_endpoint), CASES, scripted_environment, at=at)
    assert [t.error for t in traces] == [None] * 3
    assert [t.score for t in traces] == [1.0] * 3
    assert (traces[0].usage.input_tokens, traces[0].usage.output_tokens, traces[0].usage.lm_calls) == (
        7,
        2,
        1,
    )
    assert traces[0].action.name == "left"


def test_the_endpoint_reads_options_and_request_and_no_control_tokens(
    scripted_endpoint, scripted_environment, at
):
    run(program(scripted_endpoint), CASES[:1], scripted_environment, at=at)
    (prompt,) = scripted_endpoint.prompts
    assert prompt == (
        "Pick one.\nOptions:\n- left: \n- right: \nRequest: 0: go left (step 0)\n"
        "Answer with the name of one option and nothing else."
    )


def test_a_garbage_answer_is_the_agents_error_and_each_case_is_asked_once(
    scripted_endpoint, scripted_environment, at
):
    scripted_endpoint.answer = lambda prompt: "I'd rather not." if "0:" in prompt else said_in(prompt)
    traces = run(program(scripted_endpoint), CASES, scripted_environment, at=at)
    assert traces[0].error.kind == "agent"
    assert "I'd rather not." in traces[0].error.message
    assert [t.score for t in traces[1:]] == [1.0, 1.0]
    assert len(scripted_endpoint.prompts) == 3


def test_an_empty_answer_is_the_agents_error(scripted_endpoint, scripted_environment, at):
    scripted_endpoint.answer = lambda prompt: ""
    assert run(program(scripted_endpoint), CASES[:1], scripted_environment, at=at)[0].error.kind == "agent"


def test_a_server_error_is_the_infrastructures_and_the_run_goes_on(
    scripted_endpoint, scripted_environment, at
):
    scripted_endpoint.answer = lambda prompt: (500, "out of memory") if "1:" in prompt else said_in(prompt)
    traces = run(program(scripted_endpoint), CASES, scripted_environment, at=at)
    assert traces[1].error.kind == "infrastructure"
    assert traces[1].score is None
    assert [traces[0].score, traces[2].score] == [1.0, 1.0]


def test_a_timeout_is_the_infrastructures_and_its_time_is_counted(
    scripted_endpoint, scripted_environment, at
):
    def answer(prompt):
        time.sleep(2.5 if "0:" in prompt else 0)
        return said_in(prompt)

    scripted_endpoint.answer = answer
    traces = run(program(scripted_endpoint, timeout=1.5), CASES[:2], scripted_environment, at=at)
    assert traces[0].error.kind == "infrastructure"
    assert "imeout" in traces[0].error.message
    assert traces[0].latency_s >= 1
    assert traces[1].score == 1.0


def test_nobody_listens_is_the_infrastructures_error(scripted_endpoint, scripted_environment, at):
    nowhere = program(scripted_endpoint, api_base="http://127.0.0.1:9/v1")
    assert run(nowhere, CASES[:1], scripted_environment, at=at)[0].error.kind == "infrastructure"


def many(n):
    return [
        Case(inputs={"request": f"{i}: go {'left' if i % 3 else 'right'}"}, expected="left") for i in range(n)
    ]


def played(endpoint, scripted_environment, at, **settings):
    agent = program(endpoint, attempts=2, **settings)
    traces = run(agent, many(40), lambda: scripted_environment(n_steps=2), at=lambda _: at(0))
    return [trace.model_copy(update={"latency_s": 0.0}) for trace in traces]


def test_many_cases_are_asked_at_once_and_whoever_answers_first_changes_nothing(
    scripted_endpoint, scripted_environment, at
):
    def answer(prompt):
        time.sleep(0.02 if "0: go" in prompt else 0.005)
        if "BEGIN" in prompt:
            return "Left, next time."
        return said_in(prompt) if "- right" in prompt else "left"

    scripted_endpoint.answer = answer
    one_by_one = played(scripted_endpoint, scripted_environment, at, concurrency=1)
    assert scripted_endpoint.most_inside == 1
    asked = sorted(scripted_endpoint.prompts)
    scripted_endpoint.prompts.clear()
    assert played(scripted_endpoint, scripted_environment, at, concurrency=8) == one_by_one
    assert 2 <= scripted_endpoint.most_inside <= 8
    assert sorted(scripted_endpoint.prompts) == asked
    calls = sum(trace.usage.lm_calls for trace in one_by_one)
    assert calls == len(asked) == 40 * 2 + 14 * 3
    assert sum(trace.usage.input_tokens for trace in one_by_one) == 7 * calls
    assert any(trace.attempts[0].reflection == "Left, next time." for trace in one_by_one)


def test_reflections_of_cases_that_failed_together_are_asked_at_once(
    scripted_endpoint, scripted_environment, at
):
    both_reflect = threading.Barrier(2, timeout=10)

    def answer(prompt):
        if "BEGIN" not in prompt:
            return "right"
        both_reflect.wait()
        return "Go left."

    scripted_endpoint.answer = answer
    cases = [CASES[0], CASES[2]]
    traces = run(program(scripted_endpoint, attempts=2), cases, scripted_environment, at=at)
    assert [trace.attempts[0].reflection for trace in traces] == ["Go left."] * 2


def test_what_may_succeed_later_is_asked_again_and_not_before_the_server_says_so(
    scripted_endpoint, scripted_environment, at
):
    troubles = {
        "0": lambda: (429, "slow down", {"Retry-After": "1"}),
        "1": lambda: (503, "starting"),
        "2": lambda: time.sleep(2.5) or "too late",
        "3": lambda: (429, "slow down"),
    }
    seen = []

    def answer(prompt):
        number = prompt.split("Request: ")[1][0]
        seen.append((number, time.monotonic()))
        again = [n for n, _ in seen].count(number) > 1
        return said_in(prompt) if again or number not in troubles else troubles[number]()

    scripted_endpoint.answer = answer
    again = program(scripted_endpoint, num_retries=1, timeout=1.5)
    cases = [Case(inputs={"request": f"{n}: go left"}, expected="left") for n in range(5)]
    traces = run(again, cases, scripted_environment, at=at)
    assert [(trace.error, trace.score) for trace in traces] == [(None, 1.0)] * 5
    assert [trace.usage.lm_calls for trace in traces] == [1] * 5
    assert sorted(number for number, _ in seen) == [*"00112233", "4"]
    first, second = (came for number, came in seen if number == "0")
    assert second - first >= 1


@pytest.mark.parametrize("model", ["openai/scripted", "hosted_vllm/scripted"])
@pytest.mark.parametrize(
    "refusal",
    [(400, "too long"), (401, "who?"), (404, "what?"), (429, "tomorrow", {"Retry-After": "86400"})],
    ids=lambda refusal: str(refusal[0]),
)
def test_what_will_not_succeed_soon_is_asked_once_and_is_that_cases_error(
    scripted_endpoint, scripted_environment, at, model, refusal
):
    scripted_endpoint.answer = lambda prompt: refusal if "1:" in prompt else said_in(prompt)
    traces = run(program(scripted_endpoint, model=model, num_retries=3), CASES, scripted_environment, at=at)
    assert [trace.error and trace.error.kind for trace in traces] == [None, "infrastructure", None]
    assert len(scripted_endpoint.prompts) == 3


def test_an_asynchronous_caller_of_dspys_lm_is_as_patient(scripted_endpoint):
    answers = iter([(503, "starting"), "left"])
    scripted_endpoint.answer = lambda prompt: next(answers)
    lm = program(scripted_endpoint, num_retries=1).lm.dspy
    asked = Request(model=lm.model, messages=(Message.user([TextPart("Where?")]),))
    assert asyncio.run(lm.acall(asked)).message.text == "left"


def test_a_retry_is_not_offered_what_failed(scripted_endpoint, scripted_environment, at):
    def answer(prompt):
        return "Left is closed." if "BEGIN" in prompt else "left" if "- left" in prompt else "right"

    scripted_endpoint.answer = answer
    (trace,) = run(program(scripted_endpoint, attempts=2), CASES[1:2], scripted_environment, at=at)
    assert [a.steps[0].action.name for a in trace.attempts] == ["left", "right"]
    assert trace.score == 1.0
    _, reflecting, retrying = scripted_endpoint.prompts
    assert "did: left\nended: Try the other one.\nEND" in reflecting
    assert "Note: Left is closed." in retrying
    assert trace.attempts[0].reflection == "Left is closed."
    assert trace.usage.lm_calls == 3


def test_an_endpoint_that_does_not_reflect_leaves_the_template_and_the_retry(
    scripted_endpoint, scripted_environment, at, caplog
):
    def answer(prompt):
        return (500, "no") if "BEGIN" in prompt else "left" if "- left" in prompt else "right"

    scripted_endpoint.answer = answer
    (trace,) = run(program(scripted_endpoint, attempts=2), CASES[1:2], scripted_environment, at=at)
    assert (trace.score, trace.error) == (1.0, None)
    assert trace.attempts[0].reflection == "left was wrong here. Try the other one."
    assert "the LM did not reflect" in caplog.text


def test_money_is_counted_at_known_prices_and_stops_the_run(scripted_endpoint, scripted_environment, at):
    priced = Limits(cost_usd=1e-9)
    known = program(scripted_endpoint, model="openai/gpt-4o-mini", attempts=3)
    scripted_endpoint.answer = lambda prompt: "left"
    (trace,) = run(known, CASES[1:2], scripted_environment, at=at, limits=priced)
    assert trace.usage.cost_usd > 0
    assert (trace.stopped, len(trace.attempts), trace.score, trace.error) == ("cost_usd", 1, 0.0, None)


def test_a_limit_on_money_is_refused_where_the_price_is_not_known(
    scripted_endpoint, scripted_environment, at
):
    unknown = program(scripted_endpoint, model="hosted_vllm/nobody-knows")
    with pytest.raises(BadInput, match="limit `tokens` instead"):
        run(unknown, CASES, scripted_environment, at=at, limits=Limits(cost_usd=1))


def test_without_options_the_answer_is_taken_as_it_is(scripted_endpoint, scripted_environment, at):
    scripted_endpoint.answer = lambda prompt: " left \n"
    (trace,) = run(program(scripted_endpoint), CASES[:1], lambda: scripted_environment(options=()), at=at)
    assert trace.action.name == "left"
    assert "Answer with the name" not in scripted_endpoint.prompts[0]


def test_dspys_own_call_gets_the_same_answer(scripted_endpoint):
    scripted_endpoint.answer = said_in
    chosen = program(scripted_endpoint)(request="go right", options=[{"name": "left"}, {"name": "right"}])
    assert chosen.choice == "right"


def test_several_output_fields_are_asked_for_by_name_and_read(scripted_endpoint):
    scripted_endpoint.answer = lambda prompt: "city: Oslo\n**mood**: fine: really"
    ask = dspy.Predict("request -> city, mood")
    ask.demos = [dspy.Example(request="r", city="Rome", mood="good")]
    with dspy.context(lm=program(scripted_endpoint).lm.dspy, adapter=LeanAdapter()):
        answer = ask(request="hello")
    assert (answer.city, answer.mood) == ("Oslo", "fine: really")
    (prompt,) = scripted_endpoint.prompts
    assert "`city: …`, `mood: …`" in prompt
    assert "city: Rome" in prompt


def test_demos_and_instructions_reach_the_endpoint(scripted_endpoint, scripted_environment, at):
    agent = program(scripted_endpoint)
    predictor = agent.candidate.predictors["choose"].model_copy(
        update={"demos": (Demo(inputs="go north", output="left"),)}
    )
    changed = agent.candidate.model_copy(update={"predictors": {"choose": predictor}})
    run(Program(changed, endpoint=agent.endpoint), CASES[:1], scripted_environment, at=at)
    assert "Example: go north -> left" in scripted_endpoint.prompts[0]


def elsewhere(endpoint, **changes):
    recorded = base_candidate("Pick one.", model="openai/scripted", api_base=endpoint.url)
    return recorded.model_copy(update=changes)


def test_a_candidate_is_asked_at_its_recorded_address_where_none_is_set(scripted_endpoint):
    scripted_endpoint.answer = lambda prompt: "right" if "- wrong" in prompt else "left"
    team = as_team(elsewhere(scripted_endpoint))
    for asked in (elsewhere(scripted_endpoint), team):
        program = make_program(asked, {}, endpoint={"api_key": "x", "num_retries": 0})
        assert program(request="go", options=[{"name": "left"}, {"name": "right"}]).choice == "left"
    assert len(scripted_endpoint.prompts) > 2


def test_an_address_that_is_set_wins_over_the_recorded_one(scripted_endpoint):
    moved = elsewhere(scripted_endpoint, api_base="http://127.0.0.1:9/v1")
    program = Program(moved, endpoint={"api_base": scripted_endpoint.url, "api_key": "x", "num_retries": 0})
    assert program(request="go", options=[{"name": "left"}]).choice == "left"


def test_without_any_address_nothing_is_built_and_the_remedy_is_named(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-vendor")
    for where in (None, {}, {"api_key": "x"}):
        with pytest.raises(
            BadInput, match=r"openai/scripted has no address: set RATCHET_LM_API_BASE .*`vendor`"
        ):
            Program(base_candidate("Pick one.", model="openai/scripted"), endpoint=where)


def test_the_vendors_own_host_is_asked_only_where_that_was_said():
    assert "api_base" not in Endpoint("openai/any", api_base="vendor", api_key="x").dspy.kwargs
    said = Endpoint("openai/any", api_base="https://api.openai.com/v1")
    assert said.dspy.kwargs["api_base"] == "https://api.openai.com/v1"


@pytest.mark.parametrize(
    "address",
    [
        "localhost:8000",
        "https://me:hush@host/v1",
        "https://host/v1?key=hush",
        "http://a b",
        "file:///etc",
        "vendor ",
    ],
)
def test_an_address_that_holds_a_key_or_is_none_is_refused_and_not_shown(address):
    with pytest.raises(BadInput, match="RATCHET_LM_API_KEY") as refused:
        address_of("openai/any", address)
    assert "hush" not in str(refused.value)
    with pytest.raises(ValidationError):
        base_candidate("Pick one.", model="openai/any", api_base=address)


def test_the_embedded_lm_needs_and_keeps_no_address():
    assert address_of("smollm2-135m-instruct", "http://localhost:8000/v1") is None
