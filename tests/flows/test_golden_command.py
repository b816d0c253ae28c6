"""`ratchet golden`: frozen cases are played at every promotion; what loses one waits for a person, who may know it."""

import json

import pytest
from prefect import flow
from tests.evidence import give_verdict

from ratchet.agent.project import load_project
from ratchet.evaluation.gate.choice import BestChallenger
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.flows.approval_evidence import approval_evidence, as_markdown
from ratchet.infra.registry.registry import champion, promote, register, version_of
from ratchet.infra.traces.write import log_traces
from ratchet.tasks.gate import GateRound
from ratchet.tasks.promote import promote_best
from ratchet.tasks.serve import first_champion

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("prefect_server")]

CODE = """
import ratchet
rule = ratchet.prompt("{name}-rule", default="left")

def desk(request):
    return "always" if "always" in request else rule().split()[0]

project = ratchet.Project(name="{name}", agent=desk, parts=[rule], effects="none", proposers=())
"""


@flow(name="last stage", persist_result=False, validate_parameters=False)
def last_stage(name, gated, folder):
    return promote_best(name, gated, approved_by="a policy", folder=folder)


PROVEN = decide(
    [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)], alpha=0.005
)


def test_what_loses_a_frozen_case_waits_for_a_person_and_what_loses_none_is_promoted(
    project, tmp_path, make_trace, ratchet
):
    (tmp_path / "project.py").write_text(CODE.format(name=project))
    first = first_champion(load_project(tmp_path))
    rule = f"{project}-rule"

    def proven(text):
        prompt = first.candidate.predictors[rule].model_copy(update={"instructions": text})
        made = first.candidate.model_copy(update={"predictors": {rule: prompt}, "parent": first.candidate_id})
        register(project, made, files={}, seen_case_ids=[], cost={})
        give_verdict(project, made.candidate_id, champion(project).candidate_id, PROVEN)
        gated = GateRound(best=BestChallenger(candidate_id=made.candidate_id, verdict=PROVEN))
        return made.candidate_id, last_stage(project, gated, str(tmp_path))

    def golden(*words, columns=100):
        return ratchet("golden", *words, "--name", project, columns=columns)

    traces = [make_trace("which way?"), make_trace("always there?")]
    log_traces(project, traces)
    assert golden("list").returncode == 3
    unknown = golden("add", traces[0].trace_id, "--by", "anna", "--reason", "never break it")
    assert (unknown.returncode, "--answer" in unknown.stderr) == (2, True)
    nobody = golden("add", traces[0].trace_id, "--answer", "Left.", "--by", "anna")
    assert (nobody.returncode, "--reason" in nobody.stderr) == (2, True)
    for trace, right in zip(traces, ("Left.", "always"), strict=True):
        done = golden("add", trace.trace_id, "--answer", right, "--by", "anna", "--reason", "never", "--json")
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cases"] == 2
    twice = golden("add", traces[0].trace_id, "--answer", "right", "--by", "bob", "--reason", "x")
    assert (twice.returncode, "frozen already, by anna" in twice.stderr) == (2, True)
    listed = golden("list", columns=80)
    assert all(len(line) <= 80 for line in listed.stderr.splitlines())
    assert "which way?" in listed.stderr

    worse, waits = proven("right")
    assert not waits.promoted
    assert "right on 1, the champion on 2; 0 won, 1 lost, which a policy does not promote" in waits.reason
    assert version_of(project, worse).golden.lost == (traces[0].case.case_id,)
    shown = json.loads(ratchet("show", worse[:8], "--name", project, "--json").stdout)
    assert shown["golden"]["lost"] == [traces[0].case.case_id]
    assert "0 won, 1 lost" in " ".join(ratchet("show", worse[:8], "--name", project).stderr.split())

    page = as_markdown(approval_evidence(project, version_of(project, worse), champion(project)))
    assert f"0 won, 1 lost**: {traces[0].case.case_id}" in page, "who approves in Prefect sees it, too"
    promote(project, worse, approved_by="anna", reason="I know; the way has changed")
    assert champion(project).candidate_id == worse, "a person may approve knowingly"
    same, done = proven("left again")
    assert (done.promoted, champion(project).candidate_id) == (True, same)
    assert version_of(project, same).golden.won == (traces[0].case.case_id,)
