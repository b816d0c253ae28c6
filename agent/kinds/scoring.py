"""What the project's scorer says of an answer: our callables and MLflow's scorers alike, as a number in [0, 1].

Decision: what a scorer gives is a number, a yes or a no, or nothing; anything else is an error of the scorer, which
leaves the answer unscored and is never a 0. MLflow's scorers are told by their method `run` and never imported.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput
from ratchet.agent.record import Json

Score = Callable[[Case, Json], float | None]
"""What an answer to a case is worth, in [0, 1]; None = people say."""
_SAID: Final = {"yes": 1.0, "no": 0.0, "pass": 1.0, "fail": 0.0, "true": 1.0, "false": 0.0}
_EXPECTED_COLUMNS: Final = tuple(
    f"expectations/{name}"
    for name in ("expected_response", "expected_facts", "guidelines", "expected_tool_calls")
)
_BY_AN_LM: Final = ("builtin", "instructions", "guidelines", "memory_augmented")
"""Kinds of MLflow's scorers that ask an LM."""
_WHOLE: Final = ("trace", "session")
"""What MLflow's scorers may read that an answer alone does not have."""


def as_score(scorer: Any, project: str) -> Score:
    """A scorer of any kind as ours.

    Args:
        scorer: a callable `(case, answer)`, or one of `mlflow.genai`.
        project: for messages.

    Raises:
        BadInput: it cannot be called with a case and its answer.
    """
    run = getattr(scorer, "run", None)
    if run is None or isinstance(scorer, type):
        if not callable(scorer) or isinstance(scorer, type):
            raise BadInput(
                f"project {project!r}: score {scorer!r:.60} cannot be called with a case and its answer: "
                "give a function, such as ratchet.contains, or a scorer of mlflow.genai, with its settings"
            )
        return lambda case, answer: as_share(scorer(case, answer), _name(scorer))
    asks = _asked_for(scorer)
    if missing := [name for name in _WHOLE if name in asks]:
        raise BadInput(
            f"project {project!r}: scorer {_name(scorer)} needs a {missing[0]}, and an answer is scored by inputs, "
            "outputs and expectations: give one that reads these"
        )

    def score(case: Case, answer: Json) -> float | None:
        if "expectations" in asks and case.expected is None:
            return None
        wanted = _expectations(case.expected)
        return as_share(run(inputs=case.inputs, outputs=answer, expectations=wanted), _name(scorer))

    return score


def asks_an_lm(scorer: Any) -> bool:
    """Whether it is one of MLflow's scorers in which an LM judges; of a function of the user's nobody can tell."""
    kind = getattr(scorer, "kind", None)
    return str(getattr(kind, "value", kind)) in _BY_AN_LM


def _asked_for(scorer: Any) -> set[str]:
    """What it cannot do without, as its kind says it: a function by its arguments, a judge by its fields."""
    parameters = inspect.signature(scorer.__call__).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    asked = {p.name for p in parameters if p.default is p.empty and p.kind in named}
    if callable(check := getattr(scorer, "validate_columns", None)):
        columns = {"inputs", "outputs"}
        asked |= set() if _accepts(check, columns) else {"expectations"}
        asked |= set() if _accepts(check, {*columns, *_EXPECTED_COLUMNS}) else {"trace"}
    elif callable(fields := getattr(scorer, "get_input_fields", None)):
        asked |= {field.name for field in fields()}
    return asked


def _accepts(check: Callable[[set[str]], None], columns: set[str]) -> bool:
    try:
        check(columns)
    except Exception:  # noqa: BLE001  MLflow's own kind of error, which is not imported here
        return False
    return True


def _expectations(expected: Json) -> dict[str, Json] | None:
    """As MLflow names them; an object is taken as it is."""
    if expected is None or isinstance(expected, dict):
        return expected
    return {"expected_response": expected}


def as_share(said: Any, scorer: str) -> float | None:
    """What a scorer said, as a number in [0, 1]; of several feedbacks their mean.

    Raises:
        BadInput: it is none, or the scorer failed.
    """
    if said is None:
        return None
    if isinstance(said, Sequence) and not isinstance(said, str):
        known = [one for one in (as_share(one, scorer) for one in said) if one is not None]
        return sum(known) / len(known) if known else None
    if (error := getattr(said, "error", None)) is not None:
        why = getattr(error, "error_message", None) or getattr(error, "error_code", None) or error
        raise BadInput(f"scorer {scorer} failed: {why}")
    if isinstance(said, Mapping) or not hasattr(said, "value"):
        return _share(said, scorer)
    value = said.value
    return None if value is None else _share(value, scorer)


def _share(value: Any, scorer: str) -> float:
    if isinstance(value, str):
        number = _SAID.get(value.strip().casefold())
    else:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = None
    if number is None:
        raise BadInput(
            f"scorer {scorer} gave {value!r:.80}: give a number in [0, 1], a bool, yes or no, or None for unknown"
        )
    if not 0 <= number <= 1:
        raise BadInput(
            f"scorer {scorer} gave {number:g}: a score is in [0, 1]; scale it, or give None for unknown"
        )
    return number


def _name(scorer: Any) -> str:
    name = getattr(scorer, "name", None) or getattr(scorer, "__name__", None)
    return str(name or type(scorer).__name__)
