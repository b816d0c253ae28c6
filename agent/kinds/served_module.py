"""A `dspy.Module` in the user's own process that answers as the version which serves.

Why a wrapper and not a changed module: which version serves may change from call to call, and from session to
session, while several calls are under way. The version is applied to a copy for each call.
"""

import logging
from typing import Any

import dspy

from ratchet.agent.kinds.module import applied
from ratchet.agent.parts import serving_values

logger = logging.getLogger(__name__)


class ServedModule(dspy.Module):  # type: ignore[misc]
    """The user's module, whose predictors say what the version that serves says."""

    def __init__(self, name: str, wrapped: dspy.Module) -> None:
        super().__init__()
        self.project = name
        self.wrapped = wrapped

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the version answers; the module as it is where none is known."""
        return self._now()(*args, **kwargs)

    async def aforward(self, *args: Any, **kwargs: Any) -> Any:
        """The same, awaited."""
        return await self._now().acall(*args, **kwargs)

    def _now(self) -> dspy.Module:
        values = serving_values("module", self.project)
        if values is None:
            return self.wrapped
        try:
            return applied(self.wrapped, values)
        except Exception:
            logger.warning("module %s answers as its code has it", self.project, exc_info=True)
            return self.wrapped


def module(name: str, module: dspy.Module) -> dspy.Module:
    """The module for the process that serves: each call is answered by the version that serves.

    Args:
        name: the project's.
        module: yours, as it is; its predictors are the parts.

    Example:
        >>> support = ratchet.module("support", SupportModule())  # doctest: +SKIP
        >>> with ratchet.session("conversation-17"):  # doctest: +SKIP
        ...     support(question=question)
    """
    return ServedModule(name, module)
