"""A copy of a user's module that may be changed while the module itself serves.

Decision: the structure is copied (modules, lists, dicts, and what is bound to them), everything within it is shared.
DSPy's own copy takes the whole content along, for each answer an index or a client again, and falls back to sharing
predictors where something cannot be copied, so that a candidate would change the user's module.
"""

from types import MethodType
from typing import Any

import dspy
from dspy.primitives.base_module import BaseModule


def copied(module: dspy.Module) -> dspy.Module:
    """The module with modules of its own; its LMs, tools and data are the same objects."""
    return _copied(module, {})


def _copied(value: Any, known: dict[int, Any]) -> Any:
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, BaseModule):
        kind: Any = type(value)
        new = known[id(value)] = kind.__new__(kind)
        new.__dict__.update({name: _copied(one, known) for name, one in value.__dict__.items()})
        return new
    if type(value) is dict:
        new = known[id(value)] = {}
        new.update({key: _copied(one, known) for key, one in value.items()})
        return new
    if type(value) is list:
        new = known[id(value)] = []
        new.extend(_copied(one, known) for one in value)
        return new
    if type(value) is tuple:
        return tuple(_copied(one, known) for one in value)
    if isinstance(value, MethodType) and isinstance(value.__self__, BaseModule):
        return MethodType(value.__func__, _copied(value.__self__, known))
    if isinstance(value, dspy.Tool) and isinstance(value.func, MethodType):
        return value.model_copy(update={"func": _copied(value.func, known)})
    return value
