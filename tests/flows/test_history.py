import json
import re

from ratchet.infra.registry.ledger import grant_budget


def test_a_version_is_one_line_on_a_terminal_of_80_columns(ratchet, past):
    done = ratchet("history", "--name", past.project, columns=80)
    assert (done.returncode, done.stdout) == (0, "")
    lines = [line.rstrip() for line in done.stderr.splitlines()]
    day = r"20\d\d-\d\d-\d\d \d\d:\d\d"
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


def test_what_of_the_error_budget_is_spent_is_told(ratchet, past):
    assert "3 tests, 0.0414 of 0.05" in ratchet("history", "--name", past.project).stderr


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
