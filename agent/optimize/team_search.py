"""A small search over topologies: add, drop or reorder a role, more attempts, more recalls; the gate has the word.

Hill climbing on one half of the examples, from the agent as it is; what was found is proposed only if it is also
better on the other half, which chose nothing. Of equally good teams the one that reads fewer tokens wins, so a
role that does not help goes. Attempts are tuned on top of a better team, never alone: the gate compares single
attempts and could not tell.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from ratchet.agent.candidate import Candidate
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.optimize.budget import Budget, BudgetSpent
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import share_right, shuffled, usable
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.team import WEIGHTS, best_weights, blackboard_accuracy, team_of
from ratchet.agent.optimize.team_moves import MOST_ROLES, moves
from ratchet.agent.optimize.work import Work, built_in_only
from ratchet.agent.record import Record
from ratchet.agent.team.deliberation import Blackboard
from ratchet.agent.team.roles import SOLVER, as_single, as_team, files_for, files_of, with_roles

MOVES = 8
"""About as many topologies are one step away."""


class TeamSearch(Record):
    """Look for a team, or a smaller one, that is right more often or for fewer tokens."""

    name: str = "team"
    rounds: int = Field(default=2, ge=1, le=10)
    """Changes on top of one another at most."""
    examples: int = Field(default=48, ge=4)
    """Training cases used, half to search on and half to check on."""
    min_gain: float = Field(default=0.02, ge=0, lt=1)
    """A change must be right on this much more of the cases to be worth its tokens."""
    attempts: int = Field(default=1, ge=1, le=10)
    """Tries at most; more than one only where the environment says that it failed."""
    budget: Budget = Budget()
    """What it may spend; a run's own (`[budget]` of `ratchet.toml`) holds beside it."""

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The best topology that was found, if it is better on the cases that chose nothing, too."""
        built_in_only(parent.candidate)
        searched, checked = self.halves(parent.candidate, evidence.examples, work.seed)
        origin = _try("as it is", *_as_team(parent), searched, work)
        with (
            work.meter.holding(2 * MOST_ROLES * len(checked)),
            work.progress(f"{self.name}: trying topologies", self.rounds * MOVES) as done,
        ):
            best, n_tried = self.climb(origin, searched, work, done)
        gain, estimate = _checked(origin, best, checked, work)
        if gain < 0 or (gain == 0 and best.tokens >= origin.tokens):
            return None
        found, files = self.finished(parent.candidate, best, searched)
        return Proposal(
            candidate=found,
            files=files,
            note=f"{best.change[0].upper()}{best.change[1:]}: right on {origin.score:.0%} → {best.score:.0%} of "
            f"{len(searched)} cases searched, {gain:+.0%} on {len(checked)} that chose nothing; "
            f"{origin.tokens:.0f} → {best.tokens:.0f} tokens a case.",
            parameters={"topologies_tried": n_tried, "accuracy_checked": round(estimate, 4)},
            cost={"topologies": float(n_tried)},
        )

    def halves(
        self, parent: Candidate, examples: Sequence[Example], seed: int
    ) -> tuple[list[Example], list[Example]]:
        """Cases to search on, and cases to check on."""
        known = usable(examples, parent.extra_options)
        if len(known) < 4:
            raise NothingToPropose(
                f"the search needs at least 4 examples that the agent can answer, got {len(known)}"
            )
        ordered = shuffled(known, seed)[: self.examples]
        return ordered[::2], ordered[1::2]

    def climb(
        self, origin: "Tried", searched: Sequence[Example], work: Work, done: Callable[[int], None]
    ) -> tuple["Tried", int]:
        """The best topology within the budget, and how many were tried."""
        best, n_tried = origin, 1
        for _ in range(self.rounds):
            around: list[Tried] = []
            spent: BudgetSpent | None = None
            try:
                for change, one, kept in moves(best.candidate, best.files):
                    around.append(_try(change, one, kept, searched, work))
                    done(1)
            except BudgetSpent as error:
                spent = error
            n_tried += len(around)
            better = max(around, key=lambda tried: (round(tried.score, 9), -tried.tokens), default=best)
            if not self.is_worth(better, best):
                if spent is not None and best is origin:  # else the best until then is checked all the same
                    raise spent
                break
            best = better if best is origin else better._replace(change=f"{best.change}, {better.change}")
        return best, n_tried

    def is_worth(self, new: "Tried", old: "Tried") -> bool:
        """Better by the least gain, or as good for fewer tokens."""
        gain = round(new.score - old.score, 9)
        return gain >= max(self.min_gain, 1e-9) or (gain >= 0 and new.tokens < old.tokens)

    def finished(
        self, parent: Candidate, best: "Tried", searched: Sequence[Example]
    ) -> tuple[Candidate, dict[str, Path]]:
        """With as many attempts as help; a team of one is a single agent again."""
        attempts, roles = parent.topology.attempts, best.candidate.topology.roles
        while best.boards and attempts < self.attempts:
            before, after = (
                blackboard_accuracy(roles, best.boards, searched, within=n) for n in (attempts, attempts + 1)
            )
            if after - before < self.min_gain:
                break
            attempts += 1
        topology = best.candidate.topology.model_copy(update={"attempts": attempts})
        found = best.candidate.model_copy(update={"topology": topology})
        if len(roles) > 1:
            return found, best.files
        return as_single(found), files_of(best.files, roles[0].name)


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


def _as_team(parent: Registered) -> tuple[Candidate, dict[str, Path]]:
    if parent.candidate.topology.roles:
        return parent.candidate, dict(parent.files)
    return as_team(parent.candidate, ((SOLVER, "solve"),)), files_for(SOLVER, parent.files)


def _try(
    change: str, candidate: Candidate, files: dict[str, Path], examples: Sequence[Example], work: Work
) -> Tried:
    """Ask the team about every example; tune the roles' weights where the LM gives log-probabilities."""
    team = team_of(Registered(candidate, files), work)
    if not team.lm.scores_options:
        score, decisions = share_right(team, examples)
        tokens = sum(d.usage.input_tokens + d.usage.output_tokens for d in decisions) / len(examples)
        return Tried(change, candidate, files, score, tokens, [])
    boards = [team.weigh(example.view) for example in examples]
    roles, score = best_weights(candidate.topology.roles, boards, examples, WEIGHTS)
    tokens = sum(board.usage.input_tokens for board in boards) / len(boards)
    return Tried(change, with_roles(candidate, roles), files, score, tokens, boards)


def _checked(origin: Tried, best: Tried, checked: Sequence[Example], work: Work) -> tuple[float, float]:
    """What was found against the agent as it was, on cases that chose nothing: gain, and score, in [0, 1]."""
    if best is origin:
        return 0.0, origin.score
    ours, theirs = (share_right(work.program(t.candidate, t.files), checked)[0] for t in (best, origin))
    return round(ours - theirs, 9), ours
