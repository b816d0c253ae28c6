"""Curation: credit and difference decide, whole trajectories stay or go, the old snapshot stays as it is."""

from ratchet.agent.environment import Observation
from ratchet.agent.kinds.decision import View
from ratchet.agent.memory.library import Library
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Credit, Experience
from ratchet.agent.optimize.examples import as_decisions
from ratchet.agent.optimize.memory_curation import (
    CurationSettings,
    curate_memory,
    imported_steps,
    message_pairs,
    where_from,
)


def trajectory(trace, *observations, source="own", **changes):
    return [
        Experience(
            observation=text,
            action="a",
            trace_id=trace,
            case_id=f"case {trace}",
            source=source,
            index=i,
            **changes,
        )
        for i, text in enumerate(observations)
    ]


def kept(curated):
    return sorted({step.trace_id for step in curated.memory.experiences})


FLIGHTS = trajectory("a", "book a flight to Oslo", "pay for the flight")
AGAIN = trajectory("b", "book a flight to Oslo now", "pay for the flight")
REFUND = trajectory("c", "refund the hotel", "the hotel was refunded")


def test_of_two_that_say_the_same_the_one_that_led_to_success_is_kept():
    credit = {"a": Credit(shown=4, led_to_success=1), "b": Credit(shown=4, led_to_success=4)}
    curated = curate_memory(Memory(FLIGHTS + AGAIN + REFUND), CurationSettings(trajectories=2), credit=credit)
    assert kept(curated) == ["b", "c"]
    assert curated.left_out == {"no room": 1}


def test_what_was_shown_often_and_seldom_led_to_success_is_dropped_even_where_there_is_room():
    credit = {"a": Credit(shown=5, led_to_success=1), "b": Credit(shown=4, led_to_success=0)}
    curated = curate_memory(Memory(FLIGHTS + AGAIN + REFUND), CurationSettings(), credit=credit)
    assert kept(curated) == ["b", "c"], "b was not shown often enough to be judged"
    assert curated.left_out == {"shown and seldom led to success": 1}


def test_what_a_person_gave_is_never_dropped_for_its_credit():
    memory = Memory(trajectory("a", "book a flight", source="human") + REFUND)
    curated = curate_memory(memory, CurationSettings(trajectories=1), credit={"a": Credit(shown=50)})
    assert kept(curated) == ["a"]


def test_a_trajectory_stays_whole():
    curated = curate_memory(Memory(FLIGHTS + REFUND), CurationSettings(trajectories=1))
    assert len(curated.memory.experiences) == 2


def test_the_old_snapshot_is_untouched_and_the_new_one_is_the_same_every_time():
    memory = Memory(FLIGHTS + AGAIN + REFUND)
    before = memory.memory_id
    first, second = (
        curate_memory(Memory(order), CurationSettings(trajectories=2)).memory.memory_id
        for order in (FLIGHTS + AGAIN + REFUND, REFUND + AGAIN + FLIGHTS)
    )
    assert first == second != before == memory.memory_id


def test_decisions_on_their_own_are_curated_one_by_one():
    alone = [
        Experience(observation=o, action="a", trace_id="t", case_id=c, source="own")
        for c, o in (("1", "weather in Oslo"), ("2", "weather in Oslo?"), ("3", "book a table"))
    ]
    curated = curate_memory(Memory(alone), CurationSettings(trajectories=2))
    assert {"book a table"} < {step.observation for step in curated.memory.experiences}
    assert curated.kept == 2


def view(text, case_id="at hand"):
    return View(case_id=case_id, observation=Observation(text=text))


THEIRS = [
    *trajectory(
        "d" * 32, "book a flight to Rome", "pay for the flight to Rome", imported_from="imported:old"
    ),
    *trajectory("e" * 32, "refund the flight to Rome", imported_from="imported:old"),
    *trajectory("f" * 32, "water the garden", imported_from="imported:older"),
]


def test_imported_runs_like_what_the_agent_sees_are_taken_whole_and_only_so_many():
    with Library() as library:
        library.add(FLIGHTS + THEIRS)
        asked = [view("book a flight to Rome"), view("water the flowers in the garden")]
        assert imported_steps(library, asked, 2, k=2) == [*THEIRS[:2], THEIRS[3]]
        assert imported_steps(library, asked[:1], 2, k=2) == THEIRS[:3]
        assert imported_steps(
            library, [view(asked[0].observation.text, "case " + "d" * 32)], k=2, most=1
        ) == [THEIRS[2]]
        assert imported_steps(library, asked, 0, k=2) == []


def test_of_an_imported_run_each_message_of_the_user_is_paired_with_its_answer_over_the_tools_between():
    def step(place, seen, action, **arguments):
        run = {"trace_id": "a" * 32, "case_id": "c", "source": "own", "goal": "a flight?", "thought": "hm"}
        return Experience(observation=seen, action=action, arguments=arguments, index=place, **run)

    run = [
        step(0, "a flight?", "search", to="OSL"),
        step(1, "two flights", "respond", content="There are two."),
        step(2, "the first", "book", flight=1),
        step(3, "booked", "respond", content="Booked."),
    ]
    pairs = message_pairs(reversed(run))
    assert [(one.observation, one.said) for one in pairs] == [
        ("a flight?", "There are two."),
        ("the first", "Booked."),
    ]
    assert {(one.action, one.index, one.goal) for one in pairs} == {("respond", None, "")}
    assert message_pairs(run[3:]) == [], "what the user had said is not known"
    assert [one.said for one in message_pairs(run[1:])] == ["Booked."]


def test_a_memory_says_whose_logs_it_comes_from():
    assert where_from(Memory(FLIGHTS)) == ""
    assert where_from(Memory(FLIGHTS + THEIRS)) == ", 4 of them from imported logs of old, older"


def test_of_others_steps_only_what_this_agent_can_do_becomes_a_decision_of_its_own():
    known, unknown = THEIRS[0], THEIRS[2].model_copy(update={"action": "b"})
    (decision,) = as_decisions([known, unknown], {"a"})
    assert (decision.observation, decision.action, decision.index) == (known.observation, "a", None)
    assert (decision.imported_from, decision.case_id) == ("imported:old", known.case_id)
