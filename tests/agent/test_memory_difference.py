"""Two snapshots of experience compared: what is new, gone and changed."""

from ratchet.agent.memory.difference import memory_difference, share_differences
from ratchet.agent.memory.steps import Experience


def entry(case, action="left", **more):
    return Experience(
        observation=f"ask {case}", action=action, case_id=case, trace_id=f"t-{case}", source="own", **more
    )


OLD = (entry("a"), entry("b"), entry("c"))
NEW = (entry("a"), entry("b", goal="another"), entry("d", "right"))


def test_entries_are_told_apart_by_case_and_action_and_compared_by_content():
    found = memory_difference(OLD, NEW)
    assert [one.case_id for one in found.added] == ["d"]
    assert [one.case_id for one in found.removed] == ["c"]
    assert [(before.goal, after.goal) for before, after in found.changed] == [("", "another")]
    assert found.summary == "1 added, 1 removed, 1 changed, 1 kept"
    other_run = OLD[0].model_copy(update={"trace_id": "another run"})
    counted = OLD[1].model_copy(update={"shown": 4, "led_to_success": 3})
    assert not memory_difference(OLD, (other_run, counted, OLD[2]))


def test_each_share_is_compared_and_one_that_did_not_change_is_left_out():
    found = share_differences(
        {"memory": OLD, "memory.plan": OLD}, {"memory": NEW, "memory.plan": OLD, "memory.act": OLD}
    )
    assert {name: one.summary for name, one in found.items()} == {
        "memory": "1 added, 1 removed, 1 changed, 1 kept",
        "memory.act": "3 added, 0 kept",
    }
    assert share_differences({}, {}) == {}
