"""`ratchet demo`, small and real: what the product promises, whatever the numbers turn out to be."""

import json
import os
import signal
import time

import pytest
from tests.evidence import finished

from ratchet.evaluation.gate.verdict import SAID
from ratchet.infra.known_projects import known_projects
from ratchet.infra.registry.gate_cases import spent_cases
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.registry import champion, fetch_files, seen_case_ids, version_history
from ratchet.infra.review.comparisons import pending_comparisons, read_replies
from ratchet.infra.review.queue import pending
from ratchet.infra.store.project_state import project_folder
from ratchet.infra.traces.write import collect

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.server]

NAME = "demo"
TOLD = ("round 1", "round 2", "two challengers")


def test_it_tells_its_story_as_one_json_object(demo):
    assert set(demo.story) >= {"seconds", "promotions", "refusals", "final"}
    assert len(demo.story["final"]) == 2
    for test in demo.story["final"].values():
        low, high = test["ci"]
        assert -1 <= low <= test["gain"] <= high <= 1


def test_every_version_but_the_first_that_was_tested_has_a_verdict_and_a_sentence(demo_home):
    versions = version_history(NAME)
    tested = {entry.candidate for entry in read_ledger(NAME).current}
    assert len(versions) >= 2
    for version in versions:
        assert (version.decision is not None) == (version.candidate_id in tested)
        if version.decision is not None:
            assert SAID[version.decision] in version.reason


def test_one_champion_serves_and_it_was_proven_or_is_the_first(demo_home):
    serving = champion(NAME)
    assert serving.number == 1 or serving.decision == "promote"
    assert [v for v in version_history(NAME) if "champion" in v.aliases] == [serving]
    assert known_projects() == [NAME]


def test_the_ledger_pays_for_every_test_from_its_reserve(demo_home):
    ledger = read_ledger(NAME)
    tested = {v.candidate_id for v in version_history(NAME) if v.decision is not None}
    assert {entry.candidate for entry in ledger.current} == tested
    assert ledger.current[0].alpha_k == pytest.approx(0.6 * 0.05)
    assert all(entry.gives_back for entry in ledger.current)
    assert 0 <= ledger.spent <= 0.05


def test_the_negative_control_is_registered_and_never_promoted(demo_home):
    control = [v for v in version_history(NAME) if v.candidate.origin.proposer == "control"]
    assert len(control) == 1
    assert control[0].decision != "promote"
    assert not any(event.action == "promoted" for event in control[0].events)
    assert "champion" not in control[0].aliases


def test_what_reflection_taught_is_tested_like_anything_else_or_taught_nothing(demo_home):
    told = json.loads((project_folder(NAME) / "two challengers.json").read_text())
    judged = {one["candidate_id"] for one in told["judged"]}
    if told["taught"] is None:
        assert "reflections" not in {v.candidate.origin.proposer for v in version_history(NAME)}
    else:
        made = next(v for v in version_history(NAME) if v.candidate_id == told["taught"])
        assert made.candidate.origin.proposer == "reflections"
        assert made.candidate_id in judged or not judged
        assert not any(event.action == "promoted" for event in made.events)


def test_every_queued_trace_was_answered_and_only_those(demo_home):
    assert pending(NAME) == []
    asked = finished(NAME)
    answered = {label.trace_id for label in asked}
    collected = collect(NAME)
    people = [label for label in collected.labels if label.source == "human"]
    traces = {trace.trace_id: trace.case.case_id for trace in collected.traces}
    compared = {label.trace_id for label in people} - answered
    assert {traces[one] for one in compared} <= spent_cases(NAME), (
        "what judged teaches when it judges no more"
    )
    assert answered <= {label.trace_id for label in people}
    assert {label.rater for label in people} == {"stand-in"}
    assert answered <= traces.keys()
    assert all(label.asked and 0 < label.propensity <= 1 for label in asked)


def test_people_compared_only_where_versions_differ_and_the_demo_says_how_many_labels_that_saved(
    demo, demo_home
):
    said = read_replies(NAME)
    told = [json.loads((project_folder(NAME) / f"{one}.json").read_text()) for one in TOLD]
    asked = sum(one["people"]["asked"] for one in told)
    played = sum(one["people"]["played"] for one in told)
    assert pending_comparisons(NAME) == [], "what no test asks any more was taken back"
    assert {one.rater for one in said} == {"stand-in"}
    assert 0 < asked < played
    assert len({one.question_id for one in said}) >= asked
    assert f"{told[1]['people']['played'] - told[1]['people']['asked']} labels saved" in demo.stderr


def test_no_trace_knows_the_expected_answer(demo_home):
    assert all(trace.case.expected is None for trace in collect(NAME).traces)


def test_no_gate_case_was_seen_by_a_candidate_that_it_judged(demo_home):
    for version in version_history(NAME):
        if version.decision is not None:
            assert version.verdict.n_labelled + version.verdict.n_alike > 0
    first = next(v for v in version_history(NAME) if v.decision is not None)
    assert not seen_case_ids(NAME, first.candidate_id) & spent_cases(NAME)


def test_what_a_version_is_made_of_is_there(demo_home):
    for version in version_history(NAME):
        files = fetch_files(NAME, version.candidate_id)
        assert ("adapter" in files) == (version.candidate.adapter is not None)
        assert ("memory" in files) == (version.candidate.memory is not None)
        assert all(path.exists() for path in files.values())


def test_each_request_is_one_trace(demo_home):
    traces = collect(NAME).traces
    assert len({trace.case.case_id for trace in traces}) == len(traces)


def test_a_second_start_is_quick_and_changes_nothing(demo, demo_home, run_demo):
    before = version_history(NAME), read_ledger(NAME), len(collect(NAME).traces)
    began = time.monotonic()
    again = run_demo(demo.home)
    assert time.monotonic() - began < sum(demo.story["seconds"].values())
    assert (version_history(NAME), read_ledger(NAME), len(collect(NAME).traces)) == before
    assert again.story["final"] == demo.story["final"]


def test_ctrl_c_and_a_second_run_continue_and_nothing_is_doubled(tmp_path, start_demo, run_demo, monkeypatch):
    home = tmp_path / "interrupted"
    process = start_demo(home)
    until = time.monotonic() + 600
    while not (home / "projects" / NAME / "week 1.json").exists():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < until, "week 1 does not end"
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # proposers are at work now
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in stderr
    story = run_demo(home).story
    monkeypatch.setenv("RATCHET_HOME", str(home))
    traces = collect(NAME).traces
    assert len({trace.case.case_id for trace in traces}) == len(traces)
    assert len({v.candidate_id for v in version_history(NAME)}) == len(version_history(NAME))
    assert len(story["final"]) == 2


def test_the_same_seed_gives_the_same_candidates_and_verdicts(demo, run_demo, tmp_path, monkeypatch):
    def told(home):
        monkeypatch.setenv("RATCHET_HOME", str(home))
        round_1 = json.loads((project_folder(NAME) / "round 1.json").read_text())
        judged = [(j["candidate_id"], j["verdict"]["decision"]) for j in round_1["report"]["judged"]]
        return judged, [v.candidate_id for v in version_history(NAME)]

    other = run_demo(tmp_path / "other")
    assert told(other.home) == told(demo.home)
