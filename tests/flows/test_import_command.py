"""`ratchet import`: logs become traces once, faults stop it with their number, what won becomes experience."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratchet.agent.memory.ranking import Query
from ratchet.evaluation.data.labels import Label
from ratchet.infra.store.experience import open_library
from ratchet.infra.traces.write import attach_label, collect

SHARED = Path(os.environ.get("RATCHET_SHARED", Path(__file__).resolve().parents[3] / "shared"))
AIRLINE = SHARED / "data" / "tau_bench_airline" / "gpt-4o-airline.json"


def conversation(request, *, reward=1.0, task=1):
    call = {"id": "1", "function": {"name": "cancel", "arguments": '{"booking": "X"}'}}
    return {
        "task_id": task,
        "reward": reward,
        "messages": [
            {"role": "user", "content": request},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "cancelled"},
            {"role": "assistant", "content": "Done."},
        ],
    }


@pytest.fixture
def imports(ratchet, make_project, tmp_path):
    """Import these lines into a project of the test's own."""
    made = make_project()

    def run(*lines, options=()):
        path = tmp_path / "log.jsonl"
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return ratchet("import", path, "--format", "openai-chat", "--project", made.folder, *options)

    run.project = made.name
    return run


def test_conversations_become_traces_with_their_outcome_and_the_won_ones_experience(imports):
    done = imports(conversation("cancel my trip"), conversation("cancel it", reward=0.0), options=("--json",))
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert (report["conversations"], report["new"], report["won"], report["sessions"]) == (2, 2, 1, 1)
    assert (report["steps"], report["remembered"], report["library"]) == (4, 2, 2)
    traces = collect(imports.project).traces
    assert sorted(trace.score for trace in traces) == [0.0, 1.0]
    assert {trace.session_id for trace in traces} == {"1"}
    with open_library(imports.project) as library:
        (found,) = library.recall(Query(observation="please cancel", goal="cancel my trip"), k=3)
    assert (found.experience.action, [step.action for step in found.after]) == ("cancel", ["respond"])


def test_importing_twice_adds_nothing(imports):
    imports(conversation("cancel my trip"))
    report = json.loads(imports(conversation("cancel my trip"), options=("--json",)).stdout)
    assert (report["new"], report["already_there"], report["remembered"], report["library"]) == (0, 1, 0, 2)
    assert len(collect(imports.project).traces) == 1


def test_the_same_log_can_be_imported_into_two_projects(imports, ratchet, project, tmp_path):
    imports(conversation("cancel my trip"))
    other = tmp_path / "other"
    other.mkdir()
    text = (tmp_path / imports.project / "project.py").read_text()
    (other / "project.py").write_text(text.replace(imports.project, f"{imports.project}-b"))
    options = ("--format", "openai-chat", "--project", other, "--json")
    assert json.loads(ratchet("import", tmp_path / "log.jsonl", *options).stdout)["new"] == 1
    assert len(collect(f"{imports.project}-b").traces) == 1


def test_a_malformed_line_stops_the_import_and_is_named(imports):
    done = imports(conversation("a"), "{broken", conversation("b"))
    assert done.returncode == 2
    assert "1 of 3 records are malformed, nothing was imported: line 2: not JSON" in done.stderr
    assert "--skip-malformed" in done.stderr
    assert collect(imports.project).traces == ()


def test_malformed_lines_are_skipped_and_named_only_on_request(imports):
    done = imports(conversation("a"), "{broken", options=("--skip-malformed", "--json"))
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert (report["new"], [fault["number"] for fault in report["malformed"]]) == (1, [2])
    told = imports(conversation("a"), "{broken [bold]", options=("--skip-malformed",))
    assert "skipped line 2" in told.stderr


def test_another_format_or_an_absent_file_is_bad_input(ratchet, make_project, tmp_path):
    folder = make_project().folder
    assert ratchet("import", tmp_path / "x", "--format", "csv", "--project", folder).returncode == 2
    done = ratchet("import", tmp_path / "x", "--format", "openai-chat", "--project", folder)
    assert done.returncode == 2
    assert "no such file" in done.stderr


def test_a_later_reward_and_a_correction_reach_trace_and_experience(imports):
    def now():
        (trace,) = collect(imports.project).traces
        with open_library(imports.project) as library:
            return trace.score, len(library)

    imports(conversation("cancel it", reward=None))
    assert now() == (None, 0)
    told = imports(conversation("cancel it", reward="pass"))
    assert "1 were there and took a later reward" in told.stderr
    assert now() == (1.0, 2)
    told = imports(conversation("cancel it", reward=False))
    assert "2 steps of experience were taken back" in told.stderr
    assert now() == (0.0, 0)
    imports(conversation("cancel it", reward=1.0))
    assert now() == (1.0, 2)


def test_a_persons_verdict_outranks_a_reward_that_is_imported_again(imports):
    imports(conversation("cancel it"))
    (trace,) = collect(imports.project).traces
    said = Label(
        trace_id=trace.trace_id, score=0.0, source="human", rater="anna", created_at=datetime.now(UTC)
    )
    attach_label(imports.project, said)
    report = json.loads(imports(conversation("cancel it"), options=("--json",)).stdout)
    assert (report["corrected"], report["remembered"], report["library"]) == (0, 0, 0)


def test_what_was_not_read_is_said(imports):
    done = imports({**conversation("cancel it"), "info": {"cost": 3}})
    assert "1 × field 'info' not read" in done.stderr


@pytest.mark.skipif(
    not AIRLINE.exists(), reason=f"{AIRLINE} is absent: put tau-bench's airline trajectories there"
)
def test_the_200_airline_trajectories_are_imported_and_84_of_them_won(ratchet, make_project):
    made = make_project()
    options = ("--format", "openai-chat", "--project", made.folder, "--json")
    report = json.loads(ratchet("import", AIRLINE, *options).stdout)
    assert (report["conversations"], report["new"], report["won"], report["sessions"]) == (200, 200, 84, 50)
    assert report["library"] == report["remembered"] > 84
    again = json.loads(ratchet("import", AIRLINE, *options).stdout)
    assert (again["new"], again["remembered"], again["library"]) == (0, 0, report["library"])


LOGS = Path(__file__).parents[1] / "infra" / "logs"


def test_feedback_is_read_under_the_names_that_the_project_sets(ratchet, make_project):
    made, told = make_project(), "feedback 'looked_first' not read: name it under [feedback] in ratchet.toml"
    first = ratchet("import", LOGS / "langfuse.json", "--project", made.folder)
    assert f"1 × {told}" in first.stderr
    (made.folder / "ratchet.toml").write_text('[feedback]\nscores = ["thumbs", "looked_first"]\n')
    options = ("--project", made.folder, "--json")
    report = json.loads(ratchet("import", LOGS / "langfuse.json", *options).stdout)
    assert (report["new"], report["labels"], report["notes"]) == (0, 1, {})


def test_each_format_is_told_without_a_word_its_feedback_comes_along_and_a_second_time_adds_nothing(
    ratchet, make_project
):
    made, labels = make_project(), 0
    for path in sorted(LOGS.iterdir()):
        told = ratchet("import", path, "--project", made.folder)
        assert told.returncode == 0, told.stderr
        again = json.loads(ratchet("import", path, "--project", made.folder, "--json").stdout)
        assert f"read as {again['format']}: messages of the agent" in told.stderr
        assert all(f"× {note}" in told.stderr for note in again["notes"]), told.stderr
        assert (again["new"], again["remembered"], again["labels"]) == (0, 0, 0)
        labels += again["read"]["labels"]
    collected = collect(made.name)
    assert len({label.trace_id for label in collected.labels}) == labels == 8
    rated = {label.trace_id for label in collected.labels if label.source == "human" and label.score == 1}
    with open_library(made.name) as library:
        assert rated <= {step.trace_id for step in library.steps()}, "what a person approved is experience"
    assert {trace.system for trace in collected.traces} > {""}
