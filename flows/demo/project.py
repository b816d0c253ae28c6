"""The demo's agent: it picks the tool that answers a user's request. A project like any user's own."""

from ratchet.agent.environments.tool_calling import ToolCalling
from ratchet.agent.project import Project
from ratchet.flows.demo.weeks import DEMO_PROJECT, traffic

REACTING = 0.5
"""Share of users who say whether the tool was right."""

project = Project(
    name=DEMO_PROJECT,
    instructions="Pick the option that answers the request.",
    environment=lambda: ToolCalling(reacting=REACTING),
    labelled_environment=ToolCalling,
    traffic=traffic,
    attempts=2,
)
