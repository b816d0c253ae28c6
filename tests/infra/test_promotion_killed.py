"""A promotion whose process dies at each of its writes: the next one finds all of it or nothing, and ends it."""

import os

import pytest
from mlflow import MlflowClient
from tests.evidence import give_verdict

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.alias_moves import current_aliases
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.promotion import settle_moves
from ratchet.infra.registry.registry import champion, promote, register, version_history

BETTER = decide(
    [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)], alpha=0.001
)
WRITES = (
    "create_model_version",
    "set_experiment_tag",
    "set_registered_model_tag",
    "set_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "delete_registered_model_tag",
)
DIED = 9


def promoted(project, candidate_id):
    promote(project, candidate_id, approved_by="anna", reason="proven")


def _die_at(write, home, project, candidate_id):
    os.environ["RATCHET_HOME"] = home
    done = []

    def counted(real):
        def call(self, *args, **kwargs):
            answer = real(self, *args, **kwargs)
            done.append(real.__name__)
            if len(done) == write:
                os._exit(DIED)
            return answer

        return call

    for name in WRITES:
        setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))
    promoted(project, candidate_id)


@pytest.fixture
def killed_at(project, mlflow_home, spawn):
    """Promote a proven version over another in a process that ends at its n-th write; gives both ids."""

    def kill(write):
        first, second = (
            Candidate(predictors={"act": Predictor(instructions=name)}, base_model="smollm2")
            for name in ("first", "second")
        )
        for candidate in (first, second):
            register(project, candidate, files={}, seen_case_ids=[], cost={})
        promoted(project, first.candidate_id)
        give_verdict(project, second.candidate_id, first.candidate_id, BETTER)
        child = spawn.Process(target=_die_at, args=(write, str(mlflow_home), project, second.candidate_id))
        child.start()
        child.join(timeout=120)
        assert child.exitcode == DIED, "the promotion has fewer writes than this test takes it for"
        return first.candidate_id, second.candidate_id

    return kill


@pytest.mark.slow
@pytest.mark.parametrize("write", range(1, 10))
def test_what_a_killed_promotion_left_is_ended_by_the_next(project, killed_at, write):
    first, second = killed_at(write)
    assert champion(project).candidate_id in (first, second)
    assert [entry.decision for entry in read_ledger(project).entries] == ["promote"]
    promoted(project, second)
    assert current_aliases(connect(project)) == {"champion": 2, "previous": 1}
    old, new = version_history(project)
    assert [event.action for event in old.events] == ["promoted", "replaced"]
    assert [event.action for event in new.events] == ["promoted"]


@pytest.mark.slow
@pytest.mark.parametrize("write", [4, 6])
def test_after_a_killed_promotion_is_settled_only_what_serves_has_been_promoted(project, killed_at, write):
    first, _ = killed_at(write)
    assert [event.action for event in version_history(project)[1].events] == ["promoted"]
    settle_moves(project)
    assert champion(project).candidate_id == first
    assert version_history(project)[1].events == ()
