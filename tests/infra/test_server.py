"""The same adapters against a real MLflow server: traces over OTLP, labels, a queue, an alias that moves."""

import pytest
from tests.evidence import finished, give_verdict
from tests.infra.test_trace_store import label

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.record import folder_hash
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.infra.registry.ledger import open_ledger_test, read_ledger
from ratchet.infra.registry.registry import (
    champion,
    fetch_files,
    promote,
    register,
    roll_back,
    version_history,
)
from ratchet.infra.review.queue import ReviewItem, answer, ask_people, pending
from ratchet.infra.traces.correction import correct_outcomes
from ratchet.infra.traces.lookup import known_traces
from ratchet.infra.traces.write import attach_label, collect, log_traces

pytestmark = pytest.mark.server


@pytest.fixture
def remote(mlflow_server, project_name, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    return project_name


def test_traces_and_labels_go_through_a_server(remote, make_trace):
    traces = [make_trace(f"naïve {n}", score=None if n == 0 else 1.0) for n in range(20)]
    log_traces(remote, traces)
    log_traces(remote, traces)
    first = collect(remote)
    assert {trace.trace_id: trace for trace in first.traces} == {trace.trace_id: trace for trace in traces}
    said = label(traces[0], score=0.5)
    attach_label(remote, said)
    attach_label(remote, said)
    second = collect(remote, first.watermark)
    assert (second.traces, second.labels, second.problems) == ((), (said,), ())


def test_people_answer_through_a_server(remote, make_trace):
    traces = [make_trace(str(n)) for n in range(3)]
    log_traces(remote, traces)
    ask_people(remote, [ReviewItem(trace_id=one.trace_id, propensity=0.5, reason="new") for one in traces])
    assert len(pending(remote)) == 3
    answer(remote, traces[0].trace_id, expected="b", rater="anna", comment="hm")
    (said,) = finished(remote)
    assert (said.expected, said.propensity, said.comment) == ("b", 0.5, "hm")
    assert len(pending(remote)) == 2


def test_versions_files_and_aliases_go_through_a_server(remote, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "weights.safetensors").write_bytes(b"\x00" * 1000)
    base = Candidate(predictors={"act": Predictor(instructions="Pick.")}, base_model="smollm2")
    tuned = base.model_copy(update={"adapter": folder_hash(adapter)})
    register(remote, base, files={}, seen_case_ids=[], cost={})
    promote(remote, base.candidate_id, approved_by="anna", reason="first")
    register(remote, tuned, files={"adapter": adapter}, seen_case_ids=["c1"], cost={"seconds": 1})
    entry = open_ledger_test(remote, tuned.candidate_id, champion=base.candidate_id)
    pairs = [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)]
    verdict = decide(pairs, alpha=entry.alpha_k)
    give_verdict(remote, tuned.candidate_id, base.candidate_id, verdict)
    promote(remote, tuned.candidate_id, approved_by="anna", reason="proven")
    assert champion(remote).candidate == tuned
    assert folder_hash(fetch_files(remote, tuned.candidate_id)["adapter"]) == tuned.adapter
    assert [version.aliases for version in version_history(remote)] == [("previous",), ("champion",)]
    assert roll_back(remote, by="ben", reason="complaints").candidate == base
    assert [entry.decision for entry in read_ledger(remote).entries] == ["promote"]


def test_a_later_reward_reaches_a_trace_behind_a_server(remote, make_trace):
    trace = make_trace(score=None)
    log_traces(remote, [trace])
    for score in (1.0, 0.0):
        assert correct_outcomes(remote, {trace.trace_id: score}).n == 1
        (found,) = collect(remote).traces
        assert (found.score, known_traces(remote, [trace.trace_id])[trace.trace_id].outcome) == (score, score)
