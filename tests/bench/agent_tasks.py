"""The tasks of bench_agent: which cases a seed draws, where they are played, and how far an agent may go."""

import itertools
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from exploration import search

from ratchet.agent.case import Case
from ratchet.agent.environment import Environment
from ratchet.agent.environments.sql import Sql, sql_cases
from ratchet.agent.environments.sql_queries import simple_queries
from ratchet.agent.environments.text_world import TextWorld, World, text_world_cases
from ratchet.agent.environments.tool_calling import ToolCalling, live_cases
from ratchet.agent.limits import Limits

SQL_FOLDER = Path(os.environ.get("RATCHET_SHARED", "../shared")) / "data" / "intercode_sql"


@dataclass(frozen=True)
class Task:
    """One kind of world."""

    name: str
    instructions: str
    environment: Callable[[], Environment]
    draw: Callable[[int, int, int], tuple[Sequence[Case], Sequence[Case]]]
    """seed, test cases, training cases → those to test on and those to learn from; no case is in both."""
    limits: Limits
    training: int
    """Cases to learn from."""
    explored: int
    """Tries at each of them."""
    about: str
    """What the table's reader should know."""


def tool_cases(seed: int, n: int, training: int) -> tuple[Sequence[Case], Sequence[Case]]:
    """Real requests; the same for all but the draw."""
    pool = [
        c for name in ("live_multiple", "live_simple") for c in live_cases(name) if len(c.inputs["tools"]) > 1
    ]
    return split(pool, seed, n, training)


def sql_draw(seed: int, n: int, training: int) -> tuple[Sequence[Case], Sequence[Case]]:
    """Real questions, tested on those that one of the offered queries answers: else nobody could win three in four.

    Paraphrases of one question may fall on both sides, as they would in production.
    """
    shuffled, _ = split(sql_cases(SQL_FOLDER), seed, 10**6, 0)
    test = list(itertools.islice(filter(answerable, shuffled), n))
    return test, [case for case in shuffled if case not in test][:training]


def answerable(case: Case) -> bool:
    """Whether one of the offered queries is right."""
    world = Sql(SQL_FOLDER, offer=offered)
    return search(world, case, tries=len(world.reset(case).options), steps=1) is not None


def split(pool: Sequence[Case], seed: int, n: int, training: int) -> tuple[Sequence[Case], Sequence[Case]]:
    """A random share to test on, the next to learn from."""
    shuffled = sorted(pool, key=lambda case: case.case_id)
    random.Random(seed).shuffle(shuffled)
    return shuffled[:n], shuffled[n : n + training]


def games(**settings: object) -> Callable[[int, int, int], tuple[Sequence[Case], Sequence[Case]]]:
    """Fresh games for every seed."""

    def draw(seed: int, n: int, training: int) -> tuple[Sequence[Case], Sequence[Case]]:
        def made(first: int, count: int) -> Sequence[Case]:
            worlds = (World.model_validate({**settings, "seed": first + i}) for i in range(count))
            return text_world_cases(worlds)

        return made(5000 * seed, n), made(5000 * seed + 1000, training)

    return draw


OFFERED: dict[str, Sequence[str]] = {}


def offered(case: Case, tables: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Ten simple queries: a model of 135 M parameters cannot write SQL."""
    if case.case_id not in OFFERED:
        OFFERED[case.case_id] = simple_queries(case, tables, most=10)
    return OFFERED[case.case_id]


@cache
def tasks() -> dict[str, Task]:
    """By name."""
    once = Limits(steps=1, repeats=1)
    walk = "You play a text game. Choose the next command towards the goal."
    made = [
        Task(
            "tools", "Choose the function that does what is asked.", ToolCalling, tool_cases, once, 1000, 5,
            "the demo's task: one of 2 to 5 functions for a real request (BFCL live)",
        ),
        Task(
            "coin", walk, TextWorld, games(game="coin", rooms=4, detours=1),
            Limits(steps=10, repeats=1), 60, 30, "TextWorld: find the coin, at least 5 steps",
        ),
        Task(
            "cooking", walk, TextWorld, games(game="cooking"), Limits(steps=8, repeats=1), 200, 400,
            "TextWorld: 5 right steps of at most 8, some 8 commands offered at each, foods that seldom recur",
        ),
        Task(
            "sql", "Choose the SQL query that answers the question.", lambda: Sql(SQL_FOLDER, offer=offered),
            sql_draw, once, 460, 10,
            "InterCode-SQL: one of 10 simple queries; questions that one of them answers",
        ),
        Task(
            "sql-free", "Write one SQLite query that answers the question.", lambda: Sql(SQL_FOLDER),
            sql_draw, once, 0, 0, "InterCode-SQL: written freely",
        ),
    ]  # fmt: skip
    return {task.name: task for task in made}
