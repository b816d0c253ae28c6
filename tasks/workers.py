"""Where versions are played: in this process, or by the workers of a Ray or Dask cluster, by one setting.

Decision: what is played is the same list of tasks in either case, with the same cases in each, so that the verdict
is the same; workers only play them side by side. Prefect's task runners carry them. A worker reads the project by its
folder and the version from the registry: it must see that folder, the files below `RATCHET_HOME`, MLflow, Prefect's
API, and have the keys of the LMs in its own environment. None of these is put into a task, which a cluster's
dashboard would show.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Final, TypeVar

from prefect import Task
from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner

from ratchet.agent.errors import BadInput
from ratchet.infra.settings import Settings, Workers

Value = TypeVar("Value")
_RUNNERS: Final = {"ray": ("prefect_ray", "RayTaskRunner"), "dask": ("prefect_dask", "DaskTaskRunner")}
_spread: ContextVar[bool] = ContextVar("ratchet_workers", default=False)


@contextmanager
def working_on(workers: Workers) -> Iterator[None]:
    """Within a flow, tasks that are begun by `start` run there.

    Raises:
        BadInput: its task runner is not installed.
    """
    if workers == "local":
        yield
        return
    runner, flow_run = _runner(workers), FlowRunContext.get()
    assert flow_run is not None, "called within a flow"
    with runner as started, flow_run.model_copy(update={"task_runner": started}):
        token = _spread.set(True)
        try:
            yield
        finally:
            _spread.reset(token)


def side_by_side_here() -> bool:
    """Whether tasks that are begun run beside one another."""
    return _spread.get()


def start(task: Task[..., Value], *args: Any) -> Callable[[], Value]:
    """Begin the task on a worker; without workers it is done when it is asked for what it came to."""
    if not _spread.get():
        return lambda: task(*args)
    return task.submit(*args).result


def _runner(workers: Workers) -> TaskRunner[Any]:
    module, name = _RUNNERS[workers]
    try:
        kind = getattr(import_module(module), name)
    except ImportError as error:
        raise BadInput(
            f'workers = "{workers}" needs Prefect\'s task runner for it: pip install "ratchet-loop[{workers}]"'
        ) from error
    runner: TaskRunner[Any] = kind(address=Settings().workers_address or None)
    return runner
