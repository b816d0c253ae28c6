"""From a project and a candidate to an agent that acts: the one place where the kinds are told apart.

Why a module's kind is told by its import: a project without DSPy must not wait for it.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ratchet.agent.candidate import IN_CODE, Candidate, Kind
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.agent import Agent
from ratchet.agent.kinds.callable import CallableAgent, callable_candidate
from ratchet.agent.kinds.chat_endpoint import Chat, chat_candidate
from ratchet.agent.kinds.code import SECONDS
from ratchet.agent.lm.endpoint import CONCURRENCY
from ratchet.agent.lm.lm import LM
from ratchet.agent.lm.of_candidate import lm_for
from ratchet.agent.lm.weights import EMBEDDED_MODEL
from ratchet.agent.memory.ranking import Embed
from ratchet.agent.part_values import load_memories
from ratchet.agent.project import Project


def kind_of(agent: object) -> Kind:
    """The kind of what a project names as its agent; None is the built-in one."""
    if agent is None:
        return "built-in"
    if isinstance(agent, Chat):
        return "chat"
    if "dspy" in sys.modules and isinstance(agent, sys.modules["dspy"].Module):
        return "module"
    return "callable"


def first_candidate(project: Project, model: str | None, api_base: str | None) -> Candidate:
    """The agent of the first day: everything as the user's code has it.

    Args:
        project: whose agent.
        model: the LM of the built-in agent; of the others what writes their reflections, None = nobody.
        api_base: where that LM is asked.
    """
    kind = kind_of(project.agent)
    told: dict[str, Any] = {"attempts": project.attempts, "api_base": api_base}
    if kind == "built-in":
        from ratchet.agent.kinds.program import base_candidate

        return base_candidate(project.instructions, model=model or EMBEDDED_MODEL, **told)
    if kind == "chat":
        return chat_candidate(project.agent)
    told["model"] = model or IN_CODE
    if kind == "module":
        from ratchet.agent.kinds.module import module_candidate

        return module_candidate(project.agent, **told)
    return callable_candidate(project.parts, **told)


def make_agent(
    project: Project,
    candidate: Candidate,
    files: Mapping[str, Path],
    *,
    endpoint: Mapping[str, Any] | None = None,
    embeddings: Callable[[str], Embed | None] = lambda _: None,
    seconds: float = SECONDS,
) -> Agent:
    """The candidate as the project's agent.

    Args:
        project: whose agent.
        candidate: the version.
        files: its files by name: `memory`, `memory.<prompt>`, `adapter`.
        endpoint: what an endpoint's LM takes beside the model; `concurrency` is how many cases are played at once.
        embeddings: gives the embedding that a memory names.
        seconds: until a call of an agent in Python is given up.

    Raises:
        BadInput: the candidate is of another kind than the project's agent, or lacks a file.
    """
    kind, settings = kind_of(project.agent), dict(endpoint or {})
    if candidate.kind != kind:
        raise BadInput(
            f"candidate {candidate.candidate_id} is a {candidate.kind} agent, that of project {project.name!r} is "
            f"a {kind} one: give a changed agent another project name"
        )
    if kind == "built-in":
        from ratchet.agent.team.team import make_program

        return make_program(candidate, files, endpoint=settings, embeddings=embeddings)
    told: dict[str, Any] = {
        "memories": load_memories(candidate, files, embeddings),
        "at_once": settings.get("concurrency", CONCURRENCY),
    }
    if kind == "chat":
        from ratchet.agent.kinds.chat import ChatAgent, chat_lm

        lm = chat_lm(project.agent, candidate, settings)
        return ChatAgent(project.agent, candidate, endpoint=settings, lm=lm, **told)
    told |= {"lm": _lm(candidate, files, settings), "effects": project.effects, "seconds": seconds}
    if kind == "module":
        from ratchet.agent.kinds.module import ModuleAgent

        return ModuleAgent(project.agent, candidate, **told)
    assert callable(project.agent), "a project checks what it is given"
    return CallableAgent(project.agent, candidate, **told)


def documents_of(project: Project, candidate: Candidate) -> dict[str, str]:
    """The version in its framework's own form, by file name: of a module `program.json`, for `module.load`."""
    if candidate.kind != "module":
        return {}
    from ratchet.agent.kinds.module import program_state

    return {"program.json": json.dumps(program_state(project.agent, candidate), indent=2, ensure_ascii=False)}


def _lm(candidate: Candidate, files: Mapping[str, Path], endpoint: dict[str, Any]) -> LM | None:
    """What a module runs on; of a callable, whose code asks its own, what writes reflections: never its adapter."""
    if candidate.base_model == IN_CODE:
        return None
    if candidate.kind == "callable":
        return lm_for(candidate.model_copy(update={"adapter": None}), endpoint=endpoint)
    return lm_for(candidate, files.get("adapter"), endpoint)
