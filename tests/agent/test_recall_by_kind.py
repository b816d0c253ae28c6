"""On real logs: a task that was never seen recalls steps of its own kind more often than chance would."""

import pytest
from tests.bench.kinds_of_task import FILE, NOTHING, load, overall, precision

from ratchet.agent.memory.ranking import RecallSettings

pytestmark = pytest.mark.skipif(
    not FILE.exists(), reason=f"{FILE} is absent: put tau-bench's airline logs there"
)


@pytest.fixture(scope="module")
def logs():
    return load()


def test_a_task_left_out_with_its_trials_recalls_what_was_asked_more_often_than_chance(logs):
    kinds, alone = precision(logs, logs.asked, RecallSettings(), first_only=True)
    found, chance = overall(kinds)
    assert found > 1.5 * chance
    assert sum(kind.queries for kind in kinds) + 4 * len(alone) <= 200


def test_and_what_answered_it_where_something_was_to_be_changed(logs):
    kinds, _ = precision(logs, logs.answered, RecallSettings(), first_only=True)
    found, chance = overall(kinds)
    assert found > chance + 0.03
    found, chance = overall([kind for kind in kinds if kind.family != NOTHING])
    assert found > 1.5 * chance


def test_the_families_come_from_what_recall_never_sees_and_the_84_won_trajectories_are_recalled_from(logs):
    assert len(logs.answered) == len(logs.asked) == 50
    assert len({step.trajectory for step in logs.winning()}) == 84
    assert (logs.answered["0"], logs.asked["0"]) == ("book_reservation", "book")
    assert "other" not in logs.asked.values()
