"""What a cached task kept is read back as data: nothing that a trace holds is imported or called."""

import pytest
from prefect import flow
from prefect.results import ResultRecord, ResultRecordMetadata, resolve_serializer

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.errors import CorruptRecord
from ratchet.agent.project import load_project
from ratchet.agent.trace import Attempt, Contribution, Step
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.flows.demo.final_test import final_test
from ratchet.flows.demo.negative_control import make_negative_control
from ratchet.infra.store.dataset_store import write_dataset
from ratchet.tasks.gate import evaluate
from ratchet.tasks.propose import _propose
from ratchet.tasks.serve import first_champion


@pytest.fixture
def planted(tmp_path):
    """Dicts that Prefect's own JSON serializer would call when it reads them; the first makes a folder."""
    called = {"__class__": "os.makedirs", "data": {"name": str(tmp_path / "called")}}
    return [
        called,
        {"__exc_type__": "builtins.SystemExit", "message": "raised"},
        {"__class__": "agent.nowhere.X"},
    ]


def kept_and_read(task, result):
    """The result as the task's next run finds it."""
    metadata = ResultRecordMetadata(serializer=resolve_serializer(task.result_serializer))
    return ResultRecord.deserialize(ResultRecord(result=result, metadata=metadata).serialize()).result


def test_dicts_that_name_code_come_back_as_dicts_wherever_a_trace_holds_them(make_trace, planted, tmp_path):
    for one in planted:
        step = Step(
            observation="{}", parts=(Contribution(actor="critic", said="{}"),),
            action=Action(name="get_weather", arguments={"city": one, **one}),
        )  # fmt: skip
        outcome = Outcome(score=1.0, details={"__class__": 1.0})
        trace = make_trace(
            case=Case(inputs={"request": "a", "context": one, **one}, expected=[one]),
            attempts=(Attempt(steps=(step,), outcome=outcome),),
        )
        assert kept_and_read(evaluate, [trace]) == [trace]
    assert not (tmp_path / "called").exists()


def test_evaluations_that_a_killed_run_kept_are_read_without_calling_what_their_cases_name(
    prefect_server, make_project, planted, tmp_path
):
    ours = make_project()
    champion = first_champion(load_project(ours.folder)).candidate
    cases = [
        Case(inputs={"request": f"{n} left", "context": one}, expected=one) for n, one in enumerate(planted)
    ]
    labelled = [
        LabelledCase(
            case=case, trace_id=f"{n:032x}", candidate_id="c", role="gate", propensity=1.0, source="human",
            answer={"tool": "left", **planted[n]},
        )
        for n, case in enumerate(cases)
    ]  # fmt: skip

    @flow
    def round_of_the_gate():
        ids = [case.case_id for case in cases]
        return evaluate(str(ours.folder), ours.name, champion.candidate_id, version, ids, return_state=True)

    version = write_dataset("labelled", labelled)
    first, again = round_of_the_gate(), round_of_the_gate()
    assert (first.name, again.name) == ("Completed", "Cached")
    assert [trace.case.inputs for trace in again.result()] == [case.inputs for case in cases]
    assert again.result() == first.result()
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("task", [evaluate, _propose, final_test, make_negative_control])
def test_every_cached_task_reads_its_results_without_an_object_hook(task, planted, tmp_path):
    serializer = resolve_serializer(task.result_serializer)
    text = '{"__class__": "os.makedirs", "data": {"name": "%s"}}' % (tmp_path / "called")
    with pytest.raises(CorruptRecord, match="a kept result is not a"):
        serializer.loads(text.encode())
    assert not (tmp_path / "called").exists()
