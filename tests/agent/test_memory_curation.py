"""Curation: credit and difference decide, whole trajectories stay or go, the old snapshot stays as it is."""

from agent.experience import Credit, Experience
from agent.memory import Memory
from agent.optimize.memory_curation import CurationSettings, curate_memory


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
