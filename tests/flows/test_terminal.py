"""With `--json`, stdout is one JSON object, whatever libraries and processes print there."""

import json
import subprocess
import sys

import pytest

PRINTS = """
import subprocess, sys
import typer
from ratchet.flows import cli
from ratchet.flows.commands.terminal import emit_json

@cli.app.command("chatty")
def chatty(as_json: bool = typer.Option(False, "--json"), fails: str = "") -> None:
    print("🏃 View run at: http://…")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    if fails:
        raise {"disk": OSError(28, "No space left on device", "/data/x"), "bug": KeyError("x")}[fails]
    emit_json({"answer": 1})
    print("afterwards")

cli.main()
"""


def run(*arguments):
    command = [sys.executable, "-c", PRINTS, "chatty", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_others_print_goes_to_stderr():
    done = run("--json")
    assert json.loads(done.stdout) == {"answer": 1}
    assert all(text in done.stderr for text in ("View run", "from a child", "afterwards"))
    assert done.returncode == 0


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_full_disk_is_one_line_and_exit_2(more):
    done = run("--fails", "disk", *more)
    assert done.returncode == 2
    assert "the disk is full (/data/x): free space and repeat" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fault_of_ours_is_shown_whole():
    assert "Traceback" in run("--fails", "bug").stderr
