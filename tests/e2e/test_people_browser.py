"""People in MLflow's own Review page: a real server, a real Chromium, a real gate that waits for them."""

import time

import pytest
from tests.e2e.pictures.screenshots import browser_tab
from tests.tasks.test_gate_people import gate
from tests.tasks.test_gate_task import version

from ratchet.evaluation.gate.trial import TrialState
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.gate_cases import read_open_test
from ratchet.infra.registry.registry import promote
from ratchet.infra.review.comparisons import BETTER, QUEUE, pending_comparisons, read_replies
from ratchet.infra.review.queue import find_queue, queue_items
from ratchet.infra.traces.spans import comparison_id, mlflow_id
from ratchet.infra.traces.write import collect

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

NAME = "people-browser"


@pytest.fixture
def open_test(mlflow_server, monkeypatch, tmp_path):
    """Champion, challenger, and a round of the gate that asked people where their answers differ."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    serving, other = version(NAME, "The first."), version(NAME, "The second.")
    promote(NAME, serving, approved_by="ratchet", reason="the first version")
    answers = {
        serving: lambda n: "We see to it.",
        other: lambda n: "Done | <b>now</b>." if n % 2 else "We see to it.",
    }
    gate(NAME, serving, answers)
    return serving, other, answers


class Reviewer:
    """A person before the page of the queue in which answers are compared."""

    def __init__(self, tab, server):
        self.tab, connection = tab, connect(NAME)
        self.queue = find_queue(connection, QUEUE)
        where = f"#/experiments/{connection.experiment_id}/review-queue?selectedQueueId={self.queue.queue_id}"
        self.page = f"{server}/{where}"

    def answer(self, question, pick=None, *, better=""):
        """Open the question, pick and write, and submit; returns what the page showed."""
        item = mlflow_id(comparison_id(NAME, question.question_id))
        self.tab.goto("about:blank")
        self.tab.goto(f"{self.page}&selectedItemId={item}", wait_until="commit")
        options = self.tab.get_by_text("Select an option")
        for text in (self.tab.get_by_text("Why you are asked"), options):
            text.first.wait_for()
        shown = self.tab.inner_text("body")
        if pick:
            options.first.click()
            self.tab.get_by_role("option", name=pick, exact=True).click()
        if better:
            self.tab.get_by_placeholder("Where neither is right").fill(better)
        self.tab.get_by_role("button", name="Submit").click()
        until = time.monotonic() + 60
        while item in {one.item_id for one in queue_items(self.queue, "pending")}:
            assert time.monotonic() < until, f"{item} was submitted and still waits"
            self.tab.wait_for_timeout(100)
        return shown


def test_three_answers_on_the_page_are_read_and_the_next_round_bets_on_exactly_these(
    open_test, mlflow_server
):
    serving, other, answers = open_test
    asked = pending_comparisons(NAME)
    first, second, third = asked[:3]
    done = first.answers.index("Done | <b>now</b>.")
    with browser_tab(1300, 1100) as tab:
        person = Reviewer(tab, mlflow_server)
        shown = person.answer(first, first.names[done])
        person.answer(second, "neither")
        person.answer(third, better="We see to it.")
    for text in (
        "LEFT",
        "RIGHT",
        "Done | <b>now</b>.",
        "We see to it.",
        BETTER,
        "Why you are asked: versions of",
    ):
        assert text in shown
    assert serving not in shown
    assert other not in shown
    said = {one.question_id: (one.rater, one.good, one.better) for one in read_replies(NAME)}
    assert said == {
        first.question_id: ("default", (done,), None),
        second.question_id: ("default", (), None),
        third.question_id: ("default", (), "We see to it."),
    }
    got = collect(NAME)  # of a server, which is searched by other means than a file
    assert (got.traces, got.labels, got.problems) == ((), (), ())
    gate(NAME, serving, answers)
    state = TrialState.from_json(read_open_test(NAME, other))
    gains = {play.question: play.gain for play in state.plays if play.raters}
    assert gains == {first.question_id: 1.0, second.question_id: 0.0, third.question_id: -1.0}
    assert {one.question_id for one in state.questions} >= {one.question_id for one in asked[3:]}
