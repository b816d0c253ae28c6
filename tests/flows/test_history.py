import json
import re
from io import StringIO

from rich.console import Console

from ratchet.flows.commands.history import lines
from ratchet.infra.registry.ledger import grant_budget
from ratchet.infra.registry.registry import version_history


def test_a_version_is_one_line_on_a_terminal_of_80_columns(ratchet, past):
    done = ratchet("history", "--name", past.project, columns=80)
    assert (done.returncode, done.stdout) == (0, "")
    lines = [line.rstrip() for line in done.stderr.splitlines()]
    day = r"20\d\d-\d\d-\d\d"
    for number, rest in enumerate(
        (
            "hand +– +– +– +previous",
            r"experience +proven +\+0\.90 \+0\.78…\+0\.97 +0\.667 +champion",
            r"prompt +proven +\+0\.90 \+0\.78…\+0\.97 +0\.667",
            r"planted +refused +-0\.90 -0\.97…-0\.78 +0\.667",
        ),
        start=1,
    ):
        assert [line for line in lines if re.fullmatch(f"v{number} +{day} +{rest}", line)], done.stderr
    assert max(map(len, lines)) <= 80


def test_the_longest_of_our_own_names_leaves_room_for_the_whole_line(past):
    version = version_history(past.project)[1]
    origin = version.candidate.origin.model_copy(update={"proposer": "trajectories"})
    candidate = version.candidate.model_copy(update={"origin": origin})
    changed = version.model_copy(update={"aliases": ("challenger",), "candidate": candidate, "number": 12})
    console = Console(width=80, record=True, file=StringIO())
    console.print(lines([changed], "t"))
    (row,) = [line for line in console.export_text().splitlines() if line.startswith("v12")]
    assert row.split()[2:] == ["trajectories", "proven", "+0.90", "+0.78…+0.97", "0.667", "challenger"]


def test_what_of_the_error_budget_is_spent_is_told(ratchet, past):
    assert "3 tests, 0.00964 of 0.05" in ratchet("history", "--name", past.project).stderr


def test_json_is_one_object_with_versions_and_ledger(ratchet, past):
    done = ratchet("history", "--name", past.project, "--json")
    answer = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert [v["decision"] for v in answer["versions"]] == [None, "promote", "promote", "reject"]
    assert answer["versions"][1]["aliases"] == ["champion"]
    assert answer["versions"][1]["candidate"]["parent"] == past.first.candidate_id
    assert answer["ledger"]["tests"] == 3
    assert answer["ledger"]["left"] + answer["ledger"]["spent"] == 0.05


def test_a_budget_that_a_person_granted_is_shown_with_name_and_reason(ratchet, own_past):
    grant_budget(own_past.project, granted_by="bert", because="a new product line")
    told = " ".join(ratchet("history", "--name", own_past.project).stderr.split())
    assert "budget 2 (granted by bert: a new product line)" in told


def test_an_unknown_name_is_one_line_that_lists_those_known_and_exits_with_2(ratchet, past):
    done = ratchet("history", "--name", "typo")
    assert done.returncode == 2
    assert "no project 'typo'" in done.stderr
    assert past.project in done.stderr


def test_nowhere_at_all_is_one_line_and_leaves_nothing_behind(ratchet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = ratchet("history")
    assert done.returncode == 2
    assert "nothing was registered yet" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_project_is_refused_even_where_one_project_exists(ratchet, tmp_path):
    done = ratchet("history", "--project", tmp_path)
    assert done.returncode == 2
    assert "no project.py in" in done.stderr
