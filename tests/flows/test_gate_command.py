import json
import sys
from typing import NamedTuple

import pytest

from ratchet.evaluation.gate.gate import Pair, Verdict, decide
from ratchet.flows.cli import main


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def ratchet(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ratchet", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return Done(stopped.value.code or 0, *capsys.readouterr())

    return run


def write(path, pairs):
    path.write_text("".join(pair.model_dump_json(exclude_none=True) + "\n" for pair in pairs))
    return path


@pytest.fixture
def better(tmp_path):
    pairs = [Pair(case_id=f"c{i}", champion=0, challenger=float(i % 8 > 0), slice="de") for i in range(40)]
    return write(tmp_path / "pairs.jsonl", pairs)


def test_promote_exits_with_0_and_prints_one_json_object(ratchet, better):
    done = ratchet("gate", better, "--json")
    assert done.returncode == 0, done.stderr
    verdict = Verdict.model_validate_json(done.stdout)
    assert verdict.decision == "promote"
    assert done.stdout.count("\n") == 1


def test_command_and_library_agree_also_in_csv(ratchet, better, tmp_path):
    pairs = [Pair.model_validate_json(line) for line in better.read_text().splitlines()]
    table = tmp_path / "pairs.csv"
    table.write_text(
        "case_id,champion,challenger,slice\n"
        + "".join(f"{p.case_id},{p.champion},{p.challenger},{p.slice}\n" for p in pairs)
    )
    done = ratchet("gate", table, "--json", "--alpha", "0.01", "--min-gain", "0.1")
    assert Verdict.model_validate_json(done.stdout) == decide(pairs, alpha=0.01, min_gain=0.1)


def test_not_yet_exits_with_3_and_says_why_on_stderr(ratchet, tmp_path):
    done = ratchet("gate", write(tmp_path / "p.jsonl", [Pair(case_id="a", champion=1, challenger=1)]))
    assert done.returncode == 3
    assert done.stdout == ""
    assert "not yet" in done.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"case_id": "c0", "champion": 1}', "pairs.jsonl:41: case_id 'c0' appears twice"),
        ('{"case_id": "x", "champion": 7}', "pairs.jsonl:41: champion = 7 is outside [0, 1]"),
        (
            '{"case_id": "x", "champion": 1, "challenger": 1, "propensity": 0.5}',
            "pairs.jsonl:41: case 'x' has propensity 0.5",
        ),
    ],
)
def test_bad_input_exits_with_2_one_line_with_its_number_and_no_partial_verdict(
    ratchet, better, line, message
):
    with better.open("a") as out:
        out.write(line + "\n")
    done = ratchet("gate", better, "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr


def test_a_case_that_the_proposer_saw_is_refused(ratchet, better, tmp_path):
    seen = tmp_path / "seen.txt"
    seen.write_text("c7\n")
    done = ratchet("gate", better, "--seen", seen)
    assert done.returncode == 2
    assert "pairs.jsonl:8: case 'c7' was seen by the proposer" in done.stderr


def test_plot_draws_wealth_and_interval(ratchet, better, tmp_path):
    picture = tmp_path / "figures" / "path.png"
    done = ratchet("gate", better, "--plot", picture)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000


def test_plot_without_a_bet_is_one_clear_error(ratchet, tmp_path):
    done = ratchet("gate", write(tmp_path / "p.jsonl", []), "--plot", tmp_path / "x.png")
    assert done.returncode == 2
    assert "no bet was made" in done.stderr


def test_characteristics_print_tables_json_and_a_figure(ratchet, tmp_path):
    figure = tmp_path / "characteristics.png"
    done = ratchet("characteristics", "--lifetimes", 5, "--tests", 10, "--out", figure, "--json")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert len(measured["false_promotions"]) == 8
    assert {row["rule"] for row in measured["rules"]} >= {"gate with ledger", "likelihood ratio (TensorZero)"}
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_how_many_seen_ids_were_compared_is_said(ratchet, better, tmp_path):
    seen = tmp_path / "seen.txt"
    seen.write_text("x1\nx2\n")
    done = ratchet("gate", better, "--seen", seen)
    assert done.returncode == 0
    assert "none of the 2 ids" in done.stderr
    assert "among the 40 pairs" in done.stderr


def test_pairs_in_a_list_of_one_object_are_read_and_the_list_is_named(ratchet, better, tmp_path):
    pairs = [json.loads(line) for line in better.read_text().splitlines()]
    (tmp_path / "run.json").write_text(json.dumps({"about": {"n": 40}, "pairs": pairs}, indent=1))
    done = ratchet("gate", tmp_path / "run.json")
    assert done.returncode == 0, done.stderr
    assert "only the list 'pairs' was read" in done.stderr
