"""What a run says for a person: texts from outside are shown as they are, never obeyed and never a crash."""

import json
from datetime import UTC, datetime

from ratchet.agent.candidate import Candidate, Origin
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.evaluation.gate.verdict import with_unanswered
from ratchet.flows.commands.report import say, show_drift, show_round
from ratchet.flows.commands.terminal import console
from ratchet.flows.improve import ImproveReport
from ratchet.infra.registry.version import Version
from ratchet.tasks.gate import GateResult, GateRound
from ratchet.tasks.labels import LabelRequest
from ratchet.tasks.monitor import WatchReport
from ratchet.tasks.promote import RoundOutcome, promote_best

OUTSIDE = "[/bold] [red]\x1b[31m"


def test_a_reason_or_a_note_with_markup_in_it_is_shown_as_it_is(capsys):
    asked = LabelRequest(n_asked=0, n_waiting=0)
    show_round(ImproveReport(served=0, asked=asked, decision=RoundOutcome(reason=OUTSIDE)), [])
    show_drift(WatchReport(n_windows=1, alarm=True, e_value=50.0, note=OUTSIDE))
    say(OUTSIDE, "yellow", "head")
    told = capsys.readouterr().err
    assert told.count("[/bold] [red][31m") == 3
    assert "\x1b[31m" not in told


def test_an_open_test_says_what_waits_and_how_to_answer_it_at_80_columns(capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 80)
    pairs = [Pair(case_id=str(n), champion=0, challenger=1) for n in range(4)]
    verdict = with_unanswered(decide(pairs), decide(pairs), labelled=1, alike=1, waiting=2, gain=1.0)
    judged = GateResult(
        candidate_id="c", verdict=verdict, accuracy=None, stopped="2 questions wait for people"
    )
    candidate = Candidate(predictors={}, base_model="m", origin=Origin(proposer="replay"))
    judged = judged.model_copy(update={"candidate_id": candidate.candidate_id})
    version = Version(number=2, candidate=candidate, run_id="r", model_id="m", created_at=datetime.now(UTC))
    asked = LabelRequest(n_asked=0, n_waiting=0)
    gated = GateRound(judged=(judged,), waiting=2)
    decision = promote_best.fn("p", gated, approved_by=None, asked=LabelRequest(n_asked=5, n_waiting=5))
    show_round(ImproveReport(served=0, asked=asked, judged=(judged,), decision=decision), [version])
    told = capsys.readouterr().err
    assert max(map(len, told.splitlines())) <= 80
    said = " ".join(told.split())
    assert "accuracy" not in said, "of cases answered alike nobody knows it"
    assert "1 answered alike" in said
    assert "1 test stays open: 2 questions wait for people" in said
    assert "`ratchet label` shows what waits, side by side" in said


def test_a_slice_named_in_markup_is_shown_as_it_is(ratchet, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"case_id": str(n), "champion": 0, "challenger": 1, "slice": OUTSIDE} for n in range(3)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = ratchet("gate", pairs)
    assert done.returncode == 3
    assert "[/bold] [red][31m" in done.stderr
