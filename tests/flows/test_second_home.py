"""A second person improves the same project from a home of their own, on the same MLflow."""

import pytest

from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.improve import improve
from ratchet.flows.project_settings import ImproveSettings
from ratchet.infra.registry.gate_cases import spent_cases
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.registry import champion, version_history
from ratchet.infra.store.project_state import project_folder

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("prefect_server", "scripted_lm")]


def run(ours, model):
    rules = ImproveSettings(gate=GateSettings(min_cases=2), approved_by="a policy", model=model)
    return improve(str(ours.folder), rules)


def test_cases_that_judged_once_never_judge_again_in_whatever_home(
    make_project, mlflow_home, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_home}/mlflow.db")
    ours = make_project()
    ours.ask(*(f"{n:03d}{chr(97 + n) * 9} goes {('left', 'right')[n % 2]}" for n in range(24)))
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "anna"))
    first = run(ours, "openai/second")
    (open_one,) = first.judged
    assert open_one.verdict.n_labelled > 0

    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "ben"))
    second = run(ours, "openai/third")
    assert second.served == 0
    assert second.judged == first.judged, "anna's test goes on, and ben's gate found no case for another"

    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "anna"))
    (project_folder(ours.name) / "state.json").unlink()
    third = run(ours, "openai/fourth")
    assert (third.served, third.judged) == (0, first.judged)
    assert spent_cases(ours.name) == frozenset(), "the test is open yet"
    assert len(read_ledger(ours.name).entries) == 1, "no share was spent for nothing"
    assert len(version_history(ours.name)) == 4
    assert champion(ours.name).number == 1
