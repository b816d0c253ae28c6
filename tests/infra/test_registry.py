import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ratchet.agent.candidate import Candidate, Demo, Origin, Predictor
from ratchet.agent.errors import BadInput, CorruptRecord, ServiceUnavailable
from ratchet.agent.kinds.callable import callable_candidate
from ratchet.agent.kinds.program import base_candidate
from ratchet.agent.parts import prompt
from ratchet.agent.record import folder_hash
from ratchet.evaluation.data.intervals import mean_interval
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.infra.drift.log import log_drift
from ratchet.infra.home_id import home_id
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.registry import (
    aliased,
    champion,
    fetch_files,
    record_evaluation,
    register,
    seen_case_ids,
    set_alias,
    version_history,
    version_of,
)
from ratchet.infra.store.dataset_store import write_dataset


def candidate(instructions="Pick the tool.", **changes):
    fields = {"predictors": {"act": Predictor(instructions=instructions)}, "base_model": "smollm2"}
    return Candidate(**(fields | changes))


def registered(project, made, **changes):
    return register(project, made, **({"files": {}, "seen_case_ids": [], "cost": {}} | changes))


@pytest.fixture
def files(tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "weights.safetensors").write_bytes(b"\x00" * 1000)
    (adapter / "config.json").write_text("{}")
    memory = tmp_path / "snapshot.jsonl"
    memory.write_text('{"step": 1}\n')
    return {"adapter": adapter, "memory": memory}


@pytest.fixture
def trained(files):
    return candidate(
        predictors={
            "act": Predictor(instructions="Pick.", demos=(Demo(inputs="q", output="t", case_id="c1"),))
        },
        adapter=folder_hash(files["adapter"]),
        memory="m1",
        tools={"get_weather": "Tells the weather."},
        origin=Origin(
            proposer="lora", parameters={"epochs": 1, "rate": 0.5}, data_digest="d1", note="One epoch."
        ),
    )


def test_a_version_holds_the_whole_candidate_with_cost_and_digests(project, trained, files):
    version = registered(
        project, trained, files=files, seen_case_ids=["c1", "c2", "c1"], cost={"seconds": 12.5}
    )
    assert (version.number, version.candidate, version.cost) == (1, trained, {"seconds": 12.5})
    assert version.digests["adapter"] == trained.adapter
    assert version.n_seen_cases == 2
    assert version_history(project) == [version]
    assert seen_case_ids(project, trained.candidate_id) == {"c1", "c2"}


def test_registering_again_is_the_same_version(project, trained, files):
    first = registered(project, trained, files=files)
    assert registered(project, trained, files=files) == first
    assert len(version_history(project)) == 1


def test_a_run_that_a_crash_left_half_written_is_completed_not_doubled(project, trained, files):
    connection = connect(project)
    begun = {"candidate_id": trained.candidate_id, "ratchet_home": home_id(connection.settings.home)}
    left = connection.client.create_run(connection.experiment_id, tags=begun)
    assert registered(project, trained, files=files).run_id == left.info.run_id


def test_one_candidate_is_found_by_mlflow_and_the_others_are_not_read(project, monkeypatch):
    made = [registered(project, candidate(f"Pick {n}.")) for n in range(4)]
    listed, search = [], MlflowClient.search_model_versions
    monkeypatch.setattr(
        MlflowClient, "search_model_versions", lambda *a, **k: listed.append(search(*a, **k)) or listed[-1]
    )
    assert version_of(project, made[1].candidate_id) == made[1]
    assert [one.version for page in listed for one in page] == [made[1].number]
    with pytest.raises(BadInput, match="c0ffee is not registered"):
        version_of(project, "c0ffee")


def test_files_come_back_with_their_content(project, trained, files):
    registered(project, trained, files=files)
    found = fetch_files(project, trained.candidate_id)
    assert folder_hash(found["adapter"]) == trained.adapter
    assert found["memory"].read_text() == '{"step": 1}\n'
    assert fetch_files(project, trained.candidate_id) == found


def test_a_file_that_changed_in_the_cache_is_refused(project, trained, files):
    registered(project, trained, files=files)
    found = fetch_files(project, trained.candidate_id)
    (found["adapter"] / "config.json").write_text("tampered")
    try:
        with pytest.raises(CorruptRecord, match="adapter is not what was registered"):
            fetch_files(project, trained.candidate_id)
    finally:
        (found["adapter"] / "config.json").write_text("{}")


def test_an_adapter_that_is_not_the_candidate_s_is_refused(project, trained, files):
    (files["adapter"] / "config.json").write_text('{"other": 1}')
    with pytest.raises(BadInput, match="the candidate names"):
        registered(project, trained, files=files)
    assert version_history(project) == []


def test_a_missing_file_is_refused(project, trained, tmp_path):
    with pytest.raises(BadInput, match="make it again"):
        registered(project, trained, files={"memory": tmp_path / "none"})


def test_a_person_can_compare_prompt_parameters_demos_and_data_in_mlflow(project, trained, files):
    rows = write_dataset(f"train-{project}", [Demo(inputs="q", output="t")])
    version = registered(project, trained, files=files, cost={"seconds": 3}, dataset=rows)
    client = connect(project).client
    run = client.get_run(version.run_id)
    expected = {"act.instructions": "Pick.", "act.n_demos": "1", "proposer": "lora", "proposer.epochs": "1"}
    expected |= {"adapter": trained.adapter, "memory": "m1", "topology.attempts": "1", "data_digest": "d1"}
    assert expected.items() <= run.data.params.items()
    assert run.data.metrics == {"cost_seconds": 3}
    assert [used.dataset.digest for used in run.inputs.dataset_inputs] == [rows.digest]
    assert {"candidate.json", "demos_act.json", "prompt_act.md", "tools.json", "datasets"} <= {
        one.path for one in client.list_artifacts(version.run_id)
    }
    prompt = mlflow.genai.load_prompt(f"prompts:/{run.data.tags['prompt.act']}")
    assert prompt.template == "Pick.\n\n### Example 1\nq\n→ t"
    assert client.get_model_version(project, "1").description == "One epoch."


def test_the_deployable_model_loads_by_alias_and_holds_no_pickle(project, trained, files):
    version = registered(project, trained, files=files)
    set_alias(project, trained.candidate_id, "challenger")
    folder = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{project}@challenger")
    names = [path.name for path in Path(folder).rglob("*") if path.is_file()]
    assert "weights.safetensors" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".bin"))]
    assert version.model_id


def test_an_evaluation_is_metrics_with_bounds_a_sentence_and_pictures(project, tmp_path):
    registered(project, candidate())
    challenger = candidate("Pick the best tool.")
    registered(project, challenger)
    picture = tmp_path / "any.png"
    picture.write_bytes(b"\x89PNG")
    verdict = decide([Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)])
    score = mean_interval([1, 1, 0, None])
    version = record_evaluation(
        project,
        challenger.candidate_id,
        scores={"accuracy": score},
        verdict=verdict,
        compared_with="c0ffee",
        pictures={"wealth": picture},
        notes="300 fresh requests",
    )
    assert (version.scores, version.verdict, version.decision) == ({"accuracy": score}, verdict, "promote")
    client = connect(project).client
    metrics = client.get_run(version.run_id).data.metrics
    assert metrics["accuracy_low"] == pytest.approx(score.low)
    assert metrics["accuracy_n"] == 3
    assert client.get_model_version(project, "2").description == f"{verdict.reason}\n\n300 fresh requests"
    assert [one.path for one in client.list_artifacts(version.run_id, "pictures")] == ["pictures/wealth.png"]


def test_a_later_evaluation_adds_scores_and_keeps_the_verdict(project):
    made = candidate()
    registered(project, made)
    verdict = decide([Pair(case_id=str(n), champion=0.0, challenger=1.0) for n in range(3)])
    record_evaluation(
        project, made.candidate_id, scores={"a": mean_interval([1])}, verdict=verdict, compared_with="c0ffee"
    )
    version = record_evaluation(project, made.candidate_id, scores={"unseen": mean_interval([0, 1])})
    assert set(version.scores) == {"a", "unseen"}
    assert version.decision == "continue"


def test_no_project_yet_has_no_history_and_no_champion(project):
    assert version_history(project) == []
    assert champion(project) is None


def test_an_unknown_candidate_is_refused(project):
    for call in (fetch_files, seen_case_ids):
        with pytest.raises(BadInput, match="is not registered"):
            call(project, "feedbeef")


def test_challenger_moves_and_leaves(project):
    made = candidate()
    registered(project, made)
    set_alias(project, made.candidate_id, "challenger")
    assert aliased(project, "challenger").candidate_id == made.candidate_id
    set_alias(project, None, "challenger")
    assert aliased(project, "challenger") is None


def test_champion_does_not_move_without_a_name(project):
    with pytest.raises(BadInput, match="promote and rollback only"):
        set_alias(project, "any", "champion")


def test_drift_looks_are_steps_of_one_run(project, tmp_path):
    report = tmp_path / "r.html"
    report.write_text("<html>")
    first = log_drift(project, 1, {"e_value": 1.5}, report, {"martingale": report})
    assert log_drift(project, 2, {"e_value": 40.0}, None, {}) == first
    client = connect(project).client
    assert [(m.step, m.value) for m in client.get_metric_history(first, "e_value")] == [(1, 1.5), (2, 40.0)]
    assert [one.path for one in client.list_artifacts(first, "reports")] == ["reports/step_00001.html"]


def test_mlflow_down_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ServiceUnavailable, match="did not answer while reading the versions"):
        version_history("any")


def test_registering_takes_less_than_three_seconds(project, trained, files):
    registered(project, candidate())
    began = time.process_time()
    registered(project, trained, files=files)
    assert time.process_time() - began < 3  # of processor time: the wall also counts the neighbours


@pytest.fixture
def endpoint(monkeypatch):
    """A local chat endpoint that always picks the second option."""

    class Chat(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            message = {"role": "assistant", "content": "get_weather"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
            body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            data = json.dumps(body | {"usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("RATCHET_LM_API_BASE", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("RATCHET_LM_API_KEY", "any")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_served_model_answers_as_the_registered_candidate(project, endpoint):
    made = base_candidate("Pick the function.", model="openai/any")
    registered(project, made)
    set_alias(project, made.candidate_id, "challenger")
    served = mlflow.pyfunc.load_model(f"models:/{project}@challenger")
    options = [{"name": "get_time"}, {"name": "get_weather", "description": "Tells the weather."}]
    (answer,) = served.predict(pd.DataFrame([{"request": "Rain in Oslo?", "options": options}]))
    assert (answer["answer"], answer["candidate_id"]) == ("get_weather", made.candidate_id)


def test_the_logged_model_names_no_package_but_mlflow(project, tmp_path, monkeypatch):
    (tmp_path / "uv.lock").write_text("version = 1")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "their-product"')
    monkeypatch.chdir(tmp_path)
    made = registered(project, candidate())
    kept = tmp_path / "kept"
    kept.mkdir()
    model = Path(mlflow.artifacts.download_artifacts(f"models:/{project}/{made.number}", dst_path=str(kept)))
    listed = (model / "requirements.txt").read_text().splitlines()
    assert [line.split("==")[0] for line in listed] == ["mlflow"]
    assert "ratchet-loop" in (model / "MLmodel").read_text()
    texts = [path.read_text() for path in model.rglob("*") if path.suffix in (".txt", ".yaml")]
    assert not [line for text in texts for line in text.splitlines() if line.strip(" -") == "ratchet"]
    assert not list(model.glob("*.toml")) + list(model.glob("*.lock"))


def tag(project, made, key, value):
    connect(project).client.set_tag(made.run_id, key, value)


@pytest.mark.parametrize("name", ["digest.memory", "digest.../x", "digest.x/../../memory"])
def test_a_digest_that_is_no_hash_fetches_nothing_and_writes_nothing_outside(
    project, trained, files, name, mlflow_home
):
    made = registered(project, trained.model_copy(update={"memory": name}), files=files)
    outside = mlflow_home.parent / f"outside-{project}"
    there = "0" * 16 if "/" in name else f"../../../{outside.name}"
    client = connect(project).client
    try:
        client.set_tag(made.run_id, name, there)
    except MlflowException:
        return  # MLflow itself refuses such a key
    before = set((mlflow_home / "cache" / "files").glob("*"))
    with pytest.raises(CorruptRecord, match="16 hexadecimal digits"):
        fetch_files(project, made.candidate_id)
    assert not outside.exists()
    assert set((mlflow_home / "cache" / "files").glob("*")) <= before


def test_an_adapter_that_is_not_the_one_that_the_candidate_names_is_not_fetched(project, trained, files):
    made = registered(project, trained, files=files)
    tag(project, made, "digest.adapter", "0123456789abcdef")
    with pytest.raises(CorruptRecord, match=f"adapter is 0123456789abcdef.*names {trained.adapter}"):
        fetch_files(project, made.candidate_id)


def kept(project, made, name):
    return connect(project).settings.home / "cache" / "runs" / made.run_id / name


def test_a_kept_candidate_that_is_not_what_was_registered_is_refused_and_fetched_again_once_deleted(project):
    made = registered(project, candidate())
    path = kept(project, made, "candidate.json")
    path.write_text(candidate("Do something else.").to_json())
    with pytest.raises(CorruptRecord, match=r"candidate\.json: holds .*not what was registered.*delete it"):
        version_history(project)
    path.unlink()
    assert version_history(project)[0].candidate == made.candidate


@pytest.mark.parametrize("text", ["[]", '["c1"]', "", '{"c1": 1}', "[1]"])
def test_seen_cases_that_are_not_those_that_were_registered_are_refused(project, text):
    made = registered(project, candidate(), seen_case_ids=["c1", "c2"])
    assert seen_case_ids(project, made.candidate_id) == {"c1", "c2"}
    path = kept(project, made, "seen_case_ids.json")
    path.write_text(text)
    with pytest.raises(CorruptRecord, match=r"seen_case_ids\.json: .*not what was registered.*delete it"):
        seen_case_ids(project, made.candidate_id)
    path.unlink()
    assert seen_case_ids(project, made.candidate_id) == {"c1", "c2"}


def test_without_its_digest_a_list_of_seen_cases_is_refused(project):
    made = registered(project, candidate(), seen_case_ids=["c1"])
    connect(project).client.delete_tag(made.run_id, "seen_cases_digest")
    with pytest.raises(CorruptRecord, match="not what was registered"):
        seen_case_ids(project, made.candidate_id)


def test_the_parts_of_a_user_s_own_agent_are_no_agent_by_themselves(project):
    made = register(
        project,
        callable_candidate([prompt("desk-system", default="Name the team.")]),
        files={},
        seen_case_ids=[],
        cost={},
    )
    with pytest.raises(BadInput, match="parts of a callable agent, whose code is its owner's"):
        mlflow.pyfunc.load_model(f"models:/{project}/{made.number}")
