"""Two runs at once on one project, each a process of its own, as a person and the schedule start them."""

import os
import subprocess
import sys

import pytest

from ratchet.infra.registry.registry import version_history
from ratchet.infra.traces.write import collect

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def start(scripted_lm):
    """Start `ratchet improve` on a project; what it says comes with the process."""
    from prefect.settings import PREFECT_API_URL

    def begin(folder) -> subprocess.Popen[str]:
        given = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value(), "COLUMNS": "200"}
        command = [
            sys.executable,
            "-c",
            "from ratchet.flows.cli import main; main()",
            "improve",
            "--project",
            str(folder),
        ]
        return subprocess.Popen(
            command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return begin


def test_two_runs_at_once_serve_each_request_once(make_project, start):
    ours = make_project()
    ours.ask(*(f"request {number} goes {('left', 'right')[number % 2]}" for number in range(24)))
    both = [start(ours.folder) for _ in range(2)]
    said = [one.communicate(timeout=300)[0] for one in both]
    assert [one.returncode for one in both] == [3, 3], said
    assert len(collect(ours.name).traces) == 24, said
    assert [version.number for version in version_history(ours.name)][:1] == [1]
    waited = [text for text in said if "waiting: `ratchet improve` (process" in text]
    assert len(waited) == 1, said
