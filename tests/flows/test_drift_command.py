"""`ratchet drift` on two files of any team: verdict, exit code, JSON, report, picture, and clear refusals."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ratchet.agent.errors import BadInput
from ratchet.flows.cli import app
from ratchet.flows.commands.drift import _sample
from ratchet.infra.files.messages import MessageColumns, MessageFile
from ratchet.infra.text_embedding import drift_embedding

USUAL = ["card", "transfer", "cash", "refund", "top up"]


def rows(n: int, seed: int, kinds: list[str]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    frames = ["where is my {}", "my {} was declined", "how do I get a {} today", "is a {} free of charge"]
    return [
        {
            "text": str(rng.choice(frames)).format(rng.choice(kinds)),
            "tool": str(rng.choice(["search", "lookup"])),
            "outcome": float(rng.random() < 0.8),
            "slice": str(rng.choice(["web", "phone"])),
            "at": f"2026-03-0{1 + i * 8 // n}T10:00:00",
        }
        for i in range(n)
    ]


def write(path: Path, table: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(table), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    return path


def drift(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["drift", *map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_drift_exits_3_and_says_since_when_and_what(tmp_path: Path, suffix: str) -> None:
    reference = write(tmp_path / f"reference{suffix}", rows(300, 1, USUAL))
    mixed = rows(300, 2, USUAL) + rows(300, 3, [*USUAL, *["mortgage", "pension"] * 3])
    code, answer = drift(reference, write(tmp_path / f"current{suffix}", mixed))
    assert code == 3
    assert answer["drift"]
    attribution = answer["attribution"]
    assert attribution["kinds"] == ["input"]
    assert attribution["onset"]["low"] <= 300 <= attribution["onset"]["high"]
    assert attribution["onset"]["at"].startswith("2026-03-0")
    assert {"mortgage", "pension"} <= set(" ".join(c["name"] for c in attribution["clusters"]).split())


def test_the_same_traffic_exits_0(tmp_path: Path) -> None:
    reference = write(tmp_path / "reference.csv", rows(300, 1, USUAL))
    code, answer = drift(reference, write(tmp_path / "current.csv", rows(600, 2, USUAL)))
    assert code == 0
    assert answer["attribution"] is None
    assert answer["embedding"] == drift_embedding().name


def test_report_and_picture_are_written(tmp_path: Path) -> None:
    reference = write(tmp_path / "reference.jsonl", rows(200, 1, USUAL))
    current = write(tmp_path / "current.jsonl", rows(200, 2, ["mortgage", "pension"]))
    code, _ = drift(
        reference, current, "--report", tmp_path / "out" / "drift.html", "--plot", tmp_path / "drift.png"
    )
    assert code == 3
    html = (tmp_path / "out" / "drift.html").read_text()
    assert "Drift evidence" in html
    assert "Texts read by" in html
    assert "mortgage" in html
    assert (tmp_path / "drift.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("current.csv", "question\nhello\n", "no column 'text'"),
        ("current.csv", "text\n", "no message in it"),
        ("current.xlsx", "", "unknown format"),
        ("current.jsonl", '{"text": "a"}\nnot json\n', ":2: not JSON"),
        ("current.jsonl", "[1]\n", "a number instead of an object"),
        ("current.jsonl", '{"text": "a", "outcome": 7}\n', ":1: outcome = 7"),
        ("current.parquet", "not parquet", "not a Parquet file"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    reference = write(tmp_path / "reference.jsonl", rows(100, 1, USUAL))
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=message) as refused:
        drift(reference, tmp_path / name)
    assert "\n" not in str(refused.value)


def test_missing_cells_are_missing_and_not_zero(tmp_path: Path) -> None:
    reference = write(tmp_path / "reference.csv", rows(200, 1, USUAL))
    current = write(tmp_path / "current.csv", [{**row, "outcome": None} for row in rows(300, 2, USUAL)])
    code, _ = drift(reference, current)
    assert code == 0


def test_an_embedding_that_is_not_installed_is_named_with_its_remedy(tmp_path: Path) -> None:
    reference = write(tmp_path / "reference.csv", rows(100, 1, USUAL))
    with pytest.raises(BadInput, match="pip install"):
        drift(reference, reference, "--embedding", "no-such-org/no-such-model")


def test_alpha_is_of_the_whole_file_however_many_windows_it_has(tmp_path: Path) -> None:
    reference = write(tmp_path / "reference.csv", rows(100, 1, USUAL))
    current = write(tmp_path / "current.csv", rows(400, 2, USUAL))
    assert drift(reference, current, "--window", 40)[1]["threshold"] == pytest.approx(10 / 0.05)
    assert drift(reference, current, "--window", 10, "--alpha", 0.01)[1]["threshold"] == pytest.approx(
        40 / 0.01
    )


def test_a_long_reference_is_sampled_by_whole_sessions(tmp_path: Path) -> None:
    table = [{"text": f"{i} {turn}", "session": f"s{i}"} for turn in range(5) for i in range(400)]
    long = MessageFile(write(tmp_path / "long.csv", table), MessageColumns())
    messages, sampled = _sample(long, 1_000, 0)
    assert 1_000 <= len(messages) < 1_005
    assert [message.text for message in messages] == [row["text"] for row in sampled]
    assert set(Counter(message.session for message in messages).values()) == {5}
    alone = write(tmp_path / "alone.csv", [{**row, "session": "one"} for row in table])
    assert len(_sample(MessageFile(alone, MessageColumns()), 300, 0)[0]) == 300


def test_a_column_that_was_named_must_be_there(tmp_path: Path) -> None:
    reference = write(tmp_path / "reference.jsonl", rows(100, 1, USUAL))
    for option in ("--session", "--time", "--tool", "--slice", "--category", "--number"):
        with pytest.raises(BadInput, match=r"no column 'conv'; it has text, .*: name another"):
            drift(reference, reference, option, "conv")


def test_a_named_column_that_was_always_empty_cannot_be_compared(tmp_path: Path) -> None:
    empty = write(tmp_path / "reference.csv", [{**row, "cat": ""} for row in rows(100, 1, USUAL)])
    with pytest.raises(BadInput, match="column 'cat' is empty: nothing to compare with"):
        drift(empty, empty, "--category", "cat")


def test_a_text_that_is_empty_throughout_is_no_text(tmp_path: Path) -> None:
    usual = write(tmp_path / "reference.csv", rows(100, 1, USUAL))
    empty = write(tmp_path / "current.csv", [{**row, "text": ""} for row in rows(100, 1, USUAL)])
    with pytest.raises(BadInput, match="column 'text' is empty in all 100 rows"):
        drift(usual, empty)


def test_a_column_that_only_one_file_has_is_named_whichever_it_is(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.jsonl", rows(200, 1, USUAL))
    without = write(tmp_path / "without.jsonl", [{"text": row["text"]} for row in rows(200, 2, USUAL)])
    for files in ((whole, without), (without, whole)):
        code, answer = drift(*files)
        assert code == 0
        assert answer["not_compared"] == ["at", "slice", "tool", "outcome"]


def test_what_was_not_compared_and_not_used_is_said_in_a_line_each(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.csv", [{**row, "mood": "fine"} for row in rows(100, 1, USUAL)])
    without = write(
        tmp_path / "without.csv", [{"text": row["text"], "tool": ""} for row in rows(100, 2, USUAL)]
    )
    told = CliRunner().invoke(app, ["drift", str(whole), str(without)]).stderr
    assert f"not compared: at, slice, outcome are absent in {without}\n" in told
    assert f"not compared: tool is empty in {without}\n" in told
    assert "not used: mood; --category or --number compares a column\n" in told
