"""Weights beside the LM in a planted world: what a memory of known toolsets must not do to new ones."""

import itertools

import numpy as np
import pytest

from ratchet.agent.candidate import Topology
from ratchet.agent.environment import Observation, Option
from ratchet.agent.kinds.program import Program, View, base_candidate
from ratchet.agent.lm.lm import Scores
from ratchet.agent.lm.prompt_format import SMALL
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Example
from ratchet.agent.optimize.examples import as_experience
from ratchet.agent.optimize.groups import group_of, hold_out, is_neighbour
from ratchet.agent.optimize.vote_weights import EXTRA, RECALL, RETRIEVAL, likelihoods, tune, tuning_row
from ratchet.agent.optimize.weights.lora import Lora

NONE = Option(name="no_tool", description="None of the options above does what is asked.")
PLACES = ("kitchen", "garage", "garden", "office", "cellar", "attic")
WORDS = ("zorp", "quibble", "flumox", "wexil", "brandt", "mizzen", "tarkle")


class KnowsNothing:
    """Scripted LM: every option is as likely as the others."""

    scores_options, room, at_once = True, SMALL, 1

    def score(self, prompt):
        return Scores(np.zeros(len(prompt.choices)), 1)


def example(place, number, request, answer):
    tools = (
        Option(name=f"heat_{place}", description=f"Warms up the {place}."),
        Option(name=f"lock_{place}", description=f"Shuts the {place}."),
    )
    observation = Observation(text=request, options=tools)
    case_id = f"{place}{number}"
    return Example(view=View(case_id=case_id, observation=observation), answer=answer, trace_id=case_id)


def of_place(place):
    """Four requests that a tool fits, of which similarity tells three, and four that none fits.

    What one place says of its tools, the place before says of what no tool does: votes cross over to a new place.
    """
    at = PLACES.index(place)
    ours, theirs = (f"{word} {word}ly urgently" for word in (WORDS[at], WORDS[at + 1]))
    return [
        example(place, 0, f"{ours} heat the {place}", f"heat_{place}"),
        example(place, 1, f"{ours} {place} heat", f"heat_{place}"),
        example(place, 2, f"{ours} lock the {place}", f"lock_{place}"),
        example(place, 3, f"{ours} bolt the {place}", f"lock_{place}"),
        *(
            example(place, 4 + i, f"{theirs} heat the {place} {colour}", NONE.name)
            for i, colour in enumerate(("red", "blue", "green", "white"))
        ),
    ]


def remembering(examples):
    memory = Memory(as_experience(one) for one in examples)
    program = Program(
        base_candidate("Pick one.").model_copy(
            update={"memory": memory.memory_id, "extra_options": (NONE,), "topology": Topology(recalls=1)}
        ),
        memory=memory,
    )
    program.lm = KnowsNothing()
    return program


def share_right(program, examples):
    chosen = [program.act(one.view).action.name for one in examples]
    return np.mean([name == one.answer for name, one in zip(chosen, examples, strict=True)])


@pytest.fixture(scope="module")
def learned():
    """What the first five places teach, and requests of the sixth, which a tool fits."""
    known = [one for place in PLACES[:-1] for one in of_place(place)]
    new = [one for one in of_place(PLACES[-1]) if one.is_offered]
    return remembering(known), known, new


def test_weights_chosen_without_single_cases_hurt_on_a_new_toolset_and_without_groups_do_not(learned):
    program, known, new = learned
    grid = np.array(list(itertools.product(RETRIEVAL, RECALL, EXTRA, (0.0,))))
    rows = [tuning_row(program, one) for one in known]
    found = dict(
        zip(
            ("retrieval_weight", "recall_weight", "extra_bias"),
            grid[likelihoods(rows, grid).max(axis=1).argmax()].tolist(),
            strict=False,
        )
    )
    by_case = program.with_weights(**found)
    similarity = program.with_weights(retrieval_weight=10.0, extra_bias=-100.0)
    tuned = tune(program, known)
    by_group = program.with_weights(**tuned.topology.model_dump())
    assert share_right(by_case, new) < share_right(similarity, new) <= share_right(by_group, new)
    assert share_right(by_group, known) >= share_right(by_case, known) - 0.05
    assert tuned.new is not None
    assert tuned.lm_calls == 2 * len(known), "once without the case and once without its group"
    assert tune(program, known).topology == tuned.topology


def test_where_all_share_their_options_nothing_is_new_and_the_lm_is_asked_once(learned):
    one_place = of_place(PLACES[0])
    tuned = tune(remembering(one_place), one_place)
    assert (tuned.new, tuned.lm_calls) == (None, len(one_place))


def test_an_extra_option_is_chosen_and_voted_for_only_beside_options_that_the_memory_knows(learned):
    program, known, new = learned
    view = new[1].view

    def features(program, view):
        _, observation, recalled = program.prompt(view)
        return program.features(observation, recalled)

    careful = program.with_weights(extra_where_known=True, extra_bias=100.0)
    before, since = features(program, view), features(careful, view)
    assert before[1].tolist() == [0, 0, pytest.approx(before[1][2])]
    assert before[1][2] > 0.1, "others' refusals voted for refusing what they never saw"
    assert since[1].tolist() == [0, 0, 0]
    assert (since[3].tolist(), before[2].tolist()) == ([0, 0, 1], [0, 0, 1])
    assert careful.act(view).action.name != NONE.name
    there = features(careful, known[4].view)
    assert there[1][2] > 0.1, "refusals beside the same tools vote"
    assert there[3].tolist() == [0, 0, 0]
    assert careful.act(known[4].view).action.name == NONE.name


def test_groups_are_toolsets_trajectories_or_templates():
    first, second = of_place("kitchen")[:2]
    other = of_place("attic")[0]
    assert group_of(first) == group_of(second) != group_of(other)

    def free(text, **fields):
        view = View(case_id="c", observation=Observation(text=text), **fields)
        return Example(view=view, answer="", trace_id="t")

    assert group_of(free("refund order 81, please")) == group_of(free("Refund order 7b3, please"))
    assert group_of(free("refund order 81, please")) != group_of(free("cancel order 81, please"))
    assert group_of(free("a door", goal="find the key")) == "case c"
    imported = Experience(observation="o", action="heat_kitchen", trace_id="i", case_id="i", source="own")
    assert is_neighbour(imported, first.view)
    assert not is_neighbour(imported, other.view)
    step = imported.model_copy(update={"index": 0, "options": ("heat_kitchen",)})
    assert not is_neighbour(step, first.view), "a step of a run is left out with its case"


def test_whole_groups_are_held_out_and_of_one_group_single_examples():
    examples = [one for place in PLACES for one in of_place(place)]
    held, others = Lora(tune_share=0.35).held_out(examples, seed=1)
    assert (len(held), len(others)) == (16, 32)
    assert not {group_of(one) for one in held} & {group_of(one) for one in others}
    assert Lora(tune_share=0.35).held_out(examples[::-1], seed=1) == (held, others)
    assert len(Lora(tune_share=0.15).held_out(of_place("attic") * 5, seed=0)[0]) == 10, (
        "as many as tuning needs"
    )
    assert len(hold_out(of_place("attic"), 3, seed=0)[0]) == 3
    assert Lora(tune_share=0).held_out(examples, seed=0)[0] == []
