"""`ratchet drift`: has the traffic of any team changed since its reference? Two files, no server."""

import heapq
import math
import random
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ratchet.agent.errors import BadInput
from ratchet.evaluation.drift.attribution import Attribution
from ratchet.evaluation.drift.emptied import p_all_empty
from ratchet.evaluation.drift.message import Message
from ratchet.evaluation.drift.monitor import DriftMonitor, alpha_per_window
from ratchet.evaluation.drift.state import DriftState
from ratchet.flows.commands.drift_answer import answer_of, show_drift_answer, show_emptied, show_reading
from ratchet.flows.commands.options import AsJson
from ratchet.flows.commands.terminal import NO, YES, console, emit_json
from ratchet.infra.files.messages import MessageColumns, MessageFile, uncompared
from ratchet.infra.files.table import TableRow
from ratchet.infra.text_embedding import drift_embedding
from ratchet.tasks.progress import progress

_REFERENCE_ROWS: Final = 2_000
_SHOWN_ROWS: Final = 5_000
_WINDOWS: Final = 2_000
_AFTERWARDS: Final = 5
"""Windows after the first alarm that may still add to what is said about it."""


def drift(
    reference: Annotated[Path, typer.Argument(help="What is usual: JSON lines, CSV or Parquet.")],
    current: Annotated[Path, typer.Argument(help="What to check, in order of arrival.")],
    column: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    session: Annotated[str, typer.Option(help="Column of the session, where there is one.")] = "session",
    time: Annotated[str, typer.Option(help="Column of the time (ISO 8601), where there is one.")] = "at",
    tool: Annotated[str, typer.Option(help="Column of the tool or intent chosen.")] = "tool",
    slice: Annotated[str, typer.Option(help="Column of the channel, tenant or language.")] = "slice",
    category: Annotated[list[str] | None, typer.Option(help="Further categorical column; repeat.")] = None,
    number: Annotated[list[str] | None, typer.Option(help="Further numeric column; repeat.")] = None,
    window: Annotated[
        int | None, typer.Option(min=10, help="Messages a window; by default 50 or more.")
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(
            min=1e-6, max=0.5, help="Chance of exit 3 for a whole file without drift, however long."
        ),
    ] = 0.05,
    embedding: Annotated[
        str | None,
        typer.Option(
            help="auto, hashing, minilm, a sentence-transformers name, or a URL; "
            "by default RATCHET_EMBEDDING, and without it auto: minilm where it is installed, else hashing."
        ),
    ] = None,
    embedding_model: Annotated[str | None, typer.Option(help="Name of the model at the URL.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an Evidently report (HTML, and JSON).")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the timeline of the evidence into this PNG.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides the halves of the reference and splits ties.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Did the traffic change? Any team's two files, no server.

    Exit 0 = no drift, 3 = drift.
    """
    columns = MessageColumns(column, session, time, slice, tool, tuple(category or ()), tuple(number or ()))
    for out in (report, plot):
        _check_folder(out)
    usual_file, file = MessageFile(reference, columns), MessageFile(current, columns)
    usual, usual_rows = _sample(usual_file, _REFERENCE_ROWS, seed)
    read_by = drift_embedding(embedding, model=embedding_model)
    size = window or max(50, file.count() // _WINDOWS)
    rate = alpha_per_window(alpha, math.ceil(file.count() / size))
    monitor = DriftMonitor(usual, alpha=rate, embed=read_by.embed, embedding=read_by.name, seed=seed)
    states, attribution, rows = _watch(monitor, file, size, seed)
    one_sided = uncompared(usual_file, file)
    emptied = _emptied(usual_file, file, rate)
    answer = {**answer_of(states, attribution, one_sided, emptied), "embedding": monitor.embedding}
    if as_json:
        emit_json(answer)
    else:
        show_emptied(emptied, file)
        if attribution is not None or not emptied:
            show_drift_answer(states, attribution, monitor.embedding)
    show_reading((usual_file, file), one_sided)
    try:
        if report is not None:
            _write_report(usual_rows, rows, states[-1], attribution, report, column)
        if plot is not None:
            from ratchet.infra.pictures.drift import draw_drift

            draw_drift(states, plot, attribution=attribution)
            console.print(f"picture: {plot}", markup=False)
    except OSError as error:
        console.print(f"not written: {error}; the verdict stands", style="red", markup=False)
    raise typer.Exit(NO if answer["drift"] else YES)


def _check_folder(out: Path | None) -> None:
    """Before hours of reading, not after."""
    if out is None:
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{out}: its folder cannot be made ({error.strerror}); choose another place") from None
    if out.is_dir():
        raise BadInput(f"{out}: a folder; name the file to write")


def _emptied(reference: MessageFile, current: MessageFile, alpha: float) -> list[str]:
    """Columns that were asked for by name, and of which nothing came, though not by chance."""
    asked = (*current.columns.categories, *current.columns.numbers)
    for name in asked:
        if not reference.filled[name]:
            raise BadInput(
                f"{reference.path}: column {name!r} is empty: nothing to compare with; leave it out"
            )
    n = reference.rows_read, current.rows_read
    return [
        name
        for name in asked
        if not current.filled[name] and p_all_empty(n[0], reference.filled[name], n[1]) <= alpha / len(asked)
    ]


def _sample(file: MessageFile, limit: int, seed: int) -> tuple[list[Message], list[TableRow]]:
    """A uniform sample of the file's sessions, whole: `limit` messages, and the rest of the last session.

    Why not of its messages: a session of which one message was drawn would be another than those to compare with it.
    A session's place is a hash of its name; the furthest leave as the sample fills. One alone keeps `limit` messages.
    """
    draw = random.Random(seed)
    kept: dict[str | int, list[Any]] = {}
    furthest: list[tuple[float, str | int]] = []
    seen, full, reach = 0, 0, 1.0
    for observations, rows in file.batches(1_000):
        for pair in zip(observations, rows, strict=True):
            seen += 1
            name = seen if (session := pair[0].session) is None else session
            place = draw.random() if session is None else random.Random(f"{seed} {session}").random()
            if place >= reach or len(kept.get(name, ())) >= limit:
                continue
            if name not in kept:
                heapq.heappush(furthest, (-place, name))
            kept.setdefault(name, []).append(pair)
            full += 1
            while full - len(kept[furthest[0][1]]) >= limit:
                reach, gone = heapq.heappop(furthest)
                reach, full = -reach, full - len(kept.pop(gone))
    pairs = [pair for session in kept.values() for pair in session]
    return [observation for observation, _ in pairs], [row for _, row in pairs]


def _watch(
    monitor: DriftMonitor, file: MessageFile, size: int, seed: int
) -> tuple[list[DriftState], Attribution | None, list[TableRow]]:
    """Evidence window by window, what explains the first alarm, and a sample of the rows for the report."""
    draw = random.Random(seed)
    states: list[DriftState] = []
    rows_kept: list[TableRow] = []
    attribution: Attribution | None = None
    alarmed_for = 0
    with progress("messages", file.count()) as advance:
        for observations, rows in file.batches(size):
            states.append(monitor.update(observations))
            for row in rows:
                if len(rows_kept) < _SHOWN_ROWS:
                    rows_kept.append(row)
                elif (place := draw.randrange(states[-1].n_seen)) < _SHOWN_ROWS:
                    rows_kept[place] = row
            # The first windows after an alarm sharpen its explanation; much later its change point is forgotten.
            if (states[-1].alarm or alarmed_for) and alarmed_for <= _AFTERWARDS:
                alarmed_for += 1
                if states[-1].alarm:
                    attribution = monitor.explain()
            advance(len(rows))
    return states, attribution, rows_kept


def _write_report(
    usual: list[TableRow],
    rows: list[TableRow],
    state: DriftState,
    attribution: Attribution | None,
    out: Path,
    column: str,
) -> None:
    import pandas as pd

    from ratchet.infra.drift.report import write_report

    with console.status("writing the report"):
        write_report(
            pd.DataFrame(usual), pd.DataFrame(rows), state, out, attribution=attribution, text_column=column
        )
    console.print(f"report: {out}", markup=False)
