"""The monitor's promises: quiet without drift, quick with it, the same numbers after a restart."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.evaluation.drift.conformal import N_BETS, log_bets, low_counts, shiryaev_roberts
from ratchet.evaluation.drift.message import Message
from ratchet.evaluation.drift.monitor import DriftMonitor, OtherMonitor, alpha_per_window

KNOWN = ["card", "transfer", "cash", "top up", "refund"]
NEW = ["mortgage", "pension", "insurance"]


def ask(kinds: list[str], n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    frames = ["why was my {} declined", "how do I get a {}", "where is my {} please", "my {} costs too much?"]
    endings = ["", " today", " in euros", " on holiday", " since Monday", " for my wife", " again"]
    return [
        str(rng.choice(frames)).format(rng.choice(kinds))
        + str(rng.choice(endings))
        + str(rng.choice(endings))
        for _ in range(n)
    ]


def windows_to_alarm(
    monitor: DriftMonitor, kinds: list[str], share: float, size: int, seed: int
) -> int | None:
    for i in range(20):
        new = round(size * share)
        window = ask(kinds, new, seed + i) + ask(KNOWN, size - new, seed + 500 + i)
        if monitor.update(window).alarm:
            return i + 1
    return None


@pytest.mark.parametrize(("reference", "size"), [(150, 30), (300, 20), (300, 50)])
def test_half_new_requests_are_found_within_three_windows(reference: int, size: int) -> None:
    monitor = DriftMonitor(ask(KNOWN, reference, 1), seed=3)
    for i in range(5):
        assert not monitor.update(ask(KNOWN, size, 100 + i)).alarm
    found = windows_to_alarm(monitor, NEW, 0.5, size, 900)
    assert found is not None
    assert found <= 3


def test_the_same_traffic_stays_quiet() -> None:
    monitor = DriftMonitor(ask(KNOWN, 300, 1))
    states = [monitor.update(ask(KNOWN, 30, 10 + i)) for i in range(100)]
    assert not any(state.alarm for state in states)
    assert all(state.since is None for state in states)
    assert states[-1].n_seen == 3_000
    assert states[-1].n_windows == 100


def test_an_alarm_stands_as_long_as_the_drift_because_it_does_not_become_usual() -> None:
    monitor = DriftMonitor(ask(KNOWN, 200, 1), seed=3)
    assert windows_to_alarm(monitor, NEW, 0.8, 20, 900) is not None
    states = [monitor.update(ask(NEW, 16, 2_000 + i) + ask(KNOWN, 4, 4_000 + i)) for i in range(150)]
    assert all(state.alarm for state in states)
    assert all(min(state.families[name] for name in ("novelty", "shift")) > 1_000 for state in states[20:])


def test_a_restart_between_any_two_windows_changes_no_bit() -> None:
    rows = [Message(text=t, tool=t.split()[0], latency_s=len(t) / 9, outcome=0.5) for t in ask(KNOWN, 200, 1)]
    straight = DriftMonitor(rows)
    restarted = DriftMonitor(rows)
    for i in range(25):
        window = ask(KNOWN, 20, i) + ask(NEW, 6, i)
        batch = [
            Message(text=t, tool=t.split()[0], latency_s=1.0, outcome=0.4, session=t[:9]) for t in window
        ]
        restarted = DriftMonitor.from_json(restarted.to_json())
        assert straight.update(batch) == restarted.update(batch)
    assert straight.to_json() == restarted.to_json()


def test_worse_outcomes_on_the_same_requests_are_named_outcome() -> None:
    rng = np.random.default_rng(0)

    def rows(n: int, seed: int, success: float) -> list[Message]:
        return [Message(text=t, outcome=float(rng.random() < success)) for t in ask(KNOWN, n, seed)]

    monitor = DriftMonitor(rows(300, 1, 0.8))
    for i in range(20):
        state = monitor.update(rows(50, 30 + i, 0.4))
        if state.alarm:
            break
    assert state.alarm
    assert state.groups == ("outcome",)


def test_a_new_tool_is_named_behaviour() -> None:
    rng = np.random.default_rng(0)

    def rows(n: int, seed: int, tools: list[str]) -> list[Message]:
        return [Message(text=t, tool=str(rng.choice(tools))) for t in ask(KNOWN, n, seed)]

    monitor = DriftMonitor(rows(300, 1, ["search", "lookup"]))
    for i in range(20):
        state = monitor.update(rows(50, 30 + i, ["search", "lookup", "delete"]))
        if state.alarm:
            break
    assert state.groups == ("behaviour",)


def test_missing_values_and_empty_windows_are_no_evidence() -> None:
    rows = [Message(text=t, outcome=1.0) for t in ask(KNOWN, 100, 1)]
    monitor = DriftMonitor(rows)
    before = monitor.state
    assert monitor.update([]) == before
    blank = monitor.update([Message() for _ in range(30)])
    assert blank.e_value == before.e_value == 0.0
    assert blank.n_seen == 30


def test_ready_embeddings_take_the_place_of_texts() -> None:
    rng = np.random.default_rng(0)
    monitor = DriftMonitor(rng.normal(size=(200, 16)))
    for _ in range(20):
        assert not monitor.update(rng.normal(size=(50, 16))).alarm
    states = [monitor.update(rng.normal(size=(50, 16)) + 1.0) for _ in range(10)]
    assert states[-1].alarm
    assert states[-1].input >= states[-1].threshold
    with pytest.raises(BadInput, match="does not match the reference"):
        monitor.update(["a text"])


def test_the_bounded_past_gives_the_exact_ranks_of_the_whole_past() -> None:
    from ratchet.evaluation.drift.conformal import RankCounts, message_shares, pool_p_values

    rng = np.random.default_rng(0)
    values = rng.integers(0, 40, 600).astype(float)
    groups = np.arange(600) // 3
    counts = RankCounts(np.unique(values))
    for start in range(0, 540, 60):
        counts.absorb(
            values[start : start + 60], message_shares(groups[start : start + 60] - start // 3).weights
        )
    ties = rng.random(60)
    now = message_shares(groups[540:] - 180)
    bounded = counts.p_values(values[540:], now, ties)
    whole = pool_p_values(values[540:], now, values[:540], message_shares(groups[:540]).weights, ties)
    np.testing.assert_allclose(bounded, whole)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_an_impossible_alpha_is_refused(alpha: float) -> None:
    with pytest.raises(BadInput, match="between 0 and 1"):
        DriftMonitor(ask(KNOWN, 100, 1), alpha=alpha)


def test_a_tiny_reference_is_refused_with_the_bound() -> None:
    with pytest.raises(BadInput, match="at least 40"):
        DriftMonitor(ask(KNOWN, 10, 1))


@pytest.mark.parametrize("text", ["{}", "nonsense", '{"version": 99}'])
def test_a_broken_state_is_refused(text: str) -> None:
    with pytest.raises(CorruptRecord):
        DriftMonitor.from_json(text)


def test_state_is_plain_json() -> None:
    state = json.loads(DriftMonitor(ask(KNOWN, 100, 1)).to_json())
    assert state["n_seen"] == 0


def by_length(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.array(
        [[len(text), text.count("a") + 1, text.count("e") + 1] for text in texts], dtype=np.float32
    )


def test_a_state_names_its_embedding_and_refuses_another() -> None:
    text = DriftMonitor(ask(KNOWN, 100, 1), embed=by_length, embedding="lengths").to_json()
    assert DriftMonitor.from_json(text, embed=by_length, embedding="lengths").embedding == "lengths"
    with pytest.raises(OtherMonitor, match="reads texts by 'lengths', not 'hashing'"):
        DriftMonitor.from_json(text)
    hashed = DriftMonitor(ask(KNOWN, 100, 1)).to_json()
    with pytest.raises(OtherMonitor, match="reads texts by 'hashing', not 'lengths'"):
        DriftMonitor.from_json(hashed, embed=by_length, embedding="lengths")


def test_a_stationary_file_of_any_length_alarms_with_its_own_alpha_at_most() -> None:
    random = np.random.default_rng(4)
    n_files, n_windows, size, alone = 100, 400, 20, np.arange(20)
    peaks = np.zeros(n_files)
    for i in range(n_files):
        evidence = np.zeros(N_BETS)
        for _ in range(n_windows):
            evidence = shiryaev_roberts(
                evidence, log_bets(low_counts(random.random(size), alone, size)), 1e12
            )
            peaks[i] = max(peaks[i], evidence.mean())
    assert (peaks >= 1.0 / alpha_per_window(0.05, n_windows)).mean() <= 0.05
    assert (peaks >= 1.0 / 0.001).mean() > 0.05


@pytest.mark.parametrize(
    "text", ["where is my order {}", "parcel {:04x}-{:08x} is late", "on 2026-03-{:02d} at {}:15"]
)
def test_a_running_number_is_no_content(text: str) -> None:
    usual = [text.format(i, i * 7919) for i in range(1, 401)]
    later = [text.format(i, i * 7919) for i in range(1_000, 1_400)]
    for traffic in (usual, later):
        monitor = DriftMonitor(usual)
        assert not any(monitor.update(traffic[start : start + 50]).alarm for start in range(0, 400, 50))


def test_a_reference_that_says_one_thing_only_is_no_drift_from_itself_and_something_else_is():
    monitor = DriftMonitor(["cancel my contract 5"] * 60)
    for _ in range(5):
        assert not monitor.update(["cancel my contract 7"] * 20).alarm
    for _ in range(10):
        monitor.update([f"what is the weather in {town}" for town in ("Oslo", "Riga", "Lund", "Turku")] * 5)
    assert monitor.state.alarm
