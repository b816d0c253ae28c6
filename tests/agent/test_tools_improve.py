"""Tools that improve: failures are counted from traces, words come from one half, and only what helps is kept."""

import warnings
from dataclasses import replace
from functools import partial

import pytest

from ratchet.agent.candidate import ToolOverride
from ratchet.agent.environment import Action, Observation, Option, Outcome
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.program import Program, View, base_candidate
from ratchet.agent.lm.of_candidate import lm_for
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.tool_failures import argument_errors, tool_failures
from ratchet.agent.optimize.tool_words import readable, telling, telling_words, written_by
from ratchet.agent.optimize.tools import Rewriting, Tools, _rewritings
from ratchet.agent.team.team import make_program
from ratchet.agent.trace import Attempt, RunError, Step

OPTIONS = (
    Option(name="svc.A1", description="Handles things."),
    Option(name="svc.B2", description="Handles stuff."),
)
FLIGHTS = [f"Please fly me to {city} by plane" for city in ("Rome", "Oslo", "Bonn", "Lima", "Cairo", "Delhi")]
HOTELS = [
    f"Please find a hotel room in {city}" for city in ("Rome", "Oslo", "Bonn", "Lima", "Cairo", "Delhi")
]


def traced(make_trace, request, tool, *, arguments=None, **changes):
    step = Step(observation=request, action=Action(name=tool, arguments=arguments))
    score = changes.pop("score", None)
    attempts = (Attempt(steps=(step,), outcome=Outcome(score=score)),)
    return make_trace(request, attempts=attempts, **changes)


def test_failures_are_counted_per_tool_pair_and_argument(make_trace):
    traces = [
        traced(make_trace, "1", "a"),
        traced(make_trace, "2", "a"),
        traced(make_trace, "3", "b"),
        traced(make_trace, "4", "b", arguments={"city": "oslo ", "n": 3, "odd": 1}),
        traced(make_trace, "5", "c", score=0.0),
        traced(make_trace, "6", "c", error=RunError(kind="agent", message="broken")),
    ]
    ids = {t.case.inputs["request"]: t.case.case_id for t in traces}
    wanted = {"city": ["Oslo", "OSL"], "n": 2, "day": "today", "maybe": ["x", ""]}
    answers = {
        ids["1"]: "b",
        ids["2"]: "a",
        ids["3"]: {"tool": "a"},
        ids["4"]: {"tool": "b", "arguments": wanted},
    }
    rows = {row.tool: row for row in tool_failures(traces, answers)}
    assert (rows["a"].chosen, rows["a"].wrong, rows["a"].missed, rows["a"].confused_with) == (
        2,
        1,
        1,
        {"b": 2},
    )
    assert (rows["b"].chosen, rows["b"].wrong, rows["b"].missed, rows["b"].confused_with) == (
        2,
        1,
        1,
        {"a": 2},
    )
    assert rows["b"].argument_errors == {"n": 1, "odd": 1, "day": 1}
    assert (rows["c"].chosen, rows["c"].wrong, rows["c"].confused_with) == (1, 1, {})
    assert [row.failures for row in tool_failures(traces, answers)] == [5, 2, 1]
    assert tool_failures([], {}) == ()


def test_an_argument_fits_any_of_its_possible_values():
    assert argument_errors({"a": "X"}, {"a": ["x", "y"]}) == []
    assert argument_errors({"a": [1, 2]}, {"a": [1, 2]}) == []
    assert argument_errors({}, {"a": ["x", ""]}) == []
    assert argument_errors({}, {"a": ["x"]}) == ["a"]
    assert argument_errors({"b": 1}, {}) == ["b"]


def test_telling_words_lean_to_the_tools_own_requests():
    words = telling_words(FLIGHTS, HOTELS, 2)
    assert set(words) <= {"fly", "plane"}
    assert telling_words(FLIGHTS, HOTELS, 9, known="fly by plane") == []
    assert telling_words(FLIGHTS, FLIGHTS, 3) == []
    assert telling_words([], HOTELS, 3) == []


def test_a_description_with_telling_words_fits_what_the_lm_reads():
    long = Option(name="svc.A1", description="Handles a great many different things in one call, " * 3)
    written = telling(2)(long, FLIGHTS, HOTELS)
    assert len(written) <= 80
    assert "plane" in written
    assert written.startswith("Handles a great many")
    assert telling(2)(OPTIONS[0], FLIGHTS, FLIGHTS) == OPTIONS[0].description


@pytest.mark.parametrize(
    ("name", "shown"), [("Alerts_3.getUserV2", "alerts_get_user_v"), ("plain", "plain"), ("42", "42")]
)
def test_a_name_is_made_readable(name, shown):
    assert readable(name) == shown


def cases():
    return [
        Example(
            view=View(case_id=f"{text}", observation=Observation(text=text, options=OPTIONS)),
            answer=name,
            trace_id=f"{n:032x}",
        )
        for n, (text, name) in enumerate(
            [*((t, "svc.A1") for t in FLIGHTS), *((t, "svc.B2") for t in HOTELS)]
        )
    ]


def made(tools, parent, examples, served, work):
    evidence = Evidence(examples=examples, served=served)
    return made_by(tools, Registered(parent, {}, frozenset(["old"])), evidence, work), evidence


def played(program, examples, make_trace):
    decisions = program.decide([e.view for e in examples])
    return [
        traced(make_trace, e.view.observation.text, d.action.name)
        for e, d in zip(examples, decisions, strict=True)
    ]


@pytest.fixture
def by_id(make_trace):
    """Examples whose case ids are those of the traces."""
    made = []
    for example in cases():
        case_id = make_trace(example.view.observation.text).case.case_id
        made.append(example.model_copy(update={"view": example.view.model_copy(update={"case_id": case_id})}))
    return made


@pytest.mark.slow
def test_tools_that_say_nothing_get_words_that_help_on_cases_they_were_not_taken_from(
    lm, by_id, make_trace, work
):
    parent = base_candidate("Pick the tool that does what the request asks for.")
    before = played(Program(parent), by_id, make_trace)
    proposal, _ = made(Tools(words=3), parent, by_id, before, work)
    candidate = proposal.candidate
    assert candidate.origin.proposer == "tools"
    assert set(candidate.tools) <= {"svc.A1", "svc.B2"}
    assert candidate.tools
    assert "failures" in candidate.origin.note
    answers = {e.view.case_id: e.answer for e in by_id}
    wrong = [
        sum(row.wrong for row in tool_failures(traces, answers))
        for traces in (before, played(Program(candidate), by_id, make_trace))
    ]
    assert wrong[1] < wrong[0]
    assert set(proposal.seen_case_ids) == {"old", *answers}


def test_tools_that_do_not_fail_are_left_alone_and_no_other_case_is_learned_from(lm, by_id, make_trace, work):
    parent = base_candidate("Pick the tool that does what the request asks for.")
    right = [traced(make_trace, e.view.observation.text, e.answer) for e in by_id]
    foreign = [traced(make_trace, f"foreign {n}", "svc.A1", score=0.0) for n in range(9)]
    proposal, evidence = made(Tools(), parent, by_id, [*right, *foreign], work)
    assert proposal is None
    assert evidence.served == tuple(right)
    assert evidence.seen == {e.view.case_id for e in by_id}


def test_too_few_examples_are_refused(work):
    with pytest.raises(NothingToPropose, match="at least 2 labelled examples, got 1"):
        made(Tools(), base_candidate("x"), cases()[:1], [], work)


def test_an_endpoint_writes_descriptions_itself_and_its_garbage_counts_as_wrong(
    scripted_endpoint, by_id, make_trace, work
):
    def answer(prompt):
        if "better" in prompt or "Describe the tool" in prompt:
            return "Books flights by plane."
        about_planes = "Books flights" in prompt and "plane" in prompt.split("Request:")[1]
        if about_planes:
            return "svc_a" if "- svc_a:" in prompt else "svc.A1"
        return "svc.B2" if "- svc.B2:" in prompt else "no idea"

    scripted_endpoint.answer = answer
    where = {"api_base": scripted_endpoint.url, "api_key": "x", "num_retries": 0}
    parent = base_candidate("Pick one.", model="openai/scripted")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="litellm|pydantic|openai|aiohttp|httpx")
        before = played(Program(parent, endpoint=where), by_id, make_trace)
        lm = lm_for(parent, endpoint=where)
        behind = replace(
            work, agent=lambda one, files: make_program(one, files, endpoint=where), writer=lambda one: lm
        )
        proposal, _ = made(Tools(), parent, by_id, before, behind)
        writer = written_by(partial(work.write, lm))
        assert writer(OPTIONS[0], FLIGHTS, HOTELS) == "Books flights by plane."
    override = proposal.candidate.tools["svc.A1"]
    assert isinstance(override, ToolOverride)
    assert override.description == "Books flights by plane."


def test_an_argument_that_goes_wrong_shows_right_values_of_the_half_that_is_read(make_trace, work):
    schema = {
        "properties": {"city": {"type": "string", "description": "Where to."}, "n": {"type": "integer"}}
    }
    option = Option(name="fly", parameters=schema)
    read = [
        Example(
            view=View(case_id=f"c{n}", observation=Observation(text="go", options=(option,))),
            answer="fly",
            trace_id=f"{n:032x}",
        )
        for n in range(3)
    ]
    answers = {
        "c0": {"tool": "fly", "arguments": {"city": ["Oslo", "OSL"], "n": 2}},
        "c1": {"tool": "fly", "arguments": {"city": "Rome"}},
        "c2": {"tool": "other", "arguments": {"city": "Bonn"}},
    }
    parent = Registered(base_candidate("x"))
    rewriting = Rewriting(parent, work, read, (), answers, Tools(least=2, values=2))
    wrong = [traced(make_trace, f"{n}", "fly", arguments={"city": "Paris"}) for n in range(2)]
    ids = {trace.case.case_id: answers["c1"] for trace in wrong}
    (row,) = tool_failures(wrong, ids)
    assert row.argument_errors == {"city": 2}
    ((_, override),) = _rewritings(rewriting, row, {}, telling(2))
    assert override.parameters["properties"]["city"]["description"] == "Where to, e.g. Oslo, Rome"
    assert override.parameters["properties"]["n"] == {"type": "integer"}
