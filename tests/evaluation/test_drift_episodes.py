"""One page per incident; each window counts once; what is snoozed is recorded and not sent."""

from datetime import UTC, datetime, timedelta

import pytest

from ratchet.agent.errors import BadInput
from ratchet.evaluation.drift.incidents import (
    QUIET_WINDOWS,
    Announcement,
    Incidents,
    accept_as_normal,
    severity,
    snooze_incidents,
    update_incidents,
)
from ratchet.evaluation.drift.state import DriftState

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


def run(alarms: str, incidents: Incidents | None = None) -> tuple[Incidents, list[Announcement]]:
    now, said = incidents or Incidents(), []
    for i, mark in enumerate(alarms, start=now.last_window + 1):
        now, announcement = update_incidents(
            now, state(i, mark in "!O", outcome=mark == "O"), NOW + timedelta(hours=i)
        )
        said += [announcement] if announcement else []
    return now, said


def test_one_announcement_per_episode_and_one_when_it_ends() -> None:
    incidents, said = run("..!!!.!!" + "." * QUIET_WINDOWS + "..!")
    assert [one.event for one in said] == ["opened", "recovered", "opened"]
    assert incidents.open is not None
    assert incidents.open.number == 2
    assert incidents.past[0].opened_window == 3
    assert incidents.past[0].closed_window == 8 + QUIET_WINDOWS


def test_evidence_that_wavers_about_the_threshold_is_one_episode() -> None:
    incidents, _ = run("!")
    for window in range(2, 20):
        incidents, said = update_incidents(incidents, wavering(window), NOW)
        assert said is None
    incidents, said = update_incidents(incidents, state(20, True), NOW)
    assert said is None
    assert incidents.open is not None
    assert incidents.open.number == 1


def test_a_window_seen_twice_changes_nothing() -> None:
    incidents, _ = run("..!")
    again, announcement = update_incidents(incidents, state(3, True), NOW)
    assert again == incidents
    assert announcement is None


def test_worse_results_later_in_an_episode_page() -> None:
    _, said = run("!!O!")
    assert [(one.event, one.severity) for one in said] == [("opened", "ticket"), ("worsened", "page")]


def test_what_looked_like_a_surge_and_is_new_becomes_a_ticket_once() -> None:
    incidents, first = update_incidents(Incidents(), state(1, True), NOW, surge=True)
    incidents, second = update_incidents(incidents, state(2, True), NOW, surge=False)
    _, third = update_incidents(incidents, state(3, True), NOW, surge=False)
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
    asleep = snooze_incidents(Incidents(), until=NOW + timedelta(hours=2), who="ana")
    incidents, said = run("!", asleep)
    assert incidents.open is not None
    assert said[0].silent
    _, later = run("." * QUIET_WINDOWS, incidents)
    assert not later[0].silent


def test_the_new_normal_names_who_and_why_and_ends_the_episode() -> None:
    incidents, _ = run("..!!")
    accepted, announcement = accept_as_normal(incidents, at=NOW, who="ana", why="new product line")
    assert announcement is not None
    assert announcement.event == "accepted"
    assert accepted.open is None
    assert accepted.rereferences[0].episode == 1
    assert (accepted.rereferences[0].who, accepted.rereferences[0].why) == ("ana", "new product line")
    with pytest.raises(BadInput, match="who"):
        accept_as_normal(incidents, at=NOW, who=" ", why="x")
    with pytest.raises(BadInput, match="who"):
        snooze_incidents(incidents, until=NOW, who="")


def test_the_record_survives_json() -> None:
    incidents, _ = run("..!!..." + ".!")
    assert Incidents.model_validate_json(incidents.model_dump_json()) == incidents
