"""DSPy's optimizers for a `dspy.Module`: they find the rules, pay what the budget says and no more, and go on."""

import json
import re
import threading
from collections import deque
from dataclasses import replace

import dspy
import pytest
from dspy.lm15 import Message, Response, TextPart, Usage

from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.case import Case
from ratchet.agent.environment import Observation
from ratchet.agent.errors import BadInput, LMFailure, NothingToPropose, ServiceUnavailable
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.module import applied
from ratchet.agent.optimize.budget import Budget
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.prompts.prompts import Prompts
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.work import Work
from ratchet.agent.part_values import PartValues
from ratchet.agent.parts import is_trial
from ratchet.agent.project import Project

RULES = {"card": "heron", "parcel": "lynx", "password": "wren"}
CASES = [
    Case(inputs={"request": f"{n}: my {word} is lost"}, expected=team)
    for n in range(12)
    for word, team in RULES.items()
]


class Scripted:
    """A scripted LM: right where its prompt holds the rule or an example of the word; writes the rules it is told.

    DSPy's engine interface, so that it is an LM like any other.
    """

    def __init__(self, breaks=lambda n: None, parsable=True):
        self.asked, self.written, self.breaks, self.parsable = [], 0, breaks, parsable
        self.lock = threading.Lock()

    def complete(self, request):
        texts = [part.text for m in request.messages for part in m.parts]
        prompt = "\n".join([str(request.system or ""), *texts])
        with self.lock:
            lucky = request.config.temperature == 1 and self.asked.count(prompt) % 2
            self.asked.append(prompt)
            n = len(self.asked)
        if error := self.breaks(n):
            raise error
        fields = re.findall(r"\[\[ ## (\w+) ## \]\]", texts[-1].rpartition("Respond with")[2])
        as_json = not fields
        fields = fields or re.findall(r"`(\w+)`", texts[-1].rpartition("Respond with")[2])
        said = {name: self.value(name, prompt, texts[-1], lucky) for name in fields if name != "completed"}
        if as_json:
            text = json.dumps(said) if self.parsable else "I would rather not say."
        else:
            shown = {n: v if isinstance(v, str) else json.dumps(v) for n, v in said.items()}
            text = "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in shown.items())
        return Response(
            id="1", model=request.model, message=Message.assistant([TextPart(text)]),
            finish_reason="stop", usage=Usage(input_tokens=7, output_tokens=2),
        )  # fmt: skip

    async def acomplete(self, request):
        return self.complete(request)

    def value(self, name, prompt, asked, lucky):
        if name == "team":
            word = next((w for w in RULES if f"my {w} " in asked), "")
            before = prompt.replace(asked, "")
            shown = re.search(
                rf"my {word} is lost(?:(?!my ).)*?## team ## \]\]\s*{RULES.get(word)}", before, re.S
            )
            return (
                RULES[word]
                if word and (lucky or shown or f"{word} goes to {RULES[word]}" in before)
                else "nobody"
            )
        if name in ("new_instruction", "proposed_instruction"):
            self.written += 1
            known = [w for w in RULES if f"{w} goes to" in asked]
            new = next(
                (w for w in RULES if w not in known and f"my {w} " in asked and RULES[w] in asked), None
            )
            told = [f"{w} goes to {RULES[w]}" for w in dict.fromkeys([*known, *([new] if new else [])])]
            return "Name the team. " + ". ".join(told)
        if name == "module_advice":
            self.written += 1
            return {"choose": "card goes to heron. parcel goes to lynx. password goes to wren."}
        return f"some {name}"


class Desk(dspy.Module):
    """One predictor, an LM's worth of state, and something that nobody can copy."""

    def __init__(self):
        super().__init__()
        self.choose = dspy.Predict(dspy.Signature("request -> team", "Name the team."))
        self.lock = threading.Lock()

    def forward(self, request):
        return self.choose(request=request)


def example(case):
    return Example(
        view=View(
            case_id=case.case_id, observation=Observation(text=case.inputs["request"]), inputs=case.inputs
        ),
        answer="respond",
        call=case.expected,
        trace_id=case.case_id,
    )


class Bench:
    """A project whose module asks a scripted LM."""

    def __init__(self, tmp_path, module=None, engine=None, writer=None, **project):
        self.engine, self.module = engine or Scripted(), module or Desk()
        awaited = type("Awaited", (), {"complete": self.engine.acomplete})()
        lm = dspy.LM("scripted", engine=self.engine, async_engine=awaited)
        for predictor in self.module.predictors():
            predictor.lm = lm
        told = {"score": lambda case, answer: float(answer == case.expected), "effects": "none"} | project
        self.project = Project(name="desk", agent=self.module, **told)
        self.parent = Registered(first_candidate(self.project, None, None))
        self.work = Work(
            folder=tmp_path,
            environment=self.project.environment,
            agent=lambda candidate, files: make_agent(
                self.project, candidate, files, endpoint={"concurrency": 2}
            ),
            writer=lambda candidate: writer,
        )
        self.evidence = Evidence(examples=[example(case) for case in CASES])

    def propose(self, optimizer, calls=None, budget=None, parent=None, **parameters):
        settings = Prompts(optimizer=optimizer, parameters=parameters, budget=budget or Budget(calls=400))
        work = replace(self.work, calls=calls or Calls())
        return made_by(settings, parent or self.parent, self.evidence, work)


QUICK = {
    "gepa": {"max_metric_calls": 150},
    "miprov2": {"num_candidates": 3, "num_trials": 4},
    "simba": {"bsize": 8, "num_candidates": 3, "max_steps": 2},
    "bootstrap": {"num_candidate_programs": 1, "max_labeled_demos": 6, "max_bootstrapped_demos": 1},
}


@pytest.mark.parametrize("optimizer", QUICK)
def test_each_optimizer_finds_what_helps_and_the_version_says_what_its_program_said(optimizer, tmp_path):
    bench = Bench(tmp_path)
    made = bench.propose(optimizer, **QUICK[optimizer])
    found = made.candidate.origin.parameters
    assert found["score_on_validation"] >= found["score_of_parent"] + 0.1
    assert made.candidate.origin.note.startswith("DSPy's ")
    assert made.candidate.parent == bench.parent.candidate.candidate_id
    assert made.cost["calls"] == len(bench.engine.asked), "each call is counted, none twice"
    assert made.cost["tokens"] == 9 * len(bench.engine.asked)
    known = {case.case_id for case in CASES}
    demos = [demo for predictor in made.candidate.predictors.values() for demo in predictor.demos]
    assert all(demo.case_id in known for demo in demos)
    assert demos or "goes to" in made.candidate.predictors["choose"].instructions

    served = applied(bench.module, PartValues(made.candidate))
    right = [served(request=case.inputs["request"]).team == case.expected for case in CASES]
    assert sum(right) / len(right) >= 0.5
    assert [p.signature.instructions for p in bench.module.predictors()] == ["Name the team."]


@pytest.mark.parametrize(
    ("optimizer", "calls"), [("gepa", 60), ("miprov2", 70), ("simba", 110), ("bootstrap", 45)]
)
def test_a_spent_budget_ends_an_optimizer_at_the_very_call_with_what_was_best_until_then(
    optimizer, calls, tmp_path
):
    bench = Bench(tmp_path)
    made = bench.propose(optimizer, budget=Budget(calls=calls), **QUICK[optimizer])
    assert len(bench.engine.asked) == calls
    assert f"ended early: the budget of {calls} calls is spent" in made.candidate.origin.note
    found = made.candidate.origin.parameters
    assert found["score_on_validation"] >= found["score_of_parent"] + 0.1


class Killed(BaseException):
    """As if the process had gone."""


@pytest.mark.parametrize(("optimizer", "after"), [("gepa", 40), ("bootstrap", 30)])
def test_after_a_kill_the_next_start_comes_to_the_same_version_and_pays_no_call_twice(
    optimizer, after, tmp_path
):
    whole = Bench(tmp_path)
    undisturbed = whole.propose(optimizer, **QUICK[optimizer])

    first = Bench(tmp_path, engine=Scripted(breaks=lambda n: Killed() if n > after else None))
    with pytest.raises(Killed):
        first.propose(optimizer, calls=Calls(tmp_path / "calls.db", "one"), **QUICK[optimizer])
    second = Bench(tmp_path, engine=Scripted())
    second.engine.asked = first.engine.asked[:after]
    again = second.propose(optimizer, calls=Calls(tmp_path / "calls.db", "one"), **QUICK[optimizer])
    assert again.candidate.candidate_id == undisturbed.candidate.candidate_id
    assert len(second.engine.asked) == len(whole.engine.asked)
    assert again.cost["calls"] == undisturbed.cost["calls"]


def test_texts_without_an_instruction_are_an_alarm_and_an_outage_is_no_failure_of_a_prompt(tmp_path):
    with pytest.raises(LMFailure, match=r"none of the \d+ texts of scripted held an instruction"):
        Bench(tmp_path, engine=Scripted(parsable=False)).propose("gepa", **QUICK["gepa"])
    gone = Bench(tmp_path, engine=Scripted(breaks=lambda n: ConnectionError("gone") if n > 20 else None))
    gone.module.choose.lm.num_retries = 0
    with pytest.raises(
        ServiceUnavailable, match=r"LM scripted did not answer: .*gone.*what was paid is kept"
    ):
        gone.propose("bootstrap", **QUICK["bootstrap"])
    assert len(gone.engine.asked) <= 22, "two at once, and then no more"
    broken = Bench(tmp_path, engine=Scripted(breaks=lambda n: KeyError("its own fault")))
    with pytest.raises(LMFailure, match=r"the module fails at each of 16 cases: .*its own fault"):
        broken.propose("bootstrap", **QUICK["bootstrap"])


@pytest.mark.parametrize(
    ("optimizer", "parameters", "message"),
    [
        (
            "miprov2",
            {"rules": 3},
            r"optimizer 'miprov2' takes no parameter 'rules': it takes auto, data_aware",
        ),
        (
            "gepa",
            {"reflection_lm": "openai/x"},
            "takes no parameter 'reflection_lm'.*LMs, cases, seed and threads",
        ),
        (
            "simba",
            {"bsize": 30},
            "optimizer 'simba' does not run with 20 training .* Trainset too small: 20 < 30",
        ),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused_in_a_line(optimizer, parameters, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        Bench(tmp_path).propose(optimizer, **parameters)


TRIALS = deque()


class Tolerant(dspy.Module):
    """Catches what its predictor raises, and looks whether it is a trial."""

    def __init__(self):
        super().__init__()
        self.choose = dspy.Predict(dspy.Signature("request -> team", "Name the team."))
        self.trials = TRIALS

    def forward(self, request):
        self.trials.append(is_trial())
        try:
            return self.choose(request=request)
        except Exception:  # noqa: BLE001  as users do
            return "nobody"


class Later(dspy.Module):
    """Asynchronous alone, of two predictors with one LM."""

    def __init__(self):
        super().__init__()
        self.steps = [dspy.ChainOfThought("request -> topic"), dspy.Predict("request, topic -> team")]

    async def aforward(self, request):
        topic = (await self.steps[0].acall(request=request)).topic
        return dspy.Prediction(team=(await self.steps[1].acall(request=request, topic=topic)).team)


def test_modules_that_catch_everything_or_are_asynchronous_alone_are_played_as_trials_within_the_budget(
    tmp_path,
):
    tolerant = Bench(tmp_path, module=Tolerant())
    made = tolerant.propose("bootstrap", budget=Budget(calls=45), **QUICK["bootstrap"])
    assert len(tolerant.engine.asked) == 45
    assert "ended early" in made.candidate.origin.note
    assert set(TRIALS) == {True}

    later = Bench(tmp_path, module=Later())
    made = later.propose("bootstrap", **QUICK["bootstrap"])
    shown = made.candidate.predictors["steps[1]"].demos
    assert all(demo.case_id for demo in shown)
    assert shown
    with pytest.raises(BadInput, match="the agent is not played again"):
        Bench(tmp_path, effects=None).propose("bootstrap")
    none = Bench(tmp_path)
    none.evidence = Evidence()
    with pytest.raises(NothingToPropose, match="at least 2 cases with a right answer, got 0"):
        none.propose("bootstrap")
