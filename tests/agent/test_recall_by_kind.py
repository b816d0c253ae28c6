"""On real logs: a task that was never seen recalls steps of its own kind more often than chance would."""

import pytest

from agent.recall import RecallSettings
from tests.bench.kinds_of_task import FILE, NOTHING, load, overall, precision

pytestmark = pytest.mark.skipif(
    not FILE.exists(), reason=f"{FILE} is absent: put tau-bench's airline logs there"
)


def test_a_task_left_out_with_its_trials_recalls_its_own_kind_more_often_than_chance():
    kinds, alone = precision(load(), RecallSettings(), first_only=True)
    found, chance = overall(kinds)
    assert found > chance + 0.03
    changing = [kind for kind in kinds if kind.family != NOTHING]
    found, chance = overall(changing)
    assert found > 1.5 * chance
    assert sum(kind.queries for kind in kinds) + 4 * len(alone) <= 200


def test_the_families_come_from_the_answer_key_and_the_84_won_trajectories_are_what_is_recalled_from():
    logs = load()
    assert len(logs.families) == 50
    assert len({step.trajectory for step in logs.winning()}) == 84
    assert logs.families["0"] == "book_reservation"
