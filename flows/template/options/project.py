"""Which team solves a support request? The ticket system knows afterwards; the agent learns it from there."""

import json
from pathlib import Path
from typing import Any

from ratchet import Action, Case, Observation, Option, Outcome, Project, Replay

HERE = Path(__file__).parent
TEAMS = tuple(Option(name=name, description=f"team {name}") for name in ("heron", "lynx", "otter", "wren"))


def rows(file: str) -> list[dict[str, Any]]:
    """One JSON object a line."""
    return [json.loads(line) for line in (HERE / file).read_text(encoding="utf-8").splitlines()]


SOLVED_BY = {row["ticket"]: row["team"] for row in rows("solved.jsonl")}


class Tickets:
    """One support request; it is over when it was sent to a team."""

    def reset(self, case: Case) -> Observation:
        """Show the request and the teams."""
        self.ticket = case.inputs["ticket"]
        return Observation(text=case.inputs["request"], options=TEAMS)

    def step(self, action: Action) -> tuple[Observation, bool]:
        """Send the ticket."""
        self.team = action.name
        return Observation(text=f"sent to {self.team}"), True

    def outcome(self) -> Outcome:
        """1 if this team solved it."""
        return Outcome(score=float(self.team == SOLVED_BY[self.ticket]))


def waiting() -> list[Case]:
    """Requests to answer; read again by every run, so append to the file as they come in."""
    return [
        Case(inputs={"ticket": row["ticket"], "request": row["request"]}, slice=row["channel"])
        for row in rows("requests.jsonl")
    ]


project = Project(
    name="my_agent",
    instructions="Choose the team that solves the customer's request.",
    environment=Tickets,
    traffic=waiting,
    attempts=len(TEAMS),  # a ticket that comes back goes to another team
    scores_itself=True,  # the ticket system knows: nobody has to be asked
    proposers=(Replay(),),  # also: Lora(), Prompts()
)
