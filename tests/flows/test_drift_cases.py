"""`ratchet drift` on files as teams have them: each is read right or refused in one line that says what to do."""

import json
import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RATCHET_SHARED", Path(__file__).resolve().parents[3] / "shared"))
CASES = SHARED / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is absent: put the odd files there")

USUAL = "20_reference.jsonl"


@pytest.fixture
def drift(ratchet):
    def run(reference, current, *options):
        return ratchet("drift", CASES / reference, CASES / current, *options)

    return run


REFUSED = [
    ("20", USUAL, "20_current_text_renamed.jsonl", ["no column 'text'", "question", "--column"]),
    (
        "22",
        "22_unquoted_reference.csv",
        "22_unquoted_current.csv",
        [":2: 3 cells, the header names 2", "quote"],
    ),
    ("24-list", USUAL, "24_steps_list.jsonl", [":1: steps is a list", "rename"]),
    ("24-object", USUAL, "24_judge_object.jsonl", [":1: judge is an object", "rename"]),
    ("25", USUAL, "25_outcome_words.jsonl", [":1: outcome = 'failure'", "not a number", "pass/fail"]),
    ("30", USUAL, "30_latin1.csv", [":42: not UTF-8", "Windows-1252", "save"]),
    ("31", "31_no_header.csv", "31_no_header.csv", ["first row looks like data", "header"]),
]


@pytest.mark.parametrize(
    ("reference", "current", "said"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_what_cannot_be_read_is_refused_in_one_short_line(drift, reference, current, said):
    done = drift(reference, current, "--json")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    for words in said:
        assert words in done.stderr
    assert len(done.stderr) < 500
    assert "Traceback" not in done.stderr


READ = [
    ("23", USUAL, "23_cut_emoji.jsonl"),
    ("23-swapped", "23_cut_emoji.jsonl", USUAL),
    ("28", USUAL, "28_long_cell.csv"),
    ("29", USUAL, "29_semicolons.csv"),
    ("29-second", USUAL, "29_semicolons_2.csv"),
    ("35", USUAL, "35_epoch.jsonl"),
    ("36", USUAL, "36_bytes.parquet"),
    ("37-itself", "37_running_ids_reference.csv", "37_running_ids_reference.csv"),
    ("37-later", "37_running_ids_reference.csv", "37_running_ids_current.csv"),
    ("37-longer", "37_running_ids_reference.csv", "37_running_ids_4_digits.csv"),
]


@pytest.mark.parametrize(("reference", "current"), [c[1:] for c in READ], ids=[c[0] for c in READ])
def test_what_can_be_read_is_read_and_is_no_drift(drift, reference, current):
    done = drift(reference, current, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["drift"] is False


def test_21_a_column_that_is_gone_is_named_as_not_compared(drift):
    done = drift(USUAL, "21_current_tool_gone.jsonl", "--json")
    assert done.returncode == 0
    assert "tool is absent in" in done.stderr
    assert "not compared" in done.stderr
    assert json.loads(done.stdout)["not_compared"] == ["tool"]


@pytest.mark.parametrize("name", ["26_report_empty_text.csv", "27_report_constant.csv"], ids=["26", "27"])
def test_a_report_is_written_beside_the_verdict(drift, tmp_path, name):
    done = drift(name, name, "--report", tmp_path / "r.html", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["drift"] is False
    assert "Drift evidence" in (tmp_path / "r.html").read_text()


def test_32_columns_that_were_asked_for_and_came_empty_are_the_drift(drift):
    asked = ("--category", "cat", "--number", "num")
    done = drift("32_columns_reference.csv", "32_columns_current_null.csv", *asked, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["emptied"] == ["cat", "num"]
    told = drift("32_columns_reference.csv", "32_columns_current_null.csv", *asked)
    assert "cat and num are empty in all" in told.stderr


def test_33_a_group_of_texts_without_blanks_is_named_by_what_recurs_in_it(drift):
    done = drift("33_chinese_reference.csv", "33_chinese_current.csv", "--json")
    assert done.returncode == 3
    clusters = json.loads(done.stdout)["attribution"]["clusters"]
    assert any("酒店" in cluster["name"] for cluster in clusters)
    texts = (CASES / "33_chinese_current.csv").read_text().split("\n")
    assert not any(cluster["name"] in texts for cluster in clusters)
