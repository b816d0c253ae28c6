"""Processes that tests start, race and kill: forks of one that has loaded the libraries and done nothing else.

A fresh interpreter spends seconds on MLflow before it comes to what the test is about.
"""

import os
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

LOADED = [
    "tests.children",
    "tests.no_fsync",
    "ratchet.tasks.monitor",
    "mlflow.store.tracking.sqlalchemy_store",
]


class Children(ForkServerContext):
    """Calls functions of test modules, found by the name of their module, in the environment of this moment."""

    def Process(self, *, target: Callable[..., object], args: tuple[Any, ...]) -> ForkServerProcess:
        """Not yet started."""
        self.set_forkserver_preload(LOADED)
        return ForkServerProcess(target=_called, args=(dict(os.environ), target, args))


def _called(environment: dict[str, str], target: Callable[..., object], args: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*args)
