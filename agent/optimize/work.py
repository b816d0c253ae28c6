"""What a proposer works with: an agent to play, LMs to ask and files to write, all counted and none paid twice."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ratchet.agent.candidate import Candidate
from ratchet.agent.case import Case
from ratchet.agent.environment import Environment
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.limits import Limits
from ratchet.agent.lm.side_by_side import side_by_side
from ratchet.agent.optimize.budget import Budget, BudgetSpent, Meter
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.record import Json
from ratchet.agent.trace import Trace, Usage

if TYPE_CHECKING:  # a project names its proposers; what they work with is imported where they work
    from ratchet.agent.kinds.agent import Agent
    from ratchet.agent.kinds.program import Program
    from ratchet.agent.lm.lm import LM
    from ratchet.agent.memory.ranking import Embed, RecallSettings


_BEGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When a case was played of which it does not matter: a kept answer must not differ by the clock."""
_TOGETHER: Final = 16
"""Cases that an LM in this process plays before they are kept."""


def _nowhere() -> Environment:
    raise NothingToPropose("there is no environment to play in")


@contextmanager
def _silent(title: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


def _built_in(candidate: Candidate, files: Mapping[str, Path]) -> "Agent":
    from ratchet.agent.team.team import make_program

    return make_program(candidate, files)


@dataclass(frozen=True)
class Work:
    """Where and with what a proposer works."""

    folder: Path
    """New files are written below it."""
    environment: Callable[[], Environment] = _nowhere
    """A fresh world for one case."""
    limits: Limits = field(default_factory=Limits)
    """What playing one case may take."""
    seed: int = 0
    """Decides every random choice."""
    agent: Callable[[Candidate, Mapping[str, Path]], "Agent"] = _built_in
    """A candidate with its files, ready to act, of whatever kind; nothing that it does is real."""
    recall: "Callable[[RecallSettings | None], tuple[RecallSettings | None, Embed | None]]" = lambda told: (
        told,
        None,
    )
    """How a new memory recalls, as told or as configured, and the embedding that this needs."""
    may_retry: bool = False
    """Whether a failed attempt is known to have failed while it serves, and another one does no harm."""
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] = _silent
    """A title and a total → a function to call with what was done since the last call."""
    scored: Callable[[], Environment] | None = None
    """A fresh world for a case whose right answer is known, and which scores it; None = `environment` does."""
    writer: "Callable[[Candidate], LM | None]" = lambda candidate: None
    """What writes instructions and reflections for this candidate; None = nobody who could."""
    budget: Budget = field(default_factory=Budget)
    """What any proposer may spend; its own `budget` may only be tighter."""
    meter: Meter = field(default_factory=Meter)
    """What this proposer has spent."""
    calls: Calls = field(default_factory=Calls)
    """What its calls came to, so that none is paid twice."""

    def play(
        self,
        candidate: Candidate,
        files: Mapping[str, Path],
        cases: Sequence[Case],
        *,
        progress: Callable[[int], None] = lambda done: None,
        what_fits: bool = False,
    ) -> list[Trace]:
        """Each case once by this candidate, in order, scored where the right answer is known.

        Counted before it is played and kept as it ends: a case that this proposal has played, in this start or in one
        that was killed, is not played again; one that broke is.

        Args:
            candidate: who plays.
            files: what it names.
            cases: what it faces.
            progress: called with the number of cases finished since the last call.
            what_fits: play as many of the first as the budget allows, instead of refusing.

        Raises:
            BudgetSpent: not all of them fit into the budget, or it ran out on the way; what was played is kept.
        """
        agent = self._player(candidate, files).single_attempt()
        world = self.scored or self.environment
        return self._each("play", agent, cases, partial(self._run, agent, world), progress, what_fits)

    def repair(
        self,
        candidate: Candidate,
        files: Mapping[str, Path],
        failed: Sequence[Trace],
        cases: Mapping[str, Case] = MappingProxyType({}),
        *,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Trace]:
        """What the candidate wins, with feedback that does not tell the answer, of as many of these as fit.

        A case is one call, however many attempts it takes; counted and kept as those of `play`.

        Args:
            candidate: who plays.
            files: what it names.
            failed: runs whose last attempt was scored below 1; others are left out.
            cases: with their right answers where these are known, by id.
            progress: called with the number of cases finished since the last call.
        """
        from ratchet.agent.rollout.repair import repair

        times = {run.case.case_id: run.started_at for run in failed}

        def play(agent: "Agent", known: Sequence[Case], world: Callable[[], Environment]) -> list[Trace]:
            some = partial(self._run, agent, world, times=times)
            return self._each("repair", agent, known, some, progress, what_fits=True)

        return repair(self._player(candidate, files), failed, cases, self.environment, play=play)

    def _player(self, candidate: Candidate, files: Mapping[str, Path]) -> "Agent":
        """The candidate, whose LM is not asked again what it was asked before a kill in the middle of a case."""
        from ratchet.agent.optimize.metered import kept_within

        return kept_within(self.agent(candidate, files), self.calls)

    def _each(
        self,
        how: str,
        agent: "Agent",
        cases: Sequence[Case],
        play: Callable[[Sequence[Case]], list[Trace]],
        progress: Callable[[int], None],
        what_fits: bool,
    ) -> list[Trace]:
        """Each case in order, counted before and kept after; those that ended where only some had to fit."""
        cases = cases[: self.meter.room(len(cases))] if what_fits else cases
        self.meter.take(len(cases))
        apart = _TOGETHER if _runs_here(agent) else 1
        parts = [cases[start : start + apart] for start in range(0, len(cases), apart)]
        beside = max(min(agent.at_once, len(parts)), 1)

        def play_some(some: Sequence[Case]) -> list[Trace]:
            content = {
                case.case_id: (how, agent.candidate.candidate_id, case.inputs, case.expected) for case in some
            }
            known = {case_id: kept for case_id, one in content.items() if (kept := self._kept(*one))}
            new = [case for case in some if case.case_id not in known]
            try:
                played = self._played(play, new, content, beside)
            except BudgetSpent:
                if not what_fits:
                    raise
                played = {}
            progress(len(some))
            return [trace for case in some if (trace := (known | played).get(case.case_id))]

        return [trace for some in side_by_side(play_some, parts, at_once=agent.at_once) for trace in some]

    def _kept(self, *content: Json) -> Trace | None:
        kept = self.calls.kept(*content)
        if kept is None:
            return None
        trace = Trace.model_validate(kept.value)
        self.meter.charge(trace.usage, kept_s=kept.seconds)
        return trace

    def _played(
        self,
        play: Callable[[Sequence[Case]], list[Trace]],
        cases: Sequence[Case],
        content: Mapping[str, tuple[Json, ...]],
        beside: int,
    ) -> dict[str, Trace]:
        """Cases that are not kept yet, while `beside` such calls share the clock."""
        if not cases:
            return {}
        self.meter.take(0)
        began = time.perf_counter()
        traces = play(cases)
        seconds = (time.perf_counter() - began) / len(cases) / beside
        for case, trace in zip(cases, traces, strict=True):
            self.meter.charge(trace.usage)
            if trace.error is None or trace.error.kind == "agent":
                value = trace.model_dump(mode="json")
                self.calls.keep(*content[case.case_id], value=value, seconds=seconds)
        return {case.case_id: trace for case, trace in zip(cases, traces, strict=True)}

    def _run(
        self,
        agent: "Agent",
        world: Callable[[], Environment],
        cases: Sequence[Case],
        *,
        times: Mapping[str, datetime] = MappingProxyType({}),
    ) -> list[Trace]:
        from ratchet.agent.rollout.loop import run

        at = [times.get(case.case_id, _BEGIN) for case in cases]
        return run(agent, cases, world, at=at.__getitem__, limits=self.call_limits)

    @property
    def call_limits(self) -> Limits:
        """What one case may take, its share of the budget included."""
        most = [s for s in (self.limits.seconds, self.meter.budget.call_seconds) if s is not None]
        return self.limits.model_copy(update={"seconds": min(most, default=None)})

    def write(self, lm: "LM", text: str, *, time_asked: int = 0) -> str:
        """What the LM answers to this text; counted, and kept, as the cases that are played are.

        Args:
            lm: whom to ask (`writer`).
            text: the whole prompt.
            time_asked: how often this proposal has asked the very same before; another number is another call.

        Raises:
            BudgetSpent: the call does not fit into the budget.
            OutOfTime: no answer within the budget's `call_seconds`.
        """
        from ratchet.agent.lm.lm import Prompt
        from ratchet.agent.optimize.metered import MeteredLM

        asked = lm if isinstance(lm, MeteredLM) else MeteredLM(lm, self.meter, self.calls)
        return asked.write(Prompt(prefix="", suffix=text), time_asked=time_asked).text

    def once(self, ask: Callable[[], "tuple[Json, Usage]"], *content: Json) -> Json:
        """What any other call comes to, counted and kept as the others are.

        Args:
            ask: makes the call; gives what it came to and what that used.
            content: all that it depends on.

        Raises:
            BudgetSpent: the call does not fit into the budget.
            OutOfTime: no answer within the budget's `call_seconds`.
        """
        from ratchet.agent.optimize.metered import paid_once

        return paid_once(self.meter, self.calls, ask, *content)[0]

    def program(self, candidate: Candidate, files: Mapping[str, Path]) -> "Program":
        """A candidate of the built-in agent, ready to act on the LM that it names, whose every call is metered.

        Raises:
            NothingToPropose: the agent is of another kind.
        """
        from ratchet.agent.kinds.program import Program
        from ratchet.agent.optimize.metered import metered

        built_in_only(candidate)
        made = self.agent(candidate, files)
        assert isinstance(made, Program), "a built-in agent is a program"
        return metered(made, self.meter, self.calls)

    def file(self, name: str) -> Path:
        """Where a new file of this name goes, such as `memory/<hash>.jsonl`."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _runs_here(agent: "Agent") -> bool:
    """Whether all that it asks is an LM in this process: nothing is paid, and cases are played in batches."""
    return agent.candidate.kind == "built-in" and agent.lm is not None and agent.lm.scores_options


def built_in_only(candidate: Candidate) -> None:
    """Refuse an agent of another kind, for a proposer that changes what only the built-in one has.

    Raises:
        NothingToPropose: it is another's.
    """
    if candidate.kind != "built-in":
        raise NothingToPropose(f"it changes Ratchet's own agent only, and this one is a {candidate.kind}")
