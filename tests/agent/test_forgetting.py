"""Forgetting: a version without what people had forgotten, and nothing that may teach has it any more."""

from datetime import UTC, datetime

import pytest

from ratchet.agent.candidate import Candidate, Demo, Predictor, Role, Topology
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.memory.forgotten import Forgotten, Oblivion
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.forgetting import Forget, would_forget
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.work import Work

AT = datetime(2026, 1, 5, tzinfo=UTC)


def step(trace, said="yes", case="case", **changes):
    return Experience(
        observation="a refund?", action=said, trace_id=trace * 32, case_id=case, source="own", **changes
    )


def gone(trace, said=("yes",), case="case"):
    return Forgotten(entry_id=trace * 32, case_id=case, said=said, at=AT, by="anna", reason="stale")


def parent(tmp_path, steps, **changes):
    memory = Memory(steps)
    memory.save(path := tmp_path / "memory.jsonl")
    fields = {
        "predictors": {"choose": Predictor(instructions="x")},
        "base_model": "tiny",
        "memory": memory.memory_id,
    }
    return Registered(Candidate(**(fields | changes)), {"memory": path}, frozenset({"seen"}))


def test_the_version_lacks_the_entry_and_the_same_answer_of_another_run_and_nothing_else(tmp_path):
    before = parent(tmp_path, [step("a"), step("b", case="other"), step("c", "no")])
    made = made_by(Forget(forgotten=(gone("a"), gone("f"))), before, Evidence(), Work(folder=tmp_path))
    left = Memory.load(made.files["memory"])
    assert [one.trace_id[0] for one in left.experiences] == ["c", "b"]
    assert left.memory_id == made.candidate.memory
    assert made.candidate.origin.note == "Forgets 1 entries of its memory, as anna said."
    assert made.candidate.parent == before.candidate.candidate_id
    assert made.seen_case_ids == ("seen",)
    after = Registered(made.candidate, made.files)
    with pytest.raises(NothingToPropose):
        made_by(Forget(forgotten=(gone("a"),)), after, Evidence(), Work(folder=tmp_path))
    assert not would_forget(after.candidate, after.files, Oblivion([gone("a")]))
    assert would_forget(before.candidate, before.files, Oblivion([gone("a")]))


def test_a_memory_of_which_all_is_forgotten_is_none_and_worked_examples_go_too(tmp_path):
    demos = (
        Demo(inputs="a refund?", output="yes", case_id="case"),
        Demo(inputs="b", output="yes", case_id="b"),
    )
    before = parent(tmp_path, [step("a")], predictors={"choose": Predictor(instructions="x", demos=demos)})
    made = made_by(Forget(forgotten=(gone("a"),)), before, Evidence(), Work(folder=tmp_path))
    assert (made.candidate.memory, made.files) == (None, {})
    assert made.candidate.predictors["choose"].demos == demos[1:]


def test_each_role_of_a_team_forgets_in_its_own_share(tmp_path):
    before = parent(tmp_path, [step("a"), step("b", case="other")])
    shared = before.candidate.memory
    team = Topology(
        roles=(Role(name="solver", duty="solve", memory=shared), Role(name="critic", duty="criticize"))
    )
    whole = before.candidate.model_copy(update={"topology": team, "memory": None})
    of_team = Registered(whole, {"memory.solver": before.files["memory"]})
    made = made_by(Forget(forgotten=(gone("a"),)), of_team, Evidence(), Work(folder=tmp_path))
    assert made.candidate.topology.roles[0].memory not in (None, shared)
    assert list(made.files) == ["memory.solver"]


def test_of_a_run_of_several_steps_the_run_is_forgotten_and_not_what_its_steps_say():
    long = Oblivion([gone("a", said=("look", "open"))])
    assert long.covers("a" * 32, "case")
    assert not long.covers("b" * 32, "case", "look")
