"""A reward that came later, or was corrected: the trace takes it, with everything else as it was.

Why the trace itself and not a label beside it: its score is the environment's, and who reads the trace after this
must not find the old one. A home that read it before does not read it again: import the log there too.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import mlflow

from ratchet.agent.trace import Trace
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.traces.arrivals import infos_of
from ratchet.infra.traces.assessments import outcome_assessment, outcome_of
from ratchet.infra.traces.lookup import look_up_traces
from ratchet.infra.traces.service_clock import ahead_s, here, there
from ratchet.infra.traces.spans import export_request, mlflow_id, own_id
from ratchet.infra.traces.write import write_spans

_BATCH: Final = 300


class Corrected(NamedTuple):
    """What took its new score, and what could not."""

    n: int
    unreadable: dict[str, str]
    """Traces by id whose record is damaged, and why."""


def correct_outcomes(project: str, scores: Mapping[str, float]) -> Corrected:
    """Give traces that MLflow has these scores, by trace id; a kill in between is mended by a repeat.

    Raises:
        ServiceUnavailable: MLflow did not answer; those before it in the order have their scores.
    """
    ids, n, unreadable = list(scores), 0, dict[str, str]()
    for start in range(0, len(ids), _BATCH):
        found = look_up_traces(project, ids[start : start + _BATCH])
        unreadable |= found.unreadable
        corrected = [_with_score(one.trace, scores[name]) for name, one in found.traces.items()]
        if corrected:
            with mlflow_errors(f"correcting {len(corrected)} outcomes"):
                _write(connect(project), corrected)
        n += len(corrected)
    return Corrected(n, unreadable)


def _with_score(trace: Trace, score: float) -> Trace:
    last = trace.attempts[-1]
    outcome = last.outcome.model_copy(update={"score": score})
    attempts = (*trace.attempts[:-1], last.model_copy(update={"outcome": outcome}))
    return trace.model_copy(update={"attempts": attempts})


def _write(connection: Connection, traces: Sequence[Trace]) -> None:
    """The record first: while the outcome beside it is the old one, the next import finds the difference again."""
    moment = there(connection)
    request = export_request(traces, moment, ahead_s(here(), moment))
    write_spans(connection, request)
    infos = infos_of(connection, [mlflow_id(trace.trace_id) for trace in traces])
    standing = {own_id(info.trace_id): outcome_of(info) for info in infos}
    for trace in traces:
        said, old = outcome_assessment(trace), standing.get(trace.trace_id)
        if said is not None and old is not None and old.assessment_id is not None:
            mlflow.update_assessment(mlflow_id(trace.trace_id), old.assessment_id, said)
        elif said is not None:
            mlflow.log_assessment(mlflow_id(trace.trace_id), said)
