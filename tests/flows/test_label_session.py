"""`ratchet label` as a person at a terminal uses it: one item after the other, a key an answer."""

import io
import json

import pytest
from tests.evidence import finished

from ratchet.agent.case import Case
from ratchet.evaluation.gate.questions import Question
from ratchet.infra.review.comparisons import ask_comparisons, pending_comparisons, read_replies
from ratchet.infra.review.queue import ReviewItem, ask_people, pending


@pytest.fixture
def type_in(monkeypatch):
    """What a person types; where nobody sits at a terminal, a line stands for a key."""
    return lambda *lines: monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))


def question(past, n, *answers):
    trace = past.traces[n]
    case = Case(inputs={"messages": [
        {"role": "user", "content": f"I paid twice, {n} \x1b[31m[bold]"},
        {"role": "assistant", "content": "Which order?"},
        {"role": "user", "content": f"order {n}"},
    ]})  # fmt: skip
    return Question(case=case, trace_id=trace.trace_id, answers=answers, reason="the versions differ")


def test_a_person_goes_through_both_kinds_with_one_key_each(ratchet, own_past, type_in):
    name = own_past.project
    asked = [
        question(own_past, 0, "It is on its way.", "Wait."),
        question(own_past, 1, "Left " * 60, "Right"),
        question(own_past, 2, "a", "b", "c"),
        question(own_past, 0, "yes", "no"),
        question(own_past, 1, "one", "other"),
    ]
    ask_comparisons(name, asked)
    ask_people(name, [ReviewItem(trace_id=own_past.traces[0].trace_id, propensity=0.5, reason="new")])
    listed = json.loads(ratchet("label", "--name", name, "--json").stdout)
    assert (listed["pending"], [one["kind"] for one in listed["items"]]) == (
        7,
        ["compare"] * 5 + ["judge"] * 2,
    )
    type_in("r", "w", "Both are wrong", "x", "ac", "u", "s", "g", "7", "g", "0.5", "n")
    done = ratchet("label", "--name", name, "--rater", "bert", columns=80)
    assert done.returncode == 0
    assert "7 answered by bert, 0 still wait" in done.stderr
    assert max(map(len, done.stderr.splitlines())) <= 80
    assert "\x1b[31m" not in done.stderr
    assert "c0ffee" not in done.stderr
    assert "order 0" in done.stderr
    said = {one.question_id: (one.outcome, one.good, one.better) for one in read_replies(name)}
    assert [said[one.question_id] for one in asked] == [
        ("answered", (1,), None),
        ("answered", (), "Both are wrong"),
        ("answered", (0, 2), None),
        ("unclear", (), None),
        ("skip", (), None),
    ]
    scores = {one.trace_id: one.score for one in finished(name) if one.rater == "bert"}
    assert scores == {own_past.traces[2].trace_id: 0.5, own_past.traces[0].trace_id: 0.0}
    assert (pending_comparisons(name), pending(name)) == ([], [])
    assert "nothing waits" in ratchet("label", "next", "--name", name, "--rater", "bert").stderr


def test_who_quits_loses_nothing_and_who_gives_no_name_is_asked_for_it(
    ratchet, own_past, type_in, monkeypatch
):
    name = own_past.project
    asked = [question(own_past, n, "a", "b") for n in range(2)]
    ask_comparisons(name, asked)
    told = json.loads(ratchet("status", "--name", name, "--json").stdout)
    assert (told["pending_comparisons"], told["pending_labels"], told["traces"]) == (2, 1, 0)
    assert told["next"].startswith("`ratchet approve")  # what is proven comes before what people are asked
    type_in("b", "q")
    done = ratchet("label", "--name", name, "--rater", "bert")
    assert "1 answered by bert, 2 still wait" in done.stderr
    assert [one.good for one in read_replies(name)] == [(0, 1)]
    for variable in ("RATCHET_USER", "USER"):
        monkeypatch.delenv(variable, raising=False)
    refused = ratchet("label", "--name", name)
    assert (refused.returncode, "give --rater NAME" in refused.stderr) == (2, True)
    table = ratchet("label", "list", "--name", name, columns=80)
    assert asked[1].question_id in table.stderr
