"""Who is in a team: each role is an ordinary single agent, its *member*, with its own prompt, memory and adapter.

Why: whatever improves a single agent (experience, LoRA, a prompt search) improves one role of a team by the
same code: take the member out (`member_of`), change it, put it back (`with_member`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ratchet.agent.candidate import Candidate, Duty, OptionWeights, Predictor, Role, Topology
from ratchet.agent.environment import Observation, Option
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.program import ARGUMENTS, CHOOSE
from ratchet.agent.kinds.tool_overrides import override_of, shown_name
from ratchet.agent.lm.of_candidate import lm_type
from ratchet.agent.lm.prompt_format import data

RIGHT, WRONG = "right", "wrong"
VERDICTS = (
    Option(name=RIGHT, description="The answer does what is asked."),
    Option(name=WRONG, description="The answer does something else."),
)
SOLVER, CRITIC, JUDGE, PLANNER, WORKER = "solver", "critic", "judge", "planner", "worker"
ROLE_INSTRUCTIONS: dict[Duty, str] = {
    "plan": "Name the option that comes closest to what the request wants in the end.",
    "solve": "Pick the option that does what the request asks for.",
    "criticize": "Does the answer do what the request asks for? Say right or wrong.",
    "judge": "Read what the others said in the notes, then pick the option that does what the request asks for.",
}
"""Of roles that are added without instructions of their own."""
Members = Sequence[tuple[str, Duty]]
SOLVER_CRITIC_JUDGE: Members = ((SOLVER, "solve"), (CRITIC, "criticize"), (JUDGE, "judge"))
PLANNER_WORKER: Members = ((PLANNER, "plan"), (WORKER, "solve"))
_OPTION_WEIGHTS = tuple(OptionWeights.model_fields)


def as_team(candidate: Candidate, members: Members = SOLVER_CRITIC_JUDGE) -> Candidate:
    """The single agent as a team: its first solver is the agent as it was, the others begin with a prompt only."""
    first = next((name for name, duty in members if duty == "solve"), None)
    inherited = {name: getattr(candidate.topology, name) for name in _OPTION_WEIGHTS}
    inherited |= {"adapter": candidate.adapter, "memory": candidate.memory}
    roles = tuple(
        Role(name=name, duty=duty, **(inherited if name == first else {})) for name, duty in members
    )
    predictors = {
        name: Predictor(instructions=ROLE_INSTRUCTIONS[duty]) for name, duty in members if name != first
    }
    if first is not None:
        predictors[first] = candidate.predictors[CHOOSE]
    if ARGUMENTS in candidate.predictors:
        predictors[ARGUMENTS] = candidate.predictors[ARGUMENTS]
    team = candidate.model_copy(
        update={
            "predictors": predictors,
            "adapter": None,
            "memory": None,
            "topology": Topology(roles=roles, **_of_loop(candidate)),
        }
    )
    check_team(team)
    return team


def as_single(team: Candidate) -> Candidate:
    """A team of one solver as the single agent that it is."""
    (role,) = team.topology.roles
    member = member_of(team, role)
    topology = member.topology.model_copy(update=_of_loop(team))
    predictors = {name: p for name, p in team.predictors.items() if name == ARGUMENTS} | member.predictors
    return team.model_copy(
        update={
            "predictors": predictors, "adapter": member.adapter, "memory": member.memory, "topology": topology,
        }
    )  # fmt: skip


def _of_loop(candidate: Candidate) -> dict[str, int]:
    """What the loop does whoever acts."""
    topology = candidate.topology
    return {"attempts": topology.attempts, "reflections": topology.reflections}


def check_team(candidate: Candidate) -> None:
    """Refuse a team that cannot work.

    Raises:
        BadInput: two roles of one name, a role without prompt, nobody who solves, or a critic or judge who would
            speak before anybody has answered.
    """
    roles = candidate.topology.roles
    names = [role.name for role in roles]
    if len(set(names)) < len(names):
        raise BadInput(f"team {names} has two roles of one name: give each its own")
    if missing := [name for name in names if name not in candidate.predictors]:
        raise BadInput(
            f"role {missing[0]!r} has no prompt among {sorted(candidate.predictors)}: add a predictor"
        )
    first = next((place for place, role in enumerate(roles) if role.duty == "solve"), None)
    if first is None:
        raise BadInput(f"team {names} has nobody with the duty to solve: add a solver")
    if early := [role.name for role in roles[:first] if role.duty in ("criticize", "judge")]:
        raise BadInput(
            f"role {early[0]!r} would speak before anybody has answered: put it behind {names[first]!r}"
        )
    if late := [role.name for role in roles[first:] if role.duty == "plan"]:
        raise BadInput(f"role {late[0]!r} would plan what is already done: put it before {names[first]!r}")


def role_named(candidate: Candidate, name: str) -> Role:
    """The role of this name.

    Raises:
        BadInput: there is none.
    """
    for role in candidate.topology.roles:
        if role.name == name:
            return role
    raise BadInput(
        f"no role {name!r} in the team {[role.name for role in candidate.topology.roles]}: name one of these"
    )


def member_of(candidate: Candidate, role: Role) -> Candidate:
    """The single agent that plays this role."""
    solving = role.duty != "criticize"
    return Candidate(
        predictors={CHOOSE: candidate.predictors[role.name]},
        base_model=candidate.base_model,
        api_base=candidate.api_base,
        adapter=role.adapter,
        memory=role.memory,
        tools=candidate.tools if solving else {},
        extra_options=candidate.extra_options if solving else (),
        topology=Topology(**{name: getattr(role, name) for name in _OPTION_WEIGHTS}),
    )


def with_member(candidate: Candidate, name: str, member: Candidate) -> Candidate:
    """The team with this role played by another single agent."""
    role = role_named(candidate, name)
    changed = role.model_copy(
        update={"adapter": member.adapter, "memory": member.memory}
        | {field: getattr(member.topology, field) for field in _OPTION_WEIGHTS}
    )
    roles = tuple(changed if one.name == name else one for one in candidate.topology.roles)
    extra = {option.name: option for option in (*candidate.extra_options, *member.extra_options)}
    return candidate.model_copy(
        update={
            "predictors": {**candidate.predictors, name: member.predictors[CHOOSE]},
            "topology": candidate.topology.model_copy(update={"roles": roles}),
            "extra_options": candidate.extra_options if role.duty == "criticize" else tuple(extra.values()),
        }
    )


def with_roles(candidate: Candidate, roles: tuple[Role, ...]) -> Candidate:
    """The candidate with other roles."""
    return candidate.model_copy(update={"topology": candidate.topology.model_copy(update={"roles": roles})})


def files_of(files: Mapping[str, Path], name: str) -> dict[str, Path]:
    """One role's files as those of a single agent: `memory.solver` as `memory`."""
    ending = f".{name}"
    return {key.removesuffix(ending): path for key, path in files.items() if key.endswith(ending)}


def files_for(name: str, files: Mapping[str, Path]) -> dict[str, Path]:
    """A single agent's files as those of a role: `memory` as `memory.solver`."""
    return {f"{key}.{name}": path for key, path in files.items()}


def criticism(candidate: Candidate, view: View, option: Option) -> View:
    """What a critic sees: the answer first, since a long request is cut at its end."""
    description = override_of(candidate.tools, option.name).description or option.description
    answer = shown_name(candidate.tools, option.name)
    if description:
        answer += f": {data(description, lm_type(candidate.base_model).room.description)}"
    text = f"Answer {answer!r} to: {view.observation.text}"
    return View(case_id=view.case_id, observation=Observation(text=text, options=VERDICTS))
