"""A million steps from real messages: how the synthetic experience of the recall benchmarks is put together.

A step's goal is a Banking77 message (one for the ten steps of a trajectory); its observation is another
Banking77 message followed by a sentence that a user or a tool said in tau-bench airline; its reasoning is a
sentence of the assistant there. Messages are drawn uniformly with replacement and recombined, so every word is
real, word frequencies are those of the sources, and exact copies are rare (13,083 messages × some 5,000
sentences), while no combination is a real episode: fit for timing, not for judging what is recalled.
"""

import csv
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

SHARED: Final = Path(os.environ.get("RATCHET_SHARED", Path(__file__).resolve().parents[3] / "shared"))
LENGTH: Final = 10
"""Steps of a trajectory."""
LONGEST: Final = 200
"""Characters of a sentence."""
TOOLS: Final = ("look_up", "search", "update", "cancel", "book", "refund", "respond")


class Sources:
    """The real sentences, by who said them."""

    def __init__(self) -> None:
        self.requests = _requests()
        self.said, self.thought = _airline()

    def texts(self) -> list[str]:
        """Every sentence that steps are made of; a line of a field is one of them."""
        return [*self.requests, *self.said, *self.thought]

    def steps(self, start: int, count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
        """Fields of the steps `start` to `start + count`; the same numbers give the same steps."""
        first = start // LENGTH
        for trajectory in range(first, -(-(start + count) // LENGTH)):
            rng = random.Random(f"{seed}/{trajectory}")
            goal = rng.choice(self.requests)
            for index in range(LENGTH):
                fields = {
                    "goal": goal,
                    "observation": f"{rng.choice(self.requests)}\n{rng.choice(self.said)}",
                    "thought": rng.choice(self.thought),
                    "action": rng.choice(TOOLS),
                    "options": TOOLS,
                    "index": index,
                    "trace_id": f"{seed:08x}{trajectory:024x}",
                    "case_id": f"{trajectory // 4:016x}",
                    "source": "own",
                }
                if start <= trajectory * LENGTH + index < start + count:
                    yield fields


def _requests() -> list[str]:
    folder = SHARED / "data" / "banking77"
    if not folder.is_dir():
        raise SystemExit(f"{folder} is absent: put the Banking77 files (train.csv, test.csv) there")
    texts = []
    for name in ("train.csv", "test.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            texts += [" ".join(row["text"].split()) for row in csv.DictReader(file)]
    return texts


def _airline() -> tuple[list[str], list[str]]:
    path = SHARED / "data" / "tau_bench_airline" / "gpt-4o-airline.json"
    if not path.is_file():
        raise SystemExit(f"{path} is absent: put tau-bench's airline trajectories there")
    messages = [m for row in json.loads(path.read_text()) for m in row["traj"] if m["content"]]
    said = {" ".join(m["content"].split())[:LONGEST] for m in messages if m["role"] in ("user", "tool")}
    thought = {" ".join(m["content"].split())[:LONGEST] for m in messages if m["role"] == "assistant"}
    return sorted(said), sorted(thought)
