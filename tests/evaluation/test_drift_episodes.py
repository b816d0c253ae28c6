"""One page per episode; each window counts once; what is snoozed is recorded and not sent."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.errors import BadInput
from evaluation.drift_state import DriftState
from evaluation.episodes import (
    QUIET_WINDOWS,
    Announcement,
    Episodes,
    accept_as_normal,
    follow,
    severity,
    snooze,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def state(window: int, alarm: bool, *, outcome: bool = False) -> DriftState:
    high, low = 5_000.0, 2.0
    return DriftState(
        alarm=alarm, e_value=high if alarm else low, threshold=1_000.0, since=40 if alarm else None,
        n_seen=window * 50, n_windows=window, input=high if alarm else low, behaviour=low,
        outcome=high if alarm and outcome else low, families={},
    )  # fmt: skip


def wavering(window: int) -> DriftState:
    return state(window, False).model_copy(update={"e_value": 500.0})


def run(alarms: str, episodes: Episodes | None = None) -> tuple[Episodes, list[Announcement]]:
    now, said = episodes or Episodes(), []
    for i, mark in enumerate(alarms, start=now.last_window + 1):
        now, announcement = follow(now, state(i, mark in "!O", outcome=mark == "O"), NOW + timedelta(hours=i))
        said += [announcement] if announcement else []
    return now, said


def test_one_announcement_per_episode_and_one_when_it_ends() -> None:
    episodes, said = run("..!!!.!!" + "." * QUIET_WINDOWS + "..!")
    assert [one.event for one in said] == ["opened", "recovered", "opened"]
    assert episodes.open is not None
    assert episodes.open.number == 2
    assert episodes.past[0].opened_window == 3
    assert episodes.past[0].closed_window == 8 + QUIET_WINDOWS


def test_evidence_that_wavers_about_the_threshold_is_one_episode() -> None:
    episodes, _ = run("!")
    for window in range(2, 20):
        episodes, said = follow(episodes, wavering(window), NOW)
        assert said is None
    episodes, said = follow(episodes, state(20, True), NOW)
    assert said is None
    assert episodes.open is not None
    assert episodes.open.number == 1


def test_a_window_seen_twice_changes_nothing() -> None:
    episodes, _ = run("..!")
    again, announcement = follow(episodes, state(3, True), NOW)
    assert again == episodes
    assert announcement is None


def test_worse_results_later_in_an_episode_page() -> None:
    _, said = run("!!O!")
    assert [(one.event, one.severity) for one in said] == [("opened", "ticket"), ("worsened", "page")]


def test_what_looked_like_a_surge_and_is_new_becomes_a_ticket_once() -> None:
    episodes, first = follow(Episodes(), state(1, True), NOW, surge=True)
    episodes, second = follow(episodes, state(2, True), NOW, surge=False)
    _, third = follow(episodes, state(3, True), NOW, surge=False)
    assert first is not None
    assert second is not None
    assert [(one.event, one.severity) for one in (first, second)] == [
        ("opened", "notice"),
        ("worsened", "ticket"),
    ]
    assert third is None


def test_severity_goes_by_kind() -> None:
    assert severity(("outcome",)) == "page"
    assert severity(("input", "outcome"), surge=False) == "page"
    assert severity(("behaviour",)) == "ticket"
    assert severity(("input",)) == "ticket"
    assert severity(("input",), surge=True) == "notice"


def test_a_snoozed_alarm_is_recorded_and_silent() -> None:
    asleep = snooze(Episodes(), until=NOW + timedelta(hours=2), who="ana")
    episodes, said = run("!", asleep)
    assert episodes.open is not None
    assert said[0].silent
    _, later = run("." * QUIET_WINDOWS, episodes)
    assert not later[0].silent


def test_the_new_normal_names_who_and_why_and_ends_the_episode() -> None:
    episodes, _ = run("..!!")
    accepted, announcement = accept_as_normal(episodes, at=NOW, who="ana", why="new product line")
    assert announcement is not None
    assert announcement.event == "accepted"
    assert accepted.open is None
    assert accepted.rereferences[0].episode == 1
    assert (accepted.rereferences[0].who, accepted.rereferences[0].why) == ("ana", "new product line")
    with pytest.raises(BadInput, match="who"):
        accept_as_normal(episodes, at=NOW, who=" ", why="x")
    with pytest.raises(BadInput, match="who"):
        snooze(episodes, until=NOW, who="")


def test_the_record_survives_json() -> None:
    episodes, _ = run("..!!..." + ".!")
    assert Episodes.model_validate_json(episodes.model_dump_json()) == episodes
