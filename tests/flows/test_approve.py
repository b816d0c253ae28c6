import json

import pytest
from tests.evidence import give_verdict
from tests.flows.conftest import BETTER

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.evaluation.gate.approval import ApprovalSettings
from ratchet.evaluation.gate.trial import Play, TrialState
from ratchet.flows.approval_evidence import approval_evidence, as_markdown
from ratchet.infra.registry.approval import set_policy
from ratchet.infra.registry.gate_cases import write_open_test
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.registry import champion, promote, register, version_history
from ratchet.infra.review.queue import ReviewItem, answer, ask_people
from ratchet.infra.traces.write import log_traces


@pytest.fixture(autouse=True)
def _nobody(monkeypatch):
    monkeypatch.delenv("USER", raising=False)


def test_without_candidate_those_that_wait_are_listed(ratchet, past):
    done = ratchet("approve", "--name", past.project, "--json")
    assert done.returncode == 0
    assert [w["candidate_id"] for w in json.loads(done.stdout)["waiting"]] == [past.proven.candidate_id]
    assert past.proven.candidate_id[:8] in ratchet("approve", "--name", past.project).stderr


def test_what_changes_and_the_evidence_are_shown_and_nothing_moves(ratchet, past):
    done = ratchet("approve", past.proven.candidate_id[:6], "--name", past.project)
    told = " ".join(done.stderr.split())
    assert done.returncode == 0
    for text in ("Choose a tool.", "Pick the tool.", "How warm is Oslo?", "needs 200", "--yes"):
        assert text in told
    assert champion(past.project).candidate_id == past.champion.candidate_id


def test_json_holds_changes_and_verdict(ratchet, past):
    answer = json.loads(ratchet("approve", "v3", "--name", past.project, "--json").stdout)
    assert answer["refusal"] is None
    assert {"what": "choose: instructions", "old": "Choose a tool.", "new": "Pick the tool."} in answer[
        "changes"
    ]
    assert answer["verdict"]["decision"] == "promote"


def test_yes_promotes_in_somebodys_name_with_the_verdict_as_reason(ratchet, own_past):
    proven = own_past.proven.candidate_id
    nameless = ratchet("approve", proven, "--name", own_past.project, "--yes")
    assert nameless.returncode == 2
    done = ratchet("approve", proven, "--name", own_past.project, "--yes", "--by", "bert")
    assert done.returncode == 0
    serving = champion(own_past.project)
    assert serving.candidate_id == proven
    assert serving.events[-1].by == "bert"
    assert serving.events[-1].reason == serving.reason
    assert ratchet("approve", "--name", own_past.project).returncode == 3, "nobody waits any more"


@pytest.mark.parametrize("options", [(), ("--yes", "--by", "bert")])
def test_a_refused_challenger_stays_refused_with_its_sentence(ratchet, past, options):
    done = ratchet("approve", past.refused.candidate_id, "--name", past.project, "--json", *options)
    assert done.returncode == 2
    answer = json.loads(done.stdout)
    assert answer["promoted"] is False
    assert "its verdict says refused" in answer["refusal"]
    assert "its verdict says refused" in done.stderr
    assert champion(past.project).candidate_id == past.champion.candidate_id


def test_an_unknown_candidate_is_one_line(ratchet, past):
    done = ratchet("approve", "nothing", "--name", past.project)
    assert done.returncode == 2
    assert "no candidate is 'nothing'" in done.stderr


@pytest.fixture
def read_whole(project, tmp_path, make_trace):
    """A proven challenger with its stored test, other entries in its memory, and people's answers to its cases."""
    entries = [
        Experience(
            observation=f"ask {n}", action="left" if n else "right", case_id=str(n), trace_id=f"{n:032x}", source="own"
        )
        for n in range(4)
    ]  # fmt: skip
    made = []
    for name, several in (("old", entries[:3]), ("new", entries[1:])):
        memory, path = Memory(several), tmp_path / name
        memory.save(path)
        prompt = {"act": Predictor(instructions=f"Pick as {name}.")}
        candidate = Candidate(predictors=prompt, base_model="tiny", memory=memory.memory_id)
        register(project, candidate, files={"memory": path}, seen_case_ids=["a"], cost={})
        made.append(candidate.candidate_id)
    promote(project, made[0], approved_by="ratchet", reason="the first")
    traces = [make_trace(f"which way to town {n}? [bold]\x1b[31m", score=None) for n in range(3)]
    log_traces(project, traces)
    ask_people(project, [ReviewItem(trace_id=t.trace_id, propensity=1.0, reason="gate") for t in traces])
    for trace in traces:
        answer(project, trace.trace_id, expected="left", rater="anna")
    give_verdict(project, made[1], made[0], BETTER)
    (entry,) = read_ledger(project).entries
    plays = [
        Play(case_id=trace.case.case_id, champion=ours, challenger=theirs, trace_id=trace.trace_id, shown=shown)
        for trace, ours, theirs, shown in zip(
            traces, (0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (("right", "left"), ("left", "right"), ("left",) * 2), strict=True
        )
    ]  # fmt: skip
    state = TrialState(
        champion=made[0],
        challenger=made[1],
        opened_at=entry.opened_at,
        plays=tuple(plays),
        rest=(),
        gate="{}",
    )
    write_open_test(project, made[1], state.to_json())
    return project, made[1]


def test_a_person_sees_memory_and_the_cases_won_and_lost_with_whose_label(ratchet, read_whole):
    name, proven = read_whole
    done = ratchet("approve", proven, "--name", name, columns=80)
    assert done.returncode == 0
    told = " ".join(done.stderr.split())
    for text in (
        "1 added, 1 removed, 2 kept",
        "- ask 0 → right",
        "+ ask 3 → left",
        "1 won, 1 lost, 1 scored the same",
        "which way to town 0? [bold]",
        "anna",
        "a change of prompt, to be approved by anyone, until ",
        "slices" if BETTER.slices else "evidence",
    ):
        assert text in told
    assert "\x1b[31m" not in done.stderr
    assert max(map(len, done.stderr.splitlines())) <= 80
    found = json.loads(ratchet("approve", proven, "--name", name, "--json", "--cases", "1").stdout)
    (lost,), (won,) = found["cases"]["lost"], found["cases"]["won"]
    assert (lost["shown"], lost["champion"], lost["challenger"]) == (["left", "right"], 1.0, 0.0)
    assert won["label_by"] == lost["label_by"] == "anna"
    assert found["memory"]["memory"]["removed"] == ["ask 0 → right"]
    assert (found["approval"]["risk"], found["approval"]["missing"]) == ("prompt", 1)
    page = as_markdown(approval_evidence(name, *_sides(name, proven)))
    for text in (
        "which way to town 1? \\[bold\\] \\[31m\n\n- champion: left (1)\n- challenger: right (0)\n- label: anna",
        "Pick as new.",
        "**memory**",
    ):
        assert text in page


def _sides(name, proven):
    return next(v for v in version_history(name) if v.candidate_id == proven), champion(name)


def test_who_is_not_named_is_refused_and_a_no_is_a_no(ratchet, own_past, tmp_path):
    proven = own_past.proven.candidate_id
    set_policy(own_past.project, ApprovalSettings(memory=("anna",), prompt=("anna", "ben"), two=("prompt",)))

    def say(*options):
        return ratchet("approve", proven, "--name", own_past.project, "--json", *options)

    stranger = say("--yes", "--by", "eve")
    assert stranger.returncode == 2
    assert (
        "'eve' may not approve a change of prompt: approval.prompt names two of anna, ben" in stranger.stderr
    )
    assert json.loads(stranger.stdout)["promoted"] is False
    first = say("--yes", "--by", "anna")
    assert first.returncode == 0
    assert json.loads(first.stdout)["promoted"] is False
    assert json.loads(say().stdout)["approval"]["approved_by"] == ["anna"]
    reasonless = say("--no", "--by", "ben")
    assert reasonless.returncode == 2
    declined = say("--no", "--by", "ben", "--reason", "reads badly")
    assert json.loads(declined.stdout)["declined"] is True
    late = say("--yes", "--by", "ben")
    assert late.returncode == 2
    assert "declined by ben: reads badly; it must be proven anew" in late.stderr
    assert ratchet("approve", "--name", own_past.project).returncode == 3, "nobody waits any more"
