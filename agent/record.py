"""What every stored record shares: frozen, strict, JSON round trip, an id that is its content's hash.

Why content hashes: two runs that make the same thing make the same id, so writing twice is harmless
and lineage cannot lie about what it points to.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ratchet.agent.errors import CorruptRecord


def as_json(value: Any) -> Any:
    """The value as JSON holds it, tuples as lists; ValueError for what JSON cannot hold and read back equal."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str) and _is_unicode(value):
        return value
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {as_json(key): as_json(item) for key, item in value.items()}
    raise ValueError(f"JSON cannot hold {value!r:.80} ({type(value).__name__})")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


Json: TypeAlias = Annotated[Any, AfterValidator(as_json)]
"""What JSON can hold: None, bool, int, finite float, str, list, dict with str keys."""


def as_text(value: Json) -> str:
    """Text as it is, anything else as JSON: an answer as a message."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Record(BaseModel):
    """Base of all records: immutable, unknown fields refused, NaN refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back to an equal record."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str = "record") -> Self:
        """Read one record; `where` names file and line for the error.

        Raises:
            CorruptRecord: the text is not JSON, or not a record of this kind and schema version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "(whole)"
            raise CorruptRecord(
                f"{where}: not a {cls.__name__}: field {field}: {first['msg']}; "
                f"got {str(first.get('input'))[:80]!r}; correct or remove it"
            ) from error


def _empty_form(schema: dict[str, Any]) -> None:
    """Say a default in words: a form that is filled with defaults would set them all."""
    for field in schema.get("properties", {}).values():
        default = field.pop("default", None)
        if not isinstance(default, dict | None):
            field["description"] = f"{field.get('description', '')} Default: {json.dumps(default)}.".strip()


class StageSettings(Record):
    """What a person may set of a stage, each field with bounds, unit and a docstring, which a form shows."""

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra=_empty_form)


def content_hash(content: Json, *, length: int = 16) -> str:
    """First `length` hex digits (4 bits each) of the SHA-256 of canonical JSON; stable across machines."""
    canonical = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


def folder_hash(folder: Path) -> str:
    """Hash of the names and bytes of all files below `folder`: the identity of an adapter or snapshot."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def digest_of_ids(ids: Iterable[str]) -> str:
    """Hash of a set of ids, whatever their order."""
    return content_hash(sorted(set(ids)))
