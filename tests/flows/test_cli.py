"""The command line: every command is listed without being imported, explains itself, and completes in a shell."""

import os
import subprocess
import sys
from unittest.mock import patch

import pytest

from ratchet.flows.cli import COMMANDS

MAIN = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'ratchet'; from ratchet.flows.cli import main; main()",
]


def completed(words: str, **more: str) -> list[str]:
    asked = {"_RATCHET_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(MAIN, env=os.environ | asked | more, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_help_has_one_line_for_each_command_on_a_terminal_of_80_columns(ratchet, monkeypatch):
    lines = ratchet("--help", columns=80).stdout.splitlines()
    told = {tuple(line.strip("│ ").split(maxsplit=1)) for line in lines if line.startswith("│")}
    assert {(name, text) for name, (_, text) in COMMANDS.items()} <= told


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_own_help_begins_with_its_line_in_the_table_and_leaves_nothing_behind(
    ratchet, name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", ".ratchet")
    with patch.dict(os.environ):  # it sets what Prefect reads
        done = ratchet(name, "--help")
    assert list(tmp_path.iterdir()) == []
    assert done.returncode == 0
    assert "--install-completion" not in done.stdout, "that is the whole program's"
    usage, line = [line.strip() for line in done.stdout.splitlines() if line.strip()][:2]
    assert f" {name} [OPTIONS]" in usage
    assert line == COMMANDS[name][1]


def test_a_command_that_is_mistyped_is_bad_input_and_the_right_one_is_named(ratchet):
    done = ratchet("improv")
    assert done.returncode == 2
    assert "Did you mean 'improve'" in done.stderr


def test_a_shell_completes_commands_subcommands_and_options_and_leaves_nothing_behind(tmp_path):
    assert completed("ratchet im") == ["improve", "import"]
    assert completed("ratchet label a") == ["answer"]
    assert completed("ratchet gate --min") == ["--min-gain", "--min-propensity"]
    assert completed("ratchet improve --proj", RATCHET_HOME=str(tmp_path / "home")) == ["--project"]
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_runs_no_flow_loads_no_prefect_which_makes_its_home_when_it_is_imported():
    runs = ("demo", "improve")
    modules = {place.partition(":")[0] for place, _ in COMMANDS.values()} - {*runs}
    names = ", ".join(f"ratchet.flows.commands.{module}" for module in sorted(modules))
    heavy = {"prefect", "dspy", "torch", "transformers", "evidently", "matplotlib"}
    code = f"import sys, {names}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
