"""`ratchet import` on logs as teams have them: nothing is joined, dropped or replaced in silence."""

import json
import os
from pathlib import Path

import pytest

from ratchet.infra.store.experience import open_library
from ratchet.infra.traces.write import collect

SHARED = Path(os.environ.get("RATCHET_SHARED", Path(__file__).resolve().parents[3] / "shared"))
CASES = SHARED / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is absent: put the odd files there")


@pytest.fixture
def imports(ratchet, make_project):
    made = make_project()

    def run(name, *options):
        done = ratchet(
            "import", CASES / name, "--format", "openai-chat", "--project", made.folder, "--json", *options
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    run.project = made.name
    return run


def steps_of(project):
    (trace,) = collect(project).traces
    return trace.attempts[0].steps


def test_02_a_tool_use_block_is_a_call_with_its_result_and_thought(imports):
    imports("02_tool_use_blocks.jsonl")
    looked, said = steps_of(imports.project)
    assert (looked.action.name, looked.action.arguments) == ("read_sensor", {"place": "lake"})
    assert looked.result == "19 degrees"
    assert "Ask the sensor." in looked.thought
    assert (said.action.name, said.action.arguments) == ("respond", {"content": "19 degrees."})


def test_03_results_without_ids_are_joined_by_the_tools_name(imports):
    imports("03_named_results_without_ids.jsonl")
    results = {step.action.name: step.result for step in steps_of(imports.project)}
    assert (results["stock"], results["price"]) == ("17 left", "4.50")


def test_04_trials_alike_with_other_rewards_are_kept_and_importing_again_adds_nothing(imports):
    name = "04_trials_alike_other_reward.jsonl"
    report = imports(name)
    assert (report["conversations"], report["new"], report["won"], report["corrected"]) == (5, 5, 2, 0)
    assert sorted(trace.score for trace in collect(imports.project).traces) == [0, 0, 0, 1, 1]
    again = imports(name)
    assert (again["new"], again["corrected"], again["remembered"]) == (0, 0, 0)
    assert len(collect(imports.project).traces) == 5


def test_05_a_later_reward_reaches_the_trace_and_a_correction_takes_the_step_back(imports):
    def now():
        (trace,) = collect(imports.project).traces
        with open_library(imports.project) as library:
            return trace.score, len(library)

    assert imports("05_label_later_1_unscored.jsonl")["new"] == 1
    assert now() == (None, 0)
    won = imports("05_label_later_2_won.jsonl")
    assert (won["new"], won["corrected"], won["remembered"]) == (0, 1, 1)
    assert now() == (1.0, 1)
    lost = imports("05_label_later_3_corrected.jsonl")
    assert (lost["new"], lost["corrected"], lost["taken_back"]) == (0, 1, 1)
    assert now() == (0.0, 0)
    imports("05_label_later_1_unscored.jsonl")
    assert now() == (0.0, 0), "no reward is no correction"


def test_06_one_pretty_object_holding_a_list_of_simulations_is_read(imports):
    report = imports("06_one_object_pretty.json")
    assert (report["new"], report["won"], report["unscored"]) == (1, 1, 0)
    hello, looked, done = steps_of(imports.project)
    assert (looked.action.name, looked.action.arguments, looked.result) == (
        "get_order",
        {"id": "#W1"},
        "delivered",
    )
    assert (hello.result, done.action.name) == ("Return a lamp", "respond")


def test_07_a_reward_one_level_down_is_read(imports):
    report = imports("07_reward_nested.jsonl")
    assert (report["won"], report["unscored"]) == (1, 0)


def test_08_an_array_of_messages_is_one_conversation(imports):
    report = imports("08_bare_messages.json")
    assert (report["conversations"], report["steps"]) == (1, 2)


def test_09_reasoning_and_refusals_are_kept(imports):
    imports("09_reasoning_and_refusal.jsonl")
    steps = {t.case.inputs["request"]: t.attempts[0].steps[0] for t in collect(imports.project).traces}
    assert steps["Is 91 prime?"].thought == "91 = 7 x 13."
    assert steps["Write malware"].action.arguments == {"content": "I can't help with that."}


@pytest.mark.parametrize("options", [(), ("--skip-malformed",)], ids=["10", "10-skip"])
def test_utf16_is_read_whole(imports, options):
    report = imports("10_powershell_utf16.jsonl", *options)
    assert (report["conversations"], report["malformed"]) == (3, [])


def test_11_gzip_is_read(imports):
    assert imports("11_log.jsonl.gz")["new"] == 1


def test_12_sharegpt_is_read(imports):
    imports("12_sharegpt.json")
    (step,) = steps_of(imports.project)
    assert (step.observation, step.action.arguments) == ("Hi", {"content": "Hello"})
