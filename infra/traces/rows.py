"""What MLflow's interfaces do not tell of a database without a server: the order of commits, and what changed when.

Why these two statements are private and nothing else is: a search sorts by times that a writer's clock made, so
that a trace whose writer is two hours behind would never be read; and it has no filter for the moment of an
assessment, so that each look would read all labelled traces again. Both only read; columns of MLflow 3.17.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import NullPool, Row, bindparam, create_engine, text

_ROWS: Final = """SELECT rowid, request_id FROM trace_info WHERE experiment_id = :experiment AND rowid > :after
    ORDER BY rowid"""
_ROW: Final = "SELECT request_id FROM trace_info WHERE rowid = :row"
_LABELLED: Final = """SELECT DISTINCT a.trace_id FROM assessments a JOIN trace_info t ON t.request_id = a.trace_id
    WHERE t.experiment_id = :experiment AND a.last_updated_timestamp >= :after AND a.name IN :names"""


def rows_after(uri: str, experiment_id: str, row: int) -> list[tuple[int, str]]:
    """Row numbers and MLflow's trace ids, in the order of commits.

    SQLite has one writer at a time, so that no smaller number comes later.
    """
    found = _read(uri, _ROWS, {"experiment": int(experiment_id), "after": row})
    return [(int(number), str(trace_id)) for number, trace_id in found]


def trace_in_row(uri: str, row: int) -> str | None:
    """MLflow's id of the trace in that row of a SQLite file; None if there is none."""
    found = _read(uri, _ROW, {"row": row})
    return str(found[0][0]) if found else None


def labelled_since(uri: str, experiment_id: str, after_ms: int, names: Sequence[str]) -> list[str]:
    """MLflow's ids of traces with an assessment of these names written or changed since."""
    asked = {"experiment": int(experiment_id), "after": after_ms, "names": tuple(names)}
    return [str(row[0]) for row in _read(uri, _LABELLED, asked)]


def database_now(uri: str) -> datetime:
    """The clock of a database that has one (not SQLite)."""
    now: datetime = _read(uri, "SELECT CURRENT_TIMESTAMP", {})[0][0]
    return now


def _read(uri: str, statement: str, asked: Mapping[str, Any]) -> list[Row[Any]]:
    engine = create_engine(uri, poolclass=NullPool)
    with engine.connect() as database:
        query = text(statement)
        for name in (name for name, value in asked.items() if isinstance(value, tuple)):
            query = query.bindparams(bindparam(name, expanding=True))
        return list(database.execute(query, asked))
