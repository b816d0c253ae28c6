import os
from pathlib import Path

import pytest

from ratchet.agent.errors import BadInput
from ratchet.infra.mlflow_client import without_password
from ratchet.infra.settings import Settings, prepare_environment


def test_everything_local_lies_below_home(tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "a"))
    assert Settings().tracking_uri == f"sqlite:///{tmp_path}/a/mlflow.db"


def test_a_relative_home_is_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", "state")
    assert Settings().home == tmp_path / "state"


def test_mlflow_s_own_variable_is_honoured_and_ours_wins(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://one")
    assert Settings().tracking_uri == "http://one"
    monkeypatch.setenv("RATCHET_TRACKING_URI", "http://two")
    assert Settings().tracking_uri == "http://two"


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert Settings().tracking_uri.startswith("sqlite:///")


def test_dot_env_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("RATCHET_LM=openai/gpt-x\nRATCHET_LM_API_KEY=hush\nOTHER=1\n")
    settings = Settings()
    assert settings.lm == "openai/gpt-x"
    assert "hush" not in repr(settings)


def test_a_person_s_own_environment_stays(monkeypatch):
    monkeypatch.setenv("DO_NOT_TRACK", "no")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    prepare_environment()
    assert (os.environ["DO_NOT_TRACK"], os.environ["MLFLOW_DISABLE_TELEMETRY"]) == ("no", "true")


def test_a_password_in_a_uri_is_not_shown():
    assert without_password("postgresql://me:hush@db/mlflow") == "postgresql://me:***@db/mlflow"
    assert without_password("https://me:hush@host:5000") == "https://host:5000"


def test_an_endpoint_gets_what_is_set_and_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setenv("RATCHET_LM_API_KEY", "hush")
    monkeypatch.setenv("RATCHET_LM_TIMEOUT_S", "7")
    assert Settings().endpoint == {"api_key": "hush", "timeout": 7, "concurrency": 8}


@pytest.mark.parametrize(
    ("variable", "value", "bound"),
    [
        ("RATCHET_LM_CONCURRENCY", "0", "greater than or equal to 1"),
        ("RATCHET_LM_CONCURRENCY", "many", "valid integer"),
        ("RATCHET_LM_CONCURRENCY", "101", "less than or equal to 100"),
        ("RATCHET_LM_TIMEOUT_S", "-1", "greater than 0"),
    ],
)
def test_a_setting_out_of_bounds_is_one_line_with_value_bound_and_remedy(monkeypatch, variable, value, bound):
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadInput, match=rf"^{variable} is '{value}': .*{bound}.*correct it in .*`\.env`$"):
        Settings()
