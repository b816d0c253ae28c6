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
    from ratchet.agent.errors import RatchetError as RatchetError
    from ratchet.agent.limits import Limits as Limits
    from ratchet.agent.project import Project as Project
    from ratchet.agent.trace import Attempt as Attempt
    from ratchet.agent.trace import Step as Step
    from ratchet.agent.trace import Trace as Trace
    from ratchet.agent.trace import Usage as Usage
    from ratchet.evaluation.drift.monitor import DriftMonitor as DriftMonitor
    from ratchet.evaluation.gate.gate import Gate as Gate
    from ratchet.evaluation.gate.gate import decide as decide
    from ratchet.evaluation.gate.pairs import Pair as Pair
    from ratchet.evaluation.gate.verdict import Verdict as Verdict

_HOMES = {
    "agent.candidate": ("Candidate",),
    "agent.case": ("Case",),
    "agent.environment": ("Action", "Environment", "Observation", "Option", "Outcome"),
    "agent.errors": ("BadInput", "RatchetError"),
    "agent.limits": ("Limits",),
    "agent.project": ("Project",),
    "agent.trace": ("Attempt", "Step", "Trace", "Usage"),
    "evaluation.drift.monitor": ("DriftMonitor",),
    "evaluation.gate.gate": ("Gate", "decide"),
    "evaluation.gate.pairs": ("Pair",),
    "evaluation.gate.verdict": ("Verdict",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'ratchet' has no attribute {name!r}")
    value = getattr(import_module(f"ratchet.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
