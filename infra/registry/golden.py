"""Where the golden set lies: an append-only log in MLflow, each version of which is one frozen case."""

from datetime import UTC, datetime
from typing import Final

from mlflow.entities import Metric, RunTag

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.golden import GoldenCase, GoldenResult
from ratchet.infra.mlflow_client import connect, mlflow_errors
from ratchet.infra.registry.log import append_event, read_events
from ratchet.infra.registry.version import GOLDEN, find_version

_MOST_CHARS: Final = 95_000
_LONGEST: Final = 1000


def golden_set(project: str) -> list[GoldenCase]:
    """All frozen cases, the first frozen first; where two homes froze one at once, the first of them.

    Raises:
        CorruptRecord: one was deleted or changed.
    """
    with mlflow_errors("reading the golden set"):
        texts = read_events(connect(project), "golden")
    found: dict[str, GoldenCase] = {}
    for place, text in enumerate(texts, 1):
        one = GoldenCase.from_json(text, where=f"{project}-golden version {place}")
        found.setdefault(one.case_id, one)
    return list(found.values())


def freeze(project: str, case: Case, *, trace_id: str, by: str, reason: str) -> GoldenCase:
    """Add the case, with its right answer, for good.

    Raises:
        BadInput: it has no answer, is frozen already, or is too long; nobody's name or no reason.
    """
    if case.expected is None:
        raise BadInput(f"nobody said what is right for trace {trace_id}: give --answer")
    if not by.strip() or not reason.strip() or len(by) + len(reason) > _LONGEST:
        raise BadInput(
            f"by {by[:40]!r}, reason {reason[:40]!r}: to freeze a case needs a name (--by) and a reason (--reason), "
            f"of {_LONGEST} characters at most together"
        )
    if known := next((one for one in golden_set(project) if one.case_id == case.case_id), None):
        raise BadInput(
            f"case {case.case_id} is frozen already, by {known.by} with the answer {str(known.case.expected)!r:.80}: "
            "the set is append-only"
        )
    one = GoldenCase(case=case, trace_id=trace_id, at=datetime.now(UTC), by=by, reason=reason)
    if len(text := one.to_json()) > _MOST_CHARS:
        raise BadInput(
            f"case {case.case_id} has {len(text):,} characters, {_MOST_CHARS:,} fit: choose a shorter one"
        )
    with mlflow_errors("freezing a case"):
        append_event(
            connect(project),
            "golden",
            text,
            about="Cases with known right answers that people froze; both versions play them at every promotion.",
            said=f"{case.case_id}, by {by}: {reason}",
        )
    return one


def record_golden(project: str, candidate_id: str, result: GoldenResult) -> None:
    """Keep beside the version how it did on the golden set, for who approves."""
    counts = {"golden_right": result.n_right, "golden_won": len(result.won), "golden_lost": len(result.lost)}
    with mlflow_errors(f"recording how {candidate_id} did on the golden set"):
        connection = connect(project)
        run_id = find_version(connection, candidate_id).run_id
        now = int(datetime.now(UTC).timestamp() * 1000)
        connection.client.log_batch(
            run_id,
            metrics=[Metric(name, float(value), now, result.set_version) for name, value in counts.items()],
            tags=[RunTag(GOLDEN, result.to_json())],
        )
