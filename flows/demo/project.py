"""The demo's agent: it picks the tool that answers a user's request. A project like any user's own."""

from agent.environments.tool_calling import ToolCalling
from agent.project import Project
from flows.demo.weeks import NAME, traffic

REACTING = 0.5
"""Share of users who say whether the tool was right."""

project = Project(
    name=NAME,
    instructions="Pick the option that answers the request.",
    environment=lambda: ToolCalling(reacting=REACTING),
    labelled_environment=ToolCalling,
    traffic=traffic,
    attempts=2,
)
