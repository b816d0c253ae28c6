import json
from datetime import UTC, datetime

from ratchet.evaluation.gate.questions import Question, Reply
from ratchet.infra.drift.log import log_drift
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.registry import promote
from ratchet.infra.review.comparisons import ask_comparisons, reply
from ratchet.infra.traces.spool import spool_lines
from ratchet.infra.traces.write import spool_folder


def test_a_proven_challenger_is_what_to_do_next(ratchet, past):
    done = ratchet("status", "--name", past.project)
    told = " ".join(done.stderr.split())
    assert done.returncode == 0
    assert f"champion v2 {past.champion.candidate_id[:8]} by experience" in told
    assert "1 traces wait for an answer" in told
    assert "3 tests" in told
    assert f"ratchet approve {past.proven.candidate_id[:8]}" in told
    assert max(map(len, done.stderr.splitlines())) <= 100


def test_what_comes_next_follows_the_state(ratchet, own_past):
    def following():
        return json.loads(ratchet("status", "--name", own_past.project, "--json").stdout)

    log_drift(own_past.project, 3, {"drift_alarm": 1.0, "messages": 80.0})
    spool_lines(spool_folder(own_past.project) / "traces.jsonl", ["{}"])
    answer = following()
    assert (answer["spooled"], answer["drift"]["step"]) == (1, 3)
    assert "did not take" in answer["next"]
    (spool_folder(own_past.project) / "traces.jsonl").unlink()
    promote(own_past.project, own_past.proven.candidate_id, approved_by="anna", reason="proven")
    case = own_past.traces[0].case
    question = Question(case=case, trace_id=own_past.traces[0].trace_id, answers=("left", "right"))
    ask_comparisons(own_past.project, [question])
    assert "ratchet label" in following()["next"]
    assert (following()["pending_comparisons"], following()["pending_labels"]) == (1, 1)
    told = ratchet("status", "--name", own_past.project, columns=80).stderr
    assert "1 comparisons and 1 traces wait for an answer" in " ".join(told.split())
    assert max(map(len, told.splitlines())) <= 80
    reply(
        own_past.project, Reply(question_id=question.question_id, rater="anna", created_at=datetime.now(UTC))
    )
    arguments = ("--rater", "anna", "--name", own_past.project)
    ratchet("label", "answer", own_past.traces[2].trace_id, "get_weather", *arguments)
    assert "the traffic changed" in following()["next"]


def test_a_prompt_that_is_not_what_the_champion_names_is_said(ratchet, own_past):
    (name,) = own_past.champion.predictors
    client, prompt = connect(own_past.project).client, f"{own_past.project}-{name}"
    serving = client.get_prompt_version_by_alias(prompt, "champion").version
    client.set_prompt_alias(prompt, "champion", serving % 2 + 1)
    arguments = ("status", "--name", own_past.project)
    assert json.loads(ratchet(*arguments, "--json").stdout)["prompts_behind"] == {prompt: serving}
    assert f"{prompt} is not at {serving}" in " ".join(ratchet(*arguments).stderr.split())


def test_a_project_that_never_ran_is_told_to_improve(ratchet, project, tmp_path):
    (tmp_path / "project.py").write_text(
        f"from ratchet.agent.project import Project\nproject = Project({project!r}, 'Help.', lambda: None)\n"
    )
    (tmp_path / "ratchet.toml").write_text('approved_by = "nightly"\n[gate]\nalpha = 0.02\n')
    done = ratchet("status", "--project", tmp_path)
    said = " ".join(done.stderr.replace("│", " ").split())
    assert 'gate.alpha = 0.02, approved_by = "nightly"' in said
    assert "0 of 0.02 family-wise error spent" in said
    assert "none yet" in said
    assert "makes the first version" in said
    assert "no version yet" in ratchet("history", "--project", tmp_path).stderr
