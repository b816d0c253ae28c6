"""What a killed run need not do again: expensive deterministic stages, keyed on explicit versions.

Why not Prefect's default policy: it hashes the task's own lines and arguments, and does not notice that a pure
function behind them changed. These keys name the versions of everything that the result depends on.
"""

from collections.abc import Callable
from typing import Any

from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext

from agent.record import content_hash

PROGRAM_VERSION = "1"
"""Raise it when a change of the code makes old results wrong."""


def cached_by(*names: str) -> dict[str, Any]:
    """Options for `@task`: keep the result as JSON, keyed on these parameters and `PROGRAM_VERSION`."""

    def key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
        values = [_plain(parameters[name]) for name in names]
        return content_hash([context.task.name, PROGRAM_VERSION, values], length=32)

    key_function: Callable[[TaskRunContext, dict[str, Any]], str] = key
    return {
        "cache_policy": CacheKeyFnPolicy(cache_key_fn=key_function),
        "persist_result": True,
        "result_serializer": "json",
    }


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value
