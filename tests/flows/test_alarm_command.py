"""`ratchet alarm`: acknowledgements are recorded with who and why, for everybody, and obeyed by the next look."""

import json

import pytest

from ratchet.infra.drift.log import acknowledgements


@pytest.fixture
def alarm(ratchet, make_project):
    ours = make_project()

    def run(*arguments):
        return ratchet("alarm", *arguments, "--project", ours.folder)

    run.name = ours.name
    return run


def test_a_new_project_has_no_alarm_and_is_still_learning(alarm):
    done = alarm("show", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["alarm"], told["learning"], told["rulings"]) == (0, False, True, [])


def test_a_snooze_is_recorded_with_who_why_and_until_when(alarm):
    done = alarm("snooze", "--hours", "8", "--by", "ana", "--reason", "known campaign", "--json")
    assert done.returncode == 0
    (acknowledgement,) = acknowledgements(alarm.name)
    assert (acknowledgement.kind, acknowledgement.who, acknowledgement.why) == (
        "snooze",
        "ana",
        "known campaign",
    )
    assert (acknowledgement.until - acknowledgement.at).total_seconds() == 8 * 3600
    shown = json.loads(alarm("show", "--json").stdout)["rulings"]
    assert [one["obeyed"] for one in shown] == [False]
    assert "ana snoozed until" in alarm("show").stderr


def test_accepting_is_a_dry_run_unless_yes(alarm):
    asked = ("accept", "--by", "ana", "--reason", "new [bold]line[/]")
    assert "add --yes" in alarm(*asked).stderr
    assert acknowledgements(alarm.name) == []
    alarm(*asked, "--yes")
    assert [(one.kind, one.until) for one in acknowledgements(alarm.name)] == [("accept", None)]
    assert "new [bold]line[/]" in alarm("show").stderr


@pytest.mark.parametrize("missing", [("--by", "ana"), ("--by", " ", "--reason", "x")])
def test_without_who_and_why_nothing_is_ruled(alarm, missing):
    done = alarm("snooze", *missing)
    assert done.returncode == 2
    assert "who and why" in done.stderr
    assert acknowledgements(alarm.name) == []
