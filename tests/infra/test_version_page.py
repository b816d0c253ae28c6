"""What a version's page shows, how few calls read all versions, and stores that an older Ratchet wrote."""

import json

import mlflow
import pytest
from mlflow import MlflowClient
from tests.evidence import give_verdict

from ratchet.agent.candidate import Candidate, Origin, Predictor
from ratchet.agent.errors import BadInput
from ratchet.agent.record import digest_of_ids
from ratchet.evaluation.data.intervals import mean_interval
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.gate_cases import read_open_test, write_open_test
from ratchet.infra.registry.promotion import promote, roll_back
from ratchet.infra.registry.registry import (
    champion,
    record_evaluation,
    register,
    seen_case_ids,
    version_history,
)

BETTER = decide(
    [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)], alpha=0.001
)
ON_THE_PAGE = {"candidate_id", "how_made", "verdict", "gain", "accuracy", "ratchet.prompts"}


def candidate(instructions="Pick the tool.", **changes):
    return Candidate(
        predictors={"act": Predictor(instructions=instructions)}, base_model="smollm2", **changes
    )


def registered(project, made, **changes):
    return register(project, made, **({"files": {}, "seen_case_ids": [], "cost": {}} | changes))


def approve(project, candidate_id):
    return promote(project, candidate_id, approved_by="anna", reason="proven")


def test_a_version_s_page_shows_six_tags_that_a_person_reads(project):
    first = registered(project, candidate())
    approve(project, first.candidate_id)
    better = candidate("Pick well.", parent=first.candidate_id, origin=Origin(proposer="lora"))
    registered(project, better, seen_case_ids=["a", "b"], cost={"seconds": 26.4, "lm_calls": 120})
    write_open_test(project, better.candidate_id, "{}")
    give_verdict(project, better.candidate_id, first.candidate_id, BETTER)
    record_evaluation(
        project, better.candidate_id, scores={"accuracy": mean_interval([1, 1, 0])}, notes="nearly"
    )
    approve(project, better.candidate_id)
    tags = connect(project).client.get_model_version(project, "2").tags
    assert set(tags) == ON_THE_PAGE
    assert tags["how_made"] == "lora, 2 cases, 26.4 seconds, 120 lm calls"
    assert json.loads(tags["ratchet.prompts"]) == {f"{project}-act": 2}
    assert tags["verdict"] == "proven"
    assert tags["gain"] == f"{BETTER.gain:+.3f} [{BETTER.ci[0]:+.3f}, {BETTER.ci[1]:+.3f}]"
    assert tags["accuracy"].startswith("0.667 [")
    assert max(map(len, tags.values())) < 80
    run = connect(project).client.get_run(version_history(project)[-1].run_id)
    compared = {name: run.data.tags.get(name) for name in ("verdict", "reason")}
    assert compared == {"verdict": "proven", "reason": BETTER.reason}, "MLflow compares runs, not versions"


def test_all_versions_are_read_with_as_many_calls_as_one(project, monkeypatch):
    registered(project, candidate("0"))
    version_history(project)
    calls = []
    for name in (
        "search_model_versions",
        "search_runs",
        "get_run",
        "get_model_version",
        "download_artifacts",
    ):
        real = getattr(MlflowClient, name)
        monkeypatch.setattr(
            MlflowClient,
            name,
            lambda *given, name=name, real=real, **more: calls.append(name) or real(*given, **more),
        )
    version_history(project)
    for n in range(1, 4):
        registered(project, candidate(str(n)))
    version_history(project)
    calls.clear()
    assert len(version_history(project)) == 4
    assert calls == ["search_model_versions", "search_runs"]


def test_two_versions_with_the_same_prompt_register_one_and_both_name_it(project):
    first = registered(project, candidate("Pick."))
    other = registered(project, candidate("Choose."))
    again = registered(project, candidate("Pick.", memory="m1"))
    client, name = connect(project).client, f"{project}-act"
    assert len(client.search_prompt_versions(name)) == 2
    linked = [client.get_run(version.run_id).data.tags for version in (first, other, again)]
    assert [tags["prompt.act"] for tags in linked] == [f"{name}/1", f"{name}/2", f"{name}/1"]
    assert json.loads(linked[2]["mlflow.linkedPrompts"]) == [{"name": name, "version": "1"}]
    assert mlflow.genai.load_prompt(f"prompts:/{name}/1").template == "Pick."


def test_a_reason_that_no_tag_could_hold_is_refused_and_moves_nothing(project):
    made = registered(project, candidate())
    with pytest.raises(BadInput, match="at most 1000 are kept: shorten them"):
        promote(project, made.candidate_id, approved_by="anna", reason="x" * 2000)
    assert champion(project) is None


def register_as_before(project, made, *, number, seen=(), events=(), **evaluated):
    """As release 0.1 registered it: every fact in the tags of the version, most of them in the run's too."""
    connection = connect(project)
    client = connection.client
    facts = {
        "candidate_id": made.candidate_id,
        "proposer": made.origin.proposer,
        "parent": made.parent or "",
        "data_digest": "",
        "seen_cases_digest": digest_of_ids(seen),
        "n_seen_cases": str(len(seen)),
        "cost": '{"seconds": 2.5}',
    }
    run_id = client.create_run(connection.experiment_id, tags=facts).info.run_id
    client.log_text(run_id, made.model_dump_json(indent=2), "candidate.json")
    client.log_text(run_id, json.dumps(sorted(seen)), "seen_case_ids.json")
    if number == 1:
        client.create_registered_model(project)
    model_id = client.create_logged_model(connection.experiment_id, source_run_id=run_id).model_id
    tags = facts | {"model_id": model_id, "events": json.dumps(list(events)), "open_test": ""} | evaluated
    made = client.create_model_version(project, f"models:/{model_id}", run_id, tags=tags)
    assert made.version == number


@pytest.fixture
def old_store(project):
    """Two versions of release 0.1: the second was tested against the first, and promoted."""
    first = candidate("first")
    second = candidate("second", parent=first.candidate_id)
    moved = {"at": "2026-11-01T00:00:00Z", "by": "ben", "reason": "day one"}
    replaced = moved | {"action": "replaced", "other": second.candidate_id}
    register_as_before(
        project, first, number=1, events=[moved | {"action": "promoted", "other": None}, replaced]
    )
    register_as_before(
        project,
        second,
        number=2,
        seen=("a", "b"),
        events=[moved | {"action": "promoted", "other": first.candidate_id}],
        scores=json.dumps({"accuracy": mean_interval([1, 0, 1]).model_dump()}),
        notes="100 fresh requests",
        decision="promote",
        reason=BETTER.reason,
        compared_with=first.candidate_id,
        verdict=BETTER.model_dump_json(),
    )
    client = connect(project).client
    client.set_registered_model_alias(project, "champion", "2")
    client.set_registered_model_alias(project, "previous", "1")
    return project


def test_versions_that_the_released_ratchet_registered_are_read_as_they_were(old_store):
    first, second = version_history(old_store)
    assert [(one.action, one.by) for one in first.events] == [("promoted", "ben"), ("replaced", "ben")]
    assert (second.aliases, second.verdict, second.notes) == (("champion",), BETTER, "100 fresh requests")
    assert (second.compared_with, second.candidate.parent) == (first.candidate_id,) * 2
    assert (second.scores, second.cost) == ({"accuracy": mean_interval([1, 0, 1])}, {"seconds": 2.5})
    assert second.n_seen_cases == 2
    assert connect(old_store).client.get_logged_model(second.model_id).source_run_id == second.run_id
    assert seen_case_ids(old_store, second.candidate_id) == {"a", "b"}
    assert read_open_test(old_store, second.candidate_id) is None


def test_a_store_of_the_released_ratchet_goes_on(old_store):
    first, second = version_history(old_store)
    write_open_test(old_store, first.candidate_id, "{}")
    assert read_open_test(old_store, first.candidate_id) == "{}"
    assert roll_back(old_store, by="anna", reason="worse").candidate_id == first.candidate_id
    assert [one.action for one in version_history(old_store)[1].events] == ["promoted", "rolled back"]
    later = record_evaluation(old_store, second.candidate_id, scores={"unseen": mean_interval([1])})
    assert (set(later.scores), later.verdict) == ({"accuracy", "unseen"}, BETTER)
    give_verdict(old_store, second.candidate_id, first.candidate_id, BETTER)
    approve(old_store, second.candidate_id)
    assert [one.action for one in version_history(old_store)[0].events][2:] == ["restored", "replaced"]
