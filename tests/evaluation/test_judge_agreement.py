"""A judge's agreement with people: tables with known answers, and people who saw only what it flagged."""

from datetime import UTC, datetime
from itertools import product

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from ratchet.agent.errors import BadInput
from ratchet.evaluation.judge.agreement import Audit, Verdicts, agreement, by_slice, kappa_of
from ratchet.evaluation.judge.bias import in_both_orders, position_bias, verbosity_bias
from ratchet.evaluation.judge.bounds import anytime_high, anytime_low, exact_high, exact_low
from ratchet.evaluation.judge.corrections import ppi_mean, prevalence, rogan_gladen

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def table(tp: int, fn: int, tn: int, fp: int, propensity: tuple[float, float] = (1.0, 1.0)) -> list[Audit]:
    """Audits of these counts; a person was asked with one probability about what the judge approved, another else."""
    cells = ((tp, 1.0, 1.0), (fn, 0.0, 1.0), (tn, 0.0, 0.0), (fp, 1.0, 0.0))
    return [
        Audit(
            trace_id=f"{judge}{person}{n:029d}",
            at=NOW,
            judge=judge,
            person=person,
            propensity=propensity[judge < 0.5],
        )
        for count, judge, person in cells
        for n in range(count)
    ]


@pytest.mark.parametrize("cells", [(20, 10, 15, 5), (90, 10, 45, 5), (7, 3, 1, 9), (40, 0, 0, 3)])
def test_rates_and_kappa_are_those_of_well_kept_packages(cells):
    tp, fn, tn, fp = cells
    found = agreement(table(*cells))
    known = cohens_kappa(np.array([[tp, fp], [fn, tn]]), return_results=False) if fn or tn else 0.0
    assert found.kappa.estimate == pytest.approx(known)
    # statsmodels' Clopper–Pearson is two-sided: half of alpha on each side
    for rate, hits, n in ((found.tpr, tp, tp + fn), (found.tnr, tn, tn + fp)):
        assert rate.estimate == pytest.approx(hits / n)
        assert rate.low == pytest.approx(proportion_confint(hits, n, alpha=0.1, method="beta")[0])
    assert found.kappa.low <= found.kappa.estimate


def test_the_bound_of_kappa_is_the_least_over_all_rates_within_their_bounds():
    found, alpha = agreement(table(90, 10, 45, 5)), 0.05 / 4
    tprs = np.linspace(exact_low(90, 100, alpha), 1, 60)
    tnrs = np.linspace(exact_low(45, 50, alpha), 1, 60)
    ends = exact_low(100, 150, alpha), exact_high(100, 150, alpha)
    least = min(kappa_of(*at) for at in product(tprs, tnrs, np.linspace(*ends, 60)))
    assert found.kappa.low == pytest.approx(least)


def test_people_who_saw_mostly_what_was_flagged_are_corrected_as_begg_and_greenes_published():
    """Hepatic scintigraphy (Drum & Christacopoulos 1972; Begg & Greenes 1983): 650 tested, 344 verified."""
    audits = table(231, 27, 54, 32, propensity=(263 / 429, 81 / 221))
    for judged in (None, Verdicts(approved=429, refused=221)):
        found = agreement(audits, judged=judged)
        assert (found.naive_tpr, found.naive_tnr) == pytest.approx((0.895, 0.628), abs=5e-4)
        assert (found.tpr.estimate, found.tnr.estimate) == pytest.approx((0.836, 0.738), abs=5e-4)
        assert found.tpr.low < 0.836 < 0.895
        assert found.tnr.low < 0.738


def test_where_nobody_looked_at_what_was_refused_nothing_is_promised_of_it():
    found = agreement(table(95, 0, 0, 5), judged=Verdicts(approved=100, refused=100))
    assert found.naive_tpr == 1.0
    assert (found.tpr.estimate, found.tnr.estimate, found.kappa.estimate) == (None, None, None)
    assert found.tpr.low < 0.5  # all that was refused may have been right
    assert found.tnr.low == 0.0
    assert found.kappa.low <= 0.0


def test_bounds_hold_when_people_saw_what_was_flagged_and_the_naive_ones_do_not():
    rng, misses = np.random.default_rng(1), {"tpr": 0, "tnr": 0, "kappa": 0, "naive": 0}
    tpr, tnr, share, times = 0.7, 0.8, 0.6, 400
    for time in range(times):
        right = rng.random(600) < share
        approved = np.where(right, rng.random(600) < tpr, rng.random(600) >= tnr)
        seen = rng.random(600) < np.where(approved, 0.5, 0.1)
        audits = [
            Audit(trace_id=f"{time}-{n}", at=NOW, judge=a, person=r, propensity=0.5 if a else 0.1)
            for n, (a, r, s) in enumerate(zip(approved, right, seen, strict=True))
            if s
        ]
        judged = Verdicts(approved=int(approved.sum()), refused=int((~approved).sum()))
        found, plain = (
            agreement(audits, judged=judged),
            agreement([a.model_copy(update={"propensity": 1}) for a in audits]),
        )
        true_tpr, true_tnr = approved[right].mean(), 1 - approved[~right].mean()
        misses["tpr"] += found.tpr.low > true_tpr
        misses["tnr"] += found.tnr.low > true_tnr
        misses["kappa"] += found.kappa.low > kappa_of(true_tpr, true_tnr, right.mean())
        misses["naive"] += plain.tpr.low > true_tpr
    assert max(misses[name] for name in ("tpr", "tnr", "kappa")) <= 0.05 * times
    assert misses["naive"] > 0.9 * times  # a bound that ignores why people looked is a check that would fail


def test_a_bound_that_is_looked_at_after_every_audit_holds_and_the_exact_one_would_not():
    rng, p, times, looks = np.random.default_rng(2), 0.8, 400, 200
    anytime = exact = 0
    for _ in range(times):
        hits = np.cumsum(rng.random(looks) < p).tolist()
        anytime += any(anytime_low(h, n, 0.05) > p for n, h in enumerate(hits, 1))
        exact += any(exact_low(h, n, 0.05) > p for n, h in enumerate(hits, 1))
    assert anytime <= 0.05 * times
    assert exact > 0.15 * times


def test_bounds_at_the_ends():
    assert (anytime_low(0, 0, 0.05), anytime_high(0, 0, 0.05)) == (0.0, 1.0)
    assert (exact_low(0, 0, 0.05), exact_high(0, 0, 0.05)) == (0.0, 1.0)
    assert exact_low(30, 30, 0.05) == pytest.approx(0.05 ** (1 / 30))
    assert 0 < anytime_low(30, 30, 0.05) < exact_low(30, 30, 0.05)
    assert anytime_low(1, 1000, 1e-9) == pytest.approx(0.0, abs=1e-6)


def test_each_slice_and_rubric_version_stands_alone():
    audits = [a.model_copy(update={"slice": "mail"}) for a in table(8, 2, 5, 5)]
    audits += [a.model_copy(update={"slice": "mail", "rubric_version": "2"}) for a in table(3, 3, 3, 3)]
    found = by_slice([*audits, *table(1, 0, 1, 0)])
    assert list(found) == [("", "1"), ("mail", "1"), ("mail", "2")]
    assert found["mail", "1"].tpr.estimate == pytest.approx(0.8)
    assert found["mail", "2"].kappa.estimate == pytest.approx(0.0)


def test_rogan_and_gladens_estimate_is_that_of_the_package_epi_r():
    """epiR 2.0, `epi.prev`: brucellosis (23 of 150, Se .96, Sp .89): 5.1 per 100 (0–13); H. pylori: 0 per 100."""
    known = 10**8
    cows = prevalence(23, 150, 96 * known // 100, known, 89 * known // 100, known)
    assert (cows.estimate, cows.low, cows.high) == pytest.approx((0.051, 0.0, 0.13), abs=1e-3)
    assert prevalence(6, 151, 964 * known // 1000, known, 927 * known // 1000, known).estimate == 0.0
    herds = [  # the same page: three dairy herds; estimates by the formula of 1978
        prevalence(k, n, int(se * known), known, int(sp * known), known).estimate
        for k, n, se, sp in ((8, 210, 0.6, 0.9), (12, 189, 0.65, 0.95), (7, 124, 0.7, 0.99))
    ]
    assert herds == pytest.approx([0.0, 0.0225, 0.0673], abs=1e-4)


def test_a_judge_no_better_than_chance_corrects_nothing():
    with pytest.raises(BadInput, match=r"≤ 1: no better than chance"):
        rogan_gladen(Verdicts(approved=50, refused=50), table(5, 5, 5, 5))
    with pytest.raises(BadInput, match="0 wrong ones"):
        rogan_gladen(Verdicts(approved=50, refused=50), table(5, 5, 0, 0))


def test_both_corrections_cover_the_truth_where_the_judges_own_share_does_not():
    rng, tpr, tnr, share, times = np.random.default_rng(3), 0.9, 0.7, 0.6, 300
    covered = {"naive": 0, "rogan_gladen": 0, "ppi": 0}
    for _ in range(times):
        right = rng.random(2_000) < share
        approved = np.where(right, rng.random(2_000) < tpr, rng.random(2_000) >= tnr)
        audits = [Audit(trace_id=str(n), at=NOW, judge=approved[n], person=right[n]) for n in range(150)]
        judged = Verdicts(approved=int(approved.sum()), refused=int((~approved).sum()))
        one = rogan_gladen(judged, audits)
        two = ppi_mean(right[:150], approved[:150], approved[150:])
        half = 1.96 * (approved.mean() * (1 - approved.mean()) / 2_000) ** 0.5
        covered["naive"] += abs(approved.mean() - share) <= half
        covered["rogan_gladen"] += one.low <= share <= one.high
        covered["ppi"] += two.low <= share <= two.high
    assert covered["naive"] < 0.1 * times
    assert min(covered["rogan_gladen"], covered["ppi"]) >= 0.92 * times


def test_the_ppi_interval_is_that_of_its_authors_package():
    """ppi-python 0.2.3, `ppi_mean_ci(Y, F, U, alpha)` on these numbers."""
    i, j = np.arange(40), np.arange(90)
    people = ((i * 7) % 10 < 6).astype(float)
    judge = np.where(i % 4 == 0, 1 - people, people) * 0.7 + ((i * 3) % 7) / 30
    rest = np.where(j % 4 == 0, (j * 7) % 10 >= 5, (j * 7) % 10 < 5) * 0.7 + ((j * 3) % 7) / 30
    found = ppi_mean(people, judge, rest)
    assert (found.low, found.high) == pytest.approx((0.4340144918673715, 0.7096045982625002))
    narrower = ppi_mean(people, judge, rest, alpha=0.1)
    assert (narrower.low, narrower.high) == pytest.approx((0.4561682910338453, 0.6874507990960264))
    useless = ppi_mean(people, (i * 11) % 13 / 13, (j * 11) % 13 / 13)
    assert useless.weight == pytest.approx(0.0, abs=0.05)  # a judge that knows nothing is not heard


def test_who_stands_first_and_who_is_longer_is_measured():
    from ratchet.agent.case import Case

    case = Case(inputs={"request": "?"})

    def for_the_first(case: Case, first: str, second: str) -> float:
        return 1.0

    def for_the_longer(case: Case, first: str, second: str) -> float:
        return float(np.sign(len(first) - len(second)))

    pairs = [(case, "a", "bbb"), (case, "ccccc", "d")]
    assert position_bias(for_the_first, pairs).model_dump() == {"pairs": 2, "flips": 2, "first": 1.0}
    assert position_bias(for_the_longer, pairs).share == 0.0
    assert in_both_orders(for_the_first, case, "a", "b") == 0.0
    assert in_both_orders(for_the_longer, case, "aa", "b") == 1.0
    audits = [
        Audit(trace_id=str(n), at=NOW, judge=min(n / 40, 1), person=n % 2, length=10 * n) for n in range(40)
    ]
    found = verbosity_bias(audits)
    assert found.judge > 0.8
    assert abs(found.people) < 0.2
    assert found.excess == pytest.approx(found.judge - found.people)
    assert verbosity_bias(audits[:1]).excess is None
