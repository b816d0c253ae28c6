"""What learning from known toolsets does to toolsets never served: the demo's requests, split by several seeds.

Each seed draws the demo's weeks anew: 70 labelled requests of week 1 and 110 of week 2 become a memory, and the weights
beside the embedded LM are tuned on those of week 2, on examples left out one by one (before) and in groups (now). Prints
accuracy with 95 % intervals on fresh requests and on toolsets never served, beside day 1 and similarity alone; and what
the gate says of the version against one that knows week 1 alone, on 140 other requests of week 2 in 60 random orders.

python tests/bench/bench_unseen.py [--seeds 0 1 2 3 4] [--tune-on 120] [--cases 40]
Exits with 1 where, over all seeds, toolsets never served come below day 1, or fresh requests do not gain 0.2 on it.
Some 900 prompts a seed, two to three minutes on two cores.
"""

import argparse
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from ratchet.agent.candidate import Candidate
from ratchet.agent.case import Case
from ratchet.agent.environments.tool_calling import case_observation, expected_tool
from ratchet.agent.kinds.program import Program, View, base_candidate
from ratchet.agent.lm.lm import LM, Prompt, Scores
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import spread
from ratchet.agent.optimize.proposer import Registered
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.optimize.vote_weights import EXTRA, RECALL, RETRIEVAL, likelihoods, tuning_row
from ratchet.agent.optimize.work import Work
from ratchet.evaluation.data.intervals import mean_interval
from ratchet.evaluation.gate.gate import Gate, GatePolicy
from ratchet.evaluation.gate.pairs import Pair
from ratchet.flows.demo.weeks import weeks_of

USUAL, DRIFTED = 70, 110
"""Labelled requests of each week."""
GATE, BATCH, ORDERS, ALPHA = 140, 8, 60, 0.01
"""Requests that judge, between two looks, orders in which they come, and the demo's share of the budget in week 2."""


class Kept:
    """The embedded LM, asked each prompt once; whatever else it is asked for, it is."""

    def __init__(self, lm: LM) -> None:
        self.lm, self.scores = lm, dict[Prompt, Scores]()

    def __getattr__(self, name: str) -> object:
        return getattr(self.lm, name)

    def score(self, prompt: Prompt) -> Scores:
        """What the LM makes of the prompt's choices."""
        if prompt not in self.scores:
            self.scores[prompt] = self.lm.score(prompt)
        return self.scores[prompt]


class Way(NamedTuple):
    """One agent's right answers, of the fresh requests and of toolsets never served, by seed."""

    fresh: list[float]
    unseen: list[float]


def main() -> int:
    """Measure, print, and compare with the goal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tune-on", type=int, default=120)
    parser.add_argument("--cases", type=int, default=40)
    told = parser.parse_args()
    ways = ("day 1", "similarity alone", "left out one by one", "left out in groups")
    found: dict[str, Way] = {way: Way([], []) for way in ways}
    verdicts: Counter[str] = Counter()
    for seed in told.seeds:
        began = time.perf_counter()
        measured_ways, of_seed = measured(seed, told.tune_on, told.cases)
        verdicts += of_seed
        for way, (fresh, unseen) in measured_ways.items():
            found[way].fresh.extend(fresh)
            found[way].unseen.extend(unseen)
            print(f"seed {seed}  {way:<20} fresh {said(fresh)}  never served {said(unseen)}", flush=True)
        print(f"seed {seed}  {judged(of_seed)}, {time.perf_counter() - began:.0f} s", flush=True)
    for way in ways:
        print(f"all     {way:<20} fresh {said(found[way].fresh)}  never served {said(found[way].unseen)}")
    print(f"all     {judged(verdicts)}")
    first, last = found["day 1"], found["left out in groups"]
    held = np.mean(last.unseen) >= np.mean(first.unseen) and np.mean(last.fresh) >= np.mean(first.fresh) + 0.2
    print("goal reached" if held else "goal missed")
    return 0 if held else 1


def measured(seed: int, tune_on: int, cases: int) -> tuple[dict[str, Way], Counter[str]]:
    """Of each way, whether each request was answered rightly; and how often which verdict is given."""
    weeks, rng = weeks_of(seed, 1.0), random.Random(seed)
    usual, drifted = rng.sample(weeks.usual, USUAL), rng.sample(weeks.drifted, len(weeks.drifted))
    before_drift = [example(case) for case in usual]
    examples = before_drift + [example(case) for case in drifted[:DRIFTED]]
    gate = drifted[DRIFTED : DRIFTED + GATE]
    tests = [[example(case) for case in part[:cases]] for part in (weeks.fresh, weeks.unseen)]
    first = Program(base_candidate("Pick the option that answers the request."))
    kept = first.lm = Kept(first.lm)
    week_1 = Registered(first.candidate)
    parent, _ = replayed(kept, week_1, before_drift, tune_on)
    seen = frozenset(one.view.case_id for one in before_drift)
    now, note = replayed(kept, Registered(first.candidate, {}, seen), examples, tune_on)
    print(f"seed {seed}  {note}", flush=True)
    before = one_by_one(now, spread(examples, tune_on))
    agents = {"day 1": first, "left out one by one": before, "left out in groups": now}
    found = {
        name: Way(*([is_right(agent, e) for e in part] for part in tests)) for name, agent in agents.items()
    }
    found["similarity alone"] = Way(*([is_most_similar(first, e) for e in part] for part in tests))
    ours, theirs = ([is_right(agent, example(case)) for case in gate] for agent in (parent, now))
    pairs = [
        Pair(case_id=case.case_id, slice=case.slice, champion=a, challenger=b)
        for case, a, b in zip(gate, ours, theirs, strict=True)
    ]
    orders = (rng.sample(pairs, len(pairs)) for _ in range(ORDERS))
    return found, Counter(verdict_on(order) for order in orders)


def verdict_on(order: Sequence[Pair]) -> str:
    """The gate's word after the first batch that ends the test, or after all of them."""
    gate = Gate(GatePolicy(alpha=ALPHA))
    for start in range(0, len(order), BATCH):
        gate.extend(order[start : start + BATCH])
        if gate.verdict().decision != "continue":
            break
    return gate.verdict().decision


def replayed(kept: LM, parent: Registered, examples: Sequence[Example], tune_on: int) -> tuple[Program, str]:
    """What `Replay` makes of the examples, and what it says of it."""
    with TemporaryDirectory() as folder:
        work = Work(folder=Path(folder), agent=lambda *given: learned(kept, *given))
        proposal = Replay(tune_on=tune_on).propose(parent, Evidence(examples=examples), work)
        assert proposal is not None, "there are labelled examples"
        return (
            learned(kept, proposal.candidate, proposal.files),
            f"{proposal.note} {proposal.parameters}",
        )


def judged(verdicts: Counter[str]) -> str:
    """Shares of the verdicts."""
    named = {"promote": "proven", "reject": "refused", "continue": "not yet"}
    shares = ", ".join(f"{words} {verdicts[key] / verdicts.total():.2f}" for key, words in named.items())
    return f"gate (e ≥ {1 / ALPHA:.0f}, {GATE} cases): {shares}"


def learned(kept: LM, candidate: Candidate, files: Mapping[str, Path]) -> Program:
    """The candidate on the LM that keeps its scores."""
    program = Program(candidate, memory=Memory.load(files["memory"]))
    program.lm = kept
    return program


def one_by_one(program: Program, examples: Sequence[Example]) -> Program:
    """With the weights that are likeliest on examples left out one by one alone."""
    program = program.with_weights(extra_where_known=False)
    names = {option.name for option in program.candidate.extra_options}
    usable = [e for e in examples if e.is_offered or e.answer in names]
    values = np.array(list(itertools.product(RETRIEVAL, RECALL, EXTRA, (0.0,))))
    scores = likelihoods([tuning_row(program, e) for e in usable], values).max(axis=1)
    retrieval, recall, extra, _ = values[scores.argmax()].tolist()
    return program.with_weights(retrieval_weight=retrieval, recall_weight=recall, extra_bias=extra)


def example(case: Case) -> Example:
    """The case as a person labels it."""
    view = View(case_id=case.case_id, observation=case_observation(case))
    return Example(view=view, answer=expected_tool(case.expected), trace_id=case.case_id)


def is_right(program: Program, one: Example) -> float:
    """1 if the agent's first choice is the right one."""
    return float(program.act(one.view).action.name == one.answer)


def is_most_similar(program: Program, one: Example) -> float:
    """1 if the option most like the request is the right one; it never abstains."""
    observation = one.view.observation
    place = int(program.features(observation, [])[0].argmax())
    return float(observation.options[place].name == one.answer)


def said(right: Sequence[float]) -> str:
    """Share with its interval."""
    interval = mean_interval(right)
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
