"""What a team is worth on the embedded LM: BFCL's live requests, single attempt, against one agent on the same data.

    python tests/bench/bench_team.py --seeds 3 --train 60 --test 80

Learned rows saw the answers of the training requests; every row is scored on requests that no row has seen. Mean
over seeds with a 95 % interval (t), tokens read per case, and seconds to make.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from ratchet.agent.candidate import Candidate
from ratchet.agent.environments.tool_calling import case_observation, expected_tool, live_cases
from ratchet.agent.kinds.program import View, base_candidate
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.proposer import Proposer, Registered, made_by
from ratchet.agent.optimize.team import tune_weights
from ratchet.agent.optimize.team_search import TeamSearch
from ratchet.agent.optimize.weights.lora import Lora
from ratchet.agent.optimize.work import Work
from ratchet.agent.team.roles import PLANNER_WORKER, SOLVER_CRITIC_JUDGE, as_team
from ratchet.agent.team.team import Team, make_program

SOLO = base_candidate("Pick the tool that does what the request asks for.")


class Made(NamedTuple):
    """An agent with its files."""

    candidate: Candidate
    files: Mapping[str, Path]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--test", type=int, default=80)
    parser.add_argument(
        "--skip-lora", action="store_true", help="leave the trained rows out (most of the time)"
    )
    chosen = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(chosen.seeds):
        training, test = split(seed, chosen.train, chosen.test)
        with tempfile.TemporaryDirectory() as folder:
            for name, make in systems(training, Path(folder), seed, lora=not chosen.skip_lora):
                began = time.perf_counter()
                made = make()
                seconds = time.perf_counter() - began
                found.setdefault(name, []).append((*score(made, test), seconds))
                Console(stderr=True).print(
                    f"seed {seed}: {name}: {found[name][-1][0]:.3f} ({made.candidate.origin.note})"
                )
    show(found, chosen)


def split(seed: int, n_train: int, n_test: int) -> tuple[list[Example], list[Example]]:
    """Disjoint requests; tools recur on both sides, as in production."""
    cases = [case for case in live_cases("live_multiple") if len(case.inputs["tools"]) >= 3]
    drawn = random.Random(seed).sample(cases, n_train + n_test)
    examples = [
        Example(
            view=View(case_id=case.case_id, observation=case_observation(case)),
            answer=expected_tool(case.expected),
            trace_id=f"{index:032x}",
        )
        for index, case in enumerate(drawn)
    ]
    return examples[:n_train], examples[n_train:]


def systems(
    training: Sequence[Example], folder: Path, seed: int, *, lora: bool
) -> Iterator[tuple[str, Callable[[], Made]]]:
    """Every row of the table: its name, and how it is made."""

    def made(proposer: Proposer, parent: Candidate) -> Made:
        work = Work(folder=folder, seed=seed)
        proposal = made_by(proposer, Registered(parent), Evidence(examples=training), work)
        return Made(proposal.candidate, proposal.files) if proposal else Made(parent, {})

    def weighed(team: Candidate) -> Made:
        roles, _ = tune_weights(Team(team, {}), training)
        return Made(
            team.model_copy(update={"topology": team.topology.model_copy(update={"roles": roles})}), {}
        )

    yield "one agent", lambda: Made(SOLO, {})
    yield "solver, critic, judge", lambda: weighed(as_team(SOLO, SOLVER_CRITIC_JUDGE))
    yield "planner, worker", lambda: weighed(as_team(SOLO, PLANNER_WORKER))
    yield "what the search proposes", lambda: made(TeamSearch(examples=len(training)), SOLO)
    if lora:
        lora = Lora(tune_share=0)
        yield "one agent, LoRA", lambda: made(lora, SOLO)
        yield (
            "solver, critic, judge, LoRA each",
            lambda: made(lora, as_team(SOLO, SOLVER_CRITIC_JUDGE)),
        )


def score(made: Made, test: Sequence[Example]) -> tuple[float, float]:
    """Share of right first choices, and tokens read per case."""
    decisions = make_program(made.candidate, made.files).decide([example.view for example in test])
    right = [d.action.name == e.answer for d, e in zip(decisions, test, strict=True)]
    return float(np.mean(right)), float(np.mean([d.usage.input_tokens for d in decisions]))


def show(found: Mapping[str, Sequence[tuple[float, float, float]]], chosen: argparse.Namespace) -> None:
    """The table on stdout."""
    table = Table(
        title=f"right first choice on {chosen.test} fresh requests, {chosen.seeds} seeds, {chosen.train} learned from"
    )
    for name in ("agent", "right", "95 %", "tokens a case", "seconds to make"):
        table.add_column(name, justify="left" if name == "agent" else "right")
    for name, rows in found.items():
        right, tokens, seconds = np.array(rows).T
        low, high = interval(right)
        table.add_row(
            name,
            f"{right.mean():.3f}",
            f"{low:.3f}–{high:.3f}",
            f"{tokens.mean():.0f}",
            f"{seconds.mean():.0f}",
        )
    Console().print(table)


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval for the mean over seeds, by Student's t."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


if __name__ == "__main__":
    main()
