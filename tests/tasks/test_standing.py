"""How far an open test is, and what people's answers were worth, told without a side."""

from tests.tasks.test_gate_people import gate, people_say, serving
from tests.tasks.test_gate_task import version

from ratchet.evaluation.data.raters import RaterSettings
from ratchet.infra.review.comparisons import pending_comparisons
from ratchet.tasks.people import People

__all__ = ["serving"]


def test_progress_counts_answers_and_the_next_questions_say_what_the_last_ones_moved(project, serving):
    one = version(project, "The second.")
    answers = {serving: lambda n: "We see to it.", one: lambda n: "Done." if n % 2 else "We see to it."}
    gate(project, serving, answers)
    (before,) = People(project, RaterSettings()).standings(0.1)
    asked = people_say(project, lambda answer: answer == "Done.")
    assert (before.asked, before.answered, before.now) == (len(asked), 0, before.before)
    (now,) = People(project, RaterSettings()).standings(0.1)
    assert (now.answered, now.new) == (len(asked), len(asked))
    assert now.now > now.before
    assert f"{len(asked)} of {len(asked)} answered" in now.sentence
    assert f"the last {len(asked)} answers moved an open test from e = " in now.sentence
    for side in (serving, one, "champion", "challenger", "LEFT", "RIGHT"):
        assert side not in now.sentence
    gate(project, serving, answers)
    told = [question.reason for question in pending_comparisons(project)]
    assert all(now.worth in reason for reason in told)
