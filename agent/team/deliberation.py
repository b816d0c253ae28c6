"""How a team comes to one action: by numbers where the LM scores, by words where it writes.

By numbers: each role gives a log-probability to each option, and their weighted sum decides (a product of experts;
Hinton, 2002). What a role says never depends on the weights, so weights are tuned without asking the LM again.
By words: each role reads what those before it said, as notes; the last who answers decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ratchet.agent.candidate import Candidate, Role
from ratchet.agent.environment import Action, Option
from ratchet.agent.kinds.decision import Decision, View
from ratchet.agent.kinds.program import Program, pick
from ratchet.agent.kinds.tool_overrides import shown_name
from ratchet.agent.team.roles import RIGHT, WRONG, criticism
from ratchet.agent.trace import Contribution, Usage

PLANNED_OPTIONS = 3
"""Options that a planner leaves to the worker."""
CONTENDERS = 2
"""Best options that a critic reads and a judge picks among."""
LEFT_OUT_MARGIN = 5.0
"""Nats below the worst offered option at which a worker sees what the planner left out."""


Seats = Mapping[str, Program]
"""Role → the single agent that plays it."""


@dataclass
class Blackboard:
    """What the roles have said of one view so far."""

    view: View
    options: tuple[Option, ...]
    """Those of the observation, and the candidate's own."""
    log_scores: dict[str, np.ndarray] = field(default_factory=dict)
    """Role → log-probability of each option, float64 [n_options]."""
    parts: list[Contribution] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    offered: tuple[int, ...] = ()
    """Places of the options that a planner left; empty = all."""
    usage: Usage = field(default_factory=Usage)

    @property
    def names(self) -> tuple[str, ...]:
        """The environment's names of the options."""
        return tuple(option.name for option in self.options)

    def total(self, roles: tuple[Role, ...]) -> np.ndarray:
        """Weighted sum of what the roles said, float64 [n_options]."""
        total: np.ndarray = np.sum([role.weight * self.log_scores[role.name] for role in roles], axis=0)
        return total

    def contenders(self) -> list[int]:
        """Places of the best options by those who answered, whatever the weights; what failed already is left out."""
        answered = np.sum(list(self.log_scores.values()), axis=0)
        order = [int(i) for i in np.argsort(-answered, kind="stable")]
        fresh = [i for i in order if self.names[i] not in self.view.tried]
        return (fresh or order)[:CONTENDERS]


def weigh(team: Candidate, members: Seats, view: View) -> Blackboard:
    """Let every role of an embedded team say what it thinks of the options."""
    board = Blackboard(view, _options(team, view))
    for role in team.topology.roles:
        member = members[role.name]
        if role.duty == "criticize":
            _criticize(team, role, member, board)
        else:
            _answer(team, role, member, board)
    return board


def _answer(team: Candidate, role: Role, member: Program, board: Blackboard) -> None:
    """A planner reads all options, a solver those that were left, a judge the contenders."""
    places = list(board.offered) or list(range(len(board.options)))
    if role.duty == "judge":
        places = board.contenders()
    asked = _narrowed(board, places) if len(places) < len(board.options) else board.view
    if role.duty == "judge":
        asked = asked.model_copy(update={"reflections": (*asked.reflections, *board.notes)})
    scored = member.score(asked)
    found = dict(zip(scored.names, log_softmax(scored.log_scores), strict=True))
    lowest = min(found[board.names[place]] for place in places)
    rest = lowest - (LEFT_OUT_MARGIN if board.offered and role.duty == "solve" else 0.0)
    board.log_scores[role.name] = np.array(
        [found[name] if place in places else rest for place, name in enumerate(board.names)]
    )
    offered = tuple(board.names[place] for place in places)
    best, confidence = pick(np.array([found[name] for name in offered]), offered, board.view.tried)
    if role.duty == "plan":
        own = range(len(board.view.observation.options), len(board.options))
        order = [int(i) for i in np.argsort(-board.log_scores[role.name], kind="stable")]
        left = [i for i in order if board.names[i] not in board.view.tried and i not in own][:PLANNED_OPTIONS]
        board.offered = tuple(sorted({*left, *own}))
    board.notes.append(f"{role.name} says {shown_name(team.tools, offered[best])}")
    _record(board, role, offered[best], confidence, offered, scored.recalled, scored.input_tokens)


def _narrowed(board: Blackboard, places: list[int]) -> View:
    """The view with some options only; the candidate's own are added by each member itself."""
    n = len(board.view.observation.options)
    options = tuple(board.view.observation.options[place] for place in places if place < n)
    if (
        not options
    ):  # only own ones are left: a member adds them to what the environment offers, never to nothing
        return board.view
    observation = board.view.observation.model_copy(update={"options": options})
    return board.view.model_copy(update={"observation": observation})


def _criticize(team: Candidate, role: Role, member: Program, board: Blackboard) -> None:
    """Right or wrong of each contender; of the others it is taken to think no better than of the worst."""
    found = {}
    for place in board.contenders():
        asked = criticism(team, board.view, board.options[place])
        scored = member.score(asked)
        chances = log_softmax(scored.log_scores)
        found[place] = float(chances[scored.names.index(RIGHT)])
        said, confidence = pick(scored.log_scores, scored.names, ())
        name = shown_name(team.tools, board.names[place])
        board.notes.append(f"{role.name} says {name} is {scored.names[said]}")
        _record(
            board, role, scored.names[said], confidence, scored.names, scored.recalled, scored.input_tokens,
            observation=asked.observation.text, about=board.names[place],
        )  # fmt: skip
    worst = min(found.values())
    board.log_scores[role.name] = np.array([found.get(place, worst) for place in range(len(board.options))])


def _record(
    board: Blackboard, role: Role, said: str, confidence: float, options: tuple[str, ...],
    recalled: tuple[str, ...], tokens: int, observation: str | None = None, about: str | None = None,
) -> None:  # fmt: skip
    board.usage += Usage(input_tokens=tokens, lm_calls=1)
    board.parts.append(
        Contribution(
            actor=role.name, observation=observation, options=options, said=said, about=about,
            confidence=min(confidence, 1.0), recalled=recalled,
        )
    )  # fmt: skip


def highest_sum(team: Candidate, board: Blackboard) -> Decision:
    """The option with the highest weighted sum that has not failed yet."""
    roles = team.topology.roles
    place, confidence = pick(board.total(roles), board.names, board.view.tried)
    return Decision(
        action=Action(name=board.names[place]),
        actor=decider(roles).name,
        parts=tuple(board.parts),
        confidence=confidence,
        recalled=tuple(dict.fromkeys(i for part in board.parts for i in part.recalled)),
        usage=board.usage,
    )


def decider(roles: tuple[Role, ...]) -> Role:
    """The last who answers: it acts for the team."""
    return [role for role in roles if role.duty in ("solve", "judge")][-1]


def talk(team: Candidate, members: Seats, view: View) -> Decision:
    """Let the roles write, each reading what those before it said."""
    roles, tools = team.topology.roles, team.tools
    said: list[tuple[Role, Decision, View, str | None]] = []
    notes: list[str] = []
    answer = Decision(action=Action(name=""))
    for role in roles:
        asked = _asked(team, role, view, answer, notes)
        decision = members[role.name].act(asked)
        about = answer.action.name if role.duty == "criticize" else None
        said.append((role, decision, asked, about))
        word = decision.action.name
        if role.duty == "criticize":
            notes.append(f"{role.name} says {shown_name(tools, answer.action.name)} is {word}")
            if word == WRONG and role is roles[-1]:  # nobody comes after it who could do better
                role = decider(roles)
                asked = _asked(team, role, view, answer, notes)
                answer = members[role.name].act(asked)
                said.append((role, answer, asked, None))
            continue
        notes.append(f"{role.name} says {shown_name(tools, word)}")
        if role.duty != "plan":
            answer = decision
    parts = tuple(
        Contribution(
            actor=role.name,
            observation=None if asked.observation.text == view.observation.text else asked.observation.text,
            options=tuple(option.name for option in asked.observation.options),
            said=decision.action.name, about=about, confidence=decision.confidence, recalled=decision.recalled,
        )
        for role, decision, asked, about in said
    )  # fmt: skip
    usage = sum((decision.usage for _, decision, *_ in said), Usage())
    return answer.model_copy(update={"actor": decider(roles).name, "parts": parts, "usage": usage})


def _asked(team: Candidate, role: Role, view: View, answer: Decision, notes: list[str]) -> View:
    """What a role is asked: a critic about the answer, a planner in words, the others the view itself."""
    if role.duty == "criticize":
        known = {option.name: option for option in _options(team, view)}
        name = answer.action.name
        return criticism(team, view, known.get(name, Option(name=name)))
    changes: dict[str, object] = {"reflections": (*view.reflections, *notes)}
    if role.duty == "plan":
        changes["observation"] = view.observation.model_copy(update={"options": ()})
    return view.model_copy(update=changes)


def _options(team: Candidate, view: View) -> tuple[Option, ...]:
    """The observation's options with the candidate's own."""
    return (*view.observation.options, *team.extra_options) if view.observation.options else ()


def log_softmax(log_scores: np.ndarray) -> np.ndarray:
    """Normalized log-probabilities, float64 [n]."""
    shifted = log_scores - log_scores.max()
    normalized: np.ndarray = shifted - np.log(np.exp(shifted).sum())
    return normalized
