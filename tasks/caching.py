"""What a killed run need not do again: expensive deterministic stages, keyed on explicit versions.

Why not Prefect's default policy: it hashes the task's own lines and arguments, and does not notice that a pure
function behind them changed. These keys name the versions of everything that the result depends on.
Why not Prefect's JSON serializer: on reading, it imports and calls what any dict with `__class__` or
`__exc_type__` names, and a trace holds whatever a user of the agent sent.
"""

from collections.abc import Callable
from typing import Any, Final

from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.serializers import D, Serializer
from prefect.transactions import get_transaction
from pydantic import Field, TypeAdapter, ValidationError

from ratchet.agent.errors import CorruptRecord
from ratchet.agent.record import content_hash

PROGRAM_VERSION = "3"
"""Raise it when a change of the code makes old results wrong."""

_KINDS: Final[dict[str, TypeAdapter[Any]]] = {}


class RecordSerializer(Serializer[D]):
    """JSON that is read as the one kind of result that the task declared; the text never chooses what is built."""

    type: str = Field(default="ratchet-record", frozen=True)
    kind: str
    """The declared kind, such as `list[ratchet.agent.trace.Trace]`."""

    def dumps(self, obj: Any) -> bytes:
        """The result as JSON."""
        return _KINDS[self.kind].dump_json(obj)

    def loads(self, blob: bytes) -> Any:
        """An equal result; CorruptRecord where the text is not of the kind."""
        try:
            return _KINDS[self.kind].validate_json(blob)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise CorruptRecord(
                f"a kept result is not a {self.kind}: {first['msg']}; delete it, the work is then done again"
            ) from error


def cached_by(*names: str, result: Any) -> dict[str, Any]:
    """Options for `@task`: keep the result, of the kind `result`, keyed on these parameters and `PROGRAM_VERSION`."""

    def key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
        values = [_plain(parameters[name]) for name in names]
        return content_hash([context.task.name, PROGRAM_VERSION, values], length=32)

    kind = str(result)
    _KINDS[kind] = TypeAdapter(result)
    key_function: Callable[[TaskRunContext, dict[str, Any]], str] = key
    return {
        "cache_policy": CacheKeyFnPolicy(cache_key_fn=key_function),
        "persist_result": True,
        "result_serializer": RecordSerializer(kind=kind),
    }


def keep_nothing() -> None:
    """Called within a cached task: this result is given and not kept, so that the next call does the work again."""
    transaction = get_transaction()
    if transaction is not None:
        transaction.write_on_commit = False


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value
