"""Of contradicting answers to one request a person's newest stands, and tells which it replaced."""

from datetime import UTC, datetime, timedelta

from ratchet.agent.environment import Observation, Option
from ratchet.agent.kinds.decision import View
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.optimize.evidence import Example
from ratchet.agent.optimize.examples import as_experience, superseding

DAY = datetime(2026, 1, 5, tzinfo=UTC)


def example(trace, answer, day, source="human", text="May I send it back?", **changes):
    options = tuple(Option(name=name) for name in ("accept", "refuse"))
    seen = Observation(text=text, options=changes.pop("options", options))
    return Example(
        view=View(case_id=f"case {trace}", observation=seen), answer=answer, trace_id=trace * 32,
        seen_at=DAY + timedelta(days=day), source=source, **changes,
    )  # fmt: skip


def left(*examples):
    return {one.trace_id[0]: "".join(x[0] for x in one.supersedes) for one in superseding(examples)}


def test_the_newest_word_of_a_person_replaces_people_and_own_successes_and_keeps_who_they_were():
    old, own, same = example("a", "refuse", 1), example("b", "refuse", 2, "own"), example("c", "accept", 1)
    newest = example("d", "accept", 3, text="may I  send it back?")
    assert left(old, own, same, newest) == {"c": "", "d": "ab"}
    assert left(newest, same, own, old) == {"c": "", "d": "ab"}, "in whatever order they come"
    memory = Memory([as_experience(one) for one in superseding([old, own, newest])])
    assert [one.supersedes for one in memory.experiences] == [("a" * 32, "b" * 32)]
    alone = Memory([as_experience(newest)])
    assert memory.memory_id == alone.memory_id, "what it replaced is told, and is not what is remembered"


def test_when_the_person_said_so_counts_and_not_when_the_request_came():
    early = example("a", "refuse", 1, said_at=DAY + timedelta(days=9))
    assert left(early, example("b", "accept", 5)) == {"a": "b"}


def test_the_agents_own_success_replaces_nobody_and_what_differs_in_words_or_options_is_no_contradiction():
    assert left(example("a", "refuse", 1), example("b", "accept", 2, "own")) == {"a": "", "b": ""}
    assert left(example("a", "refuse", 1), example("b", "accept", 1)) == {"a": "", "b": ""}, "at one moment"
    assert left(example("a", "refuse", 1, text="another"), example("b", "accept", 2)) == {"a": "", "b": ""}
    only = (Option(name="refuse"),)
    assert left(example("a", "refuse", 1, options=only), example("b", "accept", 2)) == {"a": "", "b": ""}
