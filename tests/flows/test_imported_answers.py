"""An imported log changes what an agent in Python is shown: its challenger recalls what another agent answered."""

import json

import pytest

from ratchet.agent.memory.snapshot import Memory
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.improve import improve
from ratchet.flows.project_settings import ImproveSettings
from ratchet.infra.registry.registry import champion, fetch_files, version_history

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("prefect_server")]

RULES = ImproveSettings(gate=GateSettings(min_cases=2), approved_by="a policy")
DESK = '''"""Scripted: it says what its nearest example says, else the first shelf."""
from pathlib import Path

import ratchet
from ratchet import Case, Project, Replay

SHELVES = {"kettles": "shelf 1", "lamps": "shelf 2"}
desk_prompt = ratchet.prompt("desk", default="Say which shelf.")


def desk(request):
    desk_prompt()
    shown = ratchet.examples("desk", request)
    return shown[-1]["content"] if shown else "shelf 1"


def waiting():
    return [Case(inputs={"request": one}) for one in Path(__file__).with_name("asked.txt").read_text().splitlines()]


project = Project(
    name="__NAME__", agent=desk, parts=[desk_prompt], effects="none", traffic=waiting, scores_itself=True,
    score=lambda case, answer: float(answer == SHELVES[case.inputs["request"].split()[1]]), proposers=(Replay(),),
)
'''


def requests(numbers):
    """Half of them for kettles, half for lamps; no two are nearly the same."""
    return [f"{n:03d}{chr(97 + n % 26) * 9} {('kettles', 'lamps')[n % 2]} where" for n in numbers]


def log_of(path, asked, shelf):
    """Exported by Langfuse: the other agent looked first, and a person gave a thumb up."""
    rows = []
    for number, text in enumerate(asked):
        call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
        said = [
            {"role": "user", "content": text},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "found"},
        ]
        generation = {
            "id": f"o{number}", "traceId": f"t{number}", "parentObservationId": None, "type": "GENERATION", "model": "old-agent",
            "startTime": "2026-03-02T09:00:00Z", "input": said, "output": {"role": "assistant", "content": shelf},
        }  # fmt: skip
        score = {
            "name": "thumbs",
            "stringValue": "up",
            "value": 1,
            "dataType": "BOOLEAN",
            "source": "ANNOTATION",
        }
        rows.append({"trace": {"id": f"t{number}", "scores": [score]}, "observations": [generation]})
    path.write_text(json.dumps(rows))
    return path


def test_the_challenger_of_a_callable_recalls_imported_message_pairs_and_is_better_by_them(
    project, tmp_path, ratchet
):
    folder = tmp_path / project
    folder.mkdir()
    (folder / "project.py").write_text(DESK.replace("__NAME__", project))
    (folder / "asked.txt").write_text("\n".join(requests(range(100))))
    theirs = [one for one in requests(range(500, 540)) if "lamps" in one]
    done = ratchet("import", log_of(tmp_path / "export.json", theirs, "shelf 2"), "--project", folder)
    assert done.returncode == 0, done.stderr
    assert "20 labels are new" in done.stderr
    report = improve(str(folder), RULES)
    made = version_history(project)[-1]
    memory = Memory.load(fetch_files(project, made.candidate_id)["memory"])
    pairs = {(one.observation, one.said) for one in memory.experiences if one.imported_from}
    assert pairs, "the export teaches"
    assert pairs <= {(text, "shelf 2") for text in theirs}
    assert "imported logs of old-agent" in made.candidate.origin.note
    assert report.judged, report
    assert champion(project).candidate_id == made.candidate_id, report.judged
