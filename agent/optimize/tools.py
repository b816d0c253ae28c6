"""Tools as something that improves: names, descriptions and arguments rewritten from what traces say went wrong.

Words are taken from one half of the training cases, and a rewriting is kept only if the agent fails less often on
the other half: a small LM reads 80 characters of a description, and any change may as well harm.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import Field

from ratchet.agent.candidate import ToolOverride
from ratchet.agent.environment import Action, Option
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.arguments import fill_arguments
from ratchet.agent.kinds.decision import Decision
from ratchet.agent.kinds.program import Program
from ratchet.agent.kinds.tool_overrides import Overrides, override_of
from ratchet.agent.lm.of_candidate import lm_type
from ratchet.agent.lm.prompt_format import data
from ratchet.agent.optimize.budget import Budget, BudgetSpent
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import share_right, shuffled
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.tool_failures import ToolRow, argument_errors, tool_failures
from ratchet.agent.optimize.tool_words import Writer, readable, telling, written_by
from ratchet.agent.optimize.work import Work, built_in_only
from ratchet.agent.record import Json, Record


class Tools(Record):
    """Rewrite the words of the tools that fail; a team's, too."""

    name: str = "tools"
    tools: int = Field(default=8, ge=1)
    """Tools rewritten at most, those with most failures first."""
    words: int = Field(default=4, ge=1, le=20)
    """Telling words added to a description."""
    least: int = Field(default=2, ge=1)
    """Failures that make a tool, or an argument, worth a rewriting."""
    values: int = Field(default=2, ge=1, le=10)
    """Right values shown in the description of an argument that goes wrong."""
    rename: bool = True
    """Also try a readable name where the environment's is none."""
    budget: Budget = Budget()
    """What it may spend; a run's own (`[budget]` of `ratchet.toml`) holds beside it."""

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The parent with better words for the tools that failed, as far as these helped."""
        built_in_only(parent.candidate)
        if len(evidence.examples) < 2:
            raise NothingToPropose(f"it needs at least 2 labelled examples, got {len(evidence.examples)}")
        answers = {e.view.case_id: e.answer if e.call is None else e.call for e in evidence.examples}
        ordered = shuffled(evidence.examples, work.seed)
        rewriting = Rewriting(parent, work, ordered[::2], ordered[1::2], answers, self)
        rows = tool_failures(evidence.served, answers)
        failing = [row for row in rows if row.failures >= self.least][: self.tools]
        with work.progress(f"{self.name}: rewriting what failed", len(failing)) as done:
            tools, changed = _rewritten(rewriting, failing, done)
        if not changed:
            return None
        failures = {row.tool: row.failures for row in failing}
        return Proposal(
            candidate=parent.candidate.model_copy(update={"tools": tools}),
            note=f"Rewrote {', '.join(f'{tool} ({failures[tool]} failures)' for tool in changed)}.",
            parameters={"rewritten": list(changed), "failures": failures},
            cost={"tools": float(len(failing))},
        )


@dataclass(frozen=True)
class Rewriting:
    """What the rewriting works with."""

    parent: Registered
    work: Work
    read: Sequence[Example]
    """Where words are taken from."""
    kept: Sequence[Example]
    """Where a rewriting must help."""
    answers: Mapping[str, Json]
    """Case id → right action, with arguments where known."""
    settings: Tools

    def program(self, tools: Overrides) -> Program:
        """The agent with these tools."""
        changed = self.parent.candidate.model_copy(update={"tools": dict(tools)})
        return self.work.program(changed, self.parent.files)


def _rewritten(
    rewriting: Rewriting, failing: Sequence[ToolRow], progress: Callable[[int], None]
) -> tuple[dict[str, str | ToolOverride], list[str]]:
    """The tools with every rewriting that helped, and which these are; the first that helps a tool is kept."""
    tools, changed = dict(rewriting.parent.candidate.tools), []
    write, work = telling(rewriting.settings.words), rewriting.work
    if (lm := work.writer(rewriting.parent.candidate)) is not None:
        write = written_by(partial(work.write, lm))
    try:
        for row in failing:
            for fails, override in _rewritings(rewriting, row, tools, write):
                draft = {**tools, row.tool: override}
                if fails(rewriting, draft, row.tool) < fails(rewriting, tools, row.tool) - 1e-9:
                    tools = draft
                    changed.append(row.tool)
                    break
            progress(1)
    except BudgetSpent:
        if not changed:  # else what helped until now is kept
            raise
    return tools, changed


Fails = Callable[[Rewriting, Overrides, str], float]


def _rewritings(
    rewriting: Rewriting, row: ToolRow, tools: Overrides, write: Writer
) -> Iterator[tuple[Fails, ToolOverride]]:
    """What to try for a tool, boldest first, with how to tell whether it helps."""
    option = next((o for e in rewriting.read for o in e.view.observation.options if o.name == row.tool), None)
    if option is None:
        return
    now = override_of(tools, row.tool)
    own = [e.view.observation.text for e in rewriting.read if e.answer == row.tool]
    others = [e.view.observation.text for e in rewriting.read if e.answer in row.confused_with]
    name = readable(row.tool) if rewriting.settings.rename and now.name is None else row.tool
    if row.wrong or row.missed:
        current = option.model_copy(update={"description": now.description or option.description})
        described = write(current, own, others) if own and others else current.description
        described = described if described != current.description else ""
        if described and name != row.tool:
            yield _wrong_choices, now.model_copy(update={"name": name, "description": described})
        if described:
            yield _wrong_choices, now.model_copy(update={"description": described})
        if name != row.tool:
            yield _wrong_choices, now.model_copy(update={"name": name})
    schema = _with_values(rewriting, row, option, now)
    if schema is not None:
        yield _wrong_arguments, now.model_copy(update={"parameters": schema})


def _with_values(
    rewriting: Rewriting, row: ToolRow, option: Option, now: ToolOverride
) -> dict[str, Json] | None:
    """The schema with right values shown for each argument that goes wrong; None where none are known."""
    schema = now.parameters or option.parameters
    properties = {name: dict(value) for name, value in schema.get("properties", {}).items()}
    shown = False
    for name, count in row.argument_errors.items():
        values = _right_values(rewriting, row.tool, name)[: rewriting.settings.values]
        if count >= rewriting.settings.least and name in properties and values:
            limit = lm_type(rewriting.parent.candidate.base_model).room.description
            head = data(str(properties[name].get("description", "")).rstrip(". "), limit - 30)
            properties[name]["description"] = f"{head}, e.g. {', '.join(values)}"[:limit]
            shown = True
    return {**schema, "properties": properties} if shown else None


def _right_values(rewriting: Rewriting, tool: str, argument: str) -> list[str]:
    """Short right values of an argument among the cases that words are taken from, each once."""
    found = []
    for example in rewriting.read:
        value = _arguments(rewriting.answers.get(example.view.case_id), tool).get(argument)
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str | int | float) and not isinstance(first, bool) and 0 < len(str(first)) <= 20:
            found.append(str(first))
    return list(dict.fromkeys(found))


def _arguments(answer: Json, tool: str) -> dict[str, Json]:
    if isinstance(answer, dict) and answer.get("tool") == tool and isinstance(answer.get("arguments"), dict):
        return dict(answer["arguments"])
    return {}


def _wrong_choices(rewriting: Rewriting, tools: Overrides, tool: str) -> float:
    """Weight of the wrong choices where the tool is offered, on the half that words were not taken from."""
    asked = [e for e in rewriting.kept if any(o.name == tool for o in e.view.observation.options)]
    right, _ = share_right(rewriting.program(tools), asked)
    return (1 - right) * sum(example.weight for example in asked)


def _wrong_arguments(rewriting: Rewriting, tools: Overrides, tool: str) -> float:
    """Number of wrong arguments where the tool is right, on the half that values were not taken from."""
    asked = [e for e in rewriting.kept if _arguments(rewriting.answers.get(e.view.case_id), tool)]
    chosen = [Decision(action=Action(name=tool)) for _ in asked]
    filled = fill_arguments(rewriting.program(tools), [example.view for example in asked], chosen)
    return float(
        sum(
            len(
                argument_errors(d.action.arguments or {}, _arguments(rewriting.answers[e.view.case_id], tool))
            )
            for e, d in zip(asked, filled, strict=True)
        )
    )
