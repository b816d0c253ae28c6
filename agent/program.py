"""A `dspy.Module` built from a candidate: what one step of the agent is.

Two ways in, one behaviour: `forward` is the module that DSPy optimizes and a user calls; `decide` answers many
observations at once, which is how evaluation affords the embedded LM. Both ask the LM the same prompts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dspy
import numpy as np

from agent.candidate import Candidate, Predictor
from agent.embedded_lm import Prompt
from agent.environment import Action, Observation, Option
from agent.errors import LMFailure
from agent.lean_adapter import LeanAdapter, nearest
from agent.lm import embedded_lm, make_lm
from agent.memory import NEIGHBOURS, Memory, Recalled, as_demos
from agent.prompt_format import argument_prompt, choice_prompt, parse_arguments
from agent.record import Record
from agent.similarity import option_similarity, words_of
from agent.trace import Usage
from agent.weights import NAME

CHOOSE = "choose"
ARGUMENTS = "arguments"
FREE_TOKENS = 64
ARGUMENT_TOKENS = 64


class View(Record):
    """What a decision is taken from."""

    case_id: str
    observation: Observation
    reflections: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    """Actions that already failed at this case: not taken again."""


class Decision(Record):
    """What the agent does, and how sure it is."""

    action: Action
    confidence: float | None = None
    recalled: tuple[str, ...] = ()
    """Trace ids of the experiences that it was shown or that voted."""
    usage: Usage = Usage()


class Choose(dspy.Signature):  # type: ignore[misc]  # dspy ships no types
    """Pick the option that answers the request."""

    request: str = dspy.InputField()
    options: list[Any] = dspy.InputField()
    before: list[Any] = dspy.InputField()
    notes: list[str] = dspy.InputField()
    prior: list[float] = dspy.InputField()
    choice: str = dspy.OutputField()


class Program(dspy.Module):  # type: ignore[misc]  # dspy ships no types
    """One candidate, ready to act."""

    def __init__(
        self,
        candidate: Candidate,
        *,
        memory: Memory | None = None,
        adapter: Path | None = None,
        endpoint: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.candidate = candidate
        self.memory = memory
        self.adapter = adapter
        self.endpoint = endpoint or {}
        self.lm = make_lm(candidate.base_model, adapter=adapter, **self.endpoint)
        predictor = candidate.predictors[CHOOSE]
        self.choose = dspy.Predict(Choose.with_instructions(predictor.instructions))
        self.choose.demos = [
            dspy.Example(request=demo.inputs, choice=demo.output).with_inputs("request")
            for demo in predictor.demos
        ]

    def forward(
        self, request: str, options: list[Any], notes: Sequence[str] = (), case_id: str = ""
    ) -> dspy.Prediction:
        """Choose one option for one request, through DSPy; `case_id` keeps a case from recalling its own answer."""
        offered = tuple(Option.model_validate(option) for option in options)
        view = View(case_id=case_id, observation=Observation(text=request, options=offered))
        _, observation, recalled = self.prompt(view)
        described = [
            option.model_copy(
                update={"description": self.candidate.tools.get(option.name, option.description)}
            )
            for option in observation.options
        ]
        with dspy.context(lm=self.lm, adapter=LeanAdapter()):
            return self.choose(
                request=request,
                options=described,
                before=as_demos(recalled[: self.candidate.topology.recalls]),
                notes=list(notes),
                prior=self.prior(observation, recalled).tolist(),
            )

    def decide(self, views: Sequence[View]) -> list[Decision]:
        """One decision per view, in order."""
        if self.candidate.base_model == NAME:
            return _decide_embedded(self, views)
        return [_decide_by_endpoint(self, view) for view in views]

    def single_attempt(self) -> "Program":
        """The same agent without retries: what the gate compares, since a retry needs to be told that it failed."""
        topology = self.candidate.topology.model_copy(update={"attempts": 1})
        candidate = self.candidate.model_copy(update={"topology": topology})
        return Program(candidate, memory=self.memory, adapter=self.adapter, endpoint=self.endpoint)

    def prompt(self, view: View) -> tuple[Prompt, Observation, list[Recalled]]:
        """The LM's prompt for a view, the observation with the candidate's own options, and what was recalled."""
        topology = self.candidate.topology
        observation = self._own(view.observation)
        k = max(topology.recalls, NEIGHBOURS)
        recalled = self.memory.recall(observation.text, k=k, exclude_case=view.case_id) if self.memory else []
        prompt = choice_prompt(
            self.candidate.predictors[CHOOSE],
            observation,
            tools=self.candidate.tools,
            recalled=as_demos(recalled[: topology.recalls]),
            reflections=view.reflections,
        )
        return prompt, observation, recalled

    def features(self, observation: Observation, recalled: Sequence[Recalled]) -> np.ndarray:
        """What stands beside the LM: similarity, the memory's vote, own extra option; float64 [3, n_options]."""
        names = [option.name for option in observation.options]
        texts = [f"{words_of(option.name)} {option.description}" for option in observation.options]
        extra = {option.name for option in self.candidate.extra_options}
        return np.stack(
            [
                option_similarity(observation.text, texts),
                self.memory.vote(recalled, names) if self.memory else np.zeros(len(names)),
                np.array([float(name in extra) for name in names]),
            ]
        )

    def prior(self, observation: Observation, recalled: Sequence[Recalled]) -> np.ndarray:
        """Weighted sum of the features, in nats: added to the LM's log-probabilities; float64 [n_options]."""
        topology = self.candidate.topology
        weights = np.array([topology.retrieval_weight, topology.recall_weight, topology.extra_bias])
        if not weights.any():
            return np.zeros(len(observation.options))
        prior: np.ndarray = weights @ self.features(observation, recalled)
        return prior

    def _own(self, observation: Observation) -> Observation:
        extra = self.candidate.extra_options
        if not extra or not observation.options:
            return observation
        return observation.model_copy(update={"options": (*observation.options, *extra)})


def _decide_embedded(program: Program, views: Sequence[View]) -> list[Decision]:
    lm = embedded_lm()
    decisions = []
    for view in views:
        prompt, observation, recalled = program.prompt(view)
        before = lm.input_tokens
        if not prompt.choices:
            done = lm.generate([prompt], adapter=program.adapter, max_tokens=FREE_TOKENS)[0]
            usage = Usage(input_tokens=done.input_tokens, output_tokens=done.output_tokens, lm_calls=1)
            decisions.append(Decision(action=Action(name=done.text.strip()), usage=usage))
            continue
        score = lm.score([prompt], adapter=program.adapter)[0] + program.prior(observation, recalled)
        index, confidence = _pick(score, prompt.choices, view.tried)
        decisions.append(
            Decision(
                action=Action(name=prompt.choices[index]),
                confidence=confidence,
                recalled=tuple(r.experience.trace_id for r in recalled),
                usage=Usage(input_tokens=lm.input_tokens - before, lm_calls=1),
            )
        )
    return decisions


def _pick(score: np.ndarray, names: Sequence[str], tried: Sequence[str]) -> tuple[int, float]:
    """Best option that has not failed yet, and its probability among all."""
    weight = np.exp(score - score.max())
    allowed = np.array([name not in tried for name in names])
    best = int(np.where(allowed if allowed.any() else True, score, -np.inf).argmax())
    return best, float(weight[best] / weight.sum())


def _decide_by_endpoint(program: Program, view: View) -> Decision:
    """One call through LiteLLM; an answer that names no option is the agent's failure, not a crash."""
    if left := tuple(o for o in view.observation.options if o.name not in view.tried):
        observation = view.observation.model_copy(update={"options": left})
        view = view.model_copy(update={"observation": observation})
    prompt, _, recalled = program.prompt(view)
    adapter = LeanAdapter()
    response = program.lm(adapter.request(program.lm, {}, prompt))
    text = response.message.text or ""
    name = nearest(text, prompt.choices) if prompt.choices else text.strip()
    if not name:
        raise LMFailure(
            f"{program.candidate.base_model} answered {text[:80]!r}, none of {list(prompt.choices)}"
        )
    usage = Usage(
        input_tokens=response.usage.input_tokens or 0,
        output_tokens=response.usage.output_tokens or 0,
        lm_calls=1,
    )
    return Decision(
        action=Action(name=name), recalled=tuple(r.experience.trace_id for r in recalled), usage=usage
    )


def fill_arguments(program: Program, views: Sequence[View], actions: Sequence[Action]) -> list[Action]:
    """The chosen options' arguments, written by the LM in one batch; None where it wrote no JSON object."""
    predictor = program.candidate.predictors.get(ARGUMENTS)
    chosen = [
        (i, option, view)
        for i, (view, action) in enumerate(zip(views, actions, strict=True))
        for option in view.observation.options
        if option.name == action.name and option.parameters.get("properties")
    ]
    if predictor is None or not chosen or program.candidate.base_model != NAME:
        return list(actions)
    prompts = [argument_prompt(predictor, view.observation, option) for _, option, view in chosen]
    written = embedded_lm().generate(prompts, max_tokens=ARGUMENT_TOKENS)
    filled = list(actions)
    for (i, option, _), generation in zip(chosen, written, strict=True):
        filled[i] = Action(name=option.name, arguments=parse_arguments(generation.text, option))
    return filled


def base_candidate(instructions: str, *, model: str = NAME, attempts: int = 1) -> Candidate:
    """The agent on its first day: instructions and nothing learned."""
    predictors = {
        CHOOSE: Predictor(instructions=instructions),
        ARGUMENTS: Predictor(
            instructions="Write the function's arguments for the request as one JSON object. "
            "Leave out what the request does not say."
        ),
    }
    return Candidate(predictors=predictors, base_model=model, topology={"attempts": attempts})
