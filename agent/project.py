"""What a user writes: one file `project.py` that says who the agent is and where it acts.

Why a file and not a package: a project is loaded from its folder, by a schedule as well as by hand, without
being installed and without touching Ratchet's source. Of a chat endpoint `ratchet.toml` says it all.
"""

import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ratchet.agent.case import Case
from ratchet.agent.environment import Environment
from ratchet.agent.errors import BadInput, named
from ratchet.agent.kinds.answering import Answering
from ratchet.agent.kinds.chat_endpoint import Chat, ChatProject, chat_project
from ratchet.agent.kinds.effects import REFUSED, Effects
from ratchet.agent.kinds.scoring import as_score, asks_an_lm
from ratchet.agent.limits import Limits
from ratchet.agent.optimize.proposer import Proposer, check_proposers
from ratchet.agent.parts import TextPart
from ratchet.agent.record import Json, content_hash
from ratchet.agent.settings_table import SETTINGS_FILE

PROJECT_FILE = "project.py"
_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}$")


def _nothing() -> Sequence[Case]:
    return ()


def _standard() -> Sequence[Proposer]:
    # with DSPy, which a project that names its own proposers may not need
    from ratchet.agent.optimize.prompts.prompts import Prompts
    from ratchet.agent.optimize.replay import Replay
    from ratchet.agent.optimize.weights.lora import Lora

    return Replay(), Lora(), Prompts()


@dataclass(frozen=True)
class Project:
    """An agent and its world."""

    name: str
    """Lower case, digits, `-` and `_`: names the experiment and the model in MLflow."""
    instructions: str = ""
    """What the built-in agent is told on its first day; everything after that is learned."""
    environment: Callable[[], Environment] = Answering
    """A fresh environment for one case; of an `agent` that answers a case whole it follows from `score`."""
    agent: Any = None
    """What answers a case: a callable, sync or async, a `dspy.Module`, or `Chat`, an endpoint behind `ratchet serve`;
    None = the built-in agent, which acts in `environment`."""
    parts: Sequence[TextPart] = ()
    """Prompts and tool descriptions of a callable that may change."""
    score: Any = None
    """What an answer to a case is worth, in [0, 1]: `(case, answer) -> float | None`, such as `ratchet.contains`, or
    a scorer of `mlflow.genai`; None, or where it gives None, people say."""
    same: Callable[[Json, Json], bool] | None = None
    """Whether two answers say the same, so that nobody is asked which is right: `(one, other) -> bool`; None = the
    chosen option, or the text without regard to case, spaces and a last full stop."""
    effects: Effects | None = None
    """Whether the agent's tools change anything outside: `none`, or `guarded`, which is to say that they ask
    `ratchet.is_trial()`. Left out, an agent in Python is never played again, and no challenger can be tested."""
    labelled_environment: Callable[[], Environment] | None = None
    """The environment for cases whose `expected` a person gave: it scores every action. None = `environment`."""
    traffic: Callable[[], Sequence[Case]] = _nothing
    """Requests that wait to be served; those that were served already are skipped."""
    model: str | None = None
    """LM; None = that of the settings (`RATCHET_LM`)."""
    attempts: int = 1
    """Tries at a case; more than one needs an environment that says that it failed."""
    scores_itself: bool = False
    """Whether the environment can score any action at any case (a game, a database, a ticket that closes): then
    its outcome is the ground truth of the gate, and no person is asked."""
    limits: Limits = field(default_factory=Limits)
    """What one case may take: steps, repetitions, tokens, seconds, money. The gate plays under the same."""
    with_arguments: bool = False
    """Also fill the chosen option's arguments."""
    proposers: Sequence[Proposer] = field(default_factory=_standard)
    """Who makes challengers; the last is tested first, and each test costs a smaller share of the error budget.
    `Trajectories` and `Reflections` learn from whole runs: for environments of several steps, or with retries."""

    @property
    def no_replay(self) -> str | None:
        """Why its agent must not be played again, so that no version can be tested; None = it may be."""
        return REFUSED if callable(self.agent) and self.effects is None else None

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise BadInput(
                f"project name {self.name!r}: use 1–63 lower-case letters, digits, - and _, as MLflow's names need"
            )
        if self.agent is not None:
            self._check_agent()
        elif self.environment is Answering:
            raise BadInput(
                f"project {self.name!r} has no agent: give `agent`, or `environment` with `instructions`"
            )
        elif not self.instructions.strip():
            raise BadInput(
                f"project {self.name!r} has no instructions: say in a sentence what the agent does"
            )
        check_proposers(self.proposers)

    def _check_agent(self) -> None:
        served = sys.modules.get("ratchet.agent.kinds.served_module")
        if served is not None and isinstance(self.agent, served.ServedModule):
            object.__setattr__(self, "agent", self.agent.wrapped)
        if self.environment is not Answering or self.instructions:
            raise BadInput(
                f"project {self.name!r} has an agent of its own: leave out environment and instructions, and let "
                "`score` say what an answer is worth"
            )
        if not callable(self.agent) and not isinstance(self.agent, Chat):
            raise BadInput(f"project {self.name!r}: agent {self.agent!r:.60} cannot be called")
        if isinstance(self.agent, Chat) and self.attempts > 1:
            raise BadInput(
                f"project {self.name!r}: attempts = {self.attempts}: a chat endpoint answers a request once, since "
                "nobody scores an answer before it is given; leave it out"
            )
        if self.effects not in (None, "none", "guarded"):
            raise BadInput(f"project {self.name!r}: effects = {self.effects!r}: give 'none' or 'guarded'")
        if self.scores_itself and asks_an_lm(self.score):
            raise BadInput(
                f"project {self.name!r}: scores_itself, and score asks an LM: a model's word is no environment's and "
                "would grade what it learns from; leave scores_itself out, and let `ratchet judge` earn it a licence"
            )
        score = None if self.score is None else as_score(self.score, self.name)
        object.__setattr__(self, "environment", partial(Answering, score))


def has_project(folder: Path) -> bool:
    """Whether a project lies there, whatever is wrong with it."""
    return (folder / PROJECT_FILE).exists() or chat_project(folder / SETTINGS_FILE) is not None


def load_project(folder: Path) -> Project:
    """Read `project.py` in `folder`, which must define `project = Project(…)`, or `ratchet.toml`'s table `agent`.

    Raises:
        BadInput: there is neither, or both; it does not run, or it defines no project.
    """
    path, table = (folder / PROJECT_FILE).resolve(), chat_project((folder / SETTINGS_FILE).resolve())
    if table is not None and path.is_file():
        raise BadInput(
            f"{path} and the table `agent` of {SETTINGS_FILE} both say who the agent is: remove one of them"
        )
    if table is not None:
        return _of_endpoint(table)
    if not path.is_file():
        raise BadInput(
            f"no {PROJECT_FILE} in {folder.resolve()}, and no table `agent` in a {SETTINGS_FILE} there: go to your "
            "project, or run `ratchet init DIR`"
        )
    return _of_python(path)


def _of_endpoint(table: ChatProject) -> Project:
    """What a `project.py` of these words would be; like one, it takes its scorer from Ratchet's public face."""
    from ratchet.agent.optimize.budget import Budget
    from ratchet.agent.optimize.replay import Replay

    score = None if table.score is None else getattr(importlib.import_module("ratchet"), table.score)
    proposers: tuple[Proposer, ...] = (Replay(recalls=table.recalls),) if table.recalls else ()
    if table.prompt_calls:
        from ratchet.agent.optimize.prompts.prompts import Prompts

        proposers = (*proposers, Prompts(budget=Budget(calls=table.prompt_calls)))
    return Project(name=table.name, agent=table.chat, score=score, proposers=proposers)


def _of_python(path: Path) -> Project:
    name = f"ratchet_project_{content_hash(str(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path} cannot be loaded as Python: check its name and permissions")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as for a script: what lies beside it can be imported
    _let_any_thread_configure_dspy()
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        hint = _moved(error.name or "") if isinstance(error, ImportError) else ""
        raise BadInput(f"{path} does not run: {named(error)}{hint}") from error
    finally:
        _let_any_thread_configure_dspy()
    project = getattr(module, "project", None)
    if not isinstance(project, Project):
        found = type(project)
        hint = _moved(found.__module__)
        raise BadInput(f"{path} must define `project = Project(…)`; found {found.__name__}{hint}")
    return project


def _let_any_thread_configure_dspy() -> None:
    """DSPy lets the thread that first configured it do so alone; a project's file is run by whoever reads it.

    So before it is run, and after: else the thread that read it, perhaps gone by now, would keep out all others.
    """
    if (settings := sys.modules.get("dspy.dsp.utils.settings")) is not None:
        settings.__dict__.update(config_owner_thread_id=None, config_owner_async_task=None)


def _moved(module: str) -> str:
    """What to do where a file imports our folders by the names that they had before they were `ratchet.*`."""
    if module.split(".")[0] not in {"agent", "evaluation", "infra", "tasks", "flows"}:
        return ""
    return (
        "; what is Ratchet's is imported from `ratchet`: `from ratchet import Case, Observation, Project, …`"
    )
