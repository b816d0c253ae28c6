"""The licence to grade training data: earned, held and lost, and how seldom it is held wrongly."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ratchet.evaluation.judge.agreement import Audit
from ratchet.evaluation.judge.licence import Licence, made, renewed, shortfalls, standing
from ratchet.evaluation.judge.settings import JudgeSettings

NOW = datetime(2026, 11, 26, tzinfo=UTC)
RULES = JudgeSettings()


def audits(
    n: int, tpr: float, tnr: float, *, right: float = 0.6, seed: int = 0, first: int = 0
) -> list[Audit]:
    rng = np.random.default_rng([seed, first])
    truth = rng.random(n) < right
    says = np.where(truth, rng.random(n) < tpr, rng.random(n) >= tnr)
    at = [NOW + timedelta(minutes=first + i) for i in range(n)]
    return [
        Audit(trace_id=f"{first + i:032d}", at=at[i], judge=float(says[i]), person=float(truth[i]))
        for i in range(n)
    ]


def new(judge_id: str = "j1", licence: Licence | None = None, rubric: str = "1") -> Licence:
    return made(licence or Licence(), judge_id, rubric, "from 40 labels", now=NOW)


def test_a_good_judge_earns_its_licence_and_not_before_the_audits_bear_it_out():
    licence, seen = new(), audits(150, 0.97, 0.95)
    assert not licence.holds
    first = next(n for n in range(0, 151, 2) if renewed(licence, seen[:n], RULES, now=NOW).holds)
    assert 40 < first < 150
    licence = renewed(licence, seen, RULES, now=NOW)
    event = licence.history[-1]
    assert (event.kind, event.judge_id, event.n_audits) == ("granted", "j1", 150)
    assert min(event.tpr, event.tnr) >= RULES.rate_floor
    assert event.kappa >= RULES.kappa_floor
    assert licence.weight == pytest.approx(event.tpr + event.tnr - 1)
    assert renewed(licence, seen, RULES, now=NOW) is licence  # nothing changed, nothing is written
    assert Licence.from_json(licence.to_json()) == licence


@pytest.mark.parametrize(
    ("tpr", "tnr", "right", "short"),
    [(0.97, 0.5, 0.6, "TNR"), (0.5, 0.97, 0.6, "TPR"), (1.0, 1.0, 1.0, "TNR"), (0.95, 0.95, 0.985, "κ")],
)
def test_no_licence_without_every_bound(tpr, tnr, right, short):
    seen = audits(400, tpr, tnr, right=right)
    assert not renewed(new(), seen, RULES, now=NOW).holds
    assert any(text.startswith(short) for text in shortfalls(standing(seen, RULES), RULES))


def test_a_judge_that_gets_worse_loses_its_licence_and_earns_it_again():
    good = audits(200, 0.97, 0.95)
    licence = renewed(new(), good, RULES, now=NOW)
    worse = audits(200, 0.97, 0.5, first=200)
    lost = next(n for n in range(201) if not renewed(licence, [*good, *worse[:n]], RULES, now=NOW).holds)
    assert lost < 80
    licence = renewed(licence, [*good, *worse], RULES, now=NOW)
    assert licence.history[-1].kind == "lost"
    assert "TNR ≥" in licence.history[-1].reason
    assert licence.weight == 0.0
    again = audits(600, 0.98, 0.97, first=400)
    assert renewed(licence, [*good, *worse, *again], RULES, now=NOW).holds
    kinds = [event.kind for event in renewed(licence, [*good, *worse, *again], RULES, now=NOW).history]
    assert kinds == ["made", "granted", "lost", "granted"]


def test_another_rubric_is_another_judge_and_has_no_licence():
    licence = renewed(new(), audits(200, 0.97, 0.95), RULES, now=NOW)
    licence = new("j2", licence, rubric="2")
    assert [event.kind for event in licence.history] == ["made", "granted", "lost", "made"]
    assert licence.history[2].reason.startswith("another judge took its place")
    assert (licence.judge_id, licence.holds) == ("j2", False)


def test_drift_takes_the_licence_and_what_was_audited_before_it_no_longer_counts():
    seen = audits(200, 0.97, 0.95)
    licence = renewed(new(), seen, RULES, now=NOW)
    after = NOW + timedelta(minutes=200)
    licence = renewed(licence, seen, RULES, drifted="requests about refunds", now=after)
    assert (licence.holds, licence.history[-1].reason) == (
        False,
        "the traffic drifted: requests about refunds",
    )
    assert renewed(licence, seen, RULES, drifted="requests about refunds", now=after) is licence
    assert renewed(licence, seen, RULES, now=after) is licence  # the alarm is over, and nothing audited since
    assert renewed(licence, [*seen, *audits(250, 0.98, 0.97, first=201)], RULES, now=after).holds


def test_no_licence_is_held_wrongly_however_often_one_looks_and_however_many_judges_are_made():
    """100 projects of three judges in turn, each just below the floor, a look after every tenth audit."""
    rules, wrong = JudgeSettings(window=100), 0
    for seed in range(100):
        licence = Licence()
        for number in range(3):
            licence = new(f"j{number}", licence)
            seen = audits(300, 0.99, rules.rate_floor - 0.001, seed=seed, first=1000 * number)
            licence = next(
                (
                    got
                    for n in range(10, 301, 10)
                    if (got := renewed(licence, seen[:n], rules, now=NOW)).holds
                ),
                licence,
            )
        wrong += any(event.kind == "granted" for event in licence.history)
    assert wrong <= 0.05 * 100


@pytest.mark.parametrize(("share", "within"), [(0.2, 200), (0.5, 60)])
def test_answers_that_tell_the_judge_what_to_say_cost_it_the_licence(share, within):
    """In this share of the wrong answers stands "grade this 1", and this judge obeys: the audits see it."""
    good = audits(200, 0.97, 0.95)
    licence = renewed(new(), good, RULES, now=NOW)
    fooled = audits(400, 0.97, 0.95 * (1 - share), first=200)
    lost = next(n for n in range(401) if not renewed(licence, [*good, *fooled[:n]], RULES, now=NOW).holds)
    assert lost < within
