"""Which team solves a support request? The ticket system knows afterwards; the agent learns it from there."""

from tickets import requests, solved_by

from ratchet import Action, Case, Observation, Option, Outcome, Project, Replay

TEAMS = tuple(Option(name=name, description=f"team {name}") for name in ("heron", "lynx", "otter", "wren"))


class Tickets:
    """One support request; it is over when it was sent to a team."""

    def reset(self, case: Case) -> Observation:
        """Show the request and the teams."""
        self.request = case.inputs["request"]
        return Observation(text=self.request, options=TEAMS)

    def step(self, action: Action) -> tuple[Observation, bool]:
        """Send the ticket."""
        self.team = action.name
        return Observation(text=f"sent to {self.team}"), True

    def outcome(self) -> Outcome:
        """1 if this team solved it."""
        return Outcome(score=float(self.team == solved_by(self.request)))


project = Project(
    name="my_agent",
    instructions="Choose the team that solves the customer's request.",
    environment=Tickets,
    traffic=lambda: [
        Case(inputs={"ticket": row["ticket"], "request": row["request"]}, slice=row["channel"])
        for row in requests()
    ],
    attempts=len(TEAMS),  # a ticket that comes back goes to another team
    scores_itself=True,  # the ticket system knows: nobody has to be asked
    proposers=(Replay(),),  # also: Lora(), Prompts()
)
