"""What is said about a drift: since when, which requests, which slice, which kind; on real bank messages."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from ratchet.evaluation.drift.change_point import Ranks, locate_change_point
from ratchet.evaluation.drift.conformal import log_bets, low_counts, stake_floor
from ratchet.evaluation.drift.message import Message
from ratchet.evaluation.drift.monitor import DriftMonitor
from ratchet.evaluation.drift.state import DriftState

SHARED = Path(os.environ.get("RATCHET_SHARED", Path(__file__).resolve().parents[3] / "shared"))
BANKING77 = SHARED / "data" / "banking77" / "train.csv"


@pytest.fixture(scope="module")
def messages() -> dict[str, list[str]]:
    """Texts by intent, in a fixed random order."""
    if not BANKING77.is_file():
        pytest.skip(f"{BANKING77} is absent: set RATCHET_SHARED to the folder that holds data/banking77")
    found: dict[str, list[str]] = {}
    with BANKING77.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["category"], []).append(row["text"])
    random = np.random.default_rng(5)
    return {name: [texts[i] for i in random.permutation(len(texts))] for name, texts in found.items()}


NEW = ("age_limit", "exchange_rate")


def mixed(messages: dict[str, list[str]], seed: int) -> list[Message]:
    random = np.random.default_rng(seed)
    known = [text for name, texts in messages.items() if name not in NEW for text in texts]
    return [Message(text=known[i], slice="web") for i in random.permutation(len(known))]


def watch(monitor: DriftMonitor, rows: list[Message], size: int = 50) -> DriftState:
    for start in range(0, len(rows), size):
        state = monitor.update(rows[start : start + size])
        if state.alarm:
            break
    return state


def drifting(
    messages: dict[str, list[str]], rows: list[Message], intents: tuple[str, ...], share: float
) -> list[Message]:
    """400 usual messages, then a share of them from the intents, all of these from the slice `app`."""
    random = np.random.default_rng(9)
    moved = [text for name in intents for text in messages[name] * 3]
    order = iter(random.permutation(len(moved)))
    return [
        Message(text=moved[next(order)], slice="app") if i >= 400 and random.random() < share else row
        for i, row in enumerate(rows[:1_200])
    ]


def test_new_requests_are_dated_named_and_placed(messages: dict[str, list[str]]) -> None:
    rows = mixed(messages, 1)
    monitor = DriftMonitor(rows[:1_000])
    traffic = drifting(messages, rows[1_000:], NEW, 0.35)
    state = watch(monitor, traffic)
    assert state.alarm
    assert state.n_seen > 400
    for start in range(state.n_seen, state.n_seen + 200, 50):
        monitor.update(traffic[start : start + 50])
    said = monitor.explain()
    assert said.kinds == ("input",)
    assert not said.surge
    assert said.onset.low <= 400 <= said.onset.high
    words = " ".join(cluster.name for cluster in said.clusters)
    assert "old" in words or "age" in words
    assert "exchange" in words or "rate" in words
    assert said.slices[0].slice == "app"
    assert said.slices[0].low > 0.1
    assert len(said.top_messages) == 10
    assert "since message" in said.reason.lower()
    assert sum(said.families.values()) == pytest.approx(1.0)


def test_a_restored_monitor_says_the_same(messages: dict[str, list[str]]) -> None:
    rows = mixed(messages, 1)
    monitor = DriftMonitor(rows[:300])
    watch(monitor, drifting(messages, rows[300:], NEW, 0.5))
    assert DriftMonitor.from_json(monitor.to_json()).explain() == monitor.explain()


def test_many_windows_of_real_messages_raise_no_alarm(messages: dict[str, list[str]]) -> None:
    rows = mixed(messages, 2)
    monitor = DriftMonitor(rows[:1_000])
    assert not watch(monitor, rows[1_000:6_000]).alarm


def test_a_conversation_that_goes_on_is_one_bet(messages: dict[str, list[str]]) -> None:
    rows = mixed(messages, 3)
    strange = [Message(text="le chat dort sur la table", session="one") for _ in range(500)]
    monitor = DriftMonitor(rows[:300])
    assert not watch(monitor, strange).alarm
    alone = DriftMonitor(rows[:300])
    assert watch(alone, [row.model_copy(update={"session": None}) for row in strange]).alarm


def test_traffic_that_comes_back_ends_the_alarm(messages: dict[str, list[str]]) -> None:
    rows = mixed(messages, 4)
    monitor = DriftMonitor(rows[:1_000])
    strange = [Message(text=text) for text in messages["age_limit"]]
    assert watch(monitor, strange).alarm
    states = [monitor.update(rows[i : i + 50]) for i in range(1_000, 6_000, 50)]
    assert not states[-1].alarm


def test_memory_stays_bounded(messages: dict[str, list[str]]) -> None:
    rows = mixed(messages, 5)
    monitor = DriftMonitor(rows[:300])
    sizes = []
    for i in range(60):
        monitor.update(rows[300 + 100 * i : 400 + 100 * i])
        if i in (39, 59):
            sizes.append(len(monitor.to_json()))
    assert sizes[1] < 1.05 * sizes[0]


def test_the_onset_of_low_ranks_lies_within_its_interval() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(40):
        p = random.random(600)
        p[350:] = np.where(random.random(250) < 0.2, p[350:] * 0.05, p[350:])
        message, low, high = locate_change_point([Ranks(np.arange(600), p, np.ones(600))], 600)
        assert low <= message <= high
        covered += low <= 350 <= high
    assert covered >= 36


def test_bets_are_fair_for_uniform_ranks_and_sessions_count_once() -> None:
    p = (np.arange(1_000) + 0.5) / 1_000
    one = np.zeros(1, dtype=np.int64)
    single = np.array([np.exp(log_bets(low_counts(p[i : i + 1], one, 1))) for i in range(1_000)])
    np.testing.assert_allclose(single.mean(axis=0), 1.0)
    repeated = log_bets(low_counts(np.full(8, 0.01), np.zeros(8, dtype=np.int64), 1))
    np.testing.assert_allclose(repeated, log_bets(low_counts(np.array([0.01]), one, 1)))


def test_a_small_pool_allows_only_large_stakes() -> None:
    assert (stake_floor(50) > stake_floor(500)).all()
    assert (stake_floor(1e9) < 0.001).all()
