"""A million pairs through `ratchet gate`, as JSON lines and as CSV: seconds and peak memory.

python tests/bench/bench_gate_speed.py [--pairs 1000000]
Exits with 1 above 60 seconds or 400 MB on a million pairs.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1_000_000)
    n = parser.parse_args().pairs
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        for name, lines in (
            ("labelled.jsonl", labelled(n)),
            ("judged.jsonl", judged(n)),
            ("labelled.csv", table(n)),
        ):
            path = Path(folder) / name
            with path.open("w") as out:
                out.writelines(lines)
            start = time.monotonic()
            done = subprocess.run(
                [Path(sys.executable).with_name("ratchet"), "gate", path, "--json"],
                capture_output=True,
                text=True,
                check=False,
            )
            seconds = time.monotonic() - start
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            slow |= done.returncode not in (0, 3) or seconds > 60 * n / 1e6 + 5 or peak > 400
            print(f"{name}: {n:,} pairs in {seconds:.1f} s, peak {peak:.0f} MB, exit {done.returncode}")
    return int(slow)


def labelled(n: int) -> Iterator[str]:
    for i, (ours, theirs) in enumerate(outcomes(n)):
        yield f'{{"case_id": "case-{i}", "champion": {ours}, "challenger": {theirs}}}\n'


def judged(n: int) -> Iterator[str]:
    rng = np.random.default_rng(1)
    picked, scores = rng.random(n) < 0.1, rng.random((n, 2)).round(3)
    for i, (ours, theirs) in enumerate(outcomes(n)):
        label = f'"champion": {ours}, "challenger": {theirs}, ' if picked[i] else ""
        judge = f'"champion_judge": {scores[i, 0]}, "challenger_judge": {scores[i, 1]}'
        yield f'{{"case_id": "case-{i}", {label}{judge}, "slice": "s{i % 5}"}}\n'


def table(n: int) -> Iterator[str]:
    yield "case_id,champion,challenger,slice\n"
    for i, (ours, theirs) in enumerate(outcomes(n)):
        yield f"case-{i},{ours},{theirs},s{i % 5}\n"


def outcomes(n: int) -> Iterator[tuple[int, int]]:
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(n) < 0.6, rng.random(n) < 0.61
    return zip(ours.astype(int).tolist(), theirs.astype(int).tolist(), strict=True)


if __name__ == "__main__":
    sys.exit(main())
