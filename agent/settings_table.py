"""Tables of settings that a person wrote, such as those of `ratchet.toml`: read, checked, and refused in a line."""

import json
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Record

SETTINGS_FILE: Final = "ratchet.toml"
_SIGNS: Final = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def read_toml(path: Path) -> dict[str, Any]:
    """What the file holds; nothing where there is none.

    Raises:
        BadInput: it is no TOML.
    """
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path} cannot be read as TOML: {error}; correct it") from error


def checked(values: dict[str, Any], kind: type[Record], where: str, *, above: str = "") -> dict[str, Any]:
    """The values as `kind` takes them, those alone that are set; strict, because TOML has types.

    Args:
        values: as they were read.
        kind: what may stand there.
        where: for messages.
        above: the table that they stand in, such as `agent.`.

    Raises:
        BadInput: an unknown key, or a value of the wrong type or out of its bound; says what to do.
    """
    try:
        found = kind.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise BadInput(_line(where, kind, error.errors(include_url=False)[0], above)) from error
    return found.model_dump(exclude_unset=True)


def _line(where: str, kind: type[Record], error: ErrorDetails, above: str) -> str:
    """What stands there, what may, and what to do."""
    known = {f"{above}{name}": field for name, field in _fields(kind)}
    key = (above + ".".join(part for part in error["loc"] if isinstance(part, str))).removesuffix(".")
    field = known.get(key)
    if error["type"] == "extra_forbidden":
        table = key[: key.rfind(".") + 1]
        beside = dict.fromkeys(
            one.removeprefix(table).split(".")[0] for one in known if one.startswith(table)
        )
        close = get_close_matches(key, known, n=1)
        return f"{where}: there is no {key} here; " + (
            f"did you mean {close[0]}?" if close else f"there is {', '.join(beside)}"
        )
    if error["type"] == "missing":
        return f"{where}: {key} is missing: {field.description if field else 'give it'}"
    if error["type"] == "value_error":  # its text says of the value what may be shown
        return f"{where}: {key}: {error['msg'].removeprefix('Value error, ')}"
    must = error["msg"].replace("Input should", "it must").replace("an object", "a table")
    told = f"{where}: {key} = {json.dumps(error['input'])}: {must}"
    if field is None:
        return f"{told}; correct it"
    bounds = " and ".join(
        f"{sign} {getattr(one, name)}"
        for one in field.metadata
        for name, sign in _SIGNS.items()
        if hasattr(one, name)
    )
    remedy = "correct it" if field.is_required() else f"correct it, or leave it out: {field.default!r}"
    return f"{told}{f' ({bounds})' if bounds else ''}; {remedy}"


def _fields(kind: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field that holds a value, by its dotted key."""
    for name, field in kind.model_fields.items():
        table = _table(field.annotation)
        if table is not None:
            yield from _fields(table, f"{above}{name}.")
        else:
            yield f"{above}{name}", field


def _table(annotation: Any) -> type[BaseModel] | None:
    """The record that a field holds, or may hold."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return next((one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)), None)
