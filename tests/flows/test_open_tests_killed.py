"""An open test whose process dies after each of its steps, and two runs of it at once: the ledger of a test that was
left alone, no share spent twice, no question asked twice, no verdict against another champion.

The processes fork from one that has imported everything and opened nothing, so that each costs a moment.
"""

import multiprocessing
import os
from importlib import import_module
from multiprocessing.context import ForkServerContext

import pytest
from tests.evidence import give_verdict, ledger_events
from tests.flows.conftest import BETTER
from tests.tasks.test_gate_people import NO_AUDIT, OPEN, gate, people_say, version

from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.alias_moves import current_aliases
from ratchet.infra.registry.gate_cases import spent_cases
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.promotion import settle_moves
from ratchet.infra.registry.registry import champion, promote, version_history
from ratchet.infra.review.asked_log import asked_questions
from ratchet.infra.review.comparisons import pending_comparisons, read_replies
from ratchet.tasks.promote import promote_best

pytestmark = pytest.mark.slow

DIED = 9
FIRST_ROUND = (
    ("ratchet.infra.registry.ledger:append", 1),  # the ledger begins
    ("ratchet.tasks.trials:open_ledger_test", 1),  # its share is spent, nothing is stored of it
    ("tests.tasks.test_gate_people:Said.play", 2),  # both sides played a batch
    ("ratchet.tasks.trials:write_open_test", 1),  # what was played is stored, nobody was asked yet
    ("ratchet.infra.review.comparisons:log_asked", 1),
    ("ratchet.infra.review.comparisons:write_comparisons", 1),
    ("ratchet.infra.review.comparisons:queue_up", 1),
    ("ratchet.tasks.trials:record_evaluation", 1),
)
"""What a run does until it waits for people: it dies right after each of these, at the n-th time."""
SECOND_ROUND = (
    ("ratchet.tasks.people:People.settled", 1),
    ("ratchet.tasks.trials:write_open_test", 1),  # with what was answered and what is asked now
    ("ratchet.infra.review.comparisons:queue_up", 1),
)
LAST_ROUND = (
    ("ratchet.tasks.people:People.settled", 1),
    ("ratchet.tasks.trials:write_open_test", 1),  # with the answers that decide
    ("ratchet.tasks.trials:close_ledger_test", 1),
    ("ratchet.tasks.trials:record_evaluation", 1),
    ("ratchet.tasks.promote:set_alias", 1),
    ("ratchet.infra.registry.alias_moves:point", 1),  # in the middle of the move
    ("ratchet.tasks.promote:promote", 1),
)


def one_round(project, serving, better):
    """What `improve` does with its gate, on versions whose answers are written down."""
    settle_moves(project)
    if champion(project).candidate_id != serving:
        return
    answers = {serving: lambda n: "No.", better: lambda n: f"Yes, {n}."}
    gated, _ = gate(project, serving, answers, rules=NO_AUDIT)
    promote_best.fn(project, gated, approved_by="a policy")


def _child(home, step, project, serving, better):
    """One round in a process that ends right after a step, or at its end."""
    os.environ["RATCHET_HOME"] = home
    if step is not None:
        _die_after(*step)
    one_round(project, serving, better)
    os._exit(0)


def _die_after(place, times):
    module, _, name = place.partition(":")
    owner = import_module(module)
    *within, name = name.split(".")
    for part in within:
        owner = getattr(owner, part)
    real, done = getattr(owner, name), []

    def dying(*args, **kwargs):
        answer = real(*args, **kwargs)
        done.append(name)
        if len(done) == times:
            os._exit(DIED)
        return answer

    setattr(owner, name, dying)


@pytest.fixture(scope="module")
def family() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@pytest.fixture
def start(family, mlflow_home, monkeypatch, spawn):
    """Start a round in a process of its own."""

    def begin(step, *about):
        child = family.Process(target=_child, args=(str(mlflow_home), step, *about))
        child.start()
        return child

    return begin


def ended(child):
    child.join(timeout=120)
    return child.exitcode


def two_versions(project):
    serving = version(project, "The first.")
    promote(project, serving, approved_by="ratchet", reason="the first version")
    return project, serving, version(project, "Better.")


def result(project, serving, better):
    """All that must not depend on who was killed when."""
    (entry,) = read_ledger(project).entries
    names = {serving: "serving", better: "better"}
    return {
        "test": (names[entry.candidate], names[entry.champion], entry.decision, entry.alpha_k, entry.e_value),
        "verdicts": [
            (names.get(v.compared_with), v.decision, v.verdict and v.verdict.e_value)
            for v in version_history(project)
        ],
        "spent": sorted(spent_cases(project)),
        "asked": len(asked_questions(connect(project))),
        "replies": sorted((one.good != (), one.rater) for one in read_replies(project)),
        "waiting": len(pending_comparisons(project)),
        "moves": [[event.action for event in v.events] for v in version_history(project)],
        "aliases": current_aliases(connect(project)),
    }


def answered(project):
    return len(people_say(project, lambda one: one.startswith("Yes")))


_ALONE = {}


@pytest.fixture
def left_alone(project):
    """What a test comes to that nobody disturbs; played once for all."""
    if not _ALONE:
        _ALONE.update(_left_alone(f"{project}-alone"))
    return _ALONE


def _left_alone(project):
    about = two_versions(project)
    n_asked = []
    for _ in range(3):
        one_round(*about)
        n_asked.append(answered(about[0]))
    found = result(*about)
    assert (found["test"][2], found["asked"], found["waiting"]) == ("promote", sum(n_asked), 0)
    assert (n_asked[1] > 0, n_asked[2]) == (True, 0), "people are asked in two rounds, the third decides"
    return found


def test_a_test_that_is_killed_after_each_of_its_steps_ends_as_one_that_was_left_alone(
    project, start, left_alone
):
    about = two_versions(project)
    n_asked = 0
    for steps in (FIRST_ROUND, SECOND_ROUND, LAST_ROUND):
        for step in steps:
            assert ended(start(step, *about)) == DIED, f"no run came to {step}"
            assert len(read_ledger(project).entries) <= 1, f"a second share was spent after {step}"
        assert ended(start(None, *about)) == 0
        n_asked += answered(project)
    assert n_asked == left_alone["asked"]
    assert result(*about) == left_alone
    opened = [event for event in ledger_events(project) if event.kind == "open"]
    assert len(opened) == 1


def test_two_runs_at_once_are_one_test(project, start, left_alone):
    about = two_versions(project)
    for _ in range(3):
        codes = [ended(child) for child in [start(None, *about), start(None, *about)]]
        assert 0 in codes, "one of them went through"
        one_round(*about)
        answered(project)
    assert result(*about) == left_alone


def test_an_open_test_ends_with_its_champion_and_its_answers_move_no_other(project, start):
    about = two_versions(project)
    one_round(*about)
    answered(project)
    other = version(project, "A person's own.")
    first = champion(project).candidate_id
    give_verdict(project, other, first, BETTER)
    promote(project, other, approved_by="anna", reason="a better one")
    assert ended(start(("ratchet.tasks.trials:close_ledger_test", 1), project, other, about[2])) == DIED
    one_round(project, other, about[2])
    tests = [(entry.candidate, entry.champion, entry.decision) for entry in read_ledger(project).entries]
    assert (about[2], first, "continue") in tests
    assert champion(project).candidate_id == other
    found = next(one for one in version_history(project) if one.candidate_id == about[2])
    assert (found.compared_with, found.decision) in ((other, "continue"), (None, None))
    assert len(OPEN) > len(spent_cases(project)) > 0
