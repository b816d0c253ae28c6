import json

from tests.flows.conftest import _child, _trace

from ratchet.agent.environment import Action, Outcome
from ratchet.agent.trace import Attempt, Contribution, Step
from ratchet.infra.registry.registry import register
from ratchet.infra.traces.write import log_traces


def test_an_answer_leads_to_steps_recalled_traces_candidate_label_and_verdict(ratchet, past):
    done = ratchet("explain", past.traces[1].trace_id, "--name", past.project)
    told = " ".join(done.stderr.split())
    assert done.returncode == 0
    for text in (
        "weather in town 1?",
        "attempt 1: score 0",
        "reflection get_news was wrong.",
        "attempt 2: score 1",
        f"recalled {past.traces[0].trace_id} weather in town 0?",
        "expected get_weather (clear); human anna",
        "picked with probability 0.4",
        "by experience, from v1",
        "Remembers 142 steps.",
        f"from v1 {past.first.candidate_id[:8]}",
        "memory 77aa0c1d2e3f4455",
        "data 5bd2a7e1c09f3344",
        "prompt choose Choose a tool.",
        "by anna, v1 ",
        ": read the evidence",
    ):
        assert text in told
    assert "\x1b[31m" not in done.stderr


def test_mlflows_own_id_is_taken_and_json_holds_the_whole_chain(ratchet, past):
    done = ratchet("explain", f"tr-{past.traces[1].trace_id}", "--name", past.project, "--json")
    answer = json.loads(done.stdout)
    assert answer["trace"]["trace_id"] == past.traces[1].trace_id
    assert answer["candidate"]["memory"] == "77aa0c1d2e3f4455"
    assert [p["candidate_id"] for p in answer["parents"]] == [past.first.candidate_id]
    assert [r["trace_id"] for r in answer["recalled"]] == [past.traces[0].trace_id]
    assert answer["labels"][0]["expected"] == "get_weather"
    assert answer["verdict"]["decision"] == "promote"


def test_an_unknown_id_is_one_line_and_exits_with_2(ratchet, past):
    for unknown in ("f" * 32, "rubbish"):
        done = ratchet("explain", unknown, "--name", past.project)
        assert done.returncode == 2
        assert done.stdout == ""
        assert f"no trace '{unknown}'" in done.stderr


def test_a_trace_of_another_project_is_not_shown(ratchet, past, project):
    other = _child(past.first, "hand", "elsewhere")
    register(project, other, files={}, seen_case_ids=[], cost={})
    done = ratchet("explain", past.traces[0].trace_id, "--name", project)
    assert done.returncode == 2


def test_a_candidate_that_was_only_tried_is_said_to_be_unregistered(ratchet, own_past):
    trace = _trace(9, own_past.first).model_copy(update={"candidate_id": "0123456789abcdef"})
    log_traces(own_past.project, [trace])
    done = ratchet("explain", trace.trace_id, "--name", own_past.project)
    assert "0123456789abcdef is not registered" in done.stderr
    assert "nobody was asked" in done.stderr


def test_what_each_member_of_a_team_said_and_the_limit_that_ended_it_are_shown(ratchet, own_past):
    said = Contribution(
        actor="critic", observation="Answer 'get_news'?", said="wrong", about="get_news", confidence=0.75
    )
    step = Step(actor="judge", observation="news?", action=Action(name="get_weather"), parts=(said,))
    attempts = (Attempt(steps=(step,), outcome=Outcome(score=0.0)),)
    trace = _trace(9, own_past.first).model_copy(update={"attempts": attempts, "stopped": "repeats"})
    log_traces(own_past.project, [trace])
    told = " ".join(ratchet("explain", trace.trace_id, "--name", own_past.project).stderr.split())
    for text in ("critic", "wrong of get_news", "75%", "stopped by the limit on repeats"):
        assert text in told
