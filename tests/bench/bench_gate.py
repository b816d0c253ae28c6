"""Does the gate keep its promises? Every bar of its operating characteristics, by simulation.

python tests/bench/bench_gate.py [--lifetimes 10000] [--tests 2000] [--out figure.png] [--json figures.json]
Exits with 1 when a bar is missed. The defaults take about fifteen minutes on one core.
"""

import argparse
import math
import sys
import time
from pathlib import Path

from ratchet.evaluation.gate.characteristics.operating import OperatingCharacteristics, measure
from ratchet.flows.commands.characteristics_tables import show_characteristics
from ratchet.infra.pictures.gate import draw_characteristics

JUDGE_BARS = {0.9: 0.70, 0.6: 0.80, 0.3: 1.0, 0.0: 1.05}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lifetimes", type=int, default=10_000)
    parser.add_argument("--tests", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    start = time.monotonic()

    def step(name: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {name}", file=sys.stderr, flush=True)

    measured = measure(lifetimes=chosen.lifetimes, tests=chosen.tests, seed=chosen.seed, step=step)
    show_characteristics(measured)
    if chosen.out:
        draw_characteristics(measured, chosen.out)
    if chosen.json:
        chosen.json.write_text(measured.model_dump_json(indent=1))
    missed = [(name, value, bar) for name, value, bar in bars(measured) if not value <= bar]
    for name, value, bar in bars(measured):
        print(f"{'MISSED' if (name, value, bar) in missed else 'ok':6}  {value:7.4f} ≤ {bar:.4f}  {name}")
    return 1 if missed else 0


def bars(measured: OperatingCharacteristics) -> list[tuple[str, float, float]]:
    """(name, measured, largest allowed) of every promise."""
    found = [(f"false promotions: {row.population}", row.rate, 0.05) for row in measured.false_promotions]
    found += [
        (f"labels relative to fixed n: {row.population}, gain {row.gain:g}", row.ratio, 1.3)
        for row in measured.labels_needed
    ]
    found += [
        (f"labels with a judge of ρ = {row.correlation:g}", row.geometric_mean, JUDGE_BARS[row.correlation])
        for row in measured.judges
    ]
    found += [
        (
            f"interval misses: {row.target}, n = {row.n} (normal PPI++ {1 - row.normal:.3f})",
            1 - row.gate,
            0.05,
        )
        for row in measured.coverage
    ]
    mixture, agrapa, newton = (
        math.prod(getattr(row, name) for row in measured.bets) ** (1 / len(measured.bets))
        for name in ("mixture", "agrapa", "online_newton")
    )
    found.append(
        (
            "median labels of the mixture relative to the better of aGRAPA and ONS",
            mixture / min(agrapa, newton),
            1.0,
        )
    )
    return found


if __name__ == "__main__":
    sys.exit(main())
