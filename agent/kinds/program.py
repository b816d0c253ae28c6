"""A `dspy.Module` built from a candidate: what one step of the agent is.

Two ways in, one behaviour: `forward` is the module that DSPy optimizes and a user calls; `decide` answers many
observations at once, which is how evaluation affords the embedded LM. Both ask the LM the same prompts.
"""

import copy
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import dspy
import numpy as np

from ratchet.agent.candidate import Candidate, Demo, OptionWeights, Predictor
from ratchet.agent.environment import Action, Observation, Option
from ratchet.agent.errors import BadInput, LMFailure
from ratchet.agent.kinds.decision import Decision, Scored, View
from ratchet.agent.kinds.tool_overrides import (
    as_shown,
    check_names,
    overridden,
    predictor_as_shown,
    shown_name,
)
from ratchet.agent.lm.lean_adapter import LeanAdapter, nearest
from ratchet.agent.lm.lm import Prompt
from ratchet.agent.lm.of_candidate import lm_for
from ratchet.agent.lm.prompt_format import choice_prompt
from ratchet.agent.lm.side_by_side import side_by_side
from ratchet.agent.lm.weights import EMBEDDED_MODEL
from ratchet.agent.memory.ranking import Query
from ratchet.agent.memory.similarity import option_similarity, words_of
from ratchet.agent.memory.snapshot import NEIGHBOURS, Memory, as_demos
from ratchet.agent.memory.steps import Recalled
from ratchet.agent.trace import Usage

__all__ = ["ARGUMENTS", "CHOOSE", "Decision", "Program", "Scored", "View", "base_candidate"]

CHOOSE = "choose"
ARGUMENTS = "arguments"
RULED_OUT = -1000.0
"""Weight (nats) of an option that must not be chosen: more than anything else can add."""


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
        """Get ready to act.

        Args:
            candidate: the agent.
            memory: the snapshot that the candidate names.
            adapter: the folder of the adapter that the candidate names.
            endpoint: `api_base`, `api_key`, `timeout` for an LM endpoint; without `api_base` the recorded one.

        Raises:
            BadInput: the candidate names a memory or an adapter that is not given, it is a team, or it runs on an
                endpoint whose address neither it nor `endpoint` says.
        """
        super().__init__()
        if candidate.topology.roles:
            raise BadInput(
                f"candidate {candidate.candidate_id} is a team of {len(candidate.topology.roles)}: "
                "build it with ratchet.agent.team.team.make_program, which makes a member of every role"
            )
        for kind, wanted, given in (
            ("memory", candidate.memory, memory),
            ("adapter", candidate.adapter, adapter),
        ):
            if wanted is not None and given is None:
                raise BadInput(
                    f"candidate {candidate.candidate_id} names {kind} {wanted} and none was given: "
                    "pass the file that was registered with it"
                )
        check_names(candidate.tools)
        self.candidate = candidate
        self.attempts = candidate.topology.attempts
        """Tries within one case."""
        self.memory = memory
        self.adapter = adapter
        self.endpoint = endpoint
        self.lm = lm_for(candidate, adapter, endpoint)
        predictor = predictor_as_shown(candidate.predictors[CHOOSE], candidate.tools)
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
        shown = as_shown(observation, self.candidate.tools)
        with dspy.context(lm=self.lm.dspy, adapter=LeanAdapter()):
            chosen = self.choose(
                request=request,
                options=list(shown.options),
                before=self._demos(recalled),
                notes=list(notes),
                prior=self.prior(observation, recalled, view.goal).tolist(),
            )
        names = [option.name for option in shown.options]
        if (theirs := observation.options[names.index(chosen.choice)].name) == chosen.choice:
            return chosen
        return dspy.Prediction(**{**chosen.toDict(), "choice": theirs})

    def decide(self, views: Sequence[View]) -> list[Decision]:
        """One decision per view, in order, as many at once as the LM takes."""
        return side_by_side(self.act, views, at_once=self.lm.at_once)

    def act(self, view: View) -> Decision:
        """The agent's next action: the option with the best score, or what the LM writes.

        Raises:
            LMFailure: what was written names no option; the agent's failure, not a crash.
        """
        if not (self.lm.scores_options and view.observation.options):
            return self._written(view)
        scored = self.score(view)
        index, confidence = pick(scored.log_scores, scored.names, view.tried)
        return Decision(
            action=Action(name=scored.names[index]),
            confidence=confidence,
            recalled=scored.recalled,
            usage=Usage(input_tokens=scored.input_tokens, lm_calls=1),
        )

    def _written(self, view: View) -> Decision:
        """What failed already is not offered: who writes cannot be told the second best."""
        if left := tuple(o for o in view.observation.options if o.name not in view.tried):
            observation = view.observation.model_copy(update={"options": left})
            view = view.model_copy(update={"observation": observation})
        prompt, observation, recalled = self.prompt(view)
        text, usage = self.lm.write(prompt)
        name = nearest(text, prompt.choices) if prompt.choices else text.strip()
        if not name and (prompt.choices or self.lm.writes):
            raise LMFailure(f"{self.lm.model} answered {text[:80]!r}, none of {list(prompt.choices)}")
        if prompt.choices:
            name = observation.options[prompt.choices.index(name)].name
        trace_ids = tuple(r.experience.trace_id for r in recalled)
        return Decision(action=Action(name=name), recalled=trace_ids, usage=usage)

    @property
    def at_once(self) -> int:
        """Cases that may be played at the same time: as many as the LM takes calls."""
        return self.lm.at_once

    def serving(self) -> "Program":
        """The same agent: what it does is up to the environment."""
        return self

    def single_attempt(self) -> "Program":
        """The same agent without retries: what the gate compares, since a retry needs to be told that it failed."""
        return self.with_attempts(1)

    def with_attempts(self, attempts: int) -> "Program":
        """The same agent with another number of tries; traces name the same candidate."""
        changed = copy.copy(self)
        changed.attempts = attempts
        return changed

    def with_memory(self, memory: Memory) -> "Program":
        """The same agent with another experience, to see what it does without a part of its own."""
        changed = copy.copy(self)
        changed.memory = memory
        return changed

    def with_weights(self, **weights: float) -> "Program":
        """The same agent with other weights beside the LM (fields of its topology)."""
        changed = copy.copy(self)
        topology = self.candidate.topology.model_copy(update=weights)
        changed.candidate = self.candidate.model_copy(update={"topology": topology})
        return changed

    def score(self, view: View) -> Scored:
        """What the LM and what stands beside it make of each option; of an LM that scores options only."""
        prompt, observation, recalled = self.prompt(view)
        log_probs, input_tokens = self.lm.score(prompt)
        log_scores = log_probs + self.prior(observation, recalled, view.goal)
        names = tuple(option.name for option in observation.options)
        return Scored(names, log_scores, tuple(r.experience.trace_id for r in recalled), input_tokens)

    def prompt(self, view: View) -> tuple[Prompt, Observation, list[Recalled]]:
        """The LM's prompt for a view, the observation with the candidate's own options, and what was recalled.

        The prompt's choices are the observation's options, in order, under the names that the LM reads.
        """
        topology, tools = self.candidate.topology, self.candidate.tools
        observation = self._own(view.observation)
        k = max(topology.recalls, NEIGHBOURS)
        recalled = self._recall(view, observation, k)
        prompt = choice_prompt(
            predictor_as_shown(self.candidate.predictors[CHOOSE], tools),
            as_shown(observation, tools),
            recalled=self._demos(recalled),
            reflections=view.reflections,
            done=view.done,
            room=self.lm.room,
            n_extra=len(observation.options) - len(view.observation.options),
        )
        return prompt, observation, recalled

    def _recall(self, view: View, observation: Observation, k: int) -> list[Recalled]:
        if self.memory is None:
            return []
        names = tuple(option.name for option in observation.options)
        query = Query(observation=observation.text, exclude_case=view.case_id, goal=view.goal, offered=names)
        return self.memory.recall(query, k=k)

    def _demos(self, recalled: Sequence[Recalled]) -> list[Demo]:
        shown = as_demos(recalled[: self.candidate.topology.recalls])
        return [d.model_copy(update={"output": shown_name(self.candidate.tools, d.output)}) for d in shown]

    def features(self, observation: Observation, recalled: Sequence[Recalled], goal: str = "") -> np.ndarray:
        """What stands beside the LM: float64 [4, n_options].

        Similarity, the memory's vote, whether it is an own extra option, and whether it is one where the memory knows
        none of the offered options.
        """
        names = [option.name for option in observation.options]
        texts = [f"{words_of(option.name)} {option.description}" for option in observation.options]
        own = {option.name for option in self.candidate.extra_options}
        extra = np.array([float(name in own) for name in names])
        offered = {name for name in names if name not in own}
        vote, is_new = np.zeros(len(names)), False
        if self.memory:
            vote = self.memory.vote(self._voting(recalled, offered), names, goal or observation.text)
            is_new = self.memory.known_options.isdisjoint(offered)
        return np.stack([option_similarity(observation.text, texts), vote, extra, extra * is_new])

    def _voting(self, recalled: Sequence[Recalled], offered: Set[str]) -> Sequence[Recalled]:
        """Of other options nobody can have said that they do not fit; a vote for an extra option says this."""
        if not self.candidate.topology.extra_where_known:
            return recalled
        own = {option.name for option in self.candidate.extra_options}
        return [
            one
            for one in recalled
            if one.experience.action not in own or not offered.isdisjoint(one.experience.options)
        ]

    def prior(self, observation: Observation, recalled: Sequence[Recalled], goal: str = "") -> np.ndarray:
        """Weighted sum of the features, in nats: added to the LM's log-probabilities; float64 [n_options]."""
        weights = np.array(beside_the_lm(self.candidate.topology))
        if not weights.any():
            return np.zeros(len(observation.options))
        prior: np.ndarray = weights @ self.features(observation, recalled, goal)
        return prior

    def _own(self, observation: Observation) -> Observation:
        extra, tools = self.candidate.extra_options, self.candidate.tools
        if not observation.options or not (extra or tools):
            return observation
        options = tuple(overridden(option, tools) for option in (*observation.options, *extra))
        return observation.model_copy(update={"options": options})


def beside_the_lm(weights: OptionWeights) -> tuple[float, float, float, float]:
    """The weights of `Program.features`, in their order."""
    w = weights
    return w.retrieval_weight, w.recall_weight, w.extra_bias, RULED_OUT if w.extra_where_known else 0.0


def pick(score: np.ndarray, names: Sequence[str], tried: Sequence[str]) -> tuple[int, float]:
    """Best option that has not failed yet, and its probability among all."""
    weight = np.exp(score - score.max())
    allowed = np.array([name not in tried for name in names])
    best = int(np.where(allowed if allowed.any() else True, score, -np.inf).argmax())
    return best, float(weight[best] / weight.sum())


def base_candidate(
    instructions: str, *, model: str = EMBEDDED_MODEL, api_base: str | None = None, attempts: int = 1
) -> Candidate:
    """The agent on its first day: instructions and nothing learned; `api_base` is where its LM is asked."""
    predictors = {
        CHOOSE: Predictor(instructions=instructions),
        ARGUMENTS: Predictor(
            instructions="Write the function's arguments for the request as one JSON object. "
            "Leave out what the request does not say."
        ),
    }
    return Candidate(
        predictors=predictors, base_model=model, api_base=api_base, topology={"attempts": attempts}
    )
