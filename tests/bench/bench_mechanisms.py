"""Reflection, replay and roles, each on a Python callable and on a DSPy module: gain, interval and verdict.

python tests/bench/bench_mechanisms.py [--train 64] [--latency 0.0]
The agents ask the desk's scripted endpoint over HTTP (no LLM: it is right only where its prompt holds a rule, an
example of the same topic, or a note of what was wrong), with OpenAI's client and with DSPy. Production's traces are
those of MLflow's autolog, read back from MLflow; what may be learned and what judges is split as in `improve`. Each
mechanism is a challenger of the real gate on requests that it has not seen, and beside it stands the same challenger
with the mechanism switched off.
"""

import argparse
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import dspy
import mlflow
from openai import OpenAI

import ratchet
from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.candidate import Candidate
from ratchet.agent.case import Case
from ratchet.agent.environment import RESPOND
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.proposer import Proposal, Proposer, Registered, made_by
from ratchet.agent.optimize.reflections import Reflections
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.optimize.work import Work
from ratchet.agent.part_values import PartValues
from ratchet.agent.project import Project
from ratchet.agent.rollout.loop import run
from ratchet.agent.seen import case_of_trace
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import labelled_cases, role_of
from ratchet.evaluation.data.curate import CurateSettings, curate, training_rollouts
from ratchet.evaluation.data.scorers import same
from ratchet.evaluation.gate.gate import GatePolicy
from ratchet.evaluation.gate.order import batches, in_order
from ratchet.evaluation.gate.trial import Trial
from ratchet.evaluation.gate.verdict import Verdict
from ratchet.flows.template.desk.scripted_llm import TOPICS, running, topics
from ratchet.infra.mlflow_client import connect
from ratchet.infra.settings import prepare_environment
from ratchet.infra.traces.foreign import KnownVersions, Reading
from ratchet.infra.traces.read import collect
from ratchet.tasks.collect import scored
from ratchet.tasks.curate import TrainingExample
from ratchet.tasks.evidence import as_examples

NOW = datetime(2026, 11, 25, tzinfo=UTC)
GATE_SHARE, BATCH = 0.5, 16
TEAM = ratchet.prompt("desk-team", default="Which team solves the request? Answer with its name.")
TOPIC = ratchet.prompt("desk-topic", default="Which topic is the request about? Answer with one word.")
MECHANISMS = ("reflection", "replay", "roles")
KINDS = ("callable", "module")
OFF = {
    "reflection": "tries again without it",
    "replay": "remembers and shows nothing",
    "roles": "one memory of whole answers for both prompts",
}
"""What is left of each mechanism in its ablation."""


def solved(case: Case, answer: object) -> float:
    """The ticket system's word."""
    return float(answer == TOPICS[topics()[case.inputs["request"]]])


class Row(NamedTuple):
    """One challenger's test."""

    mechanism: str
    kind: str
    on: bool
    champion: float
    challenger: float
    verdict: Verdict
    note: str


def callables(address: str) -> dict[int, Callable[[str], str]]:
    """An agent of one prompt and one of two, with OpenAI's client, as a team has them."""
    client = OpenAI(base_url=address, api_key="none", max_retries=0)

    def ask(prompt: ratchet.agent.parts.TextPart, request: str) -> str:
        messages: list[Any] = [
            {"role": "system", "content": prompt()},
            *ratchet.examples(prompt.name, request),
        ]
        messages += [{"role": "user", "content": request}]
        reply = client.chat.completions.create(model="scripted", messages=messages)
        return reply.choices[0].message.content or ""

    @mlflow.trace
    def one(request: str) -> str:
        return ask(TEAM, request)

    @mlflow.trace
    def two(request: str) -> str:
        return ask(TEAM, f"{request}\nTopic: {ask(TOPIC, request)}")

    return {1: one, 2: two}


class Desk(dspy.Module):  # type: ignore[misc]  # dspy ships no types
    """The same with DSPy: one predictor, or two."""

    def __init__(self, address: str, prompts: int) -> None:
        super().__init__()
        if prompts == 2:
            self.topic = dspy.Predict(dspy.Signature("request -> topic", "Name the topic."))
        given = "request, topic -> team" if prompts == 2 else "request -> team"
        self.team = dspy.Predict(dspy.Signature(given, "Name the team."))
        self.set_lm(dspy.LM("openai/scripted", api_base=address, api_key="none", cache=False))

    def forward(self, request: str) -> dspy.Prediction:
        """Ask once, or the topic first."""
        about = {"topic": self.topic(request=request).topic} if hasattr(self, "topic") else {}
        return dspy.Prediction(team=self.team(request=request, **about).team)


class Measured:
    """One agent of the desk: what it did in production, and what may be learned from it."""

    def __init__(self, name: str, address: str, kind: str, prompts: int, requests: Sequence[str]) -> None:
        agent: Any = callables(address)[prompts] if kind == "callable" else Desk(address, prompts)
        parts = [TOPIC, TEAM][2 - prompts :] if kind == "callable" else []
        self.project = Project(
            name=name, agent=agent, parts=parts, score=solved, scores_itself=True, effects="none"
        )
        self.first = first_candidate(self.project, None, None)
        runs = self._served(agent, requests)
        labelled = labelled_cases(runs, [], gate_share=GATE_SHARE, salt="bench", self_scoring=True)
        self.gate_cases = [one for one in labelled if one.role == "gate"]
        training = [TrainingExample(case=c, weight=0.5) for c in curate(labelled, CurateSettings()).cases]
        rollouts = training_rollouts(runs, labelled, [], gate_share=GATE_SHARE, salt="bench")
        self.evidence = Evidence(examples=lambda: as_examples(self.project, training), rollouts=rollouts)

    def _served(self, agent: Any, requests: Sequence[str]) -> list[Trace]:
        """Production: the agent in its own process's way, traced by MLflow, read back."""
        connect(self.project.name)
        mlflow.set_experiment(self.project.name)
        for request in requests:
            agent(request=request)
        mlflow.flush_trace_async_logging()
        values = PartValues(self.first)
        texts = {name: values.prompt(name) or "" for name in self.first.predictors}
        known = KnownVersions(texts={self.first.candidate_id: texts})
        reading = Reading(case_of=partial(case_of_trace, self.project), versions=lambda: known)
        found = collect(self.project.name, reading=reading)
        assert not found.problems, found.problems[:1]
        runs, unscored = scored(self.project, found.traces)
        assert len(runs) == len(requests), (len(runs), len(requests))
        assert not unscored, unscored[:1]
        return runs

    def changed_by(self, proposer: Proposer, folder: Path) -> Proposal:
        """What the proposer makes of the first candidate."""
        work = Work(
            folder=folder,
            environment=self.project.environment,
            agent=partial(make_agent, self.project),
            may_retry=True,
        )
        with untraced():
            made = made_by(proposer, Registered(self.first), self.evidence, work)
        assert made is not None
        return made

    def tested(self, proposal: Proposal) -> tuple[float, float, Verdict]:
        """The gate's test of it, on requests that it has not seen."""
        seen = set(proposal.seen_case_ids)
        cases = [one for one in self.gate_cases if one.case_id not in seen]
        trial = Trial.begin(
            self.first.candidate_id,
            proposal.candidate.candidate_id,
            NOW,
            GatePolicy(),
            in_order(cases),
            len(cases),
        )
        for batch in batches(list(trial.rest), BATCH):
            if not trial.is_open:
                break
            sides = [
                self._played(candidate, files, [one.case for one in batch])
                for candidate, files in ((self.first, {}), (proposal.candidate, proposal.files))
            ]
            trial.bet(trial.compare(batch, *sides, same))
        plays = [play for play in trial.plays if play.is_evidence]
        means = [
            sum(getattr(p, side) or 0.0 for p in plays) / len(plays) for side in ("champion", "challenger")
        ]
        return means[0], means[1], trial.verdict

    def _played(
        self, candidate: Candidate, files: Mapping[str, Path], cases: Sequence[Case]
    ) -> dict[str, Trace]:
        with untraced():
            traces = run(
                make_agent(self.project, candidate, files), cases, self.project.environment, at=lambda _: NOW
            )
        return {trace.case.case_id: trace for trace in traces}


@contextmanager
def untraced() -> Iterator[None]:
    """What is only tried is no production."""
    with mlflow.tracing.context(enabled=False):
        yield


def one_memory(made: Proposal, evidence: Evidence, folder: Path) -> Proposal:
    """What the whole agent answered, for all its prompts."""
    memory = Memory(
        Experience(
            observation=one.view.observation.text,
            action=RESPOND,
            arguments={"content": one.call},
            trace_id=one.trace_id,
            case_id=one.view.case_id,
            source="own",
        )
        for one in evidence.examples
    )
    memory.save(path := folder / "shared.jsonl")
    candidate = made.candidate.model_copy(update={"memories": {}, "memory": memory.memory_id})
    return made.model_copy(update={"candidate": candidate, "files": {"memory": path}})


def challengers(mechanism: str, agent: Measured, folder: Path) -> tuple[Proposal, Proposal]:
    """With the mechanism, and with it switched off."""
    if mechanism == "reflection":
        made = agent.changed_by(Reflections(), folder)
        return made, without(made, reflections=0)
    made = agent.changed_by(Replay(), folder)
    if mechanism == "roles":
        return made, one_memory(made, agent.evidence, folder)
    return made, without(made, recalls=0)


def without(made: Proposal, **topology: int) -> Proposal:
    """The same candidate with this of its topology switched off."""
    off = made.candidate.topology.model_copy(update=topology)
    return made.model_copy(update={"candidate": made.candidate.model_copy(update={"topology": off})})


def measured(
    mechanism: str, kind: str, address: str, requests: Sequence[str], name: str, folder: Path
) -> list[Row]:
    """Two rows: the mechanism, and its ablation."""
    agent = Measured(name, address, kind, 2 if mechanism == "roles" else 1, requests)
    rows = []
    for on, proposal in zip((True, False), challengers(mechanism, agent, folder), strict=True):
        ours, theirs, verdict = agent.tested(proposal)
        rows.append(Row(mechanism, kind, on, ours, theirs, verdict, "" if on else OFF[mechanism]))
    return rows


def shown(rows: Sequence[Row]) -> str:
    """The table."""
    head = f"{'mechanism':11} {'kind':9} {'':4} {'champion':>9} {'challenger':>11} {'gain':>6}  {'95 % interval':17} {'cases':>5}  verdict"
    lines = [head, "-" * len(head)]
    for one in rows:
        gain, (low, high) = one.verdict.gain or 0.0, one.verdict.ci
        lines.append(
            f"{one.mechanism:11} {one.kind:9} {'on' if one.on else 'off':4} {one.champion:9.2f} {one.challenger:11.2f} "
            f"{gain:+6.2f}  [{low:+.2f}, {high:+.2f}]  {one.verdict.n_bets:5}  {one.verdict.decision}"
            + (f" ({one.note})" if one.note else "")
        )
    return "\n".join(lines)


def sample(n: int, judging: int = 128) -> list[str]:
    """`n` requests to learn from and `judging` for the gate, as far as there are."""
    sides: dict[str, list[str]] = {"train": [], "gate": []}
    for request in sorted(topics()):
        case = Case(inputs={"request": request})
        sides[role_of(case.case_id, gate_share=GATE_SHARE, salt="bench")].append(request)
    return [*sides["train"][:n], *sides["gate"][:judging]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=64, help="requests that may be learned from, at most")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that an answer takes")
    parser.add_argument("--only", choices=MECHANISMS, help="one mechanism")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    prepare_environment()
    rows: list[Row] = []
    with TemporaryDirectory() as folder, running(latency_s=given.latency) as llm:
        os.environ["RATCHET_HOME"] = folder
        with traced():
            for mechanism in [given.only] if given.only else MECHANISMS:
                for kind in KINDS:
                    name = f"bench-{uuid.uuid4().hex[:8]}"
                    (scratch := Path(folder, name)).mkdir()
                    rows += measured(mechanism, kind, llm.address, sample(given.train), name, scratch)
                    print(f"{mechanism} on a {kind}: measured", file=sys.stderr)
        asked = llm.calls
    if given.json:
        print(json.dumps([one._asdict() | {"verdict": one.verdict.model_dump()} for one in rows]))
    else:
        print(f"{shown(rows)}\n{asked:,} calls of the scripted endpoint")
    return 0


@contextmanager
def traced() -> Iterator[None]:
    """Both clients' own instrumentation is on."""
    mlflow.openai.autolog()
    mlflow.dspy.autolog()
    try:
        yield
    finally:
        mlflow.openai.autolog(disable=True)
        mlflow.dspy.autolog(disable=True)


if __name__ == "__main__":
    sys.exit(main())
