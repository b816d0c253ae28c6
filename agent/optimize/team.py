"""Improving a team role by role: each role's share of what worked, and any proposer on one role or on all in order.

A critic learns from the solver's right and wrong answers, a judge from what it would have read. Jointly means in
the order in which they speak: a later role learns from what the earlier ones have become, and in the end the
weights of all are tuned together. Source of each role's own share: Zhao et al., SiriuS (2025).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.agent.candidate import Candidate, Role
from ratchet.agent.environment import Observation
from ratchet.agent.errors import BadInput
from ratchet.agent.optimize.proposer import Example, Proposal
from ratchet.agent.optimize.vote_weights import likelihood
from ratchet.agent.optimize.weights import MIN_TUNING
from ratchet.agent.record import content_hash
from ratchet.agent.team.deliberation import Blackboard, weigh
from ratchet.agent.team.roles import (
    RIGHT,
    WRONG,
    criticism,
    files_for,
    files_of,
    member_of,
    role_named,
    with_member,
    with_roles,
)
from ratchet.agent.team.team import Team

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
Propose = Callable[[Candidate, Sequence[Example], Mapping[str, Path]], Proposal]
"""A single agent's proposer: the parent, what to learn from, the parent's files."""


def role_examples(team: Team, name: str, examples: Sequence[Example]) -> list[Example]:
    """What one role would have seen of the examples, and what it should have said.

    Raises:
        BadInput: the team's LM gives no log-probabilities, and the role judges others.
    """
    role = role_named(team.candidate, name)
    if role.duty in ("plan", "solve"):
        return list(examples)
    if not team.lm.scores_options:
        raise BadInput(
            f"role {name!r} learns from how the embedded LM scores what the others said; the team runs on "
            f"{team.candidate.base_model!r}: improve its solver, or its prompt by hand"
        )
    roles = team.candidate.topology.roles
    before = with_roles(team.candidate, roles[: roles.index(role)])
    made = []
    for example in examples:
        board = weigh(before, team.members, example.view)
        if example.answer in board.names:
            made += _criticisms(team, board, example) if role.duty == "criticize" else _cases(board, example)
    return made


def _criticisms(team: Team, board: Blackboard, example: Example) -> list[Example]:
    """The right answer, and the wrong one that was closest to being given."""
    right = board.names.index(example.answer)
    rivals = [place for place in np.argsort(-sum(board.log_scores.values())) if place != right]
    return [
        example.model_copy(
            update={"view": criticism(team.candidate, example.view, board.options[place]), "answer": word}
        )
        for place, word in ((right, RIGHT), *((int(place), WRONG) for place in rivals[:1]))
    ]


def _cases(board: Blackboard, example: Example) -> list[Example]:
    """The contenders and the notes, where the right answer is among them."""
    view = board.view
    names = {board.names[place] for place in board.contenders()}
    options = tuple(option for option in view.observation.options if option.name in names)
    if example.answer not in names or not options:
        return []
    asked = view.model_copy(
        update={
            "observation": Observation(text=view.observation.text, options=options),
            "reflections": (*view.reflections, *board.notes),
        }
    )
    return [example.model_copy(update={"view": asked})]


def _improved(
    parent: Candidate,
    role: Role,
    learned: Sequence[Example],
    examples: Sequence[Example],
    propose: Propose,
    files: Mapping[str, Path],
) -> Proposal:
    name = role.name
    made = propose(member_of(parent, role), learned, files_of(files, name))
    others = {key: path for key, path in files.items() if not key.endswith(f".{name}")}
    origin = made.candidate.origin
    candidate = with_member(parent, name, made.candidate).model_copy(
        update={
            "parent": parent.candidate_id,
            "origin": origin.model_copy(
                update={
                    "note": f"{name}: {origin.note}",
                    "parameters": {**origin.parameters, "role": name},
                }
            ),
        }
    )
    return made.model_copy(
        update={
            "candidate": candidate,
            "files": others | files_for(name, made.files),
            "seen_case_ids": _seen(made, examples),
        }
    )


def _held_out(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Those to learn from, and a random fifth to tune on; of too few examples to share, all for both."""
    ordered = sorted(examples, key=lambda e: content_hash(["weights", e.view.case_id]))
    n = len(ordered) // 5
    return (ordered[n:], ordered[:n]) if n >= MIN_TUNING // 2 else (ordered, ordered)


def _seen(made: Proposal, examples: Sequence[Example]) -> tuple[str, ...]:
    return tuple(sorted({*made.seen_case_ids, *(example.view.case_id for example in examples)}))


def propose_jointly(
    parent: Candidate,
    examples: Sequence[Example],
    propose: Propose,
    files: Mapping[str, Path],
    endpoint: dict[str, Any] | None = None,
) -> Proposal:
    """Every role in the order in which they speak, each on what the ones before it have become; then the weights.

    The weights are tuned on a share of the examples that no role learned from: a role that knows its examples by
    heart would seem to be worth more than it is.
    """
    taught, held = _held_out(examples)
    current = Proposal(candidate=parent, files=dict(files), seen_case_ids=())
    notes: list[str] = []
    seen = {example.view.case_id for example in examples}
    cost: dict[str, float] = {}
    for role in parent.topology.roles:
        team = Team(current.candidate, current.files, endpoint=endpoint)
        if not team.lm.scores_options and role.duty in ("criticize", "judge"):
            continue  # what it would have read is not known without log-probabilities
        learned = role_examples(team, role.name, taught)
        if not learned:
            continue
        current = _improved(
            current.candidate,
            role_named(current.candidate, role.name),
            learned,
            taught,
            propose,
            current.files,
        )
        notes.append(current.candidate.origin.note)
        seen |= set(current.seen_case_ids)
        for unit, amount in current.cost.items():
            cost[unit] = cost.get(unit, 0.0) + amount
    made = current.candidate
    team = Team(made, current.files, endpoint=endpoint)
    if team.lm.scores_options:
        roles, _ = tune_weights(team, held)
        made = with_roles(made, roles)
    origin = made.origin.model_copy(update={"note": " ".join(notes)})
    made = made.model_copy(update={"parent": parent.candidate_id, "origin": origin})
    return current.model_copy(update={"candidate": made, "seen_case_ids": tuple(sorted(seen)), "cost": cost})


def tune_weights(team: Team, examples: Sequence[Example]) -> tuple[tuple[Role, ...], float]:
    """The roles with the likeliest weights, and how often these are right; of equally good ones the smallest.

    What a role says does not depend on the weights, so the LM is asked once. The first solver's weight stays.

    Raises:
        BadInput: there are no examples.
    """
    if not examples:
        raise BadInput("tuning a team needs at least 1 labelled example, got 0: label some traces first")
    boards = [team.weigh(example.view) for example in examples]
    return best_weights(team.candidate.topology.roles, boards, examples, WEIGHTS)


def best_weights(
    roles: tuple[Role, ...],
    boards: Sequence[Blackboard],
    examples: Sequence[Example],
    weights: Sequence[float],
) -> tuple[tuple[Role, ...], float]:
    """As `tune_weights`, from boards that are there already."""
    anchor = next(place for place, role in enumerate(roles) if role.duty == "solve")
    grid = [(role.weight,) if place == anchor else weights for place, role in enumerate(roles)]
    known = [
        (board, board.names.index(example.answer), example.weight)
        for board, example in zip(boards, examples, strict=True)
        if example.answer in board.names
    ]
    best: tuple[float, float, tuple[Role, ...]] | None = None
    for values in itertools.product(*grid):
        tried = tuple(r.model_copy(update={"weight": w}) for r, w in zip(roles, values, strict=True))
        likely = likelihood([(board.total(tried), answer, weight) for board, answer, weight in known])
        if best is None or (round(likely, 9), -sum(values)) > best[:2]:
            best = (round(likely, 9), -sum(values), tried)
    assert best is not None, "the grid holds at least one point"
    return best[2], blackboard_accuracy(best[2], boards, examples)


def blackboard_accuracy(
    roles: tuple[Role, ...], boards: Sequence[Blackboard], examples: Sequence[Example], *, within: int = 1
) -> float:
    """Weighted share of the examples whose answer is among the team's first `within` choices, in [0, 1]."""
    right, weight = 0.0, 0.0
    for board, example in zip(boards, examples, strict=True):
        first = np.argsort(-board.total(roles), kind="stable")[:within]
        right += example.weight * (example.answer in {board.names[int(place)] for place in first})
        weight += example.weight
    return right / weight if weight else 0.0
