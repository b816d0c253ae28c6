"""`ratchet budget`: what was spent is shown, and only a person with a reason grants more."""

import json

import pytest

from ratchet.evaluation.gate.gate import Gate, GatePolicy, Pair
from ratchet.evaluation.gate.trial import TrialState
from ratchet.infra.registry.closing import close_open_test
from ratchet.infra.registry.gate_cases import read_open_test, write_open_test
from ratchet.infra.registry.ledger import open_ledger_test, read_ledger


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


def stored_test(project, candidate, champion, entry, losses=10):
    """What a run of the gate stores: a test that lost so far."""
    gate = Gate(GatePolicy(alpha=entry.alpha_k))
    gate.extend(Pair(case_id=str(n), champion=1.0, challenger=0.0) for n in range(losses))
    state = TrialState(
        champion=champion, challenger=candidate, opened_at=entry.opened_at, rest=(), gate=gate.to_json()
    )
    write_open_test(project, candidate, state.to_json())
    return gate.verdict().e_value


def test_a_person_closes_an_open_test_and_gets_back_what_its_evidence_is_worth(ratchet, own_past):
    project, candidate = own_past.project, own_past.refused.candidate_id
    champion = own_past.champion.candidate_id
    before = read_ledger(project).reserve
    options = ("--close", candidate[:8], "--by", "bert", "--name", project)
    unnamed = ratchet("budget", *options)
    assert (unnamed.returncode, "closing a test needs a name and a reason" in unnamed.stderr) == (2, True)
    none_open = ratchet("budget", *options, "--reason", "nobody waits for it")
    assert (none_open.returncode, "has no open test" in none_open.stderr) == (2, True)
    entry = open_ledger_test(project, candidate, champion=champion)
    e_value = stored_test(project, candidate, champion, entry)
    done = ratchet("budget", *options, "--reason", "nobody waits for it", "--json")
    assert done.returncode == 0
    closed = json.loads(done.stdout)["entries"][-1]
    assert (closed["decision"], closed["e_value"]) == ("continue", pytest.approx(e_value))
    assert read_ledger(project).reserve == pytest.approx(before - entry.alpha_k * (1 - e_value))
    assert read_open_test(project, candidate) is None
    again = open_ledger_test(project, candidate, champion=champion)
    write_open_test(project, candidate, "no test at all")
    close_open_test(project, candidate, reason="nobody can read it", by="bert")
    assert read_ledger(project).entries[-1].returned == 0 < again.alpha_k
    assert max(map(len, ratchet("budget", "--name", project).stderr.splitlines())) <= 80
