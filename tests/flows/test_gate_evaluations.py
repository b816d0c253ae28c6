"""What an evaluation keeps: nothing that broke, so that a repaired endpoint is asked again and not remembered as dead."""

import pytest
from prefect import flow

from ratchet.agent.case import Case
from ratchet.agent.project import load_project
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.infra.store.dataset_store import write_dataset
from ratchet.tasks.gate import evaluate
from ratchet.tasks.serve import first_champion

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("prefect_server")]


@flow
def one_evaluation(*arguments):
    return evaluate(*arguments, return_state=True)


def test_what_broke_is_played_again_and_only_what_did_not_is_kept(make_project):
    ours = make_project()
    file = ours.folder / "project.py"
    raises = 'assert not (HERE / "broken").exists(), "connection refused"\n        self.done'
    file.write_text(file.read_text().replace("self.done", raises, 1))
    served = first_champion(load_project(ours.folder)).candidate
    cases = [
        LabelledCase(
            case=Case(inputs={"request": f"{n} goes left"}), trace_id=f"{n:032x}", candidate_id="c", role="gate",
            propensity=1.0, source="environment", answer=None,
        )
        for n in range(2)
    ]  # fmt: skip
    ids = [case.case_id for case in cases]
    arguments = str(ours.folder), ours.name, served.candidate_id, write_dataset("labelled", cases), ids
    (ours.folder / "broken").touch()
    broken = one_evaluation(*arguments)
    assert [trace.error.kind for trace in broken.result()] == ["infrastructure"] * 2
    (ours.folder / "broken").unlink()
    repaired, again = one_evaluation(*arguments), one_evaluation(*arguments)
    assert (broken.name, repaired.name, again.name) == ("Completed", "Completed", "Cached")
    assert [trace.error for trace in again.result()] == [None] * 2
