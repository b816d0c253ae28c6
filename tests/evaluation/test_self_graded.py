"""Nothing that the agent or a model graded by itself teaches, judges or is remembered beyond the judge's licence."""

from datetime import UTC, datetime

import pytest
from mlflow.genai.judges import make_judge
from mlflow.genai.scorers import Safety

from ratchet.agent.errors import BadInput
from ratchet.agent.memory.steps import tally, winning_steps
from ratchet.agent.project import Project
from ratchet.evaluation.data.cases import labelled_cases
from ratchet.evaluation.data.curate import CurateSettings, curate
from ratchet.evaluation.data.labels import Label, people_said
from ratchet.evaluation.judge.licence import Licence, LicenceEvent, approved_by

NOW = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
def week(make_trace):
    """Forty answers that no environment scored; a judge is content with all, people were asked about ten."""
    traces = [
        make_trace(f"request {n} of {n * 7919 % 997}", score=None, session_id=f"s{n}") for n in range(40)
    ]
    judged = [said(trace.trace_id, source="judge", rater="j1") for trace in traces]
    people = [said(trace.trace_id, source="human", rater="anna") for trace in traces[:10]]
    return traces, judged, people


def said(trace_id, **changes):
    return Label(trace_id=trace_id, score=1.0, created_at=NOW, **changes)


def licence(*kinds, judge="j1"):
    events = (
        LicenceEvent(at=NOW, kind=kind, judge_id=judge, weight=0.6 * (kind == "granted")) for kind in kinds
    )
    return Licence(history=tuple(events))


def training(traces, judged, people, held):
    approved = approved_by(held, judged)
    cases = labelled_cases(traces, [*judged, *people], gate_share=0.4, approved=approved)
    assert all(one.source == "human" for one in cases if one.role == "gate"), "a judge's word never judges"
    return curate(cases, CurateSettings(), judge_reliability=held.weight)


@pytest.mark.parametrize(
    "held",
    [Licence(), licence("made"), licence("made", "granted", "lost"), licence("made", "granted", judge="j2")],
    ids=["no judge", "never earned", "lost", "another judge's"],
)
def test_without_the_licence_only_what_people_said_teaches(week, held):
    traces, judged, people = week
    found = training(traces, judged, people, held)
    assert {one.source for one in found.cases} == {"human"}
    assert training(traces, judged, [], held).cases == (), "and where nobody labelled, nothing does"


def test_with_the_licence_what_it_approved_teaches_within_the_share_that_people_keep(week):
    traces, judged, people = week
    held = licence("made", "granted")
    found = training(traces, judged, people, held)
    graded = [one for one in found.cases if one.source == "judge"]
    assert 0 < len(graded) <= found.n_human
    assert {found.weight(one) for one in graded} == {0.5 * 0.6}
    assert found.human_share >= CurateSettings().human_share
    assert training(traces, judged, [], held).cases == (), "a judge does not teach where no person does"


def test_no_judges_word_makes_a_memory_or_counts_for_what_was_recalled(week):
    traces, judged, people = week
    verdicts = people_said([*judged, *people])
    assert set(verdicts) == {trace.trace_id for trace in traces[:10]}
    kept = [step for trace in traces for step in winning_steps(trace, person=verdicts.get(trace.trace_id))]
    assert {step.source for step in kept} == {"human"}
    shown = traces[20].model_copy(
        update={"attempts": (traces[20].attempts[0].model_copy(update={"recalled": ("e",)}),)}
    )
    assert tally([shown], verdicts) == {}


@pytest.mark.parametrize(
    "scorer", [Safety(), make_judge("j", instructions="is {{ outputs }} good?", model="openai:/m")]
)
def test_a_model_is_no_environment_that_scores_by_itself(scorer):
    with pytest.raises(BadInput, match="ratchet judge"):
        Project(name="p", agent=lambda question: "a", score=scorer, scores_itself=True)
    Project(name="p", agent=lambda question: "a", score=scorer)
    Project(name="p", agent=lambda question: "a", score=lambda case, answer: 1.0, scores_itself=True)
