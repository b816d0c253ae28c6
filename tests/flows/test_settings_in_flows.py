"""The project's settings in a real run of `improve`: taken without parameters, logged whole, one seed."""

import pytest
from mlflow.artifacts import load_dict
from tests.flows.test_project_settings import FILE

from ratchet.evaluation.data.cases import LabelledCase
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.improve import improve
from ratchet.flows.project_settings import SETTINGS_FILE, ImproveSettings, read_settings
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.version import find_version
from ratchet.infra.store.dataset_store import read_dataset

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("prefect_server", "scripted_lm")]


def requests(n):
    return [f"{number:03d}{chr(97 + number) * 9} goes {('left', 'right')[number % 2]}" for number in range(n)]


def test_a_run_without_parameters_takes_the_projects_file(make_project):
    ours = make_project(scores_itself=False)
    ours.ask(*requests(16))
    (ours.folder / SETTINGS_FILE).write_text("[selection]\ngate_labels = 2\ntrain_labels = 3\n")
    assert improve(str(ours.folder)).asked.n_asked == 5


def test_the_settings_of_a_round_stand_whole_beside_each_version_that_it_judged(make_project):
    ours = make_project()
    ours.ask(*requests(20))
    (ours.folder / SETTINGS_FILE).write_text(FILE)
    report = improve(str(ours.folder), ImproveSettings(gate=GateSettings(batch=8)))
    (judged,) = report.judged
    connection = connect(ours.name)
    run_id = find_version(connection, judged.candidate_id).run_id
    logged = ImproveSettings.model_validate(load_dict(f"runs:/{run_id}/settings.json"))
    given = ImproveSettings(gate=GateSettings(batch=8))
    assert logged == read_settings(ours.folder, ImproveSettings, given)
    assert (logged.seed, logged.gate.alpha, logged.gate.batch) == (3, 0.02, 8)


def test_one_seed_decides_the_split_and_the_same_seed_teaches_the_same(make_project):
    ours = make_project(proposers="*()")  # what is learned from them is another test's
    ours.ask(*requests(20))
    sides = []
    for seed in (0, 1, 0):
        report = improve(str(ours.folder), ImproveSettings(seed=seed, gate=GateSettings(min_cases=21)))
        cases = read_dataset(report.data.labelled, LabelledCase)
        sides.append(({c.case_id for c in cases if c.role == "gate"}, report.data.training.digest))
    assert sides[0] == sides[2]
    assert sides[0][0] != sides[1][0]
