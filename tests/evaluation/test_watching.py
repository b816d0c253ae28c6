"""A watch counts each trace once, in order, owes what it did not say, and obeys what people ruled."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ratchet.agent.case import Case
from ratchet.evaluation.drift.incidents import Acknowledgement
from ratchet.evaluation.drift.monitor import STATE_VERSION
from ratchet.evaluation.drift.watch_state import (
    WatchSettings,
    WatchState,
    claimed_improve,
    claimed_notice,
    with_published,
    without_improve,
    without_notice,
)
from ratchet.evaluation.drift.watching import MonitorEmbedding, look

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = WatchSettings(window=20, reference=60)
TOWNS = ("Oslo", "Bergen", "Molde", "Lund", "Turku", "Narva", "Riga")
USUAL, NEW = "what is the weather in {town} on day {n}?", "cancel my contract number {n}, please"


@pytest.fixture
def traffic(make_trace):
    """Traces by id, `n` of them, the first of number `start`."""

    def make(n, text=USUAL, start=0):
        made = {}
        for i in range(start, start + n):
            case = Case(inputs={"request": text.format(town=TOWNS[i % 7], n=i % 9)})
            trace_id = f"{i:032x}"
            at = NOW + timedelta(minutes=i)
            made[trace_id] = make_trace(case=case, trace_id=trace_id, session_id=None, started_at=at)
        return made

    return make


def seen(traces, state=None, acknowledgements=(), at=NOW):
    return look(state or WatchState(), traces, acknowledgements, SETTINGS, at)


def acknowledgement(kind, number=1, **changes):
    fields = {"ruling_id": f"r{number}", "kind": kind, "at": NOW, "who": "ana", "why": "new product line"}
    return Acknowledgement(**fields | changes)


@pytest.fixture
def drifted(traffic):
    """120 usual traces, then 80 of a new kind; and the watch after them."""
    traces = traffic(120) | traffic(80, NEW, 120)
    return traces, seen(traces)


def test_each_full_window_is_counted_once(traffic):
    state = seen(traffic(105))
    assert (len(state.reference), len(state.watched), len(state.states)) == (60, 40, 2)
    assert seen(traffic(105), state) == state


def test_missed_windows_are_caught_up_in_order_and_late_traces_are_not_lost(traffic):
    traces = traffic(200)
    late = dict(list(traces.items())[70:75])
    without = {i: trace for i, trace in traces.items() if i not in late}
    state = seen(without)
    assert list(state.watched) == list(without)[60:180]
    again = seen(traces, state)
    assert again.watched[:120] == state.watched
    assert set(late) <= set(again.watched)
    assert len(set(again.watched)) == len(again.watched) == 140


def test_one_look_or_many_with_restarts_between_give_the_same_numbers(traffic, drifted):
    traces, whole = drifted
    state = WatchState()
    for n in range(0, len(traces) + 1, 10):
        state = WatchState.from_json(seen(dict(list(traces.items())[:n]), state).to_json())
    assert state == whole


def test_an_alarm_is_owed_once_and_starts_one_improve(traffic, drifted):
    traces, state = drifted
    assert state.episodes.open is not None
    assert [notice.announcement.event for notice in state.outbox] == ["opened"]
    assert state.improve is not None
    first = state.improve.removeprefix("drift-")
    assert int(first, 16) in range(100, 140)
    settled = state.model_copy(update={"outbox": (), "improve": None})
    later = seen(traces | traffic(40, NEW, 200), settled)
    assert (later.outbox, later.improve) == ((), None)


def test_the_drifted_region_holds_new_requests_and_hardly_a_usual_one(drifted):
    _, state = drifted
    new = [int(trace_id, 16) >= 120 for trace_id in state.drifted]
    assert sum(new) >= 20
    assert sum(new) >= 0.9 * len(new)
    assert all("cancel" in words or "contract" in words for words in state.drifted.values())


def test_a_snoozed_alarm_is_recorded_and_nobody_is_told(traffic):
    traces = traffic(120) | traffic(80, NEW, 120)
    state = seen(traces, acknowledgements=[acknowledgement("snooze", until=NOW + timedelta(hours=1))])
    assert state.episodes.open is not None
    assert (state.outbox, state.improve) == ((), None)
    assert state.ruled == ("r1",)


def test_the_new_normal_is_learned_from_the_onset_on_and_is_quiet_afterwards(traffic, drifted):
    traces, state = drifted
    settled = state.model_copy(update={"outbox": (), "improve": None})
    accepted = seen(traces, settled, [acknowledgement("accept")])
    assert [notice.announcement.event for notice in accepted.outbox] == ["accepted"]
    assert accepted.episodes.rereferences[0].why == "new product line"
    assert (accepted.episodes.open, accepted.drifted) == (None, {})
    more = traces | traffic(200, NEW, 200)
    normal = seen(more, accepted, [acknowledgement("accept")])
    assert normal.monitor is not None
    assert sum(int(i, 16) >= 120 for i in normal.reference) >= 58
    assert len(normal.states) > len(accepted.states)
    assert normal.episodes.open is None
    assert len(set(normal.recent)) == len(normal.recent) == normal.n_counted
    assert {*normal.reference} <= {*normal.recent}
    back = seen(more | traffic(100, USUAL, 400), normal)
    assert back.episodes.open is not None
    assert back.episodes.open.number == 2


def test_until_the_new_normal_is_learned_nothing_is_decided(traffic, drifted):
    traces, state = drifted
    hasty = look(state, traces, [acknowledgement("accept")], WatchSettings(window=20, reference=120), NOW)
    assert hasty.monitor is None
    assert len(hasty.states) == len(state.states)


@pytest.fixture
def served(make_trace):
    """Usual requests from number `start` on, answered by a version with this share of successes."""

    def make(start, n, success, candidate="v1", latency_s=0.25):
        made = {}
        for i in range(start, start + n):
            made[f"{i:032x}"] = make_trace(
                case=Case(inputs={"request": USUAL.format(town=TOWNS[i % 7], n=i % 9)}),
                trace_id=f"{i:032x}",
                session_id=None,
                started_at=NOW + timedelta(minutes=i),
                candidate_id=candidate,
                score=float((i * 37) % 100 < 100 * success),
                latency_s=latency_s + (i * 13) % 10 / 100,
            )
        return made

    return make


def test_a_version_that_gets_worse_on_the_same_requests_pages_and_says_so(served):
    state = seen(served(0, 160, 0.9) | served(160, 160, 0.3))
    (notice,) = state.outbox[:1]
    assert notice.announcement.severity == "page"
    assert notice.announcement.episode.kinds == ("outcome",)
    assert "rollback" in notice.attribution.reason
    assert notice.attribution.onset.low <= 100 <= notice.attribution.onset.high
    assert f"({notice.attribution.onset.low:,} to" in notice.attribution.reason
    assert state.drifted == {}


def test_a_promotion_is_no_drift_and_the_new_version_is_watched_from_its_own_first_traces(served):
    promoted = served(0, 160, 0.5) | served(160, 160, 0.9, candidate="v2", latency_s=2.0)
    state = seen(promoted)
    assert state.episodes.open is None
    assert state.conduct.candidate == "v2"
    assert state.conduct.monitor is not None
    worse = seen(promoted | served(320, 160, 0.3, candidate="v2", latency_s=2.0), state)
    assert worse.episodes.open.kinds == ("outcome",)


def test_a_slower_agent_is_a_ticket_about_behaviour(served):
    state = seen(served(0, 160, 0.9) | served(160, 160, 0.9, latency_s=0.9))
    assert state.episodes.open.kinds == ("behaviour",)
    assert state.episodes.open.severity == "ticket"
    assert max(state.attribution.families, key=state.attribution.families.get) == "latency_s"


def test_an_agent_that_gets_quicker_is_no_incident(served):
    state = seen(served(0, 160, 0.9, latency_s=0.9) | served(160, 160, 0.9))
    assert state.episodes.open is None
    assert state.states[-1].behaviour < 100


def test_what_is_kept_stays_as_large_as_it_is_and_decides_the_same(traffic, drifted, monkeypatch):
    traces, whole = drifted
    monkeypatch.setattr("ratchet.evaluation.drift.watching.RECENT", 50)
    monkeypatch.setattr("ratchet.evaluation.drift.behaviour.RECENT", 50)
    monkeypatch.setattr("ratchet.evaluation.drift.watch_state.WINDOWS", 3)
    state = WatchState()
    for n in range(0, len(traces), 40):
        portion = dict(list(traces.items())[n : n + 40])
        needed = {i: traces[i] for i in state.needs}
        state = with_published(seen(needed | state_left(state, traces, n) | portion, state), state.n_windows)
    state = with_published(state, state.n_windows)
    assert (len(state.recent), len(state.states), len(state.times)) == (50, 3, 3)
    assert (len(state.conduct.seen), state.conduct.n_seen) == (50, whole.conduct.n_seen)
    assert (state.n_counted, state.n_windows) == (whole.n_counted, whole.n_windows)
    assert state.states == whole.states[-3:]
    assert state.episodes == whole.episodes
    assert state.drifted.items() <= whole.drifted.items()
    assert state.improve is not None


def state_left(state, traces, n):
    """Of the first `n` traces, those that were not counted."""
    return {i: traces[i] for i in list(traces)[state.n_counted : n]}


def test_windows_that_were_not_published_are_kept(traffic, monkeypatch):
    monkeypatch.setattr("ratchet.evaluation.drift.watch_state.WINDOWS", 2)
    state = seen(traffic(200))
    assert (len(state.states), state.n_windows, state.published) == (7, 7, 0)
    assert len(with_published(state, 4).states) == 3
    assert with_published(state, 7).states == state.states[-2:]


def test_another_embedding_begins_anew_from_the_same_reference_and_says_so(traffic):
    traces = traffic(120)
    state = seen(traces)

    def embed(texts):
        return np.array([[float(len(text)), float(text.count("e")), 1.0] for text in texts])

    other = look(state, traces | traffic(20, start=120), (), SETTINGS, NOW, MonitorEmbedding(embed, "counts"))
    assert (other.reference, other.n_windows) == (state.reference, state.n_windows + 1)
    assert "'hashing', not 'counts'" in other.renewed
    assert other.states[-1].n_windows == 1
    again = look(other, traces | traffic(40, start=120), (), SETTINGS, NOW, MonitorEmbedding(embed, "counts"))
    assert (again.renewed, again.states[-1].n_windows) == (None, 2)


def test_a_watch_with_monitors_of_an_earlier_version_goes_on_from_their_references(traffic):
    traces = traffic(120)
    state = seen(traces)
    now, before = f'"version": {STATE_VERSION}', '"version": 2'
    old = state.monitor.replace(now, before)
    conduct = state.conduct.model_copy(update={"monitor": state.conduct.monitor.replace(now, before)})
    state = state.model_copy(update={"monitor": old, "conduct": conduct})
    later = seen(traces | traffic(20, start=120), state)
    assert later.renewed.startswith("drift state has version 2, not")
    assert (later.reference, later.n_windows) == (state.reference, state.n_windows + 1)
    assert (later.conduct.reference, later.conduct.n_seen) == (state.conduct.reference, 20)


def test_a_claim_keeps_others_away_until_its_owner_is_long_gone(drifted):
    _, state = drifted
    claimed, notice = claimed_notice(state, "a", NOW)
    assert claimed_notice(claimed, "b", NOW + timedelta(minutes=9)) == (claimed, None)
    assert claimed_notice(claimed, "a", NOW)[1].key == notice.key
    assert claimed_notice(claimed, "b", NOW + timedelta(minutes=10))[1].key == notice.key
    assert claimed_notice(without_notice(claimed, notice.key), "b", NOW)[1] is None
    claimed, key = claimed_improve(state, "a", NOW)
    assert claimed_improve(claimed, "b", NOW)[1] is None
    assert without_improve(claimed, key).improve is None
    assert without_improve(claimed, "another") == claimed
