"""Replay for agents that answer whole: what is remembered, for which prompt, and that it helps where it is read.

The LM is scripted (`scripted_llm.answer`): right only where its prompt holds an example of the same topic.
"""

import json
from datetime import UTC, datetime
from itertools import count

import pytest
from tests.bench.bench_mechanisms import Desk

import ratchet
from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.case import Case
from ratchet.agent.environment import Observation, Outcome, respond
from ratchet.agent.errors import LMFailure, NothingToPropose
from ratchet.agent.kinds.decision import View
from ratchet.agent.memory.library import Library
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.optimize.team_search import TeamSearch
from ratchet.agent.optimize.tools import Tools
from ratchet.agent.optimize.trajectories import Trajectories
from ratchet.agent.optimize.weights.lora import Lora
from ratchet.agent.optimize.work import Work
from ratchet.agent.project import Project
from ratchet.agent.record import as_text
from ratchet.agent.rollout.loop import run
from ratchet.agent.trace import Attempt, Step, Trace
from ratchet.flows.template.desk.scripted_llm import TOPICS, answer, running, topics

NOW = datetime(2026, 11, 25, tzinfo=UTC)
REQUESTS = sorted(topics())
TRAIN, HELD = REQUESTS[::2], REQUESTS[1::2]
SYSTEM = ratchet.prompt("desk-system", default="Which team solves the request?")
TOPIC = ratchet.prompt("desk-topic", default="Which topic is the request about?")


def said(role, content):
    return {"role": role, "content": content}


def with_examples(request: str) -> str:
    return answer(
        [said("system", SYSTEM()), *ratchet.examples("desk-system", request), said("user", request)]
    )


def without_examples(request: str) -> str:
    return answer([said("system", SYSTEM()), said("user", request)])


def of_two_prompts(request: str) -> str:
    about = answer([said("system", TOPIC()), *ratchet.examples("desk-topic", request), said("user", request)])
    told = f"{request}\nTopic: {about}"
    return answer([said("system", SYSTEM()), *ratchet.examples("desk-system", told), said("user", told)])


def solved(case, given):
    return float(given == TOPICS[topics()[case.inputs["request"]]])


def desk(agent=with_examples, **changes):
    return Project(
        **{"name": "desk", "agent": agent, "parts": [SYSTEM], "score": solved, "effects": "none"} | changes
    )


def example(request, given, number=0, source="own"):
    case = Case(inputs={"request": request})
    view = View(case_id=case.case_id, observation=Observation(text=request), inputs=case.inputs)
    return Example(view=view, answer=as_text(given), call=given, trace_id=f"{number:032x}", source=source)


KNOWN = [example(request, TOPICS[topics()[request]], n) for n, request in enumerate(TRAIN)]


def propose(project, tmp_path, proposer=None, examples=KNOWN, **evidence):
    work = Work(
        folder=tmp_path,
        environment=project.environment,
        agent=lambda candidate, files: make_agent(project, candidate, files),
    )
    parent = Registered(first_candidate(project, None, None))
    return made_by(proposer or Replay(), parent, Evidence(examples=examples, **evidence), work)


def share_right(project, candidate, files=()):
    cases = [Case(inputs={"request": request}) for request in HELD]
    traces = run(make_agent(project, candidate, dict(files)), cases, project.environment, at=lambda _: NOW)
    assert not [trace.error for trace in traces if trace.error]
    return sum(trace.score for trace in traces) / len(traces)


def gain(project, proposal):
    first = first_candidate(project, None, None)
    return share_right(project, proposal.candidate, proposal.files) - share_right(project, first)


def test_right_answers_are_shown_at_requests_like_them_and_that_helps(tmp_path):
    made = propose(desk(), tmp_path)
    assert made.candidate.topology.recalls == 4
    assert made.note == "Remembers 64 right answers and shows the 4 most like the request."
    assert gain(desk(), made) > 0.5
    none_shown = made.candidate.model_copy(
        update={"topology": made.candidate.topology.model_copy(update={"recalls": 0})}
    )
    assert gain(desk(), made.model_copy(update={"candidate": none_shown})) == 0


def test_answers_that_are_all_different_are_all_remembered_and_people_s_stand_beside_them(tmp_path):
    free = [example(request, f"Dear customer {n}, we looked.", n) for n, request in enumerate(TRAIN)]
    free += [example(HELD[0], {"team": "heron"}, 99, source="human")]
    made = propose(desk(), tmp_path, examples=free)
    kept = Memory.load(made.files["memory"]).experiences
    assert len({step.said for step in kept}) == len(free)
    assert {step.said for step in kept if step.source == "human"} == {'{"team": "heron"}'}
    assert "65 right answers, 1 of them by people" in made.note
    assert propose(desk(), tmp_path, Replay(recalls=2), examples=free).candidate.topology.recalls == 2


def test_what_is_too_long_to_be_shown_is_left_out_and_said(tmp_path):
    long = example(TRAIN[0], "word " * 3000, 1)
    made = propose(desk(), tmp_path, examples=[long, *KNOWN[1:5]])
    assert "4 right answers" in made.note
    assert "1 longer than 8,000 characters are left out" in made.note


def test_code_that_never_asks_for_examples_gets_the_best_few_in_its_prompt(tmp_path):
    made = propose(desk(without_examples), tmp_path)
    assert made.candidate.memory is None
    demos = made.candidate.predictors["desk-system"].demos
    assert len(demos) == 4
    assert {demo.case_id for demo in demos} <= set(made.seen_case_ids)
    assert "4 in desk-system; its code asks for none" in made.note
    assert gain(desk(without_examples), made) > 0.1


def test_code_without_prompt_and_examples_is_told_what_to_add(tmp_path):
    bare = desk(lambda request: answer([said("user", request)]), parts=[])
    with pytest.raises(NothingToPropose, match=r"call `ratchet\.examples"):
        propose(bare, tmp_path)


def test_an_agent_that_fails_at_an_example_is_asked_at_another(tmp_path):
    number = count()

    def flaky(request: str) -> str:
        if next(number) == 0:
            raise LMFailure("garbage")
        return with_examples(request)

    assert propose(desk(flaky), tmp_path).candidate.memory


def a_run(request, about, score=1.0):
    told = f"{request}\nTopic: {about}"
    team = TOPICS[topics()[request]]
    steps = (
        Step(actor="desk-topic", observation="an example", action=respond("shown, not said")),
        Step(actor="desk-topic", observation=request, action=respond(about)),
        Step(actor="desk-system", observation=told, action=respond(team)),
        Step(observation=request, action=respond(team)),
    )
    return Trace(
        trace_id=f"{hash(request) & 0xFFFF:032x}", case=Case(inputs={"request": request}), candidate_id="c",
        started_at=NOW, latency_s=0, attempts=(Attempt(steps=steps, outcome=Outcome(score=score)),),
    )  # fmt: skip


def test_of_an_agent_with_several_prompts_each_keeps_what_it_said_in_runs_that_won(tmp_path):
    both = desk(of_two_prompts, parts=[TOPIC, SYSTEM])
    runs = [a_run(request, topics()[request]) for request in TRAIN] + [a_run(HELD[0], "payments", score=0)]
    made = propose(both, tmp_path, rollouts=runs)
    assert set(made.candidate.memories) == {"desk-topic", "desk-system"}
    assert made.candidate.memory is None
    kept = Memory.load(made.files["memory.desk-topic"]).experiences
    assert {(step.observation, step.said) for step in kept} == {(r, topics()[r]) for r in TRAIN}
    assert "64 for desk-system, 64 for desk-topic" in made.note
    assert gain(both, made) > 0.5


def test_of_several_prompts_nobody_knows_who_said_what_without_traces_of_their_calls(tmp_path):
    with pytest.raises(NothingToPropose, match=r"trace its LM calls, such as with mlflow\.openai"):
        propose(desk(of_two_prompts, parts=[TOPIC, SYSTEM]), tmp_path)


def test_each_predictor_of_a_module_learns_from_what_it_said_when_we_play_it_and_from_what_a_retry_mends(
    tmp_path,
):
    with running() as llm:
        module = desk(Desk(llm.address, 2), parts=[])
        failed = [
            a_run(request, "payments", score=0).model_copy(update={"candidate_id": "unknown"})
            for request in HELD[:12]
        ]
        made = propose(module, tmp_path, examples=KNOWN[:24], rollouts=failed)
    shares = {name: Memory.load(made.files[f"memory.{name}"]).experiences for name in ("topic", "team")}
    assert set(made.candidate.memories) == set(shares)
    for step in shares["topic"]:
        assert step.said == topics()[step.observation]
    mended = {run.case.case_id for run in failed} & {step.case_id for step in shares["team"]}
    ours = {example.view.case_id for example in KNOWN[:24]} & {step.case_id for step in shares["team"]}
    assert mended
    assert ours
    assert all(json.loads(step.observation).keys() == {"request", "topic"} for step in shares["team"])


def test_what_another_s_log_answered_at_requests_like_these_is_remembered_too(tmp_path):
    def theirs(place, observation, content):
        return Experience(
            observation=observation, action="respond", arguments={"content": content}, trace_id="b" * 32,
            case_id="other", source="own", goal=TRAIN[0], index=place, imported_from="imported:helpdesk",
        )  # fmt: skip

    library = Library()
    library.add([theirs(0, TRAIN[0] + " please", "heron"), theirs(1, "and now?", "lynx")])
    made = propose(desk(), tmp_path, examples=KNOWN[:4], memory=lambda: library)
    assert "of them from imported logs of helpdesk" in made.note
    kept = Memory.load(made.files["memory"]).experiences
    assert (TRAIN[0] + " please", "heron") in {(step.observation, step.said) for step in kept}
    none = propose(desk(), tmp_path, Replay(imported=0), examples=KNOWN[:4], memory=lambda: library)
    assert "imported" not in none.note


@pytest.mark.parametrize("proposer", [Lora(), Tools(), TeamSearch(), Trajectories()])
def test_what_changes_the_built_in_agent_alone_says_so(proposer, tmp_path):
    with pytest.raises(
        NothingToPropose, match="changes Ratchet's own agent only, and this one is a callable"
    ):
        propose(desk(), tmp_path, proposer)


def test_where_nothing_was_right_there_is_nothing_to_remember(tmp_path):
    with pytest.raises(NothingToPropose, match="of 0 examples none says what is right"):
        propose(desk(), tmp_path, examples=[])


def test_a_candidate_with_shares_is_read_back_as_it_was(tmp_path):
    runs = [a_run(request, topics()[request]) for request in TRAIN]
    made = propose(desk(of_two_prompts, parts=[TOPIC, SYSTEM]), tmp_path, rollouts=runs)
    read = type(made.candidate).from_json(made.candidate.to_json())
    assert read == made.candidate
    assert json.loads(made.candidate.to_json())["memories"] == made.candidate.memories
