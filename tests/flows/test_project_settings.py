"""`ratchet.toml`, `--set` and a flow's parameters: which counts, what is refused, what the seed decides."""

import re
import tomllib
from pathlib import Path

import pytest
from prefect.utilities.callables import parameter_schema

from ratchet.agent.errors import BadInput
from ratchet.evaluation.data.selection import SelectionSettings
from ratchet.evaluation.drift.watch_state import WatchSettings
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.commands.init import copy_template
from ratchet.flows.improve import improve
from ratchet.flows.monitor import monitor
from ratchet.flows.project_settings import (
    SETTINGS_FILE,
    ImproveSettings,
    MonitorSettings,
    ProjectSettings,
    read_settings,
)
from ratchet.infra.settings import Settings

FILE = """
seed = 3
approved_by = "nightly"

[gate]
alpha = 0.02
min_cases = 2

[watch]
window = 30
"""

FORM = {"gate": {"alpha": 0.1}, "selection": {"gate_labels": 7}}
"""What Prefect is sent where a person fills in two fields."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / SETTINGS_FILE).write_text(FILE)
    return tmp_path


def test_what_is_set_for_a_run_stands_above_the_file_and_the_file_above_the_defaults(folder):
    alone = read_settings(folder, ImproveSettings)
    assert (alone.seed, alone.gate.alpha, alone.gate.batch) == (3, 0.02, GateSettings().batch)
    for given in (
        ["gate.alpha=0.1", "selection.gate_labels=7"],
        ImproveSettings(gate=GateSettings(alpha=0.1), selection=SelectionSettings(gate_labels=7)),
        improve.validate_parameters({"settings": FORM})["settings"],
    ):
        both = read_settings(folder, ImproveSettings, given)
        assert (both.gate.alpha, both.gate.min_cases, both.approved_by) == (0.1, 2, "nightly")
        assert both.selection == SelectionSettings(gate_labels=7)
    assert read_settings(folder, MonitorSettings) == MonitorSettings(seed=3, watch=WatchSettings(window=30))
    assert read_settings(folder / "no file there", ProjectSettings) == ProjectSettings()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("gate.alfa=0.1", "--set: there is no gate.alfa here; did you mean gate.alpha?"),
        ("alpha=0.1", "did you mean gate.alpha?"),
        ("gate.foo=1", "there is alpha, spending, min_gain, gain_worth_finding, batch, max_cases, min_cases"),
        (
            "gate.alpha=1.5",
            "--set: gate.alpha = 1.5: it must be less than 1 (> 0 and < 1); correct it, or leave it out: 0.05",
        ),
        ("gate.alpha=much", 'gate.alpha = "much": it must be a valid number (> 0 and < 1)'),
        ("gate.min_cases=true", "gate.min_cases = true: it must be a valid integer (≥ 1)"),
        ("gate=3", "gate = 3: it must be a table"),
        ("seed=-1", "seed = -1: it must be greater than or equal to 0"),
        ("gate.alpha", "--set gate.alpha: give KEY=VALUE, such as --set gate.alpha=0.1"),
    ],
)
def test_what_cannot_be_set_is_one_line_with_key_value_bound_and_remedy(tmp_path, given, said):
    with pytest.raises(BadInput, match=re.escape(said)) as refused:
        read_settings(tmp_path, ImproveSettings, [given])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gate]\nalpha = 2", "gate.alpha = 2: it must be less than 1 (> 0 and < 1)"),
        ("[gate]\nalpa = 0.1", "there is no gate.alpa here; did you mean gate.alpha?"),
        ("[gate]\nalpha = ", "cannot be read as TOML: Invalid value"),
        (b"\xff", "cannot be read as TOML"),
    ],
)
def test_a_bad_file_is_refused_even_where_the_run_would_set_another_value(tmp_path, text, said):
    path = tmp_path / SETTINGS_FILE
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=re.escape(said)) as refused:
        read_settings(tmp_path, ImproveSettings, ["gate.alpha=0.1"])
    assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize(("command", "key"), [("improve", "gate.alfa"), ("monitor", "watch.windw")])
def test_the_command_says_so_at_once_with_exit_2_and_runs_nothing(ratchet, make_project, command, key):
    ours = make_project()
    done = ratchet(command, "--project", ours.folder, "--set", f"{key}=1")
    assert done.returncode == 2
    assert f"error --set: there is no {key} here; did you mean" in done.stderr
    assert not (Settings().home / "projects" / ours.name).exists()


def test_every_setting_says_what_it_is_in_the_form_of_prefect():
    for flow in (improve, monitor):
        records = parameter_schema(flow).model_dump()["definitions"]
        fields = {
            f"{kind}.{name}": field
            for kind, one in records.items()
            for name, field in one["properties"].items()
        }
        mute = {name for name, field in fields.items() if "description" not in field and "$ref" not in field}
        assert mute == set()
        filled = {name for name, field in fields.items() if field.get("default") is not None}
        assert filled == set(), "a form that is sent as it opens must not undo what the project's file says"


def test_the_template_has_the_defaults_as_comments(tmp_path):
    copy_template(tmp_path)
    text = (tmp_path / SETTINGS_FILE).read_text()
    values = re.sub(r"^# (?=[a-z_]+ = |\[)", "", text, flags=re.MULTILINE)
    assert tomllib.loads(text) == {}
    assert len(tomllib.loads(values)) >= 4
    (whole := ProjectSettings.model_validate(tomllib.loads(values)))
    assert whole == ProjectSettings()
