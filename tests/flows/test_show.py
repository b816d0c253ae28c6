"""`ratchet show VERSION`: the sentences about one version; and the words for verdicts, the same everywhere."""

import json
import re

import pytest

from ratchet.evaluation.gate.verdict import SAID


def told(done):
    return " ".join(done.stderr.split())


def test_how_it_was_made_what_it_changes_and_its_evidence_are_told(ratchet, past):
    done = ratchet("show", "v3", "--name", past.project, columns=80)
    assert (done.returncode, done.stdout) == (0, "")
    for text in (
        f"v3 {past.proven.candidate_id[:8]}",
        f"by prompt, from v2 {past.champion.candidate_id[:8]} ← v1 {past.first.candidate_id[:8]}",
        "Searched 6 instructions.",
        "data 5bd2a7e1c09f3344, 1 cases",
        "cost to make 61.2 s",
        "accuracy 0.667",
        f"tested against v2 {past.champion.candidate_id[:8]}",
        "verdict proven +0.900 on 100 labelled cases",
        "needs 200",
        "Choose a tool.",
        "Pick the tool.",
    ):
        assert text in told(done)
    assert max(map(len, done.stderr.splitlines())) <= 80


def test_who_moved_it_and_why_is_told(ratchet, past):
    serving = told(ratchet("show", past.champion.candidate_id, "--name", past.project))
    assert f"by anna, v1 {past.first.candidate_id[:8]}: read the evidence" in serving
    assert "verdict none" in told(ratchet("show", "1", "--name", past.project))


def test_why_it_is_refused_is_told(ratchet, past):
    assert "verdict refused -0.900 on 100 labelled" in told(ratchet("show", "v4", "--name", past.project))


def test_json_is_the_version_as_history_has_it_and_what_it_changes(ratchet, past):
    answer = json.loads(ratchet("show", "v3", "--name", past.project, "--json").stdout)
    versions = json.loads(ratchet("history", "--name", past.project, "--json").stdout)["versions"]
    assert versions[2].items() <= answer.items()
    assert answer["beside"] == past.champion.candidate_id
    assert {"what": "choose: instructions", "old": "Choose a tool.", "new": "Pick the tool."} in answer[
        "changes"
    ]


def test_a_version_that_does_not_exist_is_one_line(ratchet, past):
    done = ratchet("show", "v9", "--name", past.project)
    assert done.returncode == 2
    assert "no candidate is 'v9'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("history",), {"proven", "refused"}),
        (("show", "v3"), {"proven"}),
        (("show", "v4"), {"refused"}),
        (("approve",), {"proven"}),
        (("approve", "v4"), {"refused"}),
        (("budget",), {"proven", "refused"}),
        (("status",), {"proven"}),
        (("explain", "TRACE"), {"proven"}),
        (("gate", "PAIRS"), {"not yet"}),
    ],
    ids=lambda words: " ".join(sorted(words) if isinstance(words, set) else words),
)
def test_a_verdict_has_one_word_on_every_screen_and_it_is_not_that_of_the_data(
    ratchet, past, tmp_path, arguments, words
):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"case_id": "1", "champion": 0.0, "challenger": 1.0}) + "\n")
    given = [{"TRACE": past.traces[1].trace_id, "PAIRS": pairs}.get(word, word) for word in arguments]
    name = [] if arguments[0] == "gate" else ["--name", past.project]
    screen = told(ratchet(*given, *name))
    assert words == {word for word in SAID.values() if re.search(rf"\b{word}\b", screen)}
    assert re.findall(r"\b(promote|reject|continue|rejected|denied|unproven)\b", screen) == []
