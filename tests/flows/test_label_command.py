import json

from infra.known_projects import known_projects
from infra.review_queue import finished, pending


def test_list_shows_request_answer_and_why(ratchet, past):
    done = ratchet("label", "list", "--name", past.project)
    assert done.returncode == 0
    assert past.traces[2].trace_id in done.stderr
    answer = json.loads(ratchet("label", "list", "--name", past.project, "--json").stdout)
    (item,) = answer["items"]
    assert (item["answer"], item["reason"], item["propensity"]) == ("get_weather", "a random sample", 0.4)
    assert item["request"].startswith("weather in town 2?")


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
    assert not [name for name in known_projects() if name.endswith(("-ledger", "-choose"))]
