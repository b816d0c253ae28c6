"""The shipped environment, on BFCL's real requests and tools."""

import pytest

from ratchet.agent.case import Case
from ratchet.agent.environment import Action
from ratchet.agent.environments import tool_calling
from ratchet.agent.environments.tool_calling import (
    NO_TOOL,
    ToolCalling,
    arguments_match,
    case_observation,
    expected_tool,
    live_cases,
    toolset,
    toolset_groups,
)
from ratchet.agent.errors import BadInput

SETS = ("live_multiple", "live_simple", "live_irrelevance")


def play(case, action, **settings):
    environment = ToolCalling(**settings)
    environment.reset(case)
    _, done = environment.step(action)
    assert done
    return environment.outcome()


@pytest.mark.parametrize("name", SETS)
def test_every_case_has_a_request_one_to_five_different_tools_and_an_answer(name):
    cases = live_cases(name)
    assert len(cases) > 100
    assert len({case.case_id for case in cases}) == len(cases)
    for case in cases:
        observation = case_observation(case)
        names = [option.name for option in observation.options]
        assert observation.text.strip()
        assert 1 <= len(names) <= 5
        assert len(set(names)) == len(names)
        assert case.slice == name
        answer = expected_tool(case.expected)
        assert answer == NO_TOOL if name == "live_irrelevance" else answer in names


def test_no_environment_offers_to_abstain():
    assert all(NO_TOOL not in toolset(case) for name in SETS for case in live_cases(name))


def test_real_tools_carry_their_parameters():
    options = [option for case in live_cases("live_multiple") for option in case_observation(case).options]
    described = [option for option in options if option.parameters["properties"]]
    assert len(described) > len(options) / 2
    assert all(set(o.parameters["required"]) <= set(o.parameters["properties"]) for o in described[:200])


def test_the_right_tool_scores_one_and_another_zero_with_a_word():
    case = live_cases("live_multiple")[0]
    right = expected_tool(case.expected)
    wrong = next(name for name in toolset(case) if name != right)
    assert play(case, Action(name=right)).score == 1
    lost = play(case, Action(name=wrong))
    assert lost.score == 0
    assert wrong in lost.feedback
    assert right not in lost.feedback


def test_arguments_are_a_second_score_only_where_they_were_filled():
    case = next(c for c in live_cases("live_simple") if c.expected["arguments"])
    name, possible = expected_tool(case.expected), case.expected["arguments"]
    good = {key: values[0] for key, values in possible.items() if "" not in values}
    assert play(case, Action(name=name)).details == {}
    assert play(case, Action(name=name, arguments=good)).details == {"arguments": 1.0}
    assert play(case, Action(name=name, arguments={"no such": 1})).details == {"arguments": 0.0}


def test_a_case_without_an_answer_or_before_a_step_is_not_scored():
    case = live_cases("live_simple")[0]
    assert play(case.model_copy(update={"expected": None}), Action(name="x")).score is None
    environment = ToolCalling()
    assert environment.outcome().score is None
    environment.reset(case)
    assert environment.outcome().score is None


def test_a_share_of_the_users_reacts_and_always_the_same_ones():
    cases = live_cases("live_multiple")
    scored = [play(case, Action(name="x"), reacting=0.3).score is not None for case in cases]
    assert sum(scored) / len(cases) == pytest.approx(0.3, abs=0.05)
    assert scored == [play(case, Action(name="x"), reacting=0.3).score is not None for case in cases]
    few = [play(case, Action(name="x"), reacting=0.1).score is not None for case in cases]
    assert all(more for more, less in zip(scored, few, strict=True) if less)
    assert not any(play(case, Action(name="x"), reacting=0.0).score is not None for case in cases)


@pytest.mark.parametrize(
    "inputs", [{}, {"request": " ", "tools": []}, {"request": "hi"}, {"request": 1, "tools": []}]
)
def test_a_case_without_request_or_tools_is_refused_by_name(inputs):
    case = Case(inputs=inputs)
    with pytest.raises(BadInput, match=f"case {case.case_id}.*`request`.*`tools`"):
        ToolCalling().reset(case)


def test_an_answer_may_be_a_bare_name():
    case = live_cases("live_simple")[0]
    name = expected_tool(case.expected)
    assert expected_tool(name) == name
    assert play(case.model_copy(update={"expected": name}), Action(name=name)).score == 1


@pytest.mark.parametrize(
    ("given", "possible", "matches"),
    [
        ({"city": "Oslo"}, {"city": ["Oslo", "Oslo, NO"]}, True),
        ({"city": " oslo "}, {"city": ["Oslo"]}, True),
        ({"city": "Rome"}, {"city": ["Oslo"]}, False),
        ({}, {"city": ["Oslo"]}, False),
        ({}, {"unit": ["C", ""]}, True),
        ({"unit": "F"}, {"unit": ["C", ""]}, False),
        ({"city": "Oslo", "more": 1}, {"city": ["Oslo"]}, False),
        ({"n": 2.0}, {"n": [2]}, True),
        ({"n": True}, {"n": [1]}, False),
        ({"flag": True}, {"flag": [True]}, True),
        ({}, {"tags": []}, True),
        ({"city": ["Oslo", "Rome"]}, {"city": ["Oslo", "Rome"]}, False),
        ({"at": {"lat": 59.9}}, {"at": [{"lat": 59.9}]}, True),
        ({"at": {}}, {"at": [{"lat": 59.9}]}, False),
        ({"tags": []}, {"tags": []}, True),
        ({"tags": ["a"]}, {"tags": []}, False),
        ({"place": {"city": "oslo"}}, {"place": [{"city": ["Oslo"], "zip": ["0150", ""]}]}, True),
        ({"place": {"zip": "0150"}}, {"place": [{"city": ["Oslo"], "zip": ["0150", ""]}]}, False),
        ({"place": {"city": "Oslo", "x": 1}}, {"place": [{"city": ["Oslo"]}]}, False),
        ({"tags": ["A", "b"]}, {"tags": [["a", "B"]]}, True),
        ({"tags": ["a"]}, {"tags": [["a", "b"]]}, False),
        ({"items": [{"name": "tea", "n": 2}]}, {"items": [[{"name": ["Tea"], "n": [2]}]]}, True),
        ({"items": [{"name": "tea", "n": 3}]}, {"items": [[{"name": ["Tea"], "n": [2]}]]}, False),
    ],
)
def test_arguments_match_any_of_the_possible_answers(given, possible, matches):
    assert arguments_match(given, {"tool": "t", "arguments": possible}) is matches


def test_where_no_arguments_are_expected_none_may_be_given():
    assert arguments_match({}, {"tool": NO_TOOL})
    assert not arguments_match({"a": 1}, {"tool": NO_TOOL})
    assert arguments_match({}, "bare name")


def test_every_real_answer_matches_itself():
    def first(answers):
        return {name: build(values) for name, values in answers.items() if values != [] and values != ""}

    def build(values):
        if not isinstance(values, list):
            return first(values) if isinstance(values, dict) else values
        value = next((value for value in values if value != ""), "")
        if isinstance(value, list):
            return [first(item) if isinstance(item, dict) else item for item in value]
        return build(value)

    for case in (*live_cases("live_simple"), *live_cases("live_multiple")):
        given = first(case.expected["arguments"])
        assert arguments_match(given, case.expected), (given, case.expected)


def test_no_case_stands_in_two_sets_with_two_answers():
    ids = [case.case_id for name in SETS for case in live_cases(name)]
    assert len(set(ids)) == len(ids)


def test_tools_that_meet_in_a_case_share_a_group_along_chains():
    def case(*names):
        return Case(inputs={"request": "r", "tools": [{"name": name} for name in names]})

    groups = toolset_groups([case("a", "b"), case("c", "d"), case("b", "e"), case("f")])
    assert groups["a"] == groups["b"] == groups["e"]
    assert groups["c"] == groups["d"]
    assert len(set(groups.values())) == 3
    assert groups == toolset_groups([case("b", "e"), case("f"), case("c", "d"), case("a", "b")])


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(tool_calling, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install --no-deps bfcl-eval"):
        tool_calling.data_folder()
