"""`ratchet gate` for any pipeline's CI, and `ratchet characteristics`: how often the gate errs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.characteristics.operating import measure
from ratchet.evaluation.gate.gate import Gate, GatePolicy, Pair, Verdict
from ratchet.evaluation.gate.pairs import refuse_contaminated
from ratchet.evaluation.gate.path import wealth_path
from ratchet.evaluation.gate.verdict import WealthPoint
from ratchet.flows.commands.characteristics_tables import show_characteristics
from ratchet.flows.commands.options import AsJson
from ratchet.flows.commands.terminal import NO, YES, console, emit_json, outside
from ratchet.flows.commands.wording import verdict_line
from ratchet.infra.files.pairs import PairFile, read_seen

PROGRESS_EVERY = 5000
"""Pairs between two updates of the progress bar."""


POLICY = GatePolicy()
Pairs = Annotated[Path, typer.Argument(help="JSON, CSV or Parquet, one pair a row, in order of arrival.")]
Alpha = Annotated[float, typer.Option(min=1e-12, max=0.999, help="Probability of a false promotion.")]
MinGain = Annotated[
    float, typer.Option(min=-0.999, max=0.999, help="Promote above this mean gain; negative: as good.")
]
MinPropensity = Annotated[
    float | None,
    typer.Option(min=1e-6, max=1.0, help="Set when labels were chosen: the smallest propensity."),
]
MaxExcluded = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of faulty pairs above which nothing is promoted.")
]
SliceTolerance = Annotated[
    float, typer.Option(min=0.0, max=0.999, help="Loss that a slice may show before it blocks.")
]
Seen = Annotated[
    Path | None,
    typer.Option(
        help="Case ids that a proposer saw: one a line, a JSON array or a table with case_id; any of them is refused."
    ),
]
Plot = Annotated[Path | None, typer.Option(help="Draw wealth, threshold and interval into this PNG.")]


def gate(
    pairs: Pairs,
    alpha: Alpha = POLICY.alpha,
    min_gain: MinGain = POLICY.min_gain,
    min_propensity: MinPropensity = None,
    max_excluded: MaxExcluded = POLICY.max_excluded,
    slice_tolerance: SliceTolerance = POLICY.slice_tolerance,
    seen: Seen = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Is the challenger better? Any team's pairs, in its CI.

    Exit 0 = proven, 3 = not yet or refused; in JSON: promote, continue, reject.
    """
    policy = GatePolicy(
        alpha=alpha,
        min_gain=min_gain,
        min_propensity=min_propensity,
        max_excluded=max_excluded,
        slice_tolerance=slice_tolerance,
    )
    verdict, path = _run(Gate(policy), pairs, seen, keep_path=plot is not None)
    if as_json:
        emit_json(verdict)
    else:
        _show(verdict)
    if plot is not None:
        from ratchet.infra.pictures.gate import draw_gate

        draw_gate(path, verdict, plot)
        console.print(f"picture: {plot}", markup=False)
    raise typer.Exit(YES if verdict.decision == "promote" else NO)


def _run(gate: Gate, path: Path, seen: Path | None, *, keep_path: bool) -> tuple[Verdict, list[WealthPoint]]:
    file = PairFile(path)
    points: list[WealthPoint] = []
    source = _with_progress(file)
    known = read_seen(seen) if seen is not None else frozenset[str]()
    if known:
        source = refuse_contaminated(source, known)
    try:
        if keep_path:
            points = list(wealth_path(gate, source))
        else:
            gate.extend(source)
        gate.finish()
    except BadInput as error:
        raise file.locate(error) from None
    finally:
        file.close()
    if file.container is not None:
        console.print(f"of the JSON object only the list {file.container!r} was read", markup=False)
    if seen is not None:
        told = f"none of the {len(known):,} ids in {seen} is among the {file.n_read:,} pairs"
        told = told if known else f"{seen} holds no id: no pair was compared with what a proposer saw"
        console.print(told, soft_wrap=True, markup=False)
    return gate.verdict(), points


def _with_progress(file: PairFile) -> Iterator[Pair]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("pairs", total=max(file.size, 1))
        for count, pair in enumerate(file):
            if count % PROGRESS_EVERY == 0:
                progress.update(task, completed=file.bytes_read, description=f"{count:,} pairs")
            yield pair


def _show(verdict: Verdict) -> None:
    console.print(verdict_line(verdict), soft_wrap=True)
    for name, unit in (("cost", ""), ("latency", " s")):
        beside = getattr(verdict, name)
        if beside is not None:
            console.print(
                f"{name}: champion {beside.champion:.4g}{unit}, challenger {beside.challenger:.4g}{unit}"
            )
    for reason, count in verdict.excluded.items():
        console.print(f"excluded: {count:,} {reason}", markup=False)
    if not verdict.slices:
        return
    table = Table("slice", "bets", "gain", "evidence of harm", "blocks at")
    for part in verdict.slices:
        style = "red" if part.harmed else None
        row = (
            outside(part.name),
            f"{part.n_bets:,}",
            f"{part.gain:+.3f}",
            f"{part.e_value:.3g}",
            f"{part.threshold:.3g}",
        )
        table.add_row(*row, style=style)
    console.print(table)


def characteristics(
    lifetimes: Annotated[
        int, typer.Option(min=1, help="Simulated project lifetimes of 50 candidates.")
    ] = 1000,
    tests: Annotated[int, typer.Option(min=10, help="Simulated tests per power figure.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Draw the figure into this PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how often the gate errs, and what it costs.

    False promotions, labels to a verdict, judges, coverage, and other rules.
    """
    with console.status("simulating") as status:
        measured = measure(lifetimes=lifetimes, tests=tests, seed=seed, step=lambda name: status.update(name))
    if out is not None:
        from ratchet.infra.pictures.gate import draw_characteristics

        draw_characteristics(measured, out)
        console.print(f"picture: {out}", markup=False)
    if as_json:
        emit_json(measured)
    else:
        show_characteristics(measured)
