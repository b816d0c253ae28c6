"""`ratchet gate` on files as teams have them: a pair is read as it was meant, or the file is refused in one line."""

import json
import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RATCHET_SHARED", Path(__file__).resolve().parents[3] / "shared"))
CASES = SHARED / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is absent: put the odd files there")


@pytest.mark.parametrize(
    "seen",
    ["40_seen_array.json", "40_seen_quoted.txt", "40_seen_table.csv"],
    ids=["40-array", "40-quoted", "40-table"],
)
def test_a_seen_case_is_refused_however_its_id_was_written_down(ratchet, seen):
    done = ratchet("gate", CASES / "40_pairs.jsonl", "--seen", CASES / seen)
    assert done.returncode == 2
    assert "case 'c0' was seen by the proposer" in done.stderr


READ = [
    ("41", "41_bom.jsonl"),
    ("42-true", "42_true_false.csv"),
    ("42-pass", "42_pass_fail.csv"),
    ("42-comma", "42_decimal_comma.csv"),
    ("43", "43_number_ids.jsonl"),
    ("44", "44_excel_blank_rows.csv"),
]


@pytest.mark.parametrize("name", [c[1] for c in READ], ids=[c[0] for c in READ])
def test_pairs_are_read_as_they_were_meant(ratchet, name):
    done = ratchet("gate", CASES / name, "--json")
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert (verdict["decision"], verdict["n_labelled"]) == ("promote", 60)


REFUSED = [
    ("45", "45_same_id_twice_but_blank.csv", [":3: case_id 'case 0' appears twice"]),
    ("46", "46_double_header.csv", ["'champion' twice", "challenger is missing"]),
]


@pytest.mark.parametrize(("name", "said"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_what_would_count_wrong_is_refused(ratchet, name, said):
    done = ratchet("gate", CASES / name, "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    for words in said:
        assert words in done.stderr
