"""Ratchet: an LLM agent improves from its own production experience, and only what is shown to be better serves.

The public face. Every name is imported when it is first asked for, so that `import ratchet` costs milliseconds in an
agent that serves. What is not here is private and may move.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratchet.agent.candidate import Candidate as Candidate
    from ratchet.agent.case import Case as Case
    from ratchet.agent.environment import Action as Action
    from ratchet.agent.environment import Environment as Environment
    from ratchet.agent.environment import Observation as Observation
    from ratchet.agent.environment import Option as Option
    from ratchet.agent.environment import Outcome as Outcome
    from ratchet.agent.errors import BadInput as BadInput
    from ratchet.agent.errors import NothingToPropose as NothingToPropose
    from ratchet.agent.errors import RatchetError as RatchetError
    from ratchet.agent.kinds.chat_endpoint import Chat as Chat
    from ratchet.agent.kinds.served_module import module as module
    from ratchet.agent.limits import Limits as Limits
    from ratchet.agent.optimize.budget import Budget as Budget
    from ratchet.agent.optimize.evidence import Evidence as Evidence
    from ratchet.agent.optimize.evidence import Example as Example
    from ratchet.agent.optimize.prompts.prompts import Prompts as Prompts
    from ratchet.agent.optimize.proposer import Proposal as Proposal
    from ratchet.agent.optimize.proposer import Proposer as Proposer
    from ratchet.agent.optimize.proposer import Registered as Registered
    from ratchet.agent.optimize.reflections import Reflections as Reflections
    from ratchet.agent.optimize.replay import Replay as Replay
    from ratchet.agent.optimize.team_search import TeamSearch as TeamSearch
    from ratchet.agent.optimize.tools import Tools as Tools
    from ratchet.agent.optimize.trajectories import Trajectories as Trajectories
    from ratchet.agent.optimize.weights.lora import Lora as Lora
    from ratchet.agent.optimize.work import Work as Work
    from ratchet.agent.parts import carried as carried
    from ratchet.agent.parts import examples as examples
    from ratchet.agent.parts import failed as failed
    from ratchet.agent.parts import is_trial as is_trial
    from ratchet.agent.parts import model as model
    from ratchet.agent.parts import prompt as prompt
    from ratchet.agent.parts import session as session
    from ratchet.agent.parts import tool_description as tool_description
    from ratchet.agent.project import Project as Project
    from ratchet.agent.trace import Attempt as Attempt
    from ratchet.agent.trace import Step as Step
    from ratchet.agent.trace import Trace as Trace
    from ratchet.agent.trace import Usage as Usage
    from ratchet.evaluation.data.labels import Label as Label
    from ratchet.evaluation.data.scorers import contains as contains
    from ratchet.evaluation.data.scorers import exact as exact
    from ratchet.evaluation.data.scorers import json_fields as json_fields
    from ratchet.evaluation.data.scorers import numeric as numeric
    from ratchet.evaluation.data.scorers import tool_call as tool_call
    from ratchet.evaluation.drift.monitor import DriftMonitor as DriftMonitor
    from ratchet.evaluation.gate.gate import Gate as Gate
    from ratchet.evaluation.gate.gate import decide as decide
    from ratchet.evaluation.gate.pairs import Pair as Pair
    from ratchet.evaluation.gate.verdict import Verdict as Verdict
    from ratchet.infra.traces.write import attach_label as attach_label

_HOMES = {
    "agent.candidate": ("Candidate",),
    "agent.case": ("Case",),
    "agent.environment": ("Action", "Environment", "Observation", "Option", "Outcome"),
    "agent.errors": ("BadInput", "NothingToPropose", "RatchetError"),
    "agent.kinds.chat_endpoint": ("Chat",),
    "agent.kinds.served_module": ("module",),
    "agent.limits": ("Limits",),
    "agent.optimize.budget": ("Budget",),
    "agent.optimize.evidence": ("Evidence", "Example"),
    "agent.optimize.prompts.prompts": ("Prompts",),
    "agent.optimize.proposer": ("Proposal", "Proposer", "Registered"),
    "agent.optimize.reflections": ("Reflections",),
    "agent.optimize.replay": ("Replay",),
    "agent.optimize.trajectories": ("Trajectories",),
    "agent.optimize.team_search": ("TeamSearch",),
    "agent.optimize.tools": ("Tools",),
    "agent.optimize.weights.lora": ("Lora",),
    "agent.optimize.work": ("Work",),
    "agent.parts": (
        "carried",
        "examples",
        "failed",
        "is_trial",
        "model",
        "prompt",
        "session",
        "tool_description",
    ),
    "agent.project": ("Project",),
    "agent.trace": ("Attempt", "Step", "Trace", "Usage"),
    "evaluation.data.labels": ("Label",),
    "evaluation.data.scorers": ("contains", "exact", "json_fields", "numeric", "tool_call"),
    "evaluation.drift.monitor": ("DriftMonitor",),
    "evaluation.gate.gate": ("Gate", "decide"),
    "evaluation.gate.pairs": ("Pair",),
    "evaluation.gate.verdict": ("Verdict",),
    "infra.traces.write": ("attach_label",),
}
_READ_PARTS = ("agent.parts", "agent.kinds.served_module")
"""Whoever takes a name from here has parts, which it reads from the version that serves."""
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'ratchet' has no attribute {name!r}")
    value = getattr(import_module(f"ratchet.{_HOME[name]}"), name)
    if _HOME[name] in _READ_PARTS:
        import_module("ratchet.infra.parts.source").install()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
