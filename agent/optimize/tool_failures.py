"""Where tools go wrong: counts from traces, by tool, by what it is confused with, and by argument."""

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import Field

from ratchet.agent.record import Json, Record
from ratchet.agent.trace import Trace


class ToolRow(Record):
    """What traces say of one tool, under the environment's name."""

    tool: str
    chosen: int = Field(ge=0)
    wrong: int = Field(ge=0)
    """Times that it was chosen and not right."""
    missed: int = Field(ge=0)
    """Times that it was right and another was chosen."""
    confused_with: dict[str, int]
    """Other tool → times that one of the two was chosen where the other was right."""
    argument_errors: dict[str, int]
    """Argument → times that its value was wrong, missing or not called for, where the tool was right."""

    @property
    def failures(self) -> int:
        """All that a better description might mend."""
        return self.wrong + self.missed + sum(self.argument_errors.values())


def tool_failures(traces: Sequence[Trace], answers: Mapping[str, Json]) -> tuple[ToolRow, ...]:
    """One row a tool, most failures first.

    Args:
        traces: only their first action counts: a retry is told what was wrong. Broken ones are left out.
        answers: case id → right action: a name, or a record with `tool` and, where known, `arguments`. A value may
            be a list of possible ones; `""` among them means that the argument may be left out. Of a case without
            answer the outcome alone tells whether the tool was wrong, and never what would have been right.
    """
    chosen, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    pairs: dict[str, Counter[str]] = {}
    arguments: dict[str, Counter[str]] = {}
    for trace in traces:
        action = trace.first_action
        if action is None or trace.error is not None:
            continue
        chosen[action.name] += 1
        answer = answers.get(trace.case.case_id)
        right = _tool(answer)
        if right is None:
            wrong[action.name] += trace.first_score is not None and trace.first_score < 1
        elif right != action.name:
            wrong[action.name] += 1
            missed[right] += 1
            for one, other in ((action.name, right), (right, action.name)):
                pairs.setdefault(one, Counter())[other] += 1
        elif action.arguments is not None and isinstance(answer, dict) and "arguments" in answer:
            errors = argument_errors(action.arguments, answer["arguments"] or {})
            arguments.setdefault(right, Counter()).update(errors)
    rows = [
        ToolRow(
            tool=tool, chosen=chosen[tool], wrong=wrong[tool], missed=missed[tool],
            confused_with=dict(pairs.get(tool, Counter()).most_common()),
            argument_errors=dict(arguments.get(tool, Counter()).most_common()),
        )
        for tool in sorted({*chosen, *missed})
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: (-row.failures, row.tool)))


def argument_errors(given: Mapping[str, Json], wanted: Mapping[str, Json]) -> list[str]:
    """Names of the arguments that are wrong, missing or not called for."""
    wrong = [name for name, value in given.items() if name not in wanted or not _fits(value, wanted[name])]
    return wrong + [name for name, value in wanted.items() if name not in given and not _optional(value)]


def _tool(answer: Json) -> str | None:
    if isinstance(answer, dict):
        answer = answer.get("tool")
    return None if answer is None else str(answer)


def _fits(value: Json, wanted: Json) -> bool:
    return _plain(value) == _plain(wanted) or (
        isinstance(wanted, list) and _plain(value) in map(_plain, wanted)
    )


def _optional(wanted: Json) -> bool:
    return isinstance(wanted, list) and "" in wanted


def _plain(value: Json) -> Json:
    return value.strip().casefold() if isinstance(value, str) else value
