"""Proposers make candidates out of evidence: what one is given, what it hands back, and who notes where that is from.

Decision: a proposer says what it changed and why, and nothing else. Which cases it saw, what it cost and where the
candidate comes from is noted here, from what it read and how long it took, so that no proposer can forget it. A
proposer never promotes: the gate judges what it made on cases that it did not see.
"""

import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from pydantic import BaseModel, Field

from ratchet.agent.candidate import Candidate, Origin, Role, share_label
from ratchet.agent.case import Case
from ratchet.agent.environment import Environment
from ratchet.agent.errors import BadInput, NothingToPropose
from ratchet.agent.limits import Limits
from ratchet.agent.lm.side_by_side import side_by_side
from ratchet.agent.optimize.budget import Budget, BudgetSpent, Meter
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.record import Json, Record, as_json, content_hash
from ratchet.agent.trace import Trace, Usage

if TYPE_CHECKING:  # a project names its proposers; what they work with is imported where they work
    from ratchet.agent.kinds.agent import Agent
    from ratchet.agent.kinds.program import Program
    from ratchet.agent.lm.lm import LM
    from ratchet.agent.memory.ranking import Embed, RecallSettings
    from ratchet.agent.optimize.evidence import Evidence

_NAME = re.compile(r"^[a-z][a-z0-9_-]{0,30}$")
_BEGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When a case was played of which it does not matter: a kept answer must not differ by the clock."""
_TOGETHER: Final = 16
"""Cases that an LM in this process plays before they are kept."""


class Proposer(Protocol):
    """Makes a candidate that may be better; a frozen pydantic `Record` or dataclass, its settings its own fields."""

    @property
    def name(self) -> str:
        """What people call it, and choose it by; 1–31 lower-case letters, digits, - and _."""

    def propose(self, parent: "Registered", evidence: "Evidence", work: "Work") -> "Proposal | None":
        """The parent, changed; None where nothing better was found.

        Args:
            parent: what is changed.
            evidence: what may be learned from; none of it is the gate's.
            work: where files go, how to try an agent out, the seed.

        Raises:
            NothingToPropose: this parent or this evidence gives it nothing to do; the text says why.
        """


class Proposal(Record):
    """A candidate and what is to be said of it. A proposer fills the first five; `made_by` completes the rest."""

    candidate: Candidate
    note: str = ""
    """What was changed and why, in one sentence for a person."""
    files: dict[str, Path] = Field(default_factory=dict)
    """New files by what the candidate calls them: `adapter` (folder), `memory` (JSONL), of a role `memory.critic`;
    those that it keeps are the parent's."""
    parameters: dict[str, Json] = Field(default_factory=dict)
    """What was found on the way, such as a loss; the proposer's settings stand beside it."""
    cost: dict[str, float] = Field(default_factory=dict)
    """What making it took beside what the meter counted (calls, tokens, usd, seconds), by unit: lm_calls."""
    seen_case_ids: tuple[str, ...] = ()
    """Every case that shaped the candidate, those of its ancestors included."""


@dataclass(frozen=True)
class Registered:
    """A candidate as the registry has it."""

    candidate: Candidate
    files: Mapping[str, Path] = field(default_factory=dict)
    """`adapter`: folder, `memory`: JSONL file; of a team one a role: `memory.critic`."""
    seen: frozenset[str] = frozenset()
    """Cases that shaped it."""


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


def made_by(proposer: Proposer, parent: Registered, evidence: "Evidence", work: Work) -> Proposal | None:
    """What the proposer made, with where it comes from, what shaped it and what it cost; None: no other agent.

    Raises:
        NothingToPropose: the proposer has nothing to do here.
        BadInput: what it gave is no proposal, no candidate that can be read back, or lacks a file that this names.
    """
    work = under_budget(proposer, work)
    found = proposer.propose(parent, evidence, work)
    if found is None:
        return None
    if not isinstance(found, Proposal):
        raise BadInput(
            f"proposer {proposer.name} gave {type(found).__name__}: return a Proposal, or None for nothing better"
        )
    before = parent.candidate.candidate_id
    made = Candidate.from_json(found.candidate.to_json(), where=f"proposer {proposer.name}'s candidate")
    if made.candidate_id == before:
        return None
    origin = Origin(
        proposer=proposer.name,
        parameters=settings_of(proposer) | {"seed": work.seed} | found.parameters,
        data_digest=evidence.digest,
        note=found.note,
    )
    return found.model_copy(
        update={
            "candidate": made.model_copy(update={"parent": before, "origin": origin}),
            "files": files_after(parent, found),
            "seen_case_ids": tuple(
                sorted({*parent.seen, *evidence.seen, *found.seen_case_ids, *_shown_cases(made)})
            ),
            "cost": found.cost | work.meter.spent.by_unit,
        }
    )


def under_budget(proposer: Proposer, work: Work) -> Work:
    """The same work with a fresh meter of the run's budget, or of the proposer's own where that is tighter.

    Time is looked at whenever progress is reported, too: work in this process asks no endpoint and ends all the same.
    """
    meter = Meter(budget_of(proposer, work.budget), outer=work.meter)

    @contextmanager
    def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
        with work.progress(title, total) as tell:

            def done(n: int) -> None:
                tell(n)
                meter.take(0)

            yield done

    return replace(work, meter=meter, progress=progress)


def budget_of(proposer: Proposer, run: Budget) -> Budget:
    """What the proposer may spend: its own budget, where it has one, and the run's; the tighter of each bound."""
    own = getattr(proposer, "budget", None)
    return run.within(own) if isinstance(own, Budget) else run


def files_after(parent: Registered, proposal: Proposal) -> dict[str, Path]:
    """All files that the proposal's candidate names: the new ones, and those of the parent that it keeps.

    Raises:
        BadInput: it names a file that neither has.
    """
    kept, files = _files_named(parent.candidate), {}
    for label, digest in _files_named(proposal.candidate).items():
        if label in proposal.files:
            files[label] = proposal.files[label]
        elif kept.get(label) == digest and label in parent.files:
            files[label] = parent.files[label]
        else:
            raise BadInput(
                f"the candidate names {label} {digest}, and no such file was given: add it to `files`"
            )
    return files


def _shown_cases(candidate: Candidate) -> set[str]:
    """Cases that its prompts show as worked examples: what is shown was seen, whoever forgot to say so."""
    return {demo.case_id for one in candidate.predictors.values() for demo in one.demos if demo.case_id}


def _files_named(candidate: Candidate) -> dict[str, str]:
    """Label → content hash of every file that the candidate needs."""
    owners: list[tuple[str, Candidate | Role]] = [("", candidate)]
    owners += [(f".{role.name}", role) for role in candidate.topology.roles]
    shares = {share_label(name): digest for name, digest in candidate.memories.items()}
    return shares | {
        f"{kind}{ending}": digest
        for ending, owner in owners
        for kind, digest in (("memory", owner.memory), ("adapter", owner.adapter))
        if digest is not None
    }


def settings_of(proposer: Proposer) -> dict[str, Json]:
    """The proposer's own fields, without its name, what begins with `_`, and a budget without bounds.

    Raises:
        BadInput: JSON cannot hold one of them, so that no record could say how a candidate was made.
    """
    try:
        left_out = {"name", *(["budget"] if getattr(proposer, "budget", None) == Budget() else [])}
        if isinstance(proposer, BaseModel):
            return proposer.model_dump(mode="json", exclude=left_out)
        own = {name: v for name, v in vars(proposer).items() if name not in left_out and name[0] != "_"}
        return {
            name: v.model_dump(mode="json") if isinstance(v, BaseModel) else as_json(v)
            for name, v in own.items()
        }
    except ValueError as error:
        raise BadInput(
            f"proposer {proposer.name}: {error}; keep settings to numbers, texts and lists"
        ) from error


def recipe_of(proposer: Proposer) -> str:
    """Hash of name, settings and the file that the proposer is written in: the same recipe need not be run again.

    Its budget is no part of it: a start with more of it goes on where the one before ended.
    """
    source = Path(inspect.getfile(type(proposer))).read_text(encoding="utf-8")
    settings = {name: value for name, value in settings_of(proposer).items() if name != "budget"}
    return content_hash([proposer.name, settings, source])


def check_proposers(proposers: Sequence[Proposer]) -> None:
    """Refuse proposers that cannot be told from one another, or cannot be run.

    Raises:
        BadInput: one is no proposer, or its name is no file name or another's, too.
    """
    for one in proposers:
        if isinstance(one, type) or not callable(getattr(one, "propose", None)):
            raise BadInput(
                f"proposers hold {one!r:.60}, which has no `propose`: give objects, such as Replay(), Lora(rank=8)"
            )
        if not isinstance(name := getattr(one, "name", None), str) or not _NAME.match(name):
            raise BadInput(
                f"proposer {type(one).__name__} has the name {name!r}: use 1–31 lower-case letters, digits, - and _"
            )
        settings_of(one)
    names = [one.name for one in proposers]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(
            f"two proposers are called {twice[0]!r}: give one another name, {twice[0]}2 for instance"
        )


def named_proposers(proposers: Sequence[Proposer], names: Sequence[str]) -> tuple[Proposer, ...]:
    """Those of the proposers that are named, in the order of the names.

    Raises:
        BadInput: nobody has such a name.
    """
    known = {one.name: one for one in proposers}
    if unknown := [name for name in names if name not in known]:
        raise BadInput(f"the project has no proposer {unknown[0]!r}: name some of {', '.join(known)}")
    return tuple(known[name] for name in names)
