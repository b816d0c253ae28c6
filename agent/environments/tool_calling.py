"""Pick the tool that answers a request and fill its arguments: real requests and tools, from BFCL v4.

Source: Berkeley Function Calling Leaderboard v4, live sets contributed by users (Apache-2.0), as package data
of the PyPI wheel `bfcl-eval`; none of its code is imported. Score of the outcome: tool choice, 0 or 1;
`arguments` in the details: 1 if every argument is among BFCL's possible answers.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Observation, Option, Outcome
from ratchet.agent.errors import BadInput
from ratchet.agent.record import Json, content_hash

NO_TOOL = "no_tool_fits"
"""What a person answers when none of the tools does what is asked. The environment does not offer it: an agent
that was never shown such requests does not know of it, and learns it from people's corrections."""


class ToolCalling:
    """Scores one tool call against the case's answer key; one action ends the attempt."""

    def __init__(self, *, reacting: float = 1.0) -> None:
        """In production most users say nothing: `reacting` in [0, 1] is the share of cases with an outcome.

        Which cases react follows from their ids, so that a case behaves the same in every run.
        """
        self._reacting = reacting
        self._case: Case | None = None
        self._action: Action | None = None

    def reset(self, case: Case) -> Observation:
        """Show the request and the tools that stand to choice.

        Raises:
            BadInput: the case has no request or no tools.
        """
        self._case, self._action = case, None
        return case_observation(case)

    def step(self, action: Action) -> tuple[Observation, bool]:
        """Take the call; the attempt is over."""
        self._action = action
        return Observation(text=f"called {action.name}"), True

    def outcome(self) -> Outcome:
        """1 for the right tool, 0 for another; None where the answer is not known."""
        if self._case is None or self._action is None or self._case.expected is None:
            return Outcome()
        if int(content_hash(["reacts", self._case.case_id], length=8), 16) >= self._reacting * 16**8:
            return Outcome()
        right = self._action.name == expected_tool(self._case.expected)
        details = {}
        if self._action.arguments is not None:
            details["arguments"] = float(
                right and arguments_match(self._action.arguments, self._case.expected)
            )
        feedback = "" if right else f"The user did not accept {self._action.name}."
        return Outcome(score=float(right), feedback=feedback, details=details)


def case_observation(case: Case) -> Observation:
    """What the agent sees of a case."""
    request, tools = case.inputs.get("request"), case.inputs.get("tools")
    if not isinstance(request, str) or not request.strip() or not isinstance(tools, list):
        raise BadInput(
            f"case {case.case_id}: inputs need a `request` (text) and `tools` (list); got {sorted(case.inputs)}"
        )
    return Observation(text=request, options=tuple(Option.model_validate(t) for t in tools))


def expected_tool(expected: Json) -> str:
    """The right tool's name in an answer: `{"tool": …, "arguments": …}`, or the bare name that a person types."""
    return str(expected["tool"] if isinstance(expected, dict) else expected)


def arguments_match(arguments: dict[str, Json], expected: Json) -> bool:
    """Whether every argument is among the possible answers; `""` among them means that it may be left out."""
    possible = expected.get("arguments") if isinstance(expected, dict) else None
    if possible is None:
        return not arguments
    return _fields_match(arguments, possible)


def _fields_match(given: dict[str, Json], possible: dict[str, Json]) -> bool:
    return set(given) <= set(possible) and all(
        _possible(given[name], values) if name in given else _optional(values)
        for name, values in possible.items()
    )


def _possible(given: Json, values: Json) -> bool:
    """Whether it is one of the values; inside objects BFCL gives some values bare, without a list around them."""
    if not isinstance(values, list):
        return _same(given, values)
    return any(_same(given, value) for value in values or [[]])


def _optional(values: Json) -> bool:
    """`""` stands for an argument left out; no possible answer at all stands for an empty list."""
    return isinstance(values, list) and (not values or "" in values)


def _same(given: Json, wanted: Json) -> bool:
    if isinstance(given, str) and isinstance(wanted, str):
        return given.strip().casefold() == wanted.strip().casefold()
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(_same, given, wanted))
    if isinstance(wanted, dict) and isinstance(given, dict):
        return _fields_match(given, wanted)
    if isinstance(given, bool) != isinstance(wanted, bool):
        return False
    return bool(given == wanted)


@cache
def live_cases(name: str) -> tuple[Case, ...]:
    """All cases of one live set (`live_multiple`, `live_simple`, `live_irrelevance`) with 1–5 named tools.

    The slice of a case is its set's name. Cases whose answer key is ambiguous (two tools of one name) are left out.
    """
    folder = data_folder()
    answers = {}
    if name != "live_irrelevance":
        answers = {row["id"]: row["ground_truth"] for row in _rows(folder / "possible_answer", name)}
    made = (_case(row, answers.get(row["id"]), name) for row in _rows(folder, name))
    cases = {case.case_id: case for case in made if case is not None}
    if name == "live_irrelevance":  # three of them stand in another set, with a tool that is said to fit
        known = {case.case_id for other in ("live_multiple", "live_simple") for case in live_cases(other)}
        cases = {case_id: case for case_id, case in cases.items() if case_id not in known}
    return tuple(cases.values())


def data_folder() -> Path:
    """BFCL's data inside the installed wheel; its code is not imported."""
    spec = find_spec("bfcl_eval")
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise BadInput(
            "the demo's requests are not installed: run `pip install --no-deps bfcl-eval` (1.9 MB, Apache-2.0)"
        )
    return Path(places[0]) / "data"


def _rows(folder: Path, name: str) -> list[dict[str, Json]]:
    text = (folder / f"BFCL_v4_{name}.json").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _case(row: dict[str, Json], truth: Json, name: str) -> Case | None:
    tools = [_option(tool) for tool in row["function"]]
    names = [tool.name for tool in tools]
    if not 1 <= len(names) <= 5 or len(set(names)) != len(names):
        return None
    expected: Json = {"tool": NO_TOOL}
    if truth is not None:
        tool, arguments = next(iter(truth[0].items()))
        if tool not in names:
            return None
        expected = {"tool": tool, "arguments": arguments}
    request = next(turn["content"] for turn in reversed(row["question"][0]) if turn["role"] == "user")
    inputs = {"request": request, "tools": [tool.model_dump(mode="json") for tool in tools]}
    return Case(inputs=inputs, expected=expected, slice=name)


def _option(tool: dict[str, Json]) -> Option:
    parameters = tool.get("parameters") or {}
    return Option(
        name=tool["name"],
        description=tool.get("description") or "",
        parameters={
            "properties": parameters.get("properties", {}),
            "required": parameters.get("required", []),
        },
    )


def toolset(case: Case) -> tuple[str, ...]:
    """Names of the case's tools, sorted."""
    return tuple(sorted(tool["name"] for tool in case.inputs["tools"]))


def toolset_groups(cases: Sequence[Case]) -> dict[str, int]:
    """Group number of each tool: two tools share a group if a chain of cases connects them."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for case in cases:
        first, *others = toolset(case)
        for other in others:
            parent[root(other)] = root(first)
        root(first)
    numbers = {name: index for index, name in enumerate(sorted({root(name) for name in parent}))}
    return {name: numbers[root(name)] for name in parent}
