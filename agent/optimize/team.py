"""Improving a team role by role: what each role would have seen and should have said, and any proposer on each.

A critic learns from the solver's right and wrong answers, a judge from what it would have read. Jointly means in
the order in which they speak: a later role learns from what the earlier ones have become, and in the end the
weights of all are tuned together. Source of each role's own share: Zhao et al., SiriuS (2025).
"""

import itertools
from collections.abc import Sequence

import numpy as np

from ratchet.agent.candidate import Role
from ratchet.agent.environment import Observation
from ratchet.agent.errors import BadInput, NothingToPropose
from ratchet.agent.optimize.budget import BudgetSpent
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.groups import hold_out
from ratchet.agent.optimize.proposer import Proposal, Proposer, Registered, files_after
from ratchet.agent.optimize.vote_weights import MIN_TUNING, likelihood
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import Json
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


def role_by_role(proposer: Proposer, parent: Registered, evidence: Evidence, work: Work) -> Proposal:
    """Every role in the order in which they speak, each on what the ones before it have become; then the weights.

    The weights are tuned on a share of the examples that no role learned from: a role that knows its examples by
    heart would seem to be worth more than it is.

    Raises:
        NothingToPropose: there are no examples.
    """
    if not evidence.examples:
        raise NothingToPropose("there is no labelled example yet")
    taught, held = _held_out(evidence.examples)
    scored = team_of(parent, work).lm.scores_options
    team, notes, found, cost = parent, list[str](), dict[str, Json](), dict[str, float]()
    for name in [role.name for role in parent.candidate.topology.roles]:
        role = role_named(team.candidate, name)
        if not scored and role.duty in ("criticize", "judge"):
            continue  # what it would have read is not known without log-probabilities
        learned = role_examples(team_of(team, work), name, taught)
        member = Registered(member_of(team.candidate, role), files_of(team.files, name), parent.seen)
        try:
            made = proposer.propose(member, Evidence(examples=learned), work) if learned else None
        except BudgetSpent:
            if not notes:
                raise
            return Proposal(  # what the roles before it have become is a version all the same
                candidate=team.candidate,
                files=dict(team.files),
                note=" ".join(notes),
                parameters=found,
                cost=cost,
            )
        if made is None:
            continue
        others = {label: path for label, path in team.files.items() if not label.endswith(f".{name}")}
        files = others | files_for(name, files_after(member, made))
        team = Registered(with_member(team.candidate, name, made.candidate), files, parent.seen)
        notes.append(f"{name}: {made.note}")
        found[name] = made.parameters
        cost |= {unit: cost.get(unit, 0.0) + amount for unit, amount in made.cost.items()}
    candidate = team.candidate
    if scored:
        roles, _ = tune_weights(team_of(team, work), held)
        candidate = with_roles(candidate, roles)
    return Proposal(
        candidate=candidate, files=dict(team.files), note=" ".join(notes), parameters=found, cost=cost
    )


def team_of(registered: Registered, work: Work) -> Team:
    """A candidate with roles, ready to act."""
    program = work.program(registered.candidate, registered.files)
    assert isinstance(program, Team), "a candidate with roles is played by a team"
    return program


def _held_out(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Those to learn from, and a random fifth to tune on, in whole groups; of too few to share, all for both."""
    n = len(examples) // 5
    if n < MIN_TUNING // 2:
        return list(examples), list(examples)
    held, taught = hold_out(sorted(examples, key=lambda e: e.view.case_id), n, seed=0)
    return taught, held


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
