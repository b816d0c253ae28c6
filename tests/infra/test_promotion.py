import json

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from tests.evidence import give_verdict

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.alias_moves import current_aliases
from ratchet.infra.registry.ledger import close_ledger_test, open_ledger_test
from ratchet.infra.registry.registry import (
    champion,
    promote,
    record_evaluation,
    register,
    roll_back,
    set_alias,
    version_history,
)

BETTER = decide(
    [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)], alpha=0.001
)
WORSE = decide([Pair(case_id=str(n), champion=float(n % 10 > 0), challenger=0.0) for n in range(100)])
UNDECIDED = decide([Pair(case_id="1", champion=0.0, challenger=1.0)])


@pytest.fixture
def make(project):
    def make(name, verdict=None, *, against=None):
        candidate = Candidate(predictors={"act": Predictor(instructions=name)}, base_model="smollm2")
        register(project, candidate, files={}, seen_case_ids=[], cost={})
        if verdict is not None:
            serving = against or champion(project).candidate_id
            give_verdict(project, candidate.candidate_id, serving, verdict)
        return candidate.candidate_id

    return make


def approve(project, candidate_id):
    return promote(project, candidate_id, approved_by="anna", reason="read the evidence")


def test_the_first_champion_needs_no_verdict(project, make):
    first = make("first")
    version = approve(project, first)
    assert champion(project).candidate_id == first
    (event,) = version.events
    assert (event.action, event.by, event.reason, event.other) == (
        "promoted",
        "anna",
        "read the evidence",
        None,
    )


def test_a_proven_challenger_replaces_the_champion_and_both_say_so(project, make):
    first = make("first")
    approve(project, first)
    second = make("second", BETTER)
    set_alias(project, second, "challenger")
    approve(project, second)
    assert current_aliases(connect(project)) == {"champion": 2, "previous": 1}
    old, new = version_history(project)
    assert [(event.action, event.other) for event in old.events] == [("promoted", None), ("replaced", second)]
    assert [(event.action, event.other) for event in new.events] == [("promoted", first)]


@pytest.mark.parametrize("verdict", [WORSE, UNDECIDED])
def test_a_challenger_without_proof_is_refused_with_its_sentence(project, make, verdict):
    approve(project, make("first"))
    with pytest.raises(BadInput) as refused:
        approve(project, make("second", verdict))
    assert verdict.reason in str(refused.value)
    assert current_aliases(connect(project)) == {"champion": 1}


def test_a_challenger_that_was_never_evaluated_is_refused(project, make):
    approve(project, make("first"))
    with pytest.raises(BadInput, match="it has no verdict"):
        approve(project, make("second"))


def test_a_verdict_against_a_former_champion_does_not_count(project, make):
    approve(project, make("first"))
    second, third = make("second", BETTER), make("third", BETTER)
    approve(project, second)
    with pytest.raises(BadInput, match="evaluate it against that one first"):
        approve(project, third)


def test_a_promotion_during_a_test_does_not_lend_its_evidence_to_another_champion(project, make):
    first = make("first")
    approve(project, first)
    second, third = make("second", BETTER), make("third")
    open_ledger_test(project, third, champion=first)
    approve(project, second)  # while the third is being tested against the first
    close_ledger_test(project, third, champion=first, decision="promote", e_value=BETTER.e_value)
    record_evaluation(project, third, scores={}, verdict=BETTER, compared_with=first)
    with pytest.raises(BadInput, match=f"was compared with {first}, but {second} serves now"):
        approve(project, third)


def test_a_verdict_without_the_champion_that_was_tested_is_refused(project, make):
    first = make("first")
    approve(project, first)
    with pytest.raises(BadInput, match="names no champion"):
        record_evaluation(project, make("second"), scores={}, verdict=BETTER)


def test_a_verdict_that_the_ledger_does_not_bear_out_promotes_nothing(project, make):
    first, second = make("first"), make("second")
    approve(project, first)
    record_evaluation(project, second, scores={}, verdict=BETTER, compared_with=first)
    with pytest.raises(BadInput, match="the ledger holds no test of it against"):
        approve(project, second)
    open_ledger_test(project, second, champion=first)
    with pytest.raises(BadInput, match="the ledger says that its test is open"):
        approve(project, second)
    close_ledger_test(project, second, champion=first, decision="reject", e_value=0.1)
    with pytest.raises(BadInput, match="the ledger says refused"):
        approve(project, second)
    assert current_aliases(connect(project)) == {"champion": 1}


def test_nobody_promotes_nothing_without_reason(project, make):
    first = make("first")
    for by, reason in (("", "good"), ("anna", " ")):
        with pytest.raises(BadInput, match="a name and a reason"):
            promote(project, first, approved_by=by, reason=reason)


def test_promoting_the_champion_again_changes_nothing(project, make):
    first = make("first")
    assert approve(project, first) == approve(project, first)


def test_rollback_walks_back_one_champion_at_a_time(project, make):
    ids = [make("first")]
    approve(project, ids[0])
    for name in ("second", "third"):
        ids.append(make(name, BETTER))
        approve(project, ids[-1])
    assert roll_back(project, by="ben", reason="complaints").candidate_id == ids[1]
    assert roll_back(project, by="ben", reason="complaints").candidate_id == ids[0]
    with pytest.raises(BadInput, match="no earlier champion"):
        roll_back(project, by="ben", reason="complaints")
    assert [event.action for event in version_history(project)[1].events] == [
        "promoted",
        "replaced",
        "restored",
        "rolled back",
    ]


@pytest.fixture
def fail_at(monkeypatch):
    """Let the n-th alias move of the real client fail."""

    def arm(number, error):
        moves = []
        real = MlflowClient.set_registered_model_alias

        def move(self, name, alias, version):
            moves.append(alias)
            if len(moves) == number:
                raise error
            real(self, name, alias, version)

        monkeypatch.setattr(MlflowClient, "set_registered_model_alias", move)

    return arm


@pytest.mark.parametrize("step", [1, 2])
def test_a_promotion_that_fails_half_way_is_undone(project, make, fail_at, step):
    approve(project, make("first"))
    second = make("second", BETTER)
    before = version_history(project)
    fail_at(step, MlflowException("connection lost"))
    with pytest.raises(Exception, match="connection lost"):
        approve(project, second)
    assert version_history(project) == before
    assert approve(project, second).aliases == ("champion",)


def test_a_promotion_that_was_killed_half_way_is_undone_by_the_next_move(project, make):
    first = make("first")
    approve(project, first)
    second = make("second", BETTER)
    client = connect(project).client
    before = {"aliases": {"previous": None, "champion": 1}, "tags": {"2": {"events": None}}}
    client.set_registered_model_tag(project, "unfinished_move", json.dumps(before))
    client.set_registered_model_alias(project, "previous", "1")
    client.set_registered_model_alias(project, "champion", "2")
    client.set_model_version_tag(project, "2", "events", "[]")
    with pytest.raises(BadInput, match="no earlier champion"):
        roll_back(project, by="anna", reason="test")
    assert current_aliases(connect(project)) == {"champion": 1}
    assert approve(project, second).number == 2
