"""The rows of bench_agent: each makes an agent from the task's own experience."""

import random
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import dspy
import numpy as np
from agent_tasks import Task
from exploration import Explorer, search
from rich.progress import track

from ratchet.agent.candidate import Candidate
from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Environment, Observation, Outcome
from ratchet.agent.errors import LMFailure
from ratchet.agent.kinds.program import Decision, Program, View, base_candidate
from ratchet.agent.lm.embedded import Embedded, EmbeddedEngine
from ratchet.agent.lm.lean_adapter import LeanAdapter
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience, goal_of
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.optimize.team import tune_weights
from ratchet.agent.optimize.trajectories import Trajectories
from ratchet.agent.optimize.weights.lora import Lora
from ratchet.agent.optimize.weights.options import train
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import content_hash
from ratchet.agent.rollout.loop import run
from ratchet.agent.rollout.rollout import HISTORY
from ratchet.agent.team.roles import SOLVER_CRITIC_JUDGE, as_team
from ratchet.agent.team.team import Team, make_program
from ratchet.agent.trace import Trace, Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECALLS = 2
"""Examples in the prompt, the same number for ours and for DSPy's: equal tokens."""
TUNED_ON = 24
"""Steps that the weight of the memory's vote, and those of a team's roles, are tuned on."""


def as_traces(task: Task, program: Program, cases: Sequence[Case], **settings: Any) -> list[Trace]:
    """Play the cases."""
    return run(program, cases, task.environment, at=lambda _: NOW, limits=task.limits, **settings)


def base(task: Task, attempts: int, **topology: float) -> Candidate:
    """The agent on its first day."""
    candidate = base_candidate(task.instructions, attempts=attempts)
    return candidate.model_copy(update={"topology": candidate.topology.model_copy(update=topology)})


@dataclass(frozen=True)
class Learned:
    """What a seed's exploration found: steps of winning trajectories, with what was offered at each."""

    steps: tuple[Example, ...]
    tried: int

    @property
    def won(self) -> int:
        """Cases that were won."""
        return len({step.view.case_id for step in self.steps})

    def remembered(self, most: int) -> list[Experience]:
        """The first `most` steps, in the order in which they were found, as the loop would have kept them."""
        return [
            Experience(
                observation=step.view.observation.text,
                action=step.answer,
                options=tuple(option.name for option in step.view.observation.options),
                trace_id=step.trace_id,
                case_id=step.view.case_id,
                source="own",
                goal=step.view.goal,
                index=len([s for s in self.steps[:place] if s.trace_id == step.trace_id]),
            )
            for place, step in enumerate(self.steps[:most])
        ]


def explore(task: Task, training: Sequence[Case], seed: int) -> Learned:
    """What a search without LM, scored by the environment alone, wins of the training cases."""
    found = []
    for number, case in enumerate(track(training, f"exploring {task.name}, seed {seed}", transient=True)):
        way = search(
            task.environment(), case, tries=task.explored, steps=task.limits.steps, seed=1000 * seed + number
        )
        found += as_examples(case, [(seen, action.name) for seen, action in way or ()], seed)
    return Learned(tuple(found), len(training))


def as_examples(case: Case, way: Sequence[tuple[Observation, str]], seed: int) -> list[Example]:
    """The steps of one winning trajectory."""
    trace_id = content_hash([case.case_id, seed], length=32)
    names = [name for _, name in way]
    return [
        Example(
            view=View(
                case_id=case.case_id, observation=seen, goal=goal_of(case),
                done=tuple(names[max(place - HISTORY, 0) : place]),
            ),
            answer=name, trace_id=trace_id, source="own",
        )
        for place, (seen, name) in enumerate(way)
    ]  # fmt: skip


def recalling(task: Task, attempts: int, learned: Learned, folder: Path, most: int) -> Proposal:
    """The challenger that `improve` would make of these steps, its vote weighed on steps left out."""
    parent, work, steps = Registered(base(task, attempts)), Work(folder=folder), learned.steps[:most]
    if task.name == "tools":  # decisions on their own, as the demo remembers them
        replay = Replay(recalls=RECALLS, tune_on=TUNED_ON)
        return replay.propose(parent, Evidence(examples=steps), work) or Proposal(candidate=parent.candidate)
    trajectories = Trajectories(recalls=RECALLS, tune_on=TUNED_ON)
    return trajectories.remembering(parent, learned.remembered(most), steps, work)


def adapter(
    task: Task, learned: Learned, folder: Path, *, most: int, memory: Memory | None = None, vote: float = 0
) -> Path | None:
    """LoRA on own winning steps: a random share of at most `most`."""
    steps = list(learned.steps)
    random.Random(0).shuffle(steps)
    if not steps:
        return None
    topology = {"recalls": RECALLS, "recall_weight": vote} if memory else {}
    program = Program(base(task, 1, **topology), memory=memory)
    digest, _ = train(program, steps[:most], folder, Lora(epochs=2))
    return folder / digest


class Knn(Program):
    """dspy.KNNFewShot over the same steps, with as many examples in the prompt, on the same LM and format."""

    def __init__(self, task: Task, attempts: int, learned: Learned) -> None:
        super().__init__(base(task, attempts))
        signature = dspy.Signature("request: str, options: list -> choice: str", task.instructions)
        trainset = [
            dspy.Example(
                request=step.view.observation.text,
                options=[option.name for option in step.view.observation.options],
                choice=step.answer,
            ).with_inputs("request", "options")
            for step in learned.steps
        ]
        vectorizer = dspy.Embedder(_vectors, caching=False)
        few_shot = dspy.KNNFewShot(
            RECALLS, trainset, vectorizer, max_bootstrapped_demos=0, max_labeled_demos=RECALLS
        )
        dspy.disable_logging()
        self.knn = few_shot.compile(dspy.Predict(signature))

    def act(self, view: View) -> Decision:
        options = [o for o in view.observation.options if o.name not in view.tried] or list(
            view.observation.options
        )
        quiet = StringIO()  # DSPy draws a bar for each question
        with (
            dspy.context(lm=self.lm.dspy, adapter=LeanAdapter()),
            redirect_stdout(quiet),
            redirect_stderr(quiet),
        ):
            said = self.knn(
                request=view.observation.text, options=[{"name": option.name} for option in options]
            )
        usage = Usage(input_tokens=self.lm.dspy.history[-1]["usage"]["prompt_tokens"], lm_calls=1)
        return Decision(action=Action(name=said.choice), usage=usage)


def _vectors(texts: list[str]) -> list[list[float]]:
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), n_features=2**11, alternate_sign=False
    )
    return np.asarray(hashing.transform(texts).todense()).tolist()


class Budgeted(EmbeddedEngine):
    """The embedded LM until its tokens are used up."""

    def __init__(self, tokens: int) -> None:
        super().__init__(Embedded())
        self.left, self.used = tokens, 0

    def complete(self, request: Any) -> Any:
        if self.left <= 0:
            raise LMFailure("the token budget is used up")
        response = super().complete(request)
        spent = (response.usage.input_tokens or 0) + (response.usage.output_tokens or 0)
        self.left -= spent
        self.used += spent
        return response


def react(task: Task, case: Case, tokens: int) -> tuple[Outcome, int]:
    """Plain dspy.ReAct with one tool, in DSPy's own format, until it ends or its tokens do."""
    environment: Environment = task.environment()
    seen = environment.reset(case)
    engine = Budgeted(tokens)
    lm = dspy.LM("embedded/react", engine=engine, cache=False, max_tokens=64)
    over = False

    def act(command: str) -> str:
        """Carry out one of the offered commands."""
        nonlocal seen, over
        if over:
            return "It is over: finish."
        seen, over = environment.step(Action(name=str(command)))
        return _told(seen)

    dspy.disable_logging()
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        agent = dspy.ReAct(
            dspy.Signature("observation: str -> answer: str", task.instructions),
            tools=[act], max_iters=task.limits.steps,
        )  # fmt: skip
        try:
            agent(observation=_told(seen))
        except Exception as error:  # noqa: BLE001  DSPy's parsers raise many kinds; the world is scored where it stands
            print(f"    ReAct ended with {type(error).__name__}", flush=True)
    return environment.outcome(), engine.used


def _told(seen: Observation) -> str:
    names = ", ".join(option.name for option in seen.options)
    return f"{seen.text} Commands: {names}" if names else seen.text


ROWS: dict[str, Callable[..., Program | None]] = {}
"""Name → (task, attempts, learned, folder, lora steps) → program; None = there is nothing to learn from."""


def row(name: str) -> Callable[[Any], Any]:
    def register(make: Any) -> Any:
        ROWS[name] = make
        return make

    return register


@row("chance")
def _chance(task: Task, attempts: int, learned: Learned, folder: Path, lora: int) -> Program:
    return Explorer(Program(base(task, attempts)), seed=1)


@row("zero-shot")
def _zero(task: Task, attempts: int, learned: Learned, folder: Path, lora: int) -> Program:
    return Program(base(task, attempts, reflections=0))


@row("+ reflection")
def _reflecting(task: Task, attempts: int, learned: Learned, folder: Path, lora: int) -> Program:
    return Program(base(task, attempts))


def _experienced(most: int) -> Callable[..., Program | None]:
    def make(task: Task, attempts: int, learned: Learned, folder: Path, lora: int) -> Program | None:
        if len(learned.steps) <= {100: 0, 300: 100, 1000: 300}[most]:
            return None  # the row before has all there is
        return make_program(*_parts(recalling(task, attempts, learned, folder, most)))

    return make


for _most in (100, 300, 1000):
    ROWS[f"+ experience {_most}"] = _experienced(_most)


def _parts(proposal: Proposal) -> tuple[Candidate, dict[str, Path]]:
    return proposal.candidate, proposal.files


@row("experience, prompt only")
def _prompting(task: Task, attempts: int, learned: Learned, folder: Path, lora: int) -> Program | None:
    if not learned.steps:
        return None
    candidate, files = _parts(recalling(task, attempts, learned, folder, 1000))
    silent = candidate.topology.model_copy(update={"recall_weight": 0.0})
    return Program(candidate.model_copy(update={"topology": silent}), memory=Memory.load(files["memory"]))


@row("dspy.KNNFewShot")
def _knn(task: Task, attempts: int, learned: Learned, folder: Path, lora: int) -> Program | None:
    return Knn(task, attempts, Learned(learned.steps[:1000], learned.tried)) if learned.steps else None


@row("+ LoRA")
def _tuned(task: Task, attempts: int, learned: Learned, folder: Path, lora: int) -> Program | None:
    found = adapter(task, learned, folder, most=lora)
    return Program(base(task, attempts), adapter=found) if found else None


@row("+ LoRA + experience")
def _both(task: Task, attempts: int, learned: Learned, folder: Path, lora: int) -> Program | None:
    """The adapter is trained with the memory's vote beside it, as `improve` does where experience came first."""
    if not learned.steps:
        return None
    candidate, files = _parts(recalling(task, attempts, learned, folder, 1000))
    memory, vote = Memory.load(files["memory"]), candidate.topology.recall_weight
    found = adapter(task, learned, folder, most=lora, memory=memory, vote=vote)
    return Program(candidate, memory=memory, adapter=found)


@row("team: solver, critic, judge")
def _team(task: Task, attempts: int, learned: Learned, folder: Path, lora: int) -> Program | None:
    """Its weights are tuned on own winning steps; without any it stays as it is."""
    team = as_team(base(task, attempts), SOLVER_CRITIC_JUDGE)
    steps = list(learned.steps)
    random.Random(0).shuffle(steps)
    if steps:
        roles, _ = tune_weights(Team(team, {}), steps[:TUNED_ON])
        team = team.model_copy(update={"topology": team.topology.model_copy(update={"roles": roles})})
    return Team(team, {})
