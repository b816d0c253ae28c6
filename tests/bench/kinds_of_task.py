"""Does recall for a task that it never saw return steps of the same kind of task? tau-bench airline, real logs.

The kind (family) of a task is the set of tools among its gold actions that change something: cancel, book, update
flights, update baggages, update passengers, send a certificate, hand over to a person; no such action is a family of
its own (inform or refuse). It comes from the benchmark's answer key, which recall never sees: recall gets the
customer's first message as the goal, what the agent saw at the step, and what it reasoned.

Each task is left out with all its four trials; every step of these trials asks for k = 6 steps of the winning
trajectories of the other tasks. Precision is the share of recalled steps whose task is of the same family; chance
is what trajectories drawn at random would have. Families that won in one task alone have nothing to recall and
are named, not counted.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from agent.experience import Experience, winning_steps
from agent.library import Library
from agent.recall import Embed, Query, RecallSettings
from agent.trace import Trace
from infra.chat_log import to_trace

SHARED = Path(os.environ.get("RATCHET_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FILE = SHARED / "data" / "tau_bench_airline" / "gpt-4o-airline.json"
READ_ONLY = {
    "get_user_details", "get_reservation_details", "search_direct_flight", "search_onestop_flight",
    "list_all_airports", "calculate", "think",
}  # fmt: skip
K = 6
NOTHING = "inform or refuse"


class Kind(NamedTuple):
    """How recall did for the tasks of one family."""

    family: str
    tasks: int
    queries: int
    precision: float
    chance: float


class Logs(NamedTuple):
    """The trajectories with their task's family."""

    traces: list[Trace]
    families: dict[str, str]
    """By task."""

    def winning(self) -> list[Experience]:
        """Steps that won; the case is the task, so that all its trials can be left out at once."""
        return [
            step.model_copy(update={"case_id": str(trace.session_id)})
            for trace in self.traces
            for step in winning_steps(trace)
        ]


def load(path: Path = FILE) -> Logs:
    records = json.loads(path.read_text())
    at = datetime(2024, 5, 15, tzinfo=UTC)
    traces = [to_trace(record, agent="gpt-4o", named=True, seen_at=at) for record in records]
    return Logs(traces, {str(record["task_id"]): family(record) for record in records})


def family(record: dict[str, Any]) -> str:
    """The tools of the gold actions that change something."""
    tools = {action["name"] for action in record["info"]["task"]["actions"]} - READ_ONLY
    return " + ".join(sorted(tools)) or NOTHING


def precision(
    logs: Logs, settings: RecallSettings, *, embed: Embed | None = None, first_only: bool = False
) -> tuple[list[Kind], list[str]]:
    """By family, and the families that could not be asked."""
    steps = logs.winning()
    library = Library(embed=embed, embedding="given")
    library.add(steps)
    stored = Counter({task: len({s.trajectory for s in of}) for task, of in _by_task(steps).items()})
    won_in = Counter(logs.families[task] for task in stored)
    shares: dict[str, list[float]] = defaultdict(list)
    chances: dict[str, list[float]] = defaultdict(list)
    tasks: dict[str, set[str]] = defaultdict(set)
    for trace in logs.traces:
        task, kind = str(trace.session_id), logs.families[str(trace.session_id)]
        others = Counter({t: n for t, n in stored.items() if t != task})
        if won_in[kind] - (task in stored) < 1:
            continue
        chance = sum(n for t, n in others.items() if logs.families[t] == kind) / sum(others.values())
        for step in trace.attempts[0].steps[: 1 if first_only else None]:
            query = Query(
                observation=step.observation, goal=trace.case.inputs["request"], thought=step.thought or "",
                exclude_case=task,
            )  # fmt: skip
            found = library.recall(query, k=K, settings=settings)
            if found:
                shares[kind].append(
                    sum(logs.families[r.experience.case_id] == kind for r in found) / len(found)
                )
                chances[kind].append(chance)
                tasks[kind].add(task)
    kinds = [
        Kind(k, len(tasks[k]), len(v), sum(v) / len(v), sum(chances[k]) / len(v)) for k, v in shares.items()
    ]
    kinds.sort(key=lambda kind: -kind.queries)
    return kinds, sorted(set(logs.families.values()) - set(shares))


def overall(kinds: Iterable[Kind]) -> tuple[float, float]:
    """Precision and chance, every query alike."""
    kinds = list(kinds)
    n = sum(kind.queries for kind in kinds)
    return sum(k.precision * k.queries for k in kinds) / n, sum(k.chance * k.queries for k in kinds) / n


def _by_task(steps: Iterable[Experience]) -> dict[str, list[Experience]]:
    found: dict[str, list[Experience]] = defaultdict(list)
    for step in steps:
        found[step.case_id].append(step)
    return found


def show() -> int:
    """Print the tables; 1 where recall is no better than chance."""
    logs, console = load(), Console(width=110)
    kinds, alone = precision(logs, RecallSettings())
    table = Table(
        "family",
        "tasks",
        "queries",
        f"precision@{K}",
        "chance",
        title="words, all steps",
        title_justify="left",
    )
    for kind in kinds:
        table.add_row(
            kind.family, str(kind.tasks), f"{kind.queries:,}", f"{kind.precision:.2f}", f"{kind.chance:.2f}"
        )
    macro = sum(k.precision for k in kinds) / len(kinds), sum(k.chance for k in kinds) / len(kinds)
    table.add_row("mean of families", "", "", f"{macro[0]:.2f}", f"{macro[1]:.2f}")
    table.add_row("every query alike", "", "", *(f"{value:.2f}" for value in overall(kinds)))
    console.print(table)
    console.print(f"not asked, because no other task of the family was won: {', '.join(alone)}")
    table = Table(
        "what is compared", f"precision@{K}", "chance", title="every query alike", title_justify="left"
    )
    for name, settings, first in (
        ("goal, observation, reasoning", RecallSettings(), False),
        ("the same, first step only", RecallSettings(), True),
        ("goal alone", RecallSettings(observation=0, thought=0), False),
        ("observation alone", RecallSettings(goal=0, thought=0), False),
    ):
        table.add_row(name, *(f"{v:.2f}" for v in overall(precision(logs, settings, first_only=first)[0])))
    console.print(table)
    return int(overall(kinds)[0] <= overall(kinds)[1])
