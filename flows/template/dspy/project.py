"""How the agent in `support.py` gets better: the ticket system says what an answer was worth."""

from support import support
from tickets import solved_by

from ratchet import Project, Replay

project = Project(
    name="my_agent",
    agent=support,
    score=lambda case, answer: float(answer == solved_by(case.inputs["request"])),
    scores_itself=True,  # nobody has to be asked
    effects="none",  # it may be asked again
    proposers=(Replay(recalls=4),),
)
