import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.infra.files.pairs import PairFile, read_seen

GOOD = '{"case_id": "a", "champion": 0, "challenger": 1}\n'


def read(tmp_path, text, suffix=".jsonl"):
    path = tmp_path / f"pairs{suffix}"
    path.write_text(text)
    return list(PairFile(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"case_id": "b", "champion": NaN, "challenger": 1}',
            r"champion = nan is outside \[0, 1\]; scale it",
        ),
        ('{"case_id": "b", "champion": Infinity}', r"champion = inf is outside \[0, 1\]"),
        ('{"case_id": "b", "champion": 85}', r"champion = 85 is outside \[0, 1\]; scale it to \[0, 1\]"),
        ('{"case_id": "b", "champion": -0.1}', r"champion = -0.1 is outside"),
        (
            '{"case_id": "b", "challenger_judge": "good"}',
            r"challenger_judge = 'good' is not a number; write digits, true/false or pass/fail",
        ),
        ('{"champion": 1}', "case_id is missing"),
        ('{"case_id": "b", "propensity": 0}', "propensity = 0: input should be greater than 0"),
        ('{"case_id": "b", "scroe": 1}', "unknown field 'scroe'; a pair has case_id"),
        ("champion wins", "not JSON"),
        ('{"case_id": "b", "champion_failed": "gremlins"}', "champion_failed = 'gremlins'"),
    ],
)
def test_each_bad_line_gives_one_clear_error_with_its_number(tmp_path, line, message):
    with pytest.raises(BadInput, match=message) as caught:
        read(tmp_path, GOOD + "\n" + line + "\n")
    assert "pairs.jsonl:3: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_csv_reads_as_json_lines_do(tmp_path):
    table = "case_id,champion,challenger,slice,champion_cost\na,0,1,de,\nb,0.5,,,2.5\n"
    first, second = read(tmp_path, table, ".csv")
    assert first == Pair(case_id="a", champion=0, challenger=1, slice="de")
    assert second == Pair(case_id="b", champion=0.5, champion_cost=2.5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("case_id,champion\na,nan\n", r"pairs.csv:2: champion = nan is outside"),
        ("case_id,champion\na,1\nb,1,1\n", "pairs.csv:3: 3 cells, the header names 2"),
        ("case_id,winner\na,1\n", "pairs.csv:2: unknown field 'winner'"),
        ('case_id,champion\n"a"b,1\n', "pairs.csv:2: not CSV"),
    ],
)
def test_bad_csv_names_the_line(tmp_path, table, message):
    with pytest.raises(BadInput, match=message):
        read(tmp_path, table, ".csv")


def test_unknown_suffix_and_missing_file_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"unknown format '.xlsx'"):
        PairFile(tmp_path / "pairs.xlsx")
    with pytest.raises(BadInput, match="no such file"):
        PairFile(tmp_path / "pairs.csv")


def test_an_empty_file_is_no_evidence(tmp_path):
    verdict = decide(read(tmp_path, ""))
    assert verdict.decision == "continue"
    assert verdict.reason == "no usable evidence (no pairs): not yet"


scores = st.one_of(
    st.floats(0, 1),
    st.floats(-1e3, -1e-9),
    st.floats(1.0000001, 1e3),
    st.just(float("nan")),
    st.just(float("inf")),
)


@given(scores, st.sampled_from(["champion", "challenger", "champion_judge", "challenger_judge"]))
@settings(max_examples=50, deadline=None)
def test_a_score_is_accepted_exactly_when_it_lies_in_the_unit_interval(score, name):
    if 0 <= score <= 1:
        assert getattr(Pair.model_validate({"case_id": "c", name: score}), name) == score
        return
    with pytest.raises(ValidationError):
        Pair.model_validate({"case_id": "c", name: score})


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=20))
@settings(max_examples=50, deadline=None)
def test_json_lines_round_trip(rows):
    pairs = [Pair(case_id=str(i), champion=a, challenger=b) for i, (a, b) in enumerate(rows)]
    again = [Pair.model_validate(json.loads(pair.model_dump_json())) for pair in pairs]
    assert decide(again) == decide(pairs)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("seen.txt", "c0\n7\n"),
        ("seen.txt", "\ufeffc0 \r\n 7\r\n"),
        ("seen.txt", '"c0"\n"7"\n'),
        ("seen.txt", 'c0\n{"case_id": 7, "text": "x"}\n'),
        ("seen", '{"case_id": "c0"}\n{"case_id": 7.0}\n'),
        ("seen.json", '["c0", 7]'),
        ("seen.json", '[\n "c0",\n "7"\n]\n'),
        ("seen.json", '[{"case_id": "c0"}, {"case_id": 7}]'),
        ("seen.json", '{\n "seen": ["c0", "7"]\n}'),
        ("seen.csv", "case_id,split\nc0,train\n7,train\n"),
        ("seen.csv", 'split;"case_id"\ntrain;c0\ntrain;7\n'),
        ("seen.csv", "c0\n7\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_seen_ids_are_the_same_however_they_were_written_down(tmp_path, name, content, encoding):
    (tmp_path / name).write_bytes(content.encode(encoding))
    assert read_seen(tmp_path / name) == {"c0", "7"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("seen.jsonl", 'ok\n{"id": 1}\n', r"seen.jsonl:2: needs a JSON object with case_id"),
        ("seen.jsonl", "ok\n{broken\n", r"seen.jsonl:2: needs a JSON object with case_id"),
        ("seen.json", '["ok", [1]]', r"seen.json: record 2: needs a JSON object with case_id"),
        ("seen.csv", "id,split\nc0,train\n", "no column 'case_id'; it has id, split"),
    ],
)
def test_ids_that_cannot_be_told_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=message):
        read_seen(tmp_path / name)
    with pytest.raises(BadInput, match="no such file"):
        read_seen(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pairs.json", '[{"case_id": 7, "champion": false, "challenger": "PASS"}]'),
        ("pairs.csv", "case_id;champion;challenger;slice\n 7 ;0,0;1,0;\n;;;\n"),
        ("pairs.jsonl", '{"case_id": "7 ", "champion": "0", "challenger": true, "slice": ""}'),
    ],
)
def test_a_pair_is_the_same_from_every_kind_of_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert list(PairFile(tmp_path / name)) == [Pair(case_id="7", champion=0, challenger=1)]
