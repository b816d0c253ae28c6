"""`ratchet label raters`: a line a rater, agreement by pair, and what is held back; on 80 columns and as JSON."""

import json
from datetime import UTC, datetime

from ratchet.agent.case import Case
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.questions import Question, Reply
from ratchet.infra.review.comparisons import ask_comparisons, reply


def test_raters_are_told_with_weight_counts_and_agreement(ratchet, own_past):
    name = own_past.project
    asked = [
        Question(
            case=Case(inputs={"request": str(n)}), trace_id=own_past.traces[0].trace_id, answers=("a", "b")
        )
        for n in range(4)
    ]
    before = {
        one["rater"]
        for one in json.loads(ratchet("label", "raters", "--name", name, "--json").stdout)["raters"]
    }
    ask_comparisons(name, asked, RaterSettings(per_item=2))
    for n, one in enumerate(asked):
        for rater in ("Anna-with-a-very-long-name", "[bold]ben"):
            said = {"good": (n % 2 if rater[0] == "A" else n // 2,)} if n < 3 else {"outcome": "skip"}
            reply(name, Reply(question_id=one.question_id, rater=rater, created_at=datetime.now(UTC), **said))
    told = json.loads(ratchet("label", "raters", "--name", name, "--json").stdout)
    rows = {one["rater"]: one for one in told["raters"]}
    assert set(rows) - before == {"anna-with-a-very-long-name", "[bold]ben"}
    counts = {"weight": 1.0, "replies": 4, "labels": 0, "passed": 1, "held_back": 0}
    assert rows["[bold]ben"] == {"rater": "[bold]ben", **counts}
    (pair,) = [one for one in told["pairs"] if one["one"] == "[bold]ben" or one["other"] == "[bold]ben"]
    assert (pair["rubric"], pair["kappa"]["n"]) == ("which answer is right", 3)
    shown = ratchet("label", "raters", "--name", name, columns=80)
    assert shown.returncode == 0
    assert "[bold]ben" in shown.stderr
    assert "which answer is right" in shown.stderr
    assert max(map(len, shown.stderr.splitlines())) <= 80
