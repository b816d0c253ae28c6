"""A small search over topologies: add, drop or reorder a role, more attempts, more recalls; the gate has the word.

Hill climbing on one half of the examples, from the agent as it is; what was found is proposed only if it is also
better on the other half, which chose nothing. Of equally good teams the one that reads fewer tokens wins, so a
role that does not help goes. Attempts are tuned on top of a better team, never alone: the gate compares single
attempts and could not tell.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from ratchet.agent.candidate import Candidate, Origin
from ratchet.agent.errors import BadInput
from ratchet.agent.optimize.proposer import Example, Proposal, share_right
from ratchet.agent.optimize.team import WEIGHTS, best_weights, blackboard_accuracy
from ratchet.agent.optimize.team_moves import moves
from ratchet.agent.record import Record, content_hash
from ratchet.agent.team.deliberation import Blackboard
from ratchet.agent.team.roles import SOLVER, as_single, as_team, files_for, files_of, with_roles
from ratchet.agent.team.team import Team

MOVES = 8
"""About as many topologies are one step away."""


class TeamSettings(Record):
    """The search's budget."""

    rounds: int = Field(default=2, ge=1, le=10)
    """Changes on top of one another at most."""
    examples: int = Field(default=48, ge=4)
    """Training cases used, half to search on and half to check on."""
    min_gain: float = Field(default=0.02, ge=0, lt=1)
    """A change must be right on this much more of the cases to be worth its tokens."""
    attempts: int = Field(default=1, ge=1, le=10)
    """Tries at most; more than one only where the environment says that it failed."""
    seed: int = 0


class Tried(NamedTuple):
    """A topology with what it scored."""

    change: str
    candidate: Candidate
    files: dict[str, Path]
    score: float
    """Share of right first choices in [0, 1]."""
    tokens: float
    """Read per case."""
    boards: list[Blackboard]
    """Empty behind an endpoint, which gives no log-probabilities."""


def propose_team(
    parent: Candidate,
    examples: Sequence[Example],
    settings: TeamSettings,
    *,
    files: Mapping[str, Path] | None = None,
    endpoint: dict[str, Any] | None = None,
    seen: Sequence[str] = (),
    data_digest: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Proposal:
    """The best topology that was found; the parent itself where none is better on the cases that chose nothing.

    Args:
        parent: a single agent or a team.
        examples: what worked, and what people said would have.
        settings: the budget.
        files: the parent's files.
        endpoint: where the LM is.
        seen: cases that shaped the parent.
        data_digest: digest of the dataset that the examples come from.
        progress: called with the number of topologies tried since the last call.

    Raises:
        BadInput: fewer than four usable examples.
    """
    began = time.perf_counter()
    searched, checked = _halves(parent, examples, settings)
    origin = _try("as it is", *_as_team(parent, files or {}), searched, endpoint)
    best, n_tried = _climb(origin, searched, settings, endpoint, progress)
    gain, estimate = _checked(origin, best, checked, endpoint)
    found, kept = parent, dict(files or {})
    if gain > 0 or (gain == 0 and best.tokens < origin.tokens):
        note = (
            f"{best.change[0].upper()}{best.change[1:]}: right on {origin.score:.0%} → {best.score:.0%} of "
            f"{len(searched)} cases searched, {gain:+.0%} on {len(checked)} that chose nothing; "
            f"{origin.tokens:.0f} → {best.tokens:.0f} tokens a case."
        )
        learned = {"topologies_tried": n_tried, "accuracy_checked": round(estimate, 4)}
        made = Origin(
            proposer="team", parameters=settings.model_dump() | learned, data_digest=data_digest, note=note
        )
        found, kept = _finished(parent, best, searched, settings)
        found = found.model_copy(update={"parent": parent.candidate_id, "origin": made})
    return Proposal(
        candidate=found,
        files=kept,
        seen_case_ids=tuple(sorted({*seen, *(e.view.case_id for e in examples)})),
        cost={"seconds": time.perf_counter() - began, "topologies": float(n_tried)},
    )


def _as_team(parent: Candidate, files: Mapping[str, Path]) -> tuple[Candidate, dict[str, Path]]:
    if parent.topology.roles:
        return parent, dict(files)
    return as_team(parent, ((SOLVER, "solve"),)), files_for(SOLVER, files)


def _climb(
    origin: Tried,
    searched: Sequence[Example],
    settings: TeamSettings,
    endpoint: dict[str, Any] | None,
    progress: Callable[[int], None],
) -> tuple[Tried, int]:
    """The best topology within the budget, and how many were tried."""
    best, n_tried = origin, 1
    for _ in range(settings.rounds):
        around = [
            _try(change, one, kept, searched, endpoint)
            for change, one, kept in moves(best.candidate, best.files)
        ]
        progress(len(around))
        n_tried += len(around)
        better = max(around, key=lambda tried: (round(tried.score, 9), -tried.tokens), default=best)
        if not _worth(better, best, settings):
            break
        best = better if best is origin else better._replace(change=f"{best.change}, {better.change}")
    return best, n_tried


def _halves(
    parent: Candidate, examples: Sequence[Example], settings: TeamSettings
) -> tuple[list[Example], list[Example]]:
    own = {option.name for option in parent.extra_options}
    usable = [e for e in examples if e.is_offered or e.answer in own]
    if len(usable) < 4:
        raise BadInput(
            f"the team search needs at least 4 examples that the agent can answer, got {len(usable)}"
        )
    ordered = sorted(usable, key=lambda e: content_hash([settings.seed, e.view.case_id]))[: settings.examples]
    return ordered[::2], ordered[1::2]


def _try(
    change: str,
    candidate: Candidate,
    files: dict[str, Path],
    examples: Sequence[Example],
    endpoint: dict[str, Any] | None = None,
) -> Tried:
    """Ask the team about every example; tune the roles' weights where the LM gives log-probabilities."""
    team = Team(candidate, files, endpoint=endpoint)
    if not team.lm.scores_options:
        score, decisions = share_right(team, examples)
        tokens = sum(d.usage.input_tokens + d.usage.output_tokens for d in decisions) / len(examples)
        return Tried(change, candidate, files, score, tokens, [])
    boards = [team.weigh(example.view) for example in examples]
    roles, score = best_weights(candidate.topology.roles, boards, examples, WEIGHTS)
    tokens = sum(board.usage.input_tokens for board in boards) / len(boards)
    return Tried(change, with_roles(candidate, roles), files, score, tokens, boards)


def _worth(new: Tried, old: Tried, settings: TeamSettings) -> bool:
    """Better by the least gain, or as good for fewer tokens."""
    gain = round(new.score - old.score, 9)
    return gain >= max(settings.min_gain, 1e-9) or (gain >= 0 and new.tokens < old.tokens)


def _checked(
    origin: Tried, best: Tried, checked: Sequence[Example], endpoint: dict[str, Any] | None
) -> tuple[float, float]:
    """What was found against the agent as it was, on cases that chose nothing: gain, and score, in [0, 1]."""
    if best is origin:
        return 0.0, origin.score
    ours, theirs = (
        share_right(Team(t.candidate, t.files, endpoint=endpoint), checked)[0] for t in (best, origin)
    )
    return round(ours - theirs, 9), ours


def _finished(
    parent: Candidate, best: Tried, searched: Sequence[Example], settings: TeamSettings
) -> tuple[Candidate, dict[str, Path]]:
    """With as many attempts as help; a team of one is a single agent again."""
    attempts, roles = parent.topology.attempts, best.candidate.topology.roles
    while best.boards and attempts < settings.attempts:
        before, after = (
            blackboard_accuracy(roles, best.boards, searched, within=n) for n in (attempts, attempts + 1)
        )
        if after - before < settings.min_gain:
            break
        attempts += 1
    topology = best.candidate.topology.model_copy(update={"attempts": attempts})
    found = best.candidate.model_copy(update={"topology": topology})
    if len(roles) > 1:
        return found, best.files
    return as_single(found), files_of(best.files, roles[0].name)
