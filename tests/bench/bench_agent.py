"""What reflection, experience, LoRA and a team do for the embedded LM on three tasks: one attempt, and with retries.

python tests/bench/bench_agent.py [--tasks tools,cooking,sql] [--only "zero-shot,+ reflection"] [--seeds 3] [--cases 20]
Every cell (task, row, seed) is kept in --out as soon as it is done; the next start goes on from there, and several
started side by side share the work (with OMP_NUM_THREADS=1, one a core). Experience and weights come from the agent's
own winning trajectories (found by a search that the environment scores), never from a walkthrough or a gold query.
Means over seeds with Student's 95 % interval; seeds draw other cases. The last two columns are the gate's word on the
same cases, all seeds in one test at alpha 0.05: first attempt against zero-shot's first, last against zero-shot's last.
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
from agent_rows import ROWS, Learned, as_traces, explore, react
from agent_tasks import SQL_FOLDER, Task, tasks
from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from ratchet.agent.optimize.evidence import Example
from ratchet.evaluation.gate.gate import decide
from ratchet.evaluation.gate.pairs import Pair

ZERO = "zero-shot"
REACT = "dspy.ReAct"
FREE = (ZERO, "+ reflection", REACT)
"""Rows that make sense where the agent writes freely and has won nothing."""
WORDS = {"promote": "promote", "reject": "refuse", "continue": "not yet"}


def main() -> int:
    options = parsed()
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = [tasks()[name] for name in options.tasks.split(",") if is_there(name)]
    if not options.show:
        for seed in range(options.seeds):
            for task in chosen:
                for name in wanted(task, options.only):
                    cell(task, name, seed, options)
    console = Console(width=132)
    for task in chosen:
        console.print(table(task, options))
    return 0


def is_there(name: str) -> bool:
    """Whether the task's data or library is; says what is missing."""
    missing = ""
    if name.startswith("sql") and not SQL_FOLDER.is_dir():
        missing = f"no data in {SQL_FOLDER}: set RATCHET_SHARED"
    if name in ("coin", "cooking") and find_spec("textworld") is None:
        missing = 'TextWorld is not installed: pip install "ratchet-loop[textworld]"'
    if missing:
        print(f"{name} is left out: {missing}", flush=True)
    return not missing


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default="tools,cooking,sql", help="also: coin, sql-free")
    parser.add_argument("--only", default="", help="rows, separated by commas; empty = all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", type=int, default=20, help="test cases of each seed")
    parser.add_argument("--attempts", type=int, default=2)
    parser.add_argument("--lora", type=int, default=100, help="steps that LoRA is trained on at most")
    parser.add_argument("--react-cases", type=int, default=5, help="ReAct writes freely, which is slow")
    parser.add_argument("--out", type=Path, default=Path(".ratchet/bench_agent"))
    parser.add_argument("--show", action="store_true", help="only print what is there")
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


def cell(task: Task, name: str, seed: int, options: argparse.Namespace, wait: float = 0) -> None:
    """Compute one cell, unless it is there or another process is at it."""
    path = place(task, name, seed, options)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=wait):
            if not path.exists():
                fill(path, task, name, seed, options)
    except Timeout:
        return


def fill(path: Path, task: Task, name: str, seed: int, options: argparse.Namespace) -> None:
    began = time.monotonic()
    test, _ = drawn(task.name, seed, options.cases)
    learned = own_experience(task.name, seed, options.cases, options.out)
    rows = reacted(task, test, seed, options) if name == REACT else played(task, name, test, learned, options)
    seconds = time.monotonic() - began
    found = {"rows": rows, "seconds": seconds, "steps": len(learned.steps), "won": learned.won}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found | {"tried": learned.tried}))
    partial.replace(path)
    first, last = (np.mean([row[key] for row in rows]) if rows else float("nan") for key in ("first", "last"))
    print(
        f"{task.name:9}{name:27} seed {seed}: {first:.2f} → {last:.2f} on {len(rows)}, {seconds:.0f} s; "
        f"{learned.won} of {learned.tried} explorations won, {len(learned.steps)} steps",
        flush=True,
    )


@cache
def drawn(name: str, seed: int, n: int) -> tuple[Sequence[Any], Sequence[Any]]:
    """Cases to test on and to learn from."""
    task = tasks()[name]
    return task.draw(seed, n, task.training)


@cache
def own_experience(name: str, seed: int, n: int, out: Path) -> Learned:
    """What a search without LM found on the seed's training cases; kept, since games take a second each."""
    task = tasks()[name]
    _, training = drawn(name, seed, n)
    path = out / f"explored_{name}_s{seed}_n{n}_{len(training)}x{task.explored}.jsonl"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            found = explore(task, training, seed) if task.explored else Learned((), 0)
            partial = path.with_suffix(".partial")
            partial.write_text("".join(f"{step.to_json()}\n" for step in found.steps))
            partial.replace(path)
    lines = path.read_text().split("\n")[:-1]
    return Learned(tuple(Example.from_json(line, where=path.name) for line in lines), len(training))


def played(
    task: Task, name: str, test: Sequence[Any], learned: Learned, options: argparse.Namespace
) -> list[dict[str, float]]:
    """First and last score of each case: a success is a score of 1."""
    program = ROWS[name](task, options.attempts, learned, options.out / "made", options.lora)
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
    cell(task, "+ reflection", seed, options, wait=-1)
    path = place(task, "+ reflection", seed, options)
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
    title = f"{task.name}: success, mean over seeds [95 % interval]\n{task.about}"
    shown = Table(title=title, title_justify="left")
    last = f"up to {options.attempts} attempts"
    heads = "row", "first attempt", last, "tokens", "seeds × cases", "gate, first", "gate, retried"
    for head in heads:
        shown.add_column(head, justify="left" if head == "row" else "right", no_wrap=True)
    zero = cells(task, ZERO, options)
    for name in wanted(task, ""):
        found = cells(task, name, options)
        if not found:
            continue
        once, again = (
            interval([np.mean([row[key] for row in rows]) for rows in found.values()])
            for key in ("first", "last")
        )
        tokens = np.mean([row["tokens"] for rows in found.values() for row in rows])
        words = ["", ""] if name == ZERO else [word(zero, found, key) for key in ("first", "last")]
        size = f"{len(found)} × {len(next(iter(found.values())))}"
        alone = name == REACT
        shown.add_row(
            name, once, "–" if alone else again, f"{tokens:,.0f}", size, words[0], "–" if alone else words[1]
        )
    return shown


def cells(task: Task, name: str, options: argparse.Namespace) -> dict[int, list[dict[str, float]]]:
    """Seed → rows, of the seeds that are there and had something to learn from."""
    paths = {seed: place(task, name, seed, options) for seed in range(options.seeds)}
    found = {seed: json.loads(path.read_text())["rows"] for seed, path in paths.items() if path.exists()}
    return {seed: rows for seed, rows in found.items() if rows}


def word(zero: dict[int, list[dict[str, float]]], found: dict[int, list[dict[str, float]]], key: str) -> str:
    """The gate's verdict on the cases that both played."""
    pairs = [
        Pair(case_id=f"{seed}/{place}", champion=before[key], challenger=after[key])
        for seed, rows in found.items()
        for place, (before, after) in enumerate(zip(zero.get(seed, []), rows, strict=False))
    ]
    verdict = decide(pairs)
    return f"{WORDS[verdict.decision]} {verdict.gain:+.2f}" if verdict.gain is not None else "–"


def interval(values: Sequence[Any]) -> str:
    """Mean and Student's interval over seeds, within [0, 1]."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.2f}"
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:.2f} [{max(mean - half, 0):.2f}, {min(mean + half, 1):.2f}]"


if __name__ == "__main__":
    sys.exit(main())
