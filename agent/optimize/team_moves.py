"""One step away from a topology: a role more, a role less, another order, more or fewer recalls."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ratchet.agent.candidate import Candidate, Duty, Predictor, Role
from ratchet.agent.errors import BadInput
from ratchet.agent.optimize.prompts.prompts import CHOICE_INSTRUCTIONS as OTHER_WORDS
from ratchet.agent.team.roles import (
    CRITIC,
    JUDGE,
    PLANNER,
    PLANNER_WORKER,
    ROLE_INSTRUCTIONS,
    SOLVER_CRITIC_JUDGE,
    as_single,
    as_team,
    check_team,
    files_for,
    files_of,
    with_roles,
)

MOST_ROLES = 4


def moves(
    candidate: Candidate, files: Mapping[str, Path]
) -> Iterator[tuple[str, Candidate, dict[str, Path]]]:
    """Every topology one step away: what changed, the team, and the files that it still needs."""
    roles = candidate.topology.roles
    if len(roles) == 1:
        single = as_single(candidate)
        for members in (SOLVER_CRITIC_JUDGE, PLANNER_WORKER):
            first = next(name for name, duty in members if duty == "solve")
            yield (
                " and ".join(name for name, _ in members),
                as_team(single, members),
                _renamed(files, roles[0].name, first),
            )
    for name, duty, place in _additions(roles):
        added = (*roles[:place], Role(name=name, duty=duty), *roles[place:])
        text = OTHER_WORDS[0] if duty == "solve" else ROLE_INSTRUCTIONS[duty]
        predictors = {**candidate.predictors, name: Predictor(instructions=text)}
        yield (
            f"with a {name}",
            with_roles(candidate.model_copy(update={"predictors": predictors}), added),
            dict(files),
        )
    for role in roles:
        left = with_roles(candidate, tuple(one for one in roles if one is not role))
        if _works(left):
            predictors = {key: p for key, p in candidate.predictors.items() if key != role.name}
            kept = {key: path for key, path in files.items() if not key.endswith(f".{role.name}")}
            yield f"without {role.name}", left.model_copy(update={"predictors": predictors}), kept
    for place in range(len(roles) - 1):
        swapped = (*roles[:place], roles[place + 1], roles[place], *roles[place + 2 :])
        if _works(with_roles(candidate, swapped)):
            yield (
                f"{swapped[place].name} before {swapped[place + 1].name}",
                with_roles(candidate, swapped),
                dict(files),
            )
    for place, role in enumerate(roles):
        for n in (role.recalls - 1, role.recalls + 1) if role.memory else ():
            if 0 <= n <= 20:
                changed = role.model_copy(update={"recalls": n})
                more = (*roles[:place], changed, *roles[place + 1 :])
                yield f"{role.name} recalls {n}", with_roles(candidate, more), dict(files)


def _additions(roles: tuple[Role, ...]) -> list[tuple[str, Duty, int]]:
    """Roles that are not there yet, and where they would sit."""
    if len(roles) >= MOST_ROLES:
        return []
    taken, duties = {role.name for role in roles}, {role.duty for role in roles}
    first = next(place for place, role in enumerate(roles) if role.duty == "solve")
    judge = next((place for place, role in enumerate(roles) if role.duty == "judge"), len(roles))
    wanted: list[tuple[str, Duty, int]] = [("second", "solve", first + 1)]
    wanted += [(CRITIC, "criticize", judge)] if "criticize" not in duties else []
    wanted += [(JUDGE, "judge", len(roles))] if "judge" not in duties else []
    wanted += [(PLANNER, "plan", 0)] if "plan" not in duties else []
    return [one for one in wanted if one[0] not in taken]


def _renamed(files: Mapping[str, Path], old: str, new: str) -> dict[str, Path]:
    return files_for(new, files_of(files, old))


def _works(candidate: Candidate) -> bool:
    try:
        check_team(candidate)
    except BadInput:
        return False
    return True
