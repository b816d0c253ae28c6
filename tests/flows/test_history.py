import json

from ratchet.infra.registry.ledger import grant_budget


def test_every_version_stands_with_its_evidence_its_maker_and_its_cost(ratchet, past):
    done = ratchet("history", "--name", past.project)
    assert done.returncode == 0
    assert done.stdout == ""
    for version in (past.first, past.champion, past.proven, past.refused):
        assert version.candidate_id[:8] in done.stderr
    for text in ("experience from v1", "0.667", "61.2 s", "promote", "reject", "for harm", "champion"):
        assert text in done.stderr


def test_who_moved_the_champion_and_why_is_told(ratchet, past):
    told = " ".join(ratchet("history", "--name", past.project).stderr.split())
    assert "v2 promoted instead of v1 anna read the evidence" in told


def test_what_of_the_error_budget_is_spent_is_told(ratchet, past):
    assert "3 tests, 0.0414 of 0.05" in ratchet("history", "--name", past.project).stderr


def test_no_line_is_longer_than_100_columns(ratchet, past):
    lines = ratchet("history", "--name", past.project).stderr.splitlines()
    assert max(map(len, lines)) <= 100


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
