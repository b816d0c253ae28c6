"""What reflection, experience and LoRA do for the embedded LM, on four tasks: one attempt, and with retries.

python tests/bench/bench_agent.py [--tasks tools,cooking] [--only "zero-shot,+ reflection"] [--seeds 3] [--cases 20]
Every cell (task, row, seed) is kept in --out as soon as it is done; the next start goes on from there.
Experience and weights come from the agent's own winning trajectories (random play, won by the environment's word),
never from a walkthrough or a gold query. Means over seeds with Student's 95 % interval (seeds draw other cases).
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from agent_rows import ROWS, Learned, as_traces, distinct, explore, react
from agent_tasks import SQL_FOLDER, Task, tasks
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

REACT = "dspy.ReAct"
FREE = ("zero-shot", "+ reflection", REACT)
"""Rows that make sense where the agent writes freely and has won nothing."""


def main() -> int:
    options = parsed()
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = [tasks()[name] for name in options.tasks.split(",") if is_there(name)]
    for seed in range(options.seeds):
        for task in chosen:
            for name in wanted(task, options.only):
                cell(task, name, seed, options)
    console = Console(width=110)
    for task in chosen:
        console.print(table(task, options))
    return 0


def is_there(name: str) -> bool:
    """Whether the task's data or library is; says what is missing."""
    missing = ""
    if name.startswith("sql") and not SQL_FOLDER.is_dir():
        missing = f"no data in {SQL_FOLDER}: set RATCHET_SHARED"
    if name in ("coin", "cooking") and find_spec("textworld") is None:
        missing = 'TextWorld is not installed: pip install "ratchet[textworld]"'
    if missing:
        print(f"{name} is left out: {missing}", flush=True)
    return not missing


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default="tools,cooking,coin,sql", help="also: sql-free")
    parser.add_argument("--only", default="", help="rows, separated by commas; empty = all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", type=int, default=20, help="test cases of each seed")
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--lora", type=int, default=100, help="steps that LoRA is trained on at most")
    parser.add_argument("--react-cases", type=int, default=5, help="ReAct writes freely, which is slow")
    parser.add_argument("--out", type=Path, default=Path(".ratchet/bench_agent"))
    return parser.parse_args()


def wanted(task: Task, only: str) -> list[str]:
    """Rows to run for the task."""
    names = [*ROWS, REACT] if task.explored else list(FREE)
    return [name for name in names if not only or name in only.split(",")]


def place(task: Task, name: str, seed: int, options: argparse.Namespace) -> Path:
    """The cell's file; other sizes are other cells."""
    word = name.replace("+ ", "").replace(" ", "-").replace(",", "")
    return (
        options.out / f"{task.name}_{word}_s{seed}_n{options.cases}_a{options.attempts}_l{options.lora}.json"
    )


def cell(task: Task, name: str, seed: int, options: argparse.Namespace) -> None:
    """Compute one cell if it is not there yet."""
    path = place(task, name, seed, options)
    if path.exists():
        return
    began = time.monotonic()
    test, training = drawn(task.name, seed, options.cases)
    learned = own_experience(task.name, seed, options.cases)
    rows = reacted(task, test, seed, options) if name == REACT else played(task, name, test, learned, options)
    seconds = time.monotonic() - began
    found = {"rows": rows, "seconds": seconds, "steps": len(learned.steps), "won": learned.won}
    found |= {"tried": learned.tried, "distinct": distinct(learned), "training": len(training)}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found))
    partial.replace(path)
    first, last = (np.mean([row[key] for row in rows]) if rows else float("nan") for key in ("first", "last"))
    print(
        f"{task.name:9}{name:24} seed {seed}: {first:.2f} → {last:.2f} on {len(rows)}, {seconds:.0f} s; "
        f"{learned.won} of {learned.tried} explorations won, {len(learned.steps)} steps",
        flush=True,
    )


@cache
def drawn(name: str, seed: int, n: int) -> tuple[Sequence[Any], Sequence[Any]]:
    """Cases to test on and to learn from."""
    task = tasks()[name]
    return task.draw(seed, n, task.training)


@cache
def own_experience(name: str, seed: int, n: int) -> Learned:
    """What random play found on the seed's training cases."""
    task = tasks()[name]
    _, training = drawn(name, seed, n)
    return explore(task, training, seed) if task.explored else Learned((), 0, 0)


def played(
    task: Task, name: str, test: Sequence[Any], learned: Learned, options: argparse.Namespace
) -> list[dict[str, float]]:
    """First and last score of each case: a success is a score of 1."""
    program = ROWS[name](task, options.attempts, learned, options.out / "adapters", options.lora)
    if program is None:
        return []
    traces = as_traces(task, program, test)
    if broken := [trace.error.message for trace in traces if trace.error]:
        raise SystemExit(f"{task.name}, {name}: {len(broken)} runs broke: {broken[0]}")
    return [
        {
            "first": float(trace.first_score == 1),
            "last": float(trace.score == 1),
            "partial": trace.first_score or 0.0,
            "tokens": trace.usage.input_tokens + trace.usage.output_tokens,
            "calls": trace.usage.lm_calls,
        }
        for trace in traces
    ]


def reacted(
    task: Task, test: Sequence[Any], seed: int, options: argparse.Namespace
) -> list[dict[str, float]]:
    """ReAct on the first cases, each with the tokens that the agent with reflection used for a case on average."""
    path = place(task, "+ reflection", seed, options)
    if not path.exists():
        cell(task, "+ reflection", seed, options)
    budget = int(np.mean([row["tokens"] for row in json.loads(path.read_text())["rows"]]))
    rows = []
    for case in test[: options.react_cases]:
        outcome, tokens = react(task, case, budget)
        won = float(outcome.score == 1)
        rows.append(
            {"first": won, "last": won, "partial": outcome.score or 0.0, "tokens": tokens, "calls": 0}
        )
    return rows


def table(task: Task, options: argparse.Namespace) -> Table:
    """What is there of the task's cells."""
    shown = Table(title=f"{task.name}: success, mean over seeds [95 % interval]")
    for column in (
        "row",
        "single attempt",
        f"up to {options.attempts} attempts",
        "tokens a case",
        "seeds × cases",
    ):
        shown.add_column(column, justify="left" if column == "row" else "right")
    for name in wanted(task, ""):
        paths = [place(task, name, seed, options) for seed in range(options.seeds)]
        cells = [json.loads(path.read_text())["rows"] for path in paths if path.exists()]
        cells = [rows for rows in cells if rows]
        if not cells:
            continue
        once = interval([np.mean([row["first"] for row in rows]) for rows in cells])
        again = interval([np.mean([row["last"] for row in rows]) for rows in cells])
        tokens = np.mean([row["tokens"] for rows in cells for row in rows])
        shown.add_row(
            name, once, "–" if name == REACT else again, f"{tokens:,.0f}", f"{len(cells)} × {len(cells[0])}"
        )
    return shown


def interval(values: Sequence[Any]) -> str:
    """Mean and Student's interval over seeds, within [0, 1]."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.2f}"
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:.2f} [{max(mean - half, 0):.2f}, {min(mean + half, 1):.2f}]"


if __name__ == "__main__":
    sys.exit(main())
