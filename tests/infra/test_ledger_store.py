import math
import multiprocessing
import os
from datetime import UTC, datetime

import pytest

from agent.errors import BadInput, CorruptRecord
from evaluation.ledger import Ledger, open_test
from infra.ledger_store import (
    close_ledger_test,
    grant_budget,
    ledger_events,
    open_ledger_test,
    read_ledger,
)
from infra.tracking import connect


def alphas(ledger):
    return [entry.alpha_k for entry in ledger.entries]


def test_a_project_without_tests_has_spent_nothing(project):
    assert read_ledger(project, alpha=0.1).entries == ()
    assert read_ledger(project, alpha=0.1).alpha == 0.1


def test_shares_are_those_of_the_pure_ledger(project):
    pure = Ledger()
    for candidate in ("a", "b", "c"):
        open_ledger_test(project, candidate, champion="x", judge="j")
        pure = open_test(pure, candidate=candidate, now=datetime.now(UTC))
    assert alphas(read_ledger(project)) == alphas(pure)
    assert alphas(pure) == pytest.approx([6 * 0.05 / (math.pi * k) ** 2 for k in (1, 2, 3)])


def test_opening_again_goes_on_with_the_open_test_and_spends_nothing(project):
    first = open_ledger_test(project, "a")
    assert open_ledger_test(project, "a") == first
    assert len(read_ledger(project).entries) == 1


def test_a_closed_test_keeps_its_verdict_and_its_share(project):
    entry = open_ledger_test(project, "a", champion="x")
    closed = close_ledger_test(project, "a", decision="reject", e_value=0.5, reason="worse")
    assert (closed.decision, closed.e_value, closed.alpha_k) == ("reject", 0.5, entry.alpha_k)
    assert open_ledger_test(project, "a").k == 2
    assert [event.kind for event in ledger_events(project)] == ["begin", "open", "close", "open"]


def test_a_promotion_below_its_threshold_is_refused_and_the_test_stays_open(project):
    open_ledger_test(project, "a")
    with pytest.raises(BadInput, match="e = 20 < "):
        close_ledger_test(project, "a", decision="promote", e_value=20)
    assert read_ledger(project).entries[0].decision is None
    close_ledger_test(project, "a", decision="promote", e_value=1e9)


def test_closing_what_is_not_open_is_refused(project):
    with pytest.raises(BadInput, match="no open test"):
        close_ledger_test(project, "a", decision="reject", e_value=0.1)


def test_alpha_and_spending_are_fixed_by_the_first_test(project):
    open_ledger_test(project, "a", alpha=0.1, spending="e-LOND")
    open_ledger_test(project, "b", alpha=0.9)
    ledger = read_ledger(project)
    assert (ledger.alpha, ledger.spending) == (0.1, "e-LOND")


def test_with_e_lond_a_promotion_buys_power(project):
    open_ledger_test(project, "a", spending="e-LOND")
    close_ledger_test(project, "a", decision="promote", e_value=1e9)
    assert open_ledger_test(project, "b").alpha_k == pytest.approx(2 * 6 * 0.05 / (2 * math.pi) ** 2)


def test_a_person_grants_a_new_budget_with_a_reason(project):
    open_ledger_test(project, "a")
    with pytest.raises(BadInput, match="a name and a reason"):
        grant_budget(project, granted_by="anna", because="")
    assert grant_budget(project, granted_by="anna", because="new product").budget == 2
    assert open_ledger_test(project, "b").k == 1


def test_deleted_history_is_refused(project):
    open_ledger_test(project, "a")
    open_ledger_test(project, "b")
    connect(project).client.delete_model_version(f"{project}-ledger", "2")
    with pytest.raises(CorruptRecord, match="have a gap"):
        read_ledger(project)


def _open_many(home, project, names, start, spent):
    os.environ["RATCHET_HOME"] = home
    connect(project)
    start.wait()
    spent.put({name: open_ledger_test(project, name).k for name in names})


def test_two_processes_that_open_at_once_get_different_shares(project, mlflow_home):
    connect(project)
    spawn = multiprocessing.get_context("spawn")
    start, spent = spawn.Barrier(2), spawn.Queue()
    names = [[f"{who}{n}" for n in range(4)] for who in "ab"]
    racers = [
        spawn.Process(target=_open_many, args=(str(mlflow_home), project, own, start, spent)) for own in names
    ]
    for racer in racers:
        racer.start()
    places = spent.get(timeout=120) | spent.get(timeout=120)
    for racer in racers:
        racer.join(timeout=30)
    assert sorted(places.values()) == list(range(1, 9))
    assert {entry.candidate: entry.k for entry in read_ledger(project).entries} == places
