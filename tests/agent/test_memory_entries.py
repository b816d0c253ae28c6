"""A memory for people: entries by the run they come from, counted as people and environments judged, worst first."""

from datetime import UTC, datetime

import pytest

from ratchet.agent.case import Case
from ratchet.agent.environment import Outcome
from ratchet.agent.errors import BadInput
from ratchet.agent.memory.entries import entries_of, entry_named, with_text
from ratchet.agent.memory.library import Library
from ratchet.agent.memory.steps import Credit, Experience
from ratchet.agent.trace import Attempt, Trace

AT = datetime(2026, 1, 5, tzinfo=UTC)
A, B, C = "a" * 32, "b" * 32, "c" * 32


def step(trace_id, asked="a refund?", said="yes", **changes):
    return Experience(
        observation=asked,
        action=said,
        trace_id=trace_id,
        case_id=f"case {trace_id[0]}",
        source="own",
        **changes,
    )


def run(number, *recalled, score, trace_id=None):
    return Trace(
        trace_id=trace_id or f"{number:032x}", case=Case(inputs={"n": number}), candidate_id="c", started_at=AT,
        latency_s=0, attempts=(Attempt(outcome=Outcome(score=score), recalled=recalled),),
    )  # fmt: skip


def test_an_entry_is_what_one_run_left_and_the_worst_stand_first():
    steps = {
        "memory": [step(A), step(B, index=0), step(B, said="then no", index=1)],
        "memory.reply": [step(A), step(C)],
    }
    credits = {A: Credit(shown=4, led_to_success=4), C: Credit(shown=3, led_to_success=0)}
    found = entries_of(steps, credits)
    assert [one.entry_id for one in found] == [C, B, A], "harmed 3 of 3, never shown, helped 4 of 4"
    assert found[1].said == ("yes", "then no")
    assert found[2].where == ("memory", "memory.reply")
    assert with_text(found, "THEN") == [found[1]]


def test_an_entry_is_named_by_the_beginning_of_its_id_and_by_nothing_that_names_two():
    found = entries_of({"": [step(A), step("ab" * 16)]}, {})
    assert entry_named(found, f"tr-{A}").entry_id == A
    assert entry_named(found, "AAAA").entry_id == A
    for text in ("a", "", "ffff"):
        with pytest.raises(BadInput, match="ratchet memory list"):
            entry_named(found, text)


def test_a_run_counts_as_it_stands_now_a_person_who_judges_later_included(tmp_path):
    with Library(tmp_path) as library:
        assert library.credit([run(1, A, B, score=None), run(2, A, score=0.0)]) == 2
        assert library.credits([A, B]) == {A: Credit(shown=1)}, "nobody scored the first"
        judged = {f"{1:032x}": 1.0, f"{2:032x}": 1.0}
        assert library.credit([run(1, A, B, score=None), run(2, A, score=0.0)], judged) == 0
        assert library.credits([A, B]) == {
            A: Credit(shown=2, led_to_success=2),
            B: Credit(shown=1, led_to_success=1),
        }
        assert library.credit([run(1, A, B, score=None)], {f"{1:032x}": 0.0}) == 0
        assert library.credits([A])[A].led_to_failure == 1
        assert library.recalls(A) == {
            f"{1:032x}": Credit(shown=1), f"{2:032x}": Credit(shown=1, led_to_success=1),
        }  # fmt: skip


def test_what_an_older_version_counted_is_not_counted_again(tmp_path):
    with Library(tmp_path) as library:
        library._store._db.execute("INSERT INTO counted VALUES (?)", (f"{1:032x}",))
        library._store._db.execute("INSERT INTO credit VALUES (?, 1, 1)", (A,))
        assert library.credit([run(1, A, score=1.0)], {f"{1:032x}": 0.0}) == 0
        assert library.credits([A]) == {A: Credit(shown=1, led_to_success=1)}


def test_the_library_gives_its_worst_entries_without_reading_the_others():
    with Library() as library:
        library.add(
            [step(A, index=0), step(A, "a key", "open", index=1), step(B, "100% sure?"), step(C, "why?")]
        )
        library.credit([run(1, B, score=0.0), run(2, C, score=1.0)])
        steps, total = library.worst(2)
        assert [one.trace_id for one in steps] == [B, A, A]
        assert total == 3
        assert [one.trace_id for one in library.worst(9, "100%")[0]] == [B], "% is no wildcard"
        assert library.worst(9, "nothing of it") == ([], 0)
        assert [one.index for one in library.begin_with("aaaa")] == [0, 1]
