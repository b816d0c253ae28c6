"""What proposers spent on nothing: a run in MLflow for each, to be compared there with the versions' own.

Why the proposal's own hash on the run: a proposal that is tried again pays nothing twice, and counts once.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from mlflow.entities import Metric, Param, RunTag
from pydantic import AwareDatetime, Field

from ratchet.agent.record import Record
from ratchet.infra.mlflow_client import all_pages, connect, mlflow_errors

_KIND: Final = "proposal that made nothing"
_COST: Final = "cost_"
_LONGEST: Final = 1000
LEAST_S: Final = 1.0
"""Seconds below which work that called nothing is not worth a run."""


class Fruitless(Record):
    """What a proposer spent on a proposal that came to nothing."""

    scope: str
    """Which proposal."""
    proposer: str
    why: str
    cost: dict[str, float] = Field(default_factory=dict)
    """By unit: calls, tokens, usd, seconds."""
    at: AwareDatetime


def record_fruitless(project: str, scope: str, proposer: str, why: str, cost: Mapping[str, float]) -> None:
    """Write down what was spent; nothing where that is nothing.

    Args:
        project: its name.
        scope: which proposal; what stands there for it already is replaced.
        proposer: its name.
        why: one line.
        cost: by unit.
    """
    if (
        not any(amount for unit, amount in cost.items() if unit != "seconds")
        and cost.get("seconds", 0.0) < LEAST_S
    ):
        return
    with mlflow_errors(f"recording what {proposer} spent"):
        connection = connect(project)
        client, where = connection.client, [connection.experiment_id]
        known = client.search_runs(where, f"tags.kind = '{_KIND}' and tags.scope = '{scope}'", max_results=1)
        run = (
            known[0]
            if known
            else client.create_run(connection.experiment_id, run_name=f"{proposer}: nothing")
        )
        now = int(time.time() * 1000)
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(f"{_COST}{unit}", float(amount), now, 0) for unit, amount in cost.items()],
            params=[] if known else [Param("proposer", proposer)],
            tags=[
                RunTag(name, value)
                for name, value in {
                    "kind": _KIND,
                    "scope": scope,
                    "proposer": proposer,
                    "reason": why[:_LONGEST],
                }.items()
            ],
        )
        client.set_terminated(run.info.run_id)


def forget_fruitless(project: str, scope: str) -> None:
    """The proposal came to a version after all, whose own cost holds what was spent until then."""
    with mlflow_errors("forgetting what was spent on a proposal"):
        connection = connect(project)
        where = f"tags.kind = '{_KIND}' and tags.scope = '{scope}'"
        for run in connection.client.search_runs([connection.experiment_id], where, max_results=1):
            connection.client.delete_run(run.info.run_id)


def spent_on(project: str, scope: str) -> dict[str, float]:
    """What was spent on this proposal for nothing, by unit."""
    return next((one.cost for one in all_fruitless(project) if one.scope == scope), {})


def all_fruitless(project: str) -> list[Fruitless]:
    """Every such proposal, oldest first."""
    with mlflow_errors("reading what proposers spent on nothing"):
        connection = connect(project)
        runs = all_pages(
            connection.client.search_runs,
            [connection.experiment_id],
            f"tags.kind = '{_KIND}'",
            order_by=["start_time ASC"],
        )
        return [
            Fruitless(
                scope=run.data.tags["scope"],
                proposer=run.data.tags["proposer"],
                why=run.data.tags["reason"],
                cost={
                    name.removeprefix(_COST): value
                    for name, value in run.data.metrics.items()
                    if name.startswith(_COST)
                },
                at=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
            )
            for run in runs
        ]
