"""A team as a program: several roles on one task, one trace that shows who did what.

Decision: a team is a `Program`, so that the loop, the gate and what serves need not know whether one agent acts or
several. Each role has its own prompt, memory and adapter (see `ratchet.agent.team.roles`); how they come to one
action stands in `ratchet.agent.team.deliberation`. Roles after Zhao et al., SiriuS (2025): solver, critic, judge;
planner and worker.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy

from ratchet.agent.candidate import Candidate
from ratchet.agent.environment import Observation, Option
from ratchet.agent.kinds.decision import Decision, Scored, View
from ratchet.agent.kinds.program import Program
from ratchet.agent.lm.lm import Prompt
from ratchet.agent.memory.ranking import Embed
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Recalled
from ratchet.agent.team.deliberation import Blackboard, decider, highest_sum, talk, weigh
from ratchet.agent.team.roles import check_team, files_of, member_of


class Team(Program):
    """One candidate with roles, ready to act."""

    def __init__(
        self,
        candidate: Candidate,
        files: Mapping[str, Path],
        *,
        endpoint: dict[str, Any] | None = None,
        embeddings: Callable[[str], Embed | None] = lambda _: None,
    ) -> None:
        """Give every role its member.

        Args:
            candidate: the team.
            files: the roles' files: `memory.<role>`, `adapter.<role>`.
            endpoint: `api_base`, `api_key`, `timeout` for an LM endpoint.
            embeddings: gives the embedding that a role's memory names.

        Raises:
            BadInput: the team cannot work, or a role names a memory or an adapter that is not given.
        """
        check_team(candidate)
        roles = candidate.topology.roles
        members = {
            role.name: make_program(
                member_of(candidate, role),
                files_of(files, role.name),
                endpoint=endpoint,
                embeddings=embeddings,
            )
            for role in roles
        }
        acting = members[decider(roles).name]
        super().__init__(
            acting.candidate, memory=acting.memory, adapter=acting.adapter, endpoint=acting.endpoint
        )
        self.candidate = candidate
        self.attempts = candidate.topology.attempts
        self.files = dict(files)
        self.members = members
        """Role → the single agent that plays it."""

    def act(self, view: View) -> Decision:
        """The team's next action, with what every role said."""
        if self.lm.scores_options and view.observation.options:
            return highest_sum(self.candidate, self.weigh(view))
        return talk(self.candidate, self.members, view)

    def weigh(self, view: View) -> Blackboard:
        """What every role says of the options."""
        return weigh(self.candidate, self.members, view)

    def forward(
        self, request: str, options: list[Any], notes: Sequence[str] = (), case_id: str = ""
    ) -> dspy.Prediction:
        """One request through the whole team."""
        offered = tuple(Option.model_validate(option) for option in options)
        view = View(
            case_id=case_id,
            observation=Observation(text=request, options=offered),
            reflections=tuple(notes),
        )
        return dspy.Prediction(choice=self.act(view).action.name)

    def score(self, view: View) -> Scored:
        """What the team as a whole makes of each option."""
        board = self.weigh(view)
        recalled = tuple(i for part in board.parts for i in part.recalled)
        total = board.total(self.candidate.topology.roles)
        return Scored(board.names, total, recalled, board.usage.input_tokens)

    def prompt(self, view: View) -> tuple[Prompt, Observation, list[Recalled]]:
        """The prompt of the role that acts, without what the others would say."""
        return self.members[decider(self.candidate.topology.roles).name].prompt(view)


def make_program(
    candidate: Candidate,
    files: Mapping[str, Path],
    *,
    endpoint: dict[str, Any] | None = None,
    embeddings: Callable[[str], Embed | None] = lambda _: None,
) -> Program:
    """A candidate, ready to act, whether it is one agent or a team; `embeddings` gives those that a memory names.

    Raises:
        BadInput: it names a memory or an adapter that is not among the files.
    """
    if candidate.topology.roles:
        return Team(candidate, files, endpoint=endpoint, embeddings=embeddings)
    memory = Memory.load(files["memory"], embeddings=embeddings) if "memory" in files else None
    return Program(candidate, memory=memory, adapter=files.get("adapter"), endpoint=endpoint)
