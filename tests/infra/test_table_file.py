"""The one reader: every shape, dialect and encoding gives the same records, and a fault is named where it stands."""

import gzip
import json
import tracemalloc
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ratchet.agent.errors import BadInput
from ratchet.infra.files import cells
from ratchet.infra.files.table import TableFile

ROWS = [{"text": "hello, you", "n": "1"}, {"text": "grüße", "n": "2"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'text,n\n"hello, you",1\ngrüße,2\n'


def read(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [record for _, record in TableFile(path, expected=("text",), **options)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps(ROWS, indent=1)),
        ("a.json", json.dumps({"about": [1], "rows": ROWS})),
        ("a.json", json.dumps({"about": [1], "rows": ROWS}, indent=2)),
        ("a.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
        ("a.ndjson", "\r\n".join(map(json.dumps, ROWS))),
        ("a.csv", CSV),
        ("a.csv", CSV.replace("\n", "\r\n")),
        ("a.csv", CSV.replace("\n", "\r")),
        ("a.csv", "text;n;\nhello, you;1;\ngrüße;2;\n;;\n"),
        ("a.tsv", "n\ttext\n1\thello, you\n2\tgrüße\n"),
        ("a.csv", "n|text\n1|hello, you\n2|grüße\n"),
        ("a.csv", ',text,n\n0,"hello, you",1\n1,grüße,2\n'),
        ("a.csv", "sep=;\ntext;n\nhello, you;1\ngrüße;2\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_every_shape_and_encoding_gives_the_same_records(tmp_path, name, content, encoding):
    assert read(tmp_path / name, content.encode(encoding)) == ROWS
    assert read(tmp_path / f"{name}.gz", gzip.compress(content.encode(encoding))) == ROWS


def test_parquet_gives_them_too_and_text_that_was_stored_as_bytes(tmp_path):
    for rows in (ROWS, [{"text": row["text"].encode(), "n": row["n"]} for row in ROWS]):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        assert [record for _, record in TableFile(tmp_path / "a.parquet")] == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,n\na,1\nb, c,2\n", r"a.csv:3: 3 cells, the header names 2; quote the text"),
        ("a.csv", "text,n\na,1\nb\n", r"a.csv:3: 1 cells, the header names 2; complete"),
        ("a.csv", 'text,n\n"a\nb",1\nc\n', r"a.csv:4: 1 cells"),
        ("a.csv", 'text,n\n"a"b,1\n', r"a.csv:2: not CSV .* is written twice"),
        ("a.csv", 'text,n\n"a,1\nb,2\n', r"a.csv:2: not CSV \(unexpected end"),
        ("a.csv", "text,n,n\na,1,2\n", r"names 'n' twice; rename"),
        ("a.csv", "sep=;\ntext;n\na;1\nb\n", r"a.csv:4: 1 cells"),
        ("a.csv", "text,\na,b\n", r"a.csv:2: 'b' stands in column 2, which has no name"),
        ("a.csv", "refund please,2\nwhere is it,3\n", r"first row looks like data .*: add a header"),
        ("a.csv", "text\nok\ngr\xfc\xdfe\n".encode("latin-1"), r"a.csv:3: not UTF-8 \(byte 0xfc, 'ü' in Windows-1252"),
        ("a.jsonl", b'{"text": "ok"}\n{"text": "gr\xfc"}\n', r"a.jsonl:2: not UTF-8 \(byte 0xfc"),
        ("a.json", '[{"text": "ok"},\n {"text": "gr\xfc"}]'.encode("latin-1"), r"a.json:2: not UTF-8 \(byte 0xfc"),
        ("a.jsonl", '{"text": "ok"}\n{"text": "a", "text": "b"}\n', r"a.jsonl:2: not JSON \('text' stands twice"),
        ("a.json", '[{"text": "ok"},', r"not one JSON array \(it breaks off\)"),
        ("a.json", '[{"text": "ok"} {"text": "ok"}]', "not one JSON array .no comma before"),
        ("a.json", '[{"text": "ok"}] 7', "more after its end"),
        ("a.json", '{"a": [{"x": 1}], "b": [2]}', "one JSON object, whose lists are a, b"),
        ("a.jsonl", '{"text": "ok"}\n'.encode("utf-16")[:-1], "UTF-16 that breaks off"),
        ("a.csv.gz", gzip.compress(CSV.encode(), mtime=0)[:-9], "gzip that breaks off"),
        ("a.csv", b"PK\x03\x04xl/workbook", "an Excel workbook; unpack it, or save it as CSV"),
        ("a.parquet", b"PAR1 and then nothing", "not a Parquet file, or not a whole one"),
        ("a.xlsx", "text", "unknown format '.xlsx'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_its_place_and_remedy(tmp_path, name, content, message):
    with pytest.raises(BadInput, match=message) as refused:
        read(tmp_path / name, content)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400 + len(str(tmp_path))


def test_a_name_that_stands_twice_is_said_with_what_is_missing(tmp_path):
    (tmp_path / "a.csv").write_text("id,text,text\n1,a,b\n")
    with pytest.raises(BadInput, match="names 'text' twice, and answer is missing"):
        TableFile(tmp_path / "a.csv", expected=("text", "answer"))


def test_a_cell_may_be_longer_than_a_block_and_hold_line_breaks(tmp_path):
    long = "one\ntwo, " * 300_000
    (row,) = read(tmp_path / "a.csv", f'text\n"{long}"\n')
    assert row == {"text": long}
    assert read(tmp_path / "a.json", json.dumps([{"text": long}, ROWS[0]])) == [{"text": long}, ROWS[0]]


def test_half_a_character_is_replaced_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "cut \\ud83d"}\n{"text": "whole \\ud83d\\ude00"}\n')
    table = TableFile(path, expected=("text",))
    assert [record["text"] for _, record in table] == ["cut \ufffd", "whole 😀"]
    assert table.mended == 1


def test_a_broken_line_is_told_and_the_next_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{broken\n\xff\n{"text": "b"}\n')
    told = []
    found = list(TableFile(path, expected=("text",)).records(lambda number, reason: told.append(number)))
    assert [number for number, _ in found] == [1, 4]
    assert told == [2, 3]


def test_a_first_line_that_breaks_off_is_a_broken_line_and_not_a_long_object(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a",\n{"text": "b"}\n{"text": "c"}\n')
    told = []
    found = list(TableFile(path, expected=("text",)).records(lambda number, reason: told.append(number)))
    assert [record["text"] for _, record in found] == ["b", "c"]
    assert told == [1]


def test_records_are_counted_for_progress(tmp_path):
    for name, content in (("a.jsonl", LINES), ("a.csv", CSV), ("b.json", json.dumps(ROWS))):
        (tmp_path / name).write_text(content)
        assert TableFile(tmp_path / name, expected=("text",)).count() == 2


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (True, 1),
        ("False", 0),
        ("PASS", 1),
        ("failed", 0),
        (" 0.5 ", 0.5),
        ("1e-3", 0.001),
        ("", None),
        (None, None),
    ],
)
def test_a_number_is_read_the_same_whatever_wrote_it(cell, value):
    assert cells.number(cell) == value


@pytest.mark.parametrize(
    ("cell", "message"),
    [("good", "not a number; write digits"), ("0,5", "after a point"), ([1], "is a list, not a number; rename"),
     ({"a": 1}, "is an object"), ("1_000", "not a number"), (10**400, "too large")],
)  # fmt: skip
def test_what_is_no_number_is_refused_with_the_remedy(cell, message):
    with pytest.raises(ValueError, match=message):
        cells.number(cell)


def test_a_decimal_comma_is_read_where_cells_are_separated_by_something_else():
    assert cells.number("0,5", decimal_comma=True) == 0.5
    assert cells.number("0.5", decimal_comma=True) == 0.5
    with pytest.raises(ValueError, match="not a number"):
        cells.number("1.000,5", decimal_comma=True)


@pytest.mark.parametrize(
    "cell",
    [1767571200, "1767571200", 1767571200.0, 1767571200_000, "1767571200000000", 1767571200 * 10**9,
     "2026-01-05", "2026-01-05T00:00:00Z", "2026-01-05T01:00:00+01:00", datetime(2026, 1, 5),
     datetime(2026, 1, 5).date()],
)  # fmt: skip
def test_a_moment_is_read_from_iso_8601_and_from_seconds_or_less_since_1970(cell):
    assert cells.parse_time(cell) == datetime(2026, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize("cell", ["soon", True, "1e400", [1]])
def test_what_is_no_moment_is_refused(cell):
    with pytest.raises(ValueError, match="neither a time"):
        cells.parse_time(cell)


def test_ids_are_the_same_however_they_were_written_down():
    assert {cells.identifier(one) for one in (7, "7", 7.0, " 7 ", "\ufeff7", "7\u00a0")} == {"7"}
    assert cells.identifier("e\u0301") == cells.identifier("\u00e9")
    assert cells.identifier("  ") is None


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_a_file_takes_the_memory_of_few_of_its_records(tmp_path, name):
    row, n = {"text": "where is my parcel " * 20}, 30_000
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist([row] * n), tmp_path / name, row_group_size=2_000)
    elif name == "a.json":
        (tmp_path / name).write_text(json.dumps([row] * n))
    else:
        line = json.dumps(row) if name == "a.jsonl" else row["text"]
        (tmp_path / name).write_text(("text\n" if name == "a.csv" else "") + f"{line}\n" * n)
    tracemalloc.start()
    try:
        assert sum(1 for _ in TableFile(tmp_path / name, expected=("text",))) == n
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6, "the file has 12 MB"
