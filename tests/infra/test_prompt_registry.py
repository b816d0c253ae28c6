"""Prompts in MLflow's registry: exactly what is served, owned, and following the one pointer that decides."""

import json
import os

import pytest
from mlflow import MlflowClient
from tests.evidence import give_verdict

from ratchet.agent.candidate import IN_CODE, Candidate, Demo, Predictor
from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.agent.part_values import prompt_text
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.promotion import promote, roll_back, settle_moves
from ratchet.infra.registry.prompts import prompts_behind
from ratchet.infra.registry.registry import champion, register

BETTER = decide(
    [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)], alpha=0.001
)


def candidate(prompts, **changes):
    told = {"kind": "callable", "base_model": IN_CODE, "predictors": prompts}
    return Candidate(**(told | changes))


def registered(project, made):
    return register(project, made, files={}, seen_case_ids=[], cost={}).candidate_id


def approve(project, candidate_id):
    promote(project, candidate_id, approved_by="anna", reason="proven")


def pointed(project, prompt):
    return connect(project).client.get_prompt_version_by_alias(prompt, "champion")


@pytest.fixture
def two(project):
    """Two versions with the prompts `-plan` and `-say`, of which the second changes one; the first serves."""
    plan, say = f"{project}-plan", f"{project}-say"
    demos = (Demo(inputs="q", output="a"),)
    first = registered(
        project, candidate({plan: Predictor(instructions="Plan."), say: Predictor(instructions="Say.")})
    )
    approve(project, first)
    changed = {plan: Predictor(instructions="Plan.", demos=demos), say: Predictor(instructions="Say.")}
    second = registered(project, candidate(changed))
    give_verdict(project, second, first, BETTER)
    return first, second


def test_the_registry_shows_what_is_served_and_the_version_names_it_by_number(project, two):
    plan, say = f"{project}-plan", f"{project}-say"
    client = connect(project).client
    named = [
        json.loads(client.get_model_version(project, number).tags["ratchet.prompts"]) for number in ("1", "2")
    ]
    assert named == [{plan: 1, say: 1}, {plan: 2, say: 1}], "no new version for a text that is there"
    shown = client.get_prompt_version(plan, "2").template
    assert shown == prompt_text(Predictor(instructions="Plan.", demos=(Demo(inputs="q", output="a"),)))
    assert client.get_prompt(plan).tags["ratchet.project"] == project
    assert client.get_registered_model(project).tags[f"ratchet.part.{plan}"] == "prompt"


def test_tools_models_and_shares_of_the_experience_are_rows_of_the_comparison(project):
    made = candidate(
        {f"{project}-p": Predictor(instructions="P.")},
        tools={"find": "Find an order."},
        models={"ask": "big"},
    )
    run = connect(project).client.get_run(register(project, made, files={}, seen_case_ids=[], cost={}).run_id)
    assert (run.data.params["tool.find"], run.data.params["model.ask"]) == ("Find an order.", "big")


def test_a_prompt_s_champion_follows_promotion_and_rollback(project, two):
    _, second = two
    plan = f"{project}-plan"
    assert pointed(project, plan).version == 1
    approve(project, second)
    assert (pointed(project, plan).version, prompts_behind(project)) == (2, {})
    roll_back(project, by="anna", reason="worse")
    assert (pointed(project, plan).template, prompts_behind(project)) == ("Plan.", {})


def test_a_prompt_that_a_person_moved_is_seen_and_mended(project, two):
    plan = f"{project}-plan"
    connect(project).client.set_prompt_alias(plan, "champion", 2)
    assert prompts_behind(project) == {plan: 1}
    settle_moves(project)
    assert (pointed(project, plan).version, prompts_behind(project)) == (1, {})


def test_a_prompt_that_a_person_deleted_stops_no_run(project, two, caplog):
    _, second = two
    plan = f"{project}-plan"
    connect(project).client.delete_prompt_version(plan, "2")
    approve(project, second)
    settle_moves(project)
    assert champion(project).candidate_id == second
    assert prompts_behind(project) == {plan: 2}
    assert f"prompt {plan} has no version 2 any more" in caplog.text


def test_a_promotion_whose_prompts_could_not_follow_says_so_and_is_ended_by_the_same_command(
    project, two, monkeypatch
):
    _, second = two
    real = MlflowClient.set_prompt_alias

    def refuse(*_, **__):
        raise OSError("connection lost")

    monkeypatch.setattr(MlflowClient, "set_prompt_alias", refuse)
    with pytest.raises(ServiceUnavailable, match="repeat"):
        approve(project, second)
    monkeypatch.setattr(MlflowClient, "set_prompt_alias", real)
    assert champion(project).candidate_id == second
    assert prompts_behind(project) == {f"{project}-plan": 2}
    approve(project, second)
    assert prompts_behind(project) == {}


def _die_before_prompts(home, project, candidate_id):
    os.environ["RATCHET_HOME"] = home
    MlflowClient.set_prompt_alias = lambda *_, **__: os._exit(9)
    approve(project, candidate_id)


def test_a_kill_between_the_model_s_alias_and_the_prompt_s_is_mended_by_the_next_run(
    project, two, mlflow_home, spawn
):
    _, second = two
    child = spawn.Process(target=_die_before_prompts, args=(str(mlflow_home), project, second))
    child.start()
    child.join(timeout=120)
    assert child.exitcode == 9
    assert champion(project).candidate_id == second
    assert prompts_behind(project) == {f"{project}-plan": 2}
    settle_moves(project)
    assert pointed(project, f"{project}-plan").version == 2


def test_a_prompt_that_is_nobody_s_is_adopted_with_its_versions(project):
    client, page = connect(project).client, f"{project}-system"
    client.register_prompt(page, "theirs")
    client.set_prompt_alias(page, "production", 1)
    made = registered(project, candidate({page: Predictor(instructions="ours")}))
    approve(project, made)
    assert pointed(project, page).template == "ours"
    assert client.get_prompt_version_by_alias(page, "production").template == "theirs"
    assert client.get_prompt(page).tags["ratchet.project"] == project


def test_a_prompt_that_serves_somebody_else_is_refused_before_anything_is_written(project):
    client, page = connect(project).client, f"{project}-system"
    client.register_prompt(page, "theirs")
    client.set_prompt_alias(page, "champion", 1)
    with pytest.raises(BadInput, match="its alias `champion` is not Ratchet's: give the part another name"):
        registered(project, candidate({page: Predictor(instructions="ours")}))
    client.delete_prompt_alias(page, "champion")
    client.set_prompt_tag(page, "ratchet.project", "sales")
    with pytest.raises(BadInput, match="is a part of project 'sales': give the part another name"):
        registered(project, candidate({page: Predictor(instructions="ours")}))
    for name, why in ((project, "own name"), ("a b", "characters that MLflow refuses")):
        with pytest.raises(BadInput, match=why):
            registered(project, candidate({name: Predictor(instructions="ours")}))
    assert client.search_model_versions(f"name = '{project}'") == []
