"""Which traces arrived since a watermark, in the order in which MLflow's database took them.

Decision: a SQLite file numbers its rows in the order of their commits, so there nobody's clock counts. Behind a
server, and on another database, MLflow tells no such number: there the stamp that `log_traces` puts on a trace
counts, taken from MLflow's own clock; the mark never passes that clock, and the ten minutes before it are read again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from mlflow.entities import Trace, TraceInfo

from ratchet.agent.record import Record
from ratchet.infra.mlflow_client import Connection, all_pages
from ratchet.infra.traces.assessments import Problem
from ratchet.infra.traces.rows import rows_after, trace_in_row
from ratchet.infra.traces.service_clock import OFF_S
from ratchet.infra.traces.spans import CLOCK, RECEIVED, is_comparison, own_id

OVERLAP: Final = timedelta(minutes=10)
"""How long a write may take from its stamp to its commit without being overlooked."""
_AT_WORK: Final = timedelta(hours=1)
"""How long an agent whose traces are not stamped may be at work: such a trace is known by when it began."""
_PAGE: Final = 500
_BATCH: Final = 300


class Mark(Record):
    """Up to where traces were read."""

    received_ms: int = 0
    """Arrival of the newest trace (ms since 1970, by MLflow's clock), never after the moment of reading."""
    seen: tuple[str, ...] = ()
    """Those that arrived within ten minutes before `received_ms`, or after it, and those without a stamp that began
    within the hour before: not returned again."""
    row: int = 0
    """Of a SQLite file: the newest row; 0 = not read by rows yet."""
    row_trace: str = ""
    """MLflow's id of the trace in that row: where another one stands there, everything is read again."""


def arrived(
    connection: Connection, since: Mark, now: datetime
) -> tuple[list[TraceInfo], Mark, list[Problem]]:
    """Traces that arrived after `since`, oldest first, the mark after them, and what is odd about them.

    A mark that the database does not know (its newest trace was deleted, the file was rewritten) gives everything.
    """
    if connection.is_sqlite:
        rows, is_known = _rows_after(connection, since)
        infos = infos_of(connection, [trace_id for _, trace_id in rows if not is_comparison(trace_id)])
        row, row_trace = rows[-1] if rows else (since.row, since.row_trace) if is_known else (0, "")
        mark = Mark(received_ms=_newest(since, infos, now), row=row, row_trace=row_trace)
        return infos, mark, clock_problems(infos, since, now) if is_known else [_gone(since, len(infos))]
    infos = [
        info
        for info in _stamped_after(connection, since, now)
        if own_id(info.trace_id) not in since.seen and not is_comparison(info.trace_id)
    ]
    received_ms = _newest(since, infos, now)
    kept = since.seen if received_ms - since.received_ms < _ms(_AT_WORK) else ()
    recent = [own_id(info.trace_id) for info in infos if received(info) >= _edge_ms(received_ms, info)]
    mark = Mark(received_ms=received_ms, seen=tuple(sorted({*kept, *recent})))
    return infos, mark, clock_problems(infos, since, now)


def received(info: TraceInfo) -> int:
    """When MLflow was handed the trace, in ms; of one that `log_traces` did not write, when it began."""
    stamp = info.tags.get(RECEIVED)
    return int(datetime.fromisoformat(stamp).timestamp() * 1000) if stamp else int(info.timestamp_ms)


def search_infos(connection: Connection, filter_string: str | None) -> list[TraceInfo]:
    """What MLflow knows of the project's traces that match, without their spans."""
    return [trace.info for trace in search_traces(connection, filter_string, include_spans=False)]


def search_traces(connection: Connection, filter_string: str | None, *, include_spans: bool) -> list[Trace]:
    """The project's traces that match."""
    return all_pages(
        connection.client.search_traces,
        locations=[connection.experiment_id],
        filter_string=filter_string,
        max_results=_PAGE,
        include_spans=include_spans,
    )


def clock_problems(infos: Sequence[TraceInfo], since: Mark, now: datetime) -> list[Problem]:
    """How many of these traces were stamped by clocks that are ahead or behind, and by how much."""
    ahead: dict[str, float] = {}
    behind: dict[str, float] = {}
    newest = since.received_ms
    for info in infos:
        stamp = received(info)
        off = float(info.tags.get(CLOCK, 0)) or (stamp - _ms_of(now)) / 1000
        if off >= OFF_S:
            ahead[own_id(info.trace_id)] = off
            continue
        if CLOCK not in info.tags:
            off = (stamp - newest) / 1000 if RECEIVED in info.tags else 0.0
        if off <= -OFF_S:
            behind[own_id(info.trace_id)] = -off
        newest = max(newest, stamp)
    return [_said(off, word) for off, word in ((ahead, "ahead"), (behind, "behind")) if off]


def _said(off: dict[str, float], word: str) -> Problem:
    trace_id, worst = max(off.items(), key=lambda item: item[1])
    return Problem(
        trace_id=trace_id,
        reason=(
            f"read, but its writer's clock is {worst / 3600:.1f} h {word}, as of {len(off)} new traces; "
            "none is lost, their times are as written: set that machine's clock"
        ),
    )


def _gone(since: Mark, found: int) -> Problem:
    return Problem(
        trace_id=own_id(since.row_trace),
        reason=(
            f"was the newest that was read, and MLflow has it no longer: all {found} traces that it has were read "
            "again; if more are missing, restore MLflow's database"
        ),
    )


def _rows_after(connection: Connection, since: Mark) -> tuple[list[tuple[int, str]], bool]:
    """Row numbers and MLflow's ids, in the order of commits, and whether the mark still stands."""
    uri = connection.settings.tracking_uri
    is_known = since.row == 0 or trace_in_row(uri, since.row) == since.row_trace
    return rows_after(uri, connection.experiment_id, since.row if is_known else 0), is_known


def infos_of(connection: Connection, trace_ids: Sequence[str]) -> list[TraceInfo]:
    """Of those of MLflow's ids that are the project's traces, in their order."""
    found = traces_of(connection, trace_ids, include_spans=False)
    return [found[one].info for one in trace_ids if one in found]


def traces_of(connection: Connection, trace_ids: Sequence[str], *, include_spans: bool) -> dict[str, Trace]:
    """The project's traces among MLflow's ids; without their spans each costs a tenth."""
    found: dict[str, Trace] = {}
    for start in range(0, len(trace_ids), _BATCH):
        names = ", ".join(f"'{one}'" for one in trace_ids[start : start + _BATCH])
        batch = search_traces(connection, f"request_id IN ({names})", include_spans=include_spans)
        found |= {trace.info.trace_id: trace for trace in batch}
    return found


def _stamped_after(connection: Connection, since: Mark, now: datetime) -> list[TraceInfo]:
    """By the day of the stamp, as searches can; foreign ones by when they began."""
    if since.received_ms == 0:
        return sorted(search_infos(connection, None), key=_by_arrival)
    edge_ms = since.received_ms - _ms(OVERLAP)
    began_ms = since.received_ms - _ms(_AT_WORK)
    edge = datetime.fromtimestamp(edge_ms / 1000, UTC)
    days = range((now.date() - edge.date()).days + 1)
    filters = [f"tags.`{RECEIVED}` LIKE '{edge.date() + timedelta(days=day)}%'" for day in days]
    filters.append(f"trace.timestamp_ms > {began_ms}")
    found = {info.trace_id: info for one in filters for info in search_infos(connection, one)}
    new = (info for info in found.values() if received(info) >= _edge_ms(since.received_ms, info))
    return sorted(new, key=_by_arrival)


def _edge_ms(received_ms: int, info: TraceInfo) -> int:
    """Since when such a trace may have arrived unseen."""
    return received_ms - _ms(OVERLAP if RECEIVED in info.tags else _AT_WORK)


def _by_arrival(info: TraceInfo) -> tuple[int, str]:
    return received(info), str(info.trace_id)


def _newest(since: Mark, infos: Sequence[TraceInfo], now: datetime) -> int:
    return max([since.received_ms, *(min(received(info), _ms_of(now)) for info in infos)])


def _ms(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)


def _ms_of(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
