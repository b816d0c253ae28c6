"""Proposers make candidates out of evidence: what one is given, what it hands back, and who notes where that is from.

Decision: a proposer says what it changed and why, and nothing else. Which cases it saw, what it cost and where the
candidate comes from is noted here, from what it read and how long it took, so that no proposer can forget it. A
proposer never promotes: the gate judges what it made on cases that it did not see.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, Field

from ratchet.agent.candidate import Candidate, Origin, Role, share_label
from ratchet.agent.errors import BadInput
from ratchet.agent.optimize.budget import Budget, Meter
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import Json, Record, as_json, content_hash

if TYPE_CHECKING:  # a project names its proposers; what they work with is imported where they work
    from ratchet.agent.optimize.evidence import Evidence

_NAME = re.compile(r"^[a-z][a-z0-9_-]{0,30}$")


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
