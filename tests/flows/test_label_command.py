import json
from datetime import UTC, datetime

from tests.evidence import finished

from ratchet.infra.known_projects import known_projects
from ratchet.infra.mlflow_client import connect
from ratchet.infra.review.queue import ReviewItem, ask_people, pending
from ratchet.infra.traces.spans import RECORD_ATTRIBUTE, export_request
from ratchet.infra.traces.write import write_spans


def test_list_shows_request_answer_and_why(ratchet, past):
    done = ratchet("label", "list", "--name", past.project)
    assert done.returncode == 0
    assert past.traces[2].trace_id in done.stderr
    answer = json.loads(ratchet("label", "list", "--name", past.project, "--json").stdout)
    (item,) = answer["items"]
    assert (item["answer"], item["reason"], item["propensity"]) == ("get_weather", "a random sample", 0.4)
    assert item["request"].startswith("weather in town 2?")


def test_a_queued_trace_that_ratchet_did_not_write_hides_none_of_the_others(ratchet, own_past):
    foreign = _log_without_record(own_past)
    ask_people(own_past.project, [ReviewItem(trace_id=foreign, propensity=1, reason="added by hand")])
    answer = json.loads(ratchet("label", "list", "--name", own_past.project, "--json").stdout)
    told = {item["trace_id"]: item for item in answer["items"]}
    assert told[own_past.traces[2].trace_id]["request"].startswith("weather in town 2?")
    assert "no message of an LM in its spans" in told[foreign]["problem"]
    done = ratchet("explain", foreign, "--name", own_past.project)
    assert (done.returncode, "no message of an LM in its spans" in done.stderr) == (2, True)


def test_an_answer_is_a_label_with_rater_comment_and_propensity(ratchet, own_past):
    asked = own_past.traces[2].trace_id
    options = ("--rater", "bert", "--comment", "sure", "--name", own_past.project)
    done = ratchet("label", "answer", f"tr-{asked}", "get_news", *options)
    assert done.returncode == 0
    assert pending(own_past.project) == []
    (label,) = [one for one in finished(own_past.project) if one.trace_id == asked]
    assert (label.expected, label.rater, label.comment, label.propensity) == ("get_news", "bert", "sure", 0.4)
    assert "nothing waits" in ratchet("label", "list", "--name", own_past.project).stderr


def test_a_trace_that_was_not_asked_about_is_refused(ratchet, past):
    arguments = (past.traces[0].trace_id, "get_news", "--rater", "bert", "--name", past.project)
    done = ratchet("label", "answer", *arguments)
    assert done.returncode == 2
    assert "is not in the review queue" in done.stderr


def test_url_is_that_of_the_review_page(ratchet, past):
    done = ratchet("label", "url", "--name", past.project)
    assert done.stdout.startswith("http://127.0.0.1:5001/#/experiments/")
    assert done.stdout.endswith("/review-queue\n")
    other = ratchet("label", "url", "--name", past.project, "--server", "https://mlflow.example/")
    assert other.stdout.startswith("https://mlflow.example/#/experiments/")


def test_ledgers_and_prompts_are_no_projects(past):
    assert past.project in known_projects()
    beside = (f"{past.project}-{ending}" for ending in ("ledger", "asked", "watch", "choose"))
    assert not {*beside} & {*known_projects()}


def _log_without_record(past):
    trace = past.traces[0].model_copy(update={"trace_id": "f" * 31 + "0"})
    request = export_request([trace], datetime.now(UTC))
    for span in request.resource_spans[0].scope_spans[0].spans:
        kept = [attribute for attribute in span.attributes if attribute.key != RECORD_ATTRIBUTE]
        del span.attributes[:]
        span.attributes.extend(kept)
    write_spans(connect(past.project), request)
    return trace.trace_id
