"""Actions in terms of the goal: two cases that share no name share forms."""

import numpy as np
import pytest

from ratchet.agent.environment import Observation, Option
from ratchet.agent.kinds.program import Program, View, base_candidate
from ratchet.agent.memory.delexicalization import template, template_hashes, templates
from ratchet.agent.memory.library import Library
from ratchet.agent.memory.ranking import Query, RecallSettings
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience

SOUP, SALAD = "dice tomato; eat meal", "chop onion; eat meal"


@pytest.mark.parametrize(
    ("action", "goal", "expected"),
    [
        ("dice tomato with knife", SOUP, "* with knife"),
        ("chop onion with knife", SALAD, "* with knife"),
        ("chop tomato with knife", SOUP, "chop * with knife"),
        ("SELECT count(*) FROM singer", "How many singers are there?", "select count from *"),
        ("get_user-name", "the name of a user", "get *"),
        ("eat meal", "", "eat meal"),
        ("", SOUP, ""),
    ],
)
def test_words_of_the_goal_become_one_sign_however_they_are_cased_joined_or_in_number(action, goal, expected):
    assert template(action, goal) == expected
    assert templates([action, action], goal) == (expected, expected)


def test_two_worlds_offer_the_same_kinds_and_more_of_one_kind_say_nothing_more():
    soup = template_hashes(["dice tomato with knife", "chop tomato with knife"], SOUP)
    salad = template_hashes(["chop onion with knife", "eat onion"], SALAD)
    assert len(set(soup.split()) & set(salad.split())) == 1
    assert template_hashes(["take a from b", "take a from b"], "x") == template_hashes(["take a from b"], "x")


def step(goal, action, options, index=0, trace_id="a", observation="You stand there."):
    return Experience(
        observation=observation, action=action, options=tuple(options), trace_id=trace_id * 32,
        case_id=trace_id, source="own", goal=goal, index=index,
    )  # fmt: skip


CUT = step(SOUP, "dice tomato with knife", ["dice tomato with knife", "chop tomato with knife", "eat tomato"])
EAT = step(SOUP, "eat meal", ["eat meal", "burn meal"], index=1)
OFFERED = ("chop onion with knife", "dice onion with knife", "eat onion")


def test_the_step_at_which_the_same_kinds_were_offered_is_recalled_though_it_shares_no_name():
    library = Library()
    library.add([CUT, EAT])
    (found,) = library.recall(Query(observation="Elsewhere.", goal="chop onion", offered=OFFERED), k=1)
    assert found.experience == CUT
    blind = Query(observation="Elsewhere.", goal="chop onion")
    assert library.recall(blind, k=1) == []
    unweighed = RecallSettings(offered=0)
    assert library.recall(blind.model_copy(update={"offered": OFFERED}), k=1, settings=unweighed) == []


def test_a_step_votes_for_the_option_of_its_form_and_for_its_own_name_where_that_is_offered():
    memory = Memory([CUT, EAT])
    recalled = memory.recall(Query(observation="Elsewhere.", goal="chop onion", offered=OFFERED), k=1)
    votes = memory.vote(recalled, OFFERED, "chop onion")
    assert votes[0] > 0
    assert votes[1:].tolist() == [0, 0]
    named = memory.vote(recalled, ("dice tomato with knife", *OFFERED), "chop onion")
    assert named[0] > 0
    assert named[1:].tolist() == [0, 0, 0]


def test_options_of_one_form_share_a_vote_and_a_decision_on_its_own_votes_for_names_alone():
    memory = Memory([CUT])
    recalled = memory.recall(Query(observation="Elsewhere.", goal="chop onion", offered=OFFERED), k=1)
    both = ("chop onion with knife", "chop onion, with knife")
    votes = memory.vote(recalled, both, "chop onion")
    assert votes[0] == votes[1] > 0
    alone = Memory([CUT.model_copy(update={"index": None})])
    recalled = alone.recall(Query(observation=CUT.observation), k=1)
    np.testing.assert_array_equal(alone.vote(recalled, OFFERED, "chop onion"), np.zeros(3))


def test_an_agent_decides_by_the_form_of_what_won_elsewhere():
    memory = Memory([CUT, EAT])
    candidate = base_candidate("Cook.")
    leaning = candidate.topology.model_copy(update={"recall_weight": 100.0})
    program = Program(candidate.model_copy(update={"topology": leaning}), memory=memory)
    offered = tuple(Option(name=name) for name in OFFERED)
    view = View(case_id="new", observation=Observation(text="Elsewhere.", options=offered), goal="chop onion")
    (decision,) = program.decide([view])
    assert decision.action.name == "chop onion with knife"
    assert decision.recalled == (CUT.trace_id,)
