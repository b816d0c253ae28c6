"""`ratchet memory`: read what the agent remembers with what came of it, and have it forgotten in somebody's name."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratchet.agent.candidate import Candidate, Predictor, Topology
from ratchet.agent.environment import Outcome
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.trace import Attempt
from ratchet.infra.registry.registry import promote, register
from ratchet.infra.store.experience import remember

AT = datetime(2026, 1, 5, tzinfo=UTC)
GOOD, STALE, NEW = "a" * 32, "b" * 32, "c" * 32


def step(trace_id: str, asked: str, said: str, **changes) -> Experience:
    fields = {
        "observation": asked,
        "action": said,
        "trace_id": trace_id,
        "case_id": trace_id[:16],
        "source": "own",
    }
    return Experience(**(fields | changes))


@pytest.fixture
def remembering(project, tmp_path: Path, make_trace) -> str:
    """A project whose champion remembers three entries; two runs were shown some."""
    memory = Memory(
        [
            step(GOOD, "where is my parcel?", "track"),
            step(STALE, "may I send it back?\x1b[31m", "refuse"),
            step(NEW, "may I send [bold]shoes[/] back?", "accept", source="human", supersedes=("d" * 32,)),
        ]
    )
    memory.save(path := tmp_path / "memory.jsonl")
    first = Candidate(
        predictors={"choose": Predictor(instructions="Choose.")}, base_model="tiny", memory=memory.memory_id,
        topology=Topology(recalls=2),
    )  # fmt: skip
    register(project, first, files={"memory": path}, seen_case_ids=[], cost={})
    promote(project, first.candidate_id, approved_by="ratchet", reason="the first version")
    won, lost = (
        make_trace(request).model_copy(
            update={"attempts": (Attempt(outcome=Outcome(score=score), recalled=shown),)}
        )
        for request, score, shown in (("a", 1.0, (GOOD,)), ("b", 0.0, (STALE, GOOD)))
    )
    remember(project, [won, lost, make_trace("unscored one", score=1.0, trace_id="e" * 32)])
    return project


def test_entries_are_read_with_their_counts_and_forgotten_in_a_persons_name(remembering, ratchet):
    told = ratchet("memory", "list", "--name", remembering, "--json")
    assert told.returncode == 0
    rows = json.loads(told.stdout)["entries"]
    assert [(row["entry_id"], row["helpful"], row["harmful"]) for row in rows] == [
        (STALE, 0, 1), (GOOD, 1, 1), (NEW, 0, 0)
    ]  # fmt: skip
    shown = ratchet("memory", "list", "--name", remembering, columns=80)
    assert all(len(line) <= 80 for line in shown.stderr.splitlines())
    assert "\x1b[31m" not in shown.stderr
    assert "[bold]shoes[/]" in " ".join(shown.stderr.split())
    filtered = json.loads(
        ratchet("memory", "list", "--text", "PARCEL", "--name", remembering, "--json").stdout
    )
    assert [row["entry_id"] for row in filtered["entries"]] == [GOOD]
    assert ratchet("memory", "list", "--text", "nothing of it", "--name", remembering).returncode == 3

    one = json.loads(ratchet("memory", "show", "bbbb", "--name", remembering, "--json").stdout)
    assert list(one["recalled_in"].values()) == [{"shown": 1, "led_to_success": 0}]
    assert "d" * 32 in ratchet("memory", "show", "cccc", "--name", remembering).stderr
    library = json.loads(ratchet("memory", "list", "--library", "--name", remembering, "--json").stdout)
    assert [row["entry_id"] for row in library["entries"]] == ["e" * 32], (
        "what won, and no version recalls yet"
    )

    nameless = ratchet("memory", "forget", "bbbb", "--by", "anna", "--name", remembering)
    assert (nameless.returncode, "--reason" in nameless.stderr) == (2, True)
    nobody = ratchet("memory", "forget", "ffff", "--reason", "old", "--by", "anna", "--name", remembering)
    assert (nobody.returncode, "ratchet memory list" in nobody.stderr) == (2, True)
    forget = ("memory", "forget", "--name", remembering, "--by", "anna", "--json")
    done = json.loads(ratchet(*forget, "bbbb", "--reason", "we take shoes back now").stdout)
    assert [one["entry_id"] for one in done["forgotten"]] == [STALE]
    again = json.loads(ratchet(*forget, STALE, "eeee", "--reason", "again").stdout)
    assert ([one["entry_id"] for one in again["forgotten"]], again["known_before"]) == (["e" * 32], 1)
    told = ratchet("memory", "show", "bbbb", "--name", remembering).stderr
    assert "by anna: we take shoes back now" in told
