"""The gate behind a chat endpoint: a real registry, a scripted endpoint that is right where its prompt shows how."""

import json
from pathlib import Path

import pytest

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.chat_endpoint import lm_name
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.proposer import Registered
from ratchet.agent.project import load_project
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.cli import main
from ratchet.flows.template.desk.scripted_llm import TOPICS, running, topics
from ratchet.infra.registry.registry import champion, register, version_history, version_of
from ratchet.infra.store.dataset_store import write_dataset
from ratchet.tasks.curate import RoundData
from ratchet.tasks.gate import Players, evaluate, hold
from ratchet.tasks.other_model import other_model, unused_model
from ratchet.tasks.people import People
from ratchet.tasks.promote import promote_best
from ratchet.tasks.serve import first_champion
from ratchet.tasks.trials import GateTests

ASKED = sorted(topics())
TAUGHT, JUDGED = ASKED[::2], ASKED[1::2]
HISTORY = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "How can I help?"}]
SYSTEM = "Name the team that solves the request."


class Straight(Players):
    """Without Prefect's server."""

    def play(self, candidate_id, case_ids, *, again=False):
        return list(evaluate.fn(self.folder, self.name, candidate_id, self.labelled, list(case_ids)))


@pytest.fixture
def endpoint():
    with running() as llm:
        yield llm


@pytest.fixture
def folder(project, endpoint, tmp_path):
    (tmp_path / "ratchet.toml").write_text(
        f'[agent]\nname = "{project}"\nupstream = "{endpoint.address}"\nmodel = "scripted"\n'
        f'system = "{SYSTEM}"\nscore = "contains"\n'
    )
    return tmp_path


def team(request):
    return TOPICS[topics()[request]]


def case(request, before=()):
    messages = [{"role": "system", "content": SYSTEM}, *before, {"role": "user", "content": request}]
    return LabelledCase(
        case=Case(inputs={"messages": messages}, expected=team(request)),
        trace_id="1" * 32,
        candidate_id="c",
        role="gate",
        propensity=1.0,
        source="human",
        answer=team(request),
    )


def remembering(project, parent):
    """The parent with the answers that people gave to other requests."""
    memory = Memory(
        Experience(
            observation=request,
            action="respond",
            arguments={"content": team(request)},
            trace_id=f"{n:032x}",
            case_id=f"c{n}",
            source="human",
        )
        for n, request in enumerate(TAUGHT)
    )
    memory.save(path := Path(f"memory-{memory.memory_id}.jsonl"))
    topology = parent.candidate.topology.model_copy(update={"recalls": 8})
    child = parent.candidate.model_copy(
        update={"memory": memory.memory_id, "topology": topology, "parent": parent.candidate_id}
    )
    register(project, child, files={"memory": path}, seen_case_ids=[], cost={})
    return child.candidate_id


def gate(folder, project, cases, monkeypatch, change=remembering):
    monkeypatch.chdir(folder)
    first = first_champion(load_project(folder))
    labelled = write_dataset("labelled", cases)
    data = RoundData(
        training=labelled, labelled=labelled, rollouts=labelled, imported=labelled, champion=first.candidate_id,
        n_human=len(cases), left_out={},
    )  # fmt: skip
    better = change(project, first)
    gated = hold(
        project, data, [better], GateSettings(min_cases=8, batch=16), Straight(str(folder), project, labelled)
    )
    return gated, better, data


def test_a_memory_that_helps_is_proven_on_single_requests_and_a_policy_promotes_it(
    folder, project, endpoint, monkeypatch
):
    gated, better, _ = gate(folder, project, [case(request) for request in JUDGED], monkeypatch)
    (judged,) = gated.judged
    assert (judged.verdict.decision, judged.verdict.screening) == ("promote", "")
    assert judged.verdict.gain > 0.3
    assert judged.verdict.cost.challenger > judged.verdict.cost.champion > 0  # the endpoint's own usage
    assert promote_best.fn(project, gated, approved_by="nightly").promoted
    assert champion(project).candidate_id == better


def test_an_agent_of_several_turns_is_only_screened_and_serves_by_a_person_s_word_alone(
    folder, project, monkeypatch, capsys
):
    cases = [case(request, HISTORY) for request in JUDGED]
    gated, better, data = gate(folder, project, cases, monkeypatch)
    (judged,) = gated.judged
    used = judged.verdict.n_labelled
    why = f"{used} of {used} cases with earlier answers, several messages of the user"
    assert (judged.verdict.decision, judged.verdict.screening) == ("promote", why)
    assert judged.verdict.reason.startswith(f"screening, not a full test ({why}): +")
    decision = promote_best.fn(project, gated, approved_by="nightly")
    assert (decision.promoted, decision.best) == (False, better)
    assert "nightly promotes nothing that was only screened; waits for `ratchet approve" in decision.reason
    assert champion(project).candidate_id != better

    # read back, in a later run: still only screened
    tests = GateTests(project, data, GateSettings(), People(project, RaterSettings()))
    assert [one.verdict.screening for one in tests.proven] == [why]
    assert version_of(project, better).verdict.screening == why
    again = hold(project, data, [], GateSettings(), Straight(str(folder), project, data.labelled))
    assert not promote_best.fn(project, again, approved_by="nightly").promoted

    monkeypatch.setattr("sys.argv", ["ratchet", "approve", better, "--by", "anna", "--json"])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)["verdict"]["screening"] == why
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["ratchet", "approve", better, "--by", "anna", "--yes"])
    with pytest.raises(SystemExit):
        main()
    told = " ".join("".join(capsys.readouterr()).split())
    assert "no tool was called" in told
    assert "screening, not a full test" in told
    assert champion(project).candidate_id == better
    assert version_history(project)[-1].events[-1].by == "anna"


TOOLS = dict(zip(TOPICS, ("desk_a", "desk_b", "desk_c", "desk_d"), strict=True))


def calling(request):
    """A request that offers four tools of which nothing is said, and the one that is to be called."""
    asked, right = case(request), {"tool": TOOLS[topics()[request]]}
    offered = [
        {
            "type": "function",
            "function": {"name": name, "description": "Send it.", "parameters": {"properties": {}}},
        }
        for name in TOOLS.values()
    ]
    inputs = {**asked.case.inputs, "tools": offered}
    return asked.model_copy(update={"case": Case(inputs=inputs, expected=right), "answer": right})


def describing(project, parent):
    """What a proposer made by hand would change: what is said of each tool."""
    tools = {name: f"Takes {topic}." for topic, name in TOOLS.items()}
    child = parent.candidate.model_copy(update={"tools": tools, "parent": parent.candidate_id})
    register(project, child, files={}, seen_case_ids=[], cost={})
    return child.candidate_id


def test_other_descriptions_of_tools_are_screened_by_the_calls_that_they_lead_to(
    folder, project, monkeypatch
):
    path = folder / "ratchet.toml"
    path.write_text(path.read_text().replace('"contains"', '"tool_call"'))
    gated, better, _ = gate(folder, project, [calling(one) for one in JUDGED], monkeypatch, describing)
    (judged,) = gated.judged
    assert (judged.candidate_id, judged.verdict.decision) == (better, "promote")
    assert judged.accuracy.mean == 1
    assert judged.verdict.screening.endswith("with tools that were not called")


def test_a_version_keeps_its_model_and_another_is_a_challenger(folder, project):
    first = first_champion(load_project(folder))
    path = folder / "ratchet.toml"
    path.write_text(path.read_text().replace('"scripted"', '"larger"'))
    changed = load_project(folder)
    (line,) = unused_model(changed, first.candidate_id)
    assert line.endswith("`ratchet improve --model larger` tries it")
    made = other_model(changed, "larger", None).propose(
        Registered(first.candidate, {}, frozenset()), Evidence(), None
    )
    assert (made.candidate.base_model, made.candidate.api_base) == (lm_name("larger"), changed.agent.upstream)
    with pytest.raises(BadInput, match="model_at = 'http://x': a chat endpoint is asked at its `upstream`"):
        other_model(changed, "larger", "http://x")


def test_an_endpoint_that_breaks_is_nobody_s_failure_and_stops_the_gate(folder, project, monkeypatch):
    path = folder / "ratchet.toml"
    path.write_text(path.read_text().replace("/v1", "/nowhere"))
    gated, _, _ = gate(folder, project, [case(request) for request in JUDGED], monkeypatch)
    assert gated.judged == ()
    (problem,) = gated.problems
    assert "404" in problem
