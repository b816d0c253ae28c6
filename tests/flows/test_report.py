"""What a run says for a person: texts from outside are shown as they are, never obeyed and never a crash."""

import json

from ratchet.flows.commands.report import say, show_drift, show_round
from ratchet.flows.improve import ImproveReport
from ratchet.tasks.labels import LabelRequest
from ratchet.tasks.monitor import WatchReport
from ratchet.tasks.promote import RoundOutcome

OUTSIDE = "[/bold] [red]\x1b[31m"


def test_a_reason_or_a_note_with_markup_in_it_is_shown_as_it_is(capsys):
    asked = LabelRequest(n_asked=0, n_waiting=0)
    show_round(ImproveReport(served=0, asked=asked, decision=RoundOutcome(reason=OUTSIDE)), [])
    show_drift(WatchReport(n_windows=1, alarm=True, e_value=50.0, note=OUTSIDE))
    say(OUTSIDE, "yellow", "head")
    told = capsys.readouterr().err
    assert told.count("[/bold] [red][31m") == 3
    assert "\x1b[31m" not in told


def test_a_slice_named_in_markup_is_shown_as_it_is(ratchet, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"case_id": str(n), "champion": 0, "challenger": 1, "slice": OUTSIDE} for n in range(3)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = ratchet("gate", pairs)
    assert done.returncode == 3
    assert "[/bold] [red][31m" in done.stderr
