"""`ratchet budget`: what was spent is shown, and only a person with a reason grants more."""

import json

import pytest

from ratchet.infra.registry.ledger import read_ledger


@pytest.fixture(autouse=True)
def _nobody(monkeypatch):
    monkeypatch.delenv("USER", raising=False)


def test_every_test_is_listed_with_its_share_and_verdict(ratchet, past):
    done = ratchet("budget", "--name", past.project)
    ledger = read_ledger(past.project)
    assert done.returncode == 0
    assert all(entry.candidate[:8] in done.stderr for entry in ledger.entries)
    assert ledger.summary[:20] in done.stderr


def test_a_new_budget_needs_a_name_and_a_reason(ratchet, past):
    before = read_ledger(past.project)
    for options in (("--by", "bert"), ("--reason", "a new year")):
        done = ratchet("budget", "--grant", "--name", past.project, *options)
        assert done.returncode == 2
        assert "needs a name and a reason" in done.stderr
    assert read_ledger(past.project) == before


def test_a_grant_starts_a_new_budget_and_stays_visible(ratchet, own_past):
    before = read_ledger(own_past.project)
    options = ("--by", "bert", "--reason", "a new year", "--json")
    done = ratchet("budget", "--grant", "--name", own_past.project, *options)
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["exhausted"] is False
    assert answer["refreshes"][0]["granted_by"] == "bert"
    after = read_ledger(own_past.project)
    assert (after.budget, after.current, after.entries) == (2, (), before.entries)
    assert "granted by bert" in ratchet("budget", "--name", own_past.project).stderr
