"""The demo's agent: it picks the tool that answers a user's request. A project like any user's own."""

from ratchet.agent.environments.tool_calling import ToolCalling
from ratchet.agent.optimize.prompts.prompts import CHOICE_INSTRUCTIONS, Prompts
from ratchet.agent.optimize.reflections import Reflections
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.optimize.weights.lora import Lora
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
    proposers=(
        Reflections(),
        Replay(),
        Lora(max_examples=64),
        Prompts(programs=1, validation=8, lead=0.2, instructions=CHOICE_INSTRUCTIONS[:1]),
    ),
)
