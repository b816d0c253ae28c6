"""A `dspy.Module` as the agent: what its predictors are told under a version, and what is noted of them."""

import json
import threading
from datetime import UTC, datetime

import dspy
import pytest

from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.candidate import Demo, Predictor, share_label
from ratchet.agent.case import Case
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.callable import callable_candidate
from ratchet.agent.kinds.module import module_inputs, program_state
from ratchet.agent.lm.weights import EMBEDDED_MODEL
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.other_model import OtherModel
from ratchet.agent.optimize.proposer import Registered
from ratchet.agent.optimize.work import Work
from ratchet.agent.project import Project
from ratchet.agent.rollout.loop import run
from ratchet.flows.template.desk.scripted_llm import RULE, running

NOW = datetime(2026, 11, 25, tzinfo=UTC)
TOPIC, TEAM = "agents[0].predict", "by_step['team']"
REQUEST = "My card was charged twice."


class Desk(dspy.Module):
    """Two predictors with awkward names, and something in between that nobody can copy."""

    def __init__(self):
        super().__init__()
        self.agents = [dspy.ChainOfThought(dspy.Signature("request -> topic", "Name the topic."))]
        self.by_step = {"team": dspy.Predict(dspy.Signature("request, topic -> team", "Name the team."))}
        self.lock = threading.Lock()
        self.answered = []

    def forward(self, request: str) -> dspy.Prediction:
        topic = self.agents[0](request=request).topic
        with self.lock:
            self.answered.append(request)
        return dspy.Prediction(team=self.by_step["team"](request=request, topic=topic).team)


class LaterDesk(dspy.Module):
    def __init__(self):
        super().__init__()
        self.choose = dspy.Predict(dspy.Signature("request -> team", "Name the team."))

    async def aforward(self, request: str) -> dspy.Prediction:
        return await self.choose.acall(request=request)


class Sent(dspy.utils.callback.BaseCallback):
    """What was sent to LMs, and with which instance of an LM."""

    def __init__(self):
        self.prompts = []

    def on_adapter_format_end(self, call_id, outputs, exception):
        self.prompts.append("\n".join(str(message["content"]) for message in outputs))


@pytest.fixture
def sent():
    """An LM of `ratchet init`'s scripted endpoint, and what it is sent."""
    with running() as llm:
        told = Sent()
        lm = dspy.LM("openai/scripted", api_base=llm.address, api_key="x")
        with dspy.context(lm=lm, callbacks=[told]):
            told.llm = llm
            yield told


def desk(module, **changes):
    project = Project(
        name="desk", agent=module, effects="none", score=lambda case, answer: float(answer == "heron")
    )
    first = first_candidate(project, None, None)
    return project, first.model_copy(update=changes) if changes else first


def play(module, candidate, files=(), n=1):
    project, _ = desk(module)
    agent = make_agent(project, candidate, dict(files))
    cases = [Case(inputs={"request": f"{REQUEST}{' ' * i}"}) for i in range(n)]
    return run(agent, cases, project.environment, at=lambda _: NOW)


def test_a_version_s_prompts_and_examples_are_the_predictors_and_the_module_stays_as_it_is(sent):
    module = Desk()
    _, first = desk(module)
    assert first.predictors == {
        TOPIC: Predictor(instructions="Name the topic."),
        TEAM: Predictor(instructions="Name the team."),
    }
    fitting = Demo(inputs='{"request": "Card refused.", "topic": "payments"}', output="heron")
    worded = Demo(inputs="Anything else", output="lynx")
    changed = first.model_copy(
        update={
            "predictors": {
                TOPIC: Predictor(instructions=f"Name the topic. {RULE}"),
                TEAM: Predictor(instructions=f"Name the team. {RULE}", demos=(fitting, worded)),
            }
        }
    )
    (trace,) = play(module, changed)
    assert (trace.error, trace.answer, trace.score) == (None, "heron", 1)
    asked = sent.prompts[-1]
    assert "→ lynx" in asked  # in words, since it has not the predictor's fields
    assert "[[ ## topic ## ]]\npayments" in asked  # as DSPy shows its own
    assert module.answered == []
    assert [p.signature.instructions for p in module.predictors()] == ["Name the topic.", "Name the team."]

    state = json.loads(json.dumps(program_state(module, changed)))
    fresh = Desk()
    fresh.load_state(state)
    assert fresh.by_step["team"].demos[0]["topic"] == "payments"
    assert fresh(request=REQUEST).team == "heron"
    assert sent.prompts[-1] == asked  # what a process without us says is what was proven


def test_each_predictor_s_call_is_noted_and_its_own_share_of_experience_shown_to_it_alone(sent, tmp_path):
    module = Desk()
    _, first = desk(module)

    def share(observation, said):
        memory = Memory(
            [
                Experience(
                    observation=observation,
                    action="respond",
                    arguments={"content": said},
                    trace_id="t1",
                    case_id="c1",
                    source="own",
                )
            ]
        )
        memory.save(path := tmp_path / f"{memory.memory_id}.jsonl")
        return memory.memory_id, path

    own, path = share("My card was refused.", {"reasoning": "money", "topic": "payments"})
    whole, whole_path = share("My card was refused.", "heron")
    candidate = first.model_copy(
        update={
            "memories": {TOPIC: own},
            "memory": whole,
            "topology": first.topology.model_copy(update={"recalls": 1}),
        }
    )
    (trace,) = play(module, candidate, {share_label(TOPIC): path, "memory": whole_path})
    topic, team = trace.attempts[0].steps[0].parts
    assert (topic.actor, topic.observation, topic.recalled) == (TOPIC, REQUEST, ("t1",))
    assert set(json.loads(topic.said)) == {"reasoning", "topic"}
    assert (team.actor, json.loads(team.observation)["request"], team.recalled) == (TEAM, REQUEST, ())
    assert team.said == trace.answer
    assert trace.attempts[0].recalled == ("t1",)
    assert "[[ ## reasoning ## ]]\nmoney" in sent.prompts[0]
    assert (
        "refused" not in sent.prompts[1]
    )  # the whole agent's answers are no example of one of its predictors
    assert trace.usage.lm_calls == 2
    assert trace.usage.input_tokens > 0


def test_an_lm_is_asked_anew_at_every_trial_and_the_one_that_the_version_names(sent):
    module, before = Desk(), sent.llm.calls
    _, first = desk(module)
    for _ in range(2):
        play(module, first)
    assert sent.llm.calls - before == 4
    with running() as other:
        named = first.model_copy(update={"base_model": "openai/other", "api_base": other.address})
        project, _ = desk(module)
        agent = make_agent(project, named, {}, endpoint={"api_key": "x"})
        run(agent, [Case(inputs={"request": REQUEST})], project.environment, at=lambda _: NOW)
        assert other.calls == 2
    assert sent.llm.calls - before == 4


def test_a_module_that_is_asynchronous_alone_and_a_bare_predictor_are_agents_too(sent):
    told = Predictor(instructions=f"Name the team. {RULE}")
    for module in (LaterDesk(), dspy.Predict("request -> team"), dspy.ChainOfThought("request -> team")):
        _, first = desk(module)
        (name,) = first.predictors
        traces = play(module, first.model_copy(update={"predictors": {name: told}}), n=3)
        teams = [t.answer if isinstance(t.answer, str) else t.answer["team"] for t in traces]
        assert teams == ["heron"] * 3
    assert module_inputs(dspy.Predict("question -> team"), {"request": "r"}, "r") == {"question": "r"}


def test_compiled_examples_are_part_of_the_first_version_and_what_json_cannot_hold_stays(sent):
    module = LaterDesk()
    image = dspy.Image(url="http://127.0.0.1/a.png")
    module.choose.demos = [dspy.Example(request=image, team="wren", augmented=True)]
    _, first = desk(module)
    assert first.predictors["choose"].demos[0].output == "wren"
    play(module, first)
    assert "http://127.0.0.1/a.png" in sent.prompts[-1]
    assert program_state(module, first)["choose"]["demos"]


def test_a_module_without_an_lm_is_told_so_in_a_line():
    module = LaterDesk()
    _, first = desk(module)
    with dspy.context(lm=None):
        (trace,) = play(module, first)
    assert trace.error.kind == "infrastructure"
    assert "call dspy.configure(lm=…) in project.py" in trace.error.message


def test_a_version_with_an_adapter_answers_with_it(tmp_path):
    project = Project(name="desk", agent=dspy.Predict("request -> team"), effects="none")
    plain = first_candidate(project, EMBEDDED_MODEL, None)
    trained = plain.model_copy(update={"adapter": "a1"})
    agents = [
        make_agent(project, one, {"adapter": tmp_path} if one.adapter else {}) for one in (plain, trained)
    ]
    assert [agent.lm.adapter for agent in agents] == [None, tmp_path]


def test_another_lm_is_a_challenger_of_a_module_and_nothing_for_a_callable_that_names_its_own(sent, tmp_path):
    module = LaterDesk()
    _, first = desk(module)
    proposal = OtherModel(model="openai/other", at="http://127.0.0.1:9/v1").propose(
        Registered(first), Evidence(), Work(folder=tmp_path)
    )
    assert proposal.candidate.base_model == "openai/other"
    assert proposal.candidate.kind == "module"
    with pytest.raises(NothingToPropose, match=r"ratchet\.model"):
        OtherModel(model="x").propose(Registered(callable_candidate([])), Evidence(), Work(folder=tmp_path))


class ParallelDesk(dspy.Module):
    """Asks in DSPy's own threads, which no context variable follows."""

    def __init__(self):
        super().__init__()
        self.choose = dspy.Predict(dspy.Signature("request -> team", "Name the team."))

    def forward(self, request: str) -> dspy.Prediction:
        ask = dspy.Parallel(num_threads=2, disable_progress_bar=True)
        first, second = ask([(self.choose, {"request": request}), (self.choose, {"request": f"{request}!"})])
        return dspy.Prediction(team=first.team, again=second.team)


def test_a_module_s_own_threads_know_the_version_that_is_played(sent):
    module = ParallelDesk()
    _, first = desk(module)
    told = first.model_copy(update={"predictors": {"choose": Predictor(instructions=f"Name it. {RULE}")}})
    (trace,) = play(module, told)
    assert (trace.error, trace.answer) == (None, {"team": "heron", "again": "heron"})
    assert [part.actor for part in trace.attempts[0].steps[0].parts] == ["choose", "choose"]
