"""Serving a scripted project: what the LM gets wrong is recorded, what was served is not served again."""

import pytest

from ratchet.agent.errors import BadInput
from ratchet.agent.project import load_project
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.registry import champion, version_history
from ratchet.infra.traces.write import collect
from ratchet.tasks.collect import collect_new, traces_by_id
from ratchet.tasks.labels import select_traces
from ratchet.tasks.serve import first_champion, not_served, serve_waiting

of_litellm = pytest.mark.filterwarnings("ignore::Warning")


@of_litellm
def test_garbage_from_the_lm_is_a_recorded_error_and_the_others_are_served(make_project, scripted_lm):
    ours = make_project()
    ours.ask("garbage left", "plain left")
    assert serve_waiting.fn(str(ours.folder)) == 2
    by_request = {t.case.inputs["request"]: t for t in collect(ours.name).traces}
    broken, whole = by_request["garbage left"], by_request["plain left"]
    assert broken.error.kind == "agent"
    assert "I would rather not say." in broken.error.message
    assert broken.score is None
    assert (whole.error, whole.score) == (None, 1.0)


@of_litellm
def test_an_lm_that_does_not_answer_is_a_recorded_error_and_nobody_is_asked_about_it(
    make_project, monkeypatch
):
    monkeypatch.setenv("SCRIPTED_MODEL", "openai/scripted")
    monkeypatch.setenv("RATCHET_LM_API_BASE", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("RATCHET_LM_API_KEY", "x")
    ours = make_project(scores_itself=False)
    ours.ask("one left")
    assert serve_waiting.fn(str(ours.folder)) == 1
    collection = collect_new.fn(ours.name)
    (trace,) = traces_by_id(ours.name).values()
    assert trace.error.kind == "infrastructure"
    assert trace.score is None
    from ratchet.evaluation.data.selection import SelectionSettings

    assert select_traces(ours.name, collection, SelectionSettings()) == []


def test_what_was_served_is_not_served_again_and_new_requests_are(make_project):
    ours = make_project()
    ours.ask("one left", "two right")
    assert serve_waiting.fn(str(ours.folder)) == 2
    collect_new.fn(ours.name)
    ours.ask("one left", "two right", "three left")
    from ratchet.agent.project import load_project

    assert [case.inputs["request"] for case in not_served(load_project(ours.folder))] == ["three left"]
    assert serve_waiting.fn(str(ours.folder)) == 1
    collect_new.fn(ours.name)
    assert len(traces_by_id(ours.name)) == 3


def test_the_first_champion_is_registered_once(make_project):
    from ratchet.agent.project import load_project

    ours = make_project()
    first = first_champion(load_project(ours.folder))
    assert serve_waiting.fn(str(ours.folder)) == 0
    assert champion(ours.name).candidate_id == first.candidate_id
    assert champion(ours.name).number == 1


@of_litellm
def test_a_missing_alias_does_not_bring_back_the_first_day(make_project, scripted_lm):
    ours = make_project()
    first = first_champion(load_project(ours.folder))
    connect(ours.name).client.delete_registered_model_alias(ours.name, "champion")
    ours.ask("plain left")
    with pytest.raises(BadInput, match=f"versions but no champion.*puts {first.candidate_id} back"):
        serve_waiting.fn(str(ours.folder))
    assert champion(ours.name) is None
    assert [event.action for event in version_history(ours.name)[0].events] == ["promoted"]
    assert collect(ours.name).traces == ()
