"""Records: what is stored comes back equal, ids are content, and nothing that is broken slips in."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.agent.candidate import Candidate, Demo, Origin, Predictor, Role, ToolOverride, Topology
from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Environment, Observation, Option, Outcome
from ratchet.agent.environments.tool_calling import ToolCalling
from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.agent.kinds.program import base_candidate
from ratchet.agent.memory.steps import Experience
from ratchet.agent.record import as_json, content_hash, digest_of_ids, folder_hash
from ratchet.agent.trace import Attempt, RunError, Step, Trace, Usage

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def candidate(**changes):
    fields = {"predictors": {"choose": Predictor(instructions="Pick one.")}, "base_model": "m"}
    return Candidate(**(fields | changes))


def trace(**changes):
    fields = {
        "trace_id": "0" * 32,
        "case": Case(inputs={"request": "hi"}),
        "candidate_id": "c",
        "started_at": datetime(2026, 1, 5, tzinfo=UTC),
        "latency_s": 0.1,
    }
    return Trace(**(fields | changes))


@given(inputs=st.dictionaries(st.text(max_size=5), JSON, max_size=3), expected=JSON)
def test_a_case_with_any_json_comes_back_equal_with_the_same_id(inputs, expected):
    case = Case(inputs=inputs, expected=expected)
    again = Case.from_json(case.to_json())
    assert again == case
    assert again.case_id == case.case_id


@pytest.mark.parametrize(
    "record",
    [
        trace(error=RunError(kind="agent", message="garbage"), usage=Usage(input_tokens=3, cost_usd=0.1)),
        trace(
            attempts=(
                Attempt(steps=(Step(observation="o", action=Action(name="a", arguments={"x": [1, None]})),)),
            )
        ),
        candidate(
            tools={"a": "b"}, extra_options=(Option(name="none"),), origin=Origin(parameters={"lr": 1e-4})
        ),
        Experience(observation="line\u2028two", action="a", trace_id="t", case_id="c", source="own"),
    ],
)
def test_every_kind_of_record_comes_back_equal_and_on_one_line(record):
    assert "\n" not in record.to_json()
    assert type(record).from_json(record.to_json()) == record


def test_tuples_in_free_fields_are_stored_as_the_lists_that_come_back():
    made = candidate(origin=Origin(parameters={"instructions": ("one", "two")}))
    assert made.origin.parameters == {"instructions": ["one", "two"]}
    assert Candidate.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1: "a"}, {"a": {1}}, [b"bytes"], object(), "\ud800"]
)
def test_what_json_cannot_hold_is_refused_wherever_it_stands(value):
    with pytest.raises(ValidationError, match="JSON cannot hold"):
        Case(inputs={"deep": [value]})
    with pytest.raises(ValueError, match="JSON cannot hold"):
        as_json(value)


def test_nan_is_refused_as_score_confidence_and_latency():
    nan = float("nan")
    for make in (
        lambda: Outcome(score=nan),
        lambda: Step(observation="", action=Action(name="a"), confidence=nan),
        lambda: trace(latency_s=nan),
        lambda: Usage(cost_usd=nan),
    ):
        with pytest.raises(ValidationError):
            make()


def test_an_unknown_field_is_refused():
    with pytest.raises(ValidationError, match="extra"):
        Case(inputs={}, colour="red")


def test_a_record_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        candidate().base_model = "other"


def test_ids_are_the_same_on_every_machine():
    assert content_hash({"b": [1, 2.5, None, "é"], "a": True}) == content_hash(
        {"a": True, "b": [1, 2.5, None, "é"]}
    )
    assert content_hash({"a": 1}) == "015abd7f5cc57a2d"
    assert Case(inputs={"request": "hi"}).case_id == "bd5946cbb3c7d083"
    assert candidate().candidate_id == "7f432c14f371b3b6"


def test_ids_recorded_before_teams_and_renamed_tools_hold():
    """Fields that came later enter an id only where they are set."""
    learned = candidate(
        predictors={
            "choose": Predictor(instructions="Pick one.", demos=(Demo(inputs="q", output="t", case_id="c1"),))
        },
        adapter="a1",
        memory="m1",
        tools={"get_weather": "Tells the weather."},
        extra_options=(Option(name="none", description="d"),),
        topology=Topology(attempts=2, recalls=1, retrieval_weight=10, recall_weight=20, extra_bias=-5),
    )
    assert learned.candidate_id == "fb4be0d4795a15b5"
    assert base_candidate("Pick one.").candidate_id == "e28ccf4475b6e95c"
    behind = {"model": "openai/any", "api_base": "http://localhost:8000/v1"}
    assert base_candidate("Pick one.", model="openai/any").candidate_id == "fe6aa69b31b88a93"
    assert base_candidate("Pick one.", **behind).candidate_id != "fe6aa69b31b88a93"


def test_teams_and_tools_of_a_candidate_enter_its_id_and_come_back_equal():
    roles = (Role(name="solver", duty="solve"), Role(name="critic", duty="criticize", weight=0.5))
    made = [
        candidate(topology=Topology(roles=roles[:1])),
        candidate(topology=Topology(roles=roles)),
        candidate(topology=Topology(roles=roles[::-1])),
        candidate(tools={"a": ToolOverride(name="b")}),
        candidate(tools={"a": ToolOverride(parameters={"properties": {"x": {"type": "string"}}})}),
        candidate(),
    ]
    assert len({one.candidate_id for one in made}) == len(made)
    for one in made:
        assert Candidate.from_json(one.to_json()) == one
        assert Candidate.from_json(one.to_json()).candidate_id == one.candidate_id


def test_the_id_of_a_case_is_its_inputs_alone():
    case = Case(inputs={"request": "hi"})
    assert case.case_id == case.model_copy(update={"expected": "a", "slice": "chat"}).case_id
    other = Case(inputs={"request": "hi!"})
    assert case.case_id != other.case_id == case.model_copy(update={"inputs": other.inputs}).case_id
    assert case == Case.from_json(case.to_json())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"traces.jsonl:3: not a Trace: field \(whole\)"),
        ("[]", r"traces.jsonl:3: not a Trace"),
        (
            trace().to_json().replace('"schema_version":1', '"schema_version":2'),
            r"traces.jsonl:3.*schema_version",
        ),
        (trace().to_json().replace('"latency_s":0.1', '"latency_s":-1'), r"traces.jsonl:3.*latency_s.*-1"),
        (trace().to_json().replace("0" * 32, "xyz"), r"traces.jsonl:3.*trace_id"),
    ],
    ids=["not JSON", "not an object", "other schema version", "negative latency", "bad id"],
)
def test_a_corrupt_record_is_named_with_file_line_and_field(text, message):
    with pytest.raises(CorruptRecord, match=message) as caught:
        Trace.from_json(text, where="traces.jsonl:3")
    assert isinstance(caught.value, BadInput)


def test_a_candidate_of_another_schema_version_is_refused():
    with pytest.raises(CorruptRecord, match="schema_version"):
        Candidate.from_json(candidate().to_json().replace('"schema_version":1', '"schema_version":7'))


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "predictors": st.builds(
            lambda text, demo: {
                "choose": Predictor(instructions=text, demos=(Demo(inputs=demo, output="a"),))
            },
            st.text(max_size=8),
            st.text(max_size=8),
        ),
        "base_model": st.sampled_from(["openai/x", "openai/y"]),
        "adapter": st.sampled_from(["a1", "a2"]),
        "memory": st.sampled_from(["m1", "m2"]),
        "tools": st.dictionaries(st.text(max_size=4), st.text(max_size=4), min_size=1, max_size=2),
        "extra_options": st.sampled_from([(Option(name="x"),), (Option(name="x", description="d"),)]),
        "topology": st.builds(
            Topology,
            attempts=st.integers(2, 10),
            recalls=st.integers(0, 20),
            recall_weight=st.floats(0, 100),
            extra_bias=st.floats(-100, 100),
            extra_where_known=st.booleans(),
        ),
    },
)


@given(one=CHANGES, other=CHANGES)
def test_candidates_share_an_id_exactly_if_they_behave_the_same(one, other):
    first, second = candidate(**one), candidate(**other)
    assert (first.candidate_id == second.candidate_id) == (first == second)


@given(changes=CHANGES, parent=st.text(max_size=5), note=st.text(max_size=5))
def test_how_a_candidate_was_made_does_not_change_its_id(changes, parent, note):
    made = candidate(**changes)
    again = made.model_copy(update={"parent": parent, "origin": Origin(proposer="lora", note=note)})
    assert again.candidate_id == made.candidate_id


def test_usage_adds_up():
    total = Usage(input_tokens=1, output_tokens=2, lm_calls=3, cost_usd=0.5) + Usage(
        input_tokens=10, lm_calls=1
    )
    assert total == Usage(input_tokens=11, output_tokens=2, lm_calls=4, cost_usd=0.5)


def test_a_trace_tells_first_and_last_score_apart_and_none_from_zero():
    steps = tuple(Step(observation="", action=Action(name=name)) for name in ("a", "b"))
    attempts = (
        Attempt(steps=steps, outcome=Outcome(score=0.0)),
        Attempt(steps=steps[:1], outcome=Outcome(score=1.0)),
    )
    played = trace(attempts=attempts)
    assert (played.first_score, played.score, played.n_steps) == (0.0, 1.0, 3)
    assert (played.first_action, played.action) == (Action(name="a"), Action(name="a"))
    broken = trace()
    assert (broken.first_score, broken.score, broken.n_steps, broken.first_action, broken.action) == (
        None,
        None,
        0,
        None,
        None,
    )


def test_a_digest_of_ids_ignores_order_and_repeats():
    assert digest_of_ids(["b", "a", "a"]) == digest_of_ids(["a", "b"]) != digest_of_ids(["a"])


def test_a_folder_hash_follows_names_and_bytes(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"1")
    first = folder_hash(tmp_path)
    (tmp_path / "sub" / "a").rename(tmp_path / "sub" / "b")
    renamed = folder_hash(tmp_path)
    (tmp_path / "sub" / "b").write_bytes(b"2")
    assert len({first, renamed, folder_hash(tmp_path)}) == 3


def test_the_shipped_environment_keeps_the_protocol():
    assert isinstance(ToolCalling(), Environment)
    assert not isinstance(Observation(text=""), Environment)


def test_a_known_record_of_the_first_schema_still_reads():
    line = json.dumps(
        {
            "schema_version": 1, "trace_id": "ab" * 16, "case": {"inputs": {"request": "hi"}}, "candidate_id": "c",
            "started_at": "2026-01-05T00:00:00Z", "latency_s": 0.5,
            "attempts": [{"steps": [{"observation": "hi", "action": {"name": "a"}}], "outcome": {"score": 1.0}}],
        }
    )  # fmt: skip
    assert Trace.from_json(line).score == 1.0
