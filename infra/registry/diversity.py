"""How varied a version's answers are, kept beside the version: as metrics for MLflow's charts, whole in one tag."""

import time
from typing import Final

from mlflow.entities import Metric, RunTag

from ratchet.agent.record import Record
from ratchet.evaluation.drift.diversity import Diversity, DiversityWatch, Narrowing
from ratchet.infra.mlflow_client import connect, mlflow_errors
from ratchet.infra.registry.version import find_version, locked

_TAG: Final = "diversity"
MOST_CHANCE: Final = 0.01
"""A version whose answers at the gate's cases chance makes so narrow less often is said to be narrower."""


class VersionDiversity(Record):
    """What is known of one version."""

    gate: Narrowing | None = None
    """At the cases of its test, beside the champion of then."""
    production: DiversityWatch | None = None
    """Since it serves, beside what served before."""
    told: bool = False
    """Whether people were told that production became narrower."""

    @property
    def narrower(self) -> str:
        """Why it is said to be narrower, in words; empty where it is not."""
        if self.production is not None and self.production.alarm:
            now, before = self.production.diversity, self.production.before
            return f"in production its answers became narrower: {_fell(before, now)}"
        if self.gate is not None and self.gate.p_value <= MOST_CHANCE:
            found = _fell(self.gate.champion, self.gate.challenger)
            return f"at the gate's cases its answers are narrower: {found} (chance {self.gate.p_value:.3f})"
        return ""


def record_diversity(
    project: str,
    candidate_id: str,
    *,
    gate: Narrowing | None = None,
    production: DiversityWatch | None = None,
    told: bool | None = None,
) -> VersionDiversity:
    """Write what was found; what is None stays as it was."""
    with mlflow_errors(f"recording how varied the answers of {candidate_id} are"):
        connection = connect(project)
        with locked(connection):
            found = find_version(connection, candidate_id)
            before = _read(found.facts.get(_TAG, ""))
            after = VersionDiversity(
                gate=gate or before.gate,
                production=production or before.production,
                told=before.told if told is None else told,
            )
            sides = {"gate": gate and gate.challenger, "production": production and production.diversity}
            now = int(time.time() * 1000)
            connection.client.log_batch(
                found.run_id,
                metrics=[
                    Metric(f"diversity_{side}_{name}", float(value), now, 0)
                    for side, one in sides.items()
                    for name, value in (one.model_dump() if one else {}).items()
                ],
                tags=[RunTag(_TAG, after.to_json())],
            )
    return after


def read_diversity(project: str, candidate_id: str) -> VersionDiversity:
    """What is known of the version; nothing where nobody looked."""
    with mlflow_errors(f"reading how varied the answers of {candidate_id} are"):
        connection = connect(project)
        return _read(find_version(connection, candidate_id).facts.get(_TAG, ""))


def _read(text: str) -> VersionDiversity:
    return VersionDiversity.from_json(text, where=f"tag {_TAG}") if text else VersionDiversity()


def _fell(before: Diversity, now: Diversity) -> str:
    return (
        f"different pairs of words {before.distinct_2:.2f} → {now.distinct_2:.2f}, the same answer again "
        f"{before.duplicate_share:.0%} → {now.duplicate_share:.0%}, {before.entropy:.1f} → {now.entropy:.1f} bits"
    )
