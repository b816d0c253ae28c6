"""A `.ratchet` that the version before `import ratchet` left behind opens as it was: nothing renamed is stored.

`released_home.tar.xz` was written by that version's own tests' past: four versions (one promoted over another, one
proven, one refused), three traces, one label; `facts.json` says what it read back then.
"""

import json
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ratchet.agent.errors import RatchetError
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.registry import champion, promote, roll_back, version_history
from ratchet.infra.registry.version_files import fetch_files
from ratchet.infra.traces.write import collect
from ratchet.tasks.collect import collect_new

PROJECT = "released"
LAY_AT = "/RELEASED"
PATHS = {
    "runs": "artifact_uri",
    "trace_tags": "value",
    "logged_models": "artifact_location",
    "experiments": "artifact_location",
    "model_versions": "storage_location",
}


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The home, unpacked here; MLflow notes absolute places, which are those of this machine now."""
    with tarfile.open(Path(__file__).with_name("released_home.tar.xz")) as packed:
        packed.extractall(tmp_path, filter="data")
    with sqlite3.connect(tmp_path / "home" / "mlflow.db") as database:
        for table, column in PATHS.items():
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (LAY_AT, str(tmp_path))
            )
    database.close()
    state = tmp_path / "home" / "projects" / PROJECT / "state.json"
    state.write_text(state.read_text().replace(LAY_AT, str(tmp_path)))
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    found: dict[str, Any] = json.loads((tmp_path / "facts.json").read_text())
    return found


def test_versions_verdicts_traces_labels_and_the_budget_are_what_they_were(facts):
    versions = version_history(PROJECT)
    assert [[v.number, v.candidate_id, v.reason] for v in versions] == [
        [v["number"], v["candidate_id"], v["reason"]] for v in facts["versions"]
    ]
    assert [v.candidate.candidate_id for v in versions] == [v["candidate_id"] for v in facts["versions"]]
    assert champion(PROJECT).candidate_id == facts["champion"]
    tests = [[test.candidate, test.decision, test.alpha_k] for test in read_ledger(PROJECT).current]
    assert tests == facts["ledger"]
    found = collect(PROJECT)
    assert sorted(trace.trace_id for trace in found.traces) == facts["traces"]
    assert [[label.trace_id, label.expected, label.rater] for label in found.labels] == facts["labels"]


def test_it_goes_on_from_there(facts):
    proven, refused = (version["candidate_id"] for version in facts["versions"][2:])
    assert collect_new.fn(PROJECT).n_new_traces == 0
    assert fetch_files(PROJECT, proven) == {}
    with pytest.raises(RatchetError):
        promote(PROJECT, refused, approved_by="anna", reason="no")
    roll_back(PROJECT, by="anna", reason="back to the first")
    assert champion(PROJECT).number == 1
