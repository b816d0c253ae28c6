"""LMs under a budget: what a proposer asks one is looked at before, counted, and kept as it ends.

Decision: the LM that a proposer is given is metered, not each place that asks it, so that a proposer of the user's
own is held, too. A text that is written is a call; what an LM in this process makes of given options is none, and
takes time and tokens all the same.
"""

import copy
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

import dspy
from dspy.lm15 import Message, Request, Response, TextPart
from dspy.lm15 import Usage as DspyUsage
from pydantic_core import to_jsonable_python

from ratchet.agent.bounded_call import GivenUp, call
from ratchet.agent.errors import BadInput, OutOfTime
from ratchet.agent.kinds.agent import Agent
from ratchet.agent.kinds.program import Program
from ratchet.agent.lm.lm import LM, Prompt, Scores, Written
from ratchet.agent.lm.patience import given_up_after
from ratchet.agent.optimize.budget import BudgetSpent, Meter, Stopped
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.record import Json
from ratchet.agent.trace import Usage


def metered(program: Program, meter: Meter, calls: Calls) -> Program:
    """The same agent on metered LMs, each member of a team on its own."""
    from ratchet.agent.team.team import Team

    changed = copy.copy(program)
    changed.lm = metered_lm(program.lm, meter, calls)
    if isinstance(changed, Team):
        changed.members = {name: metered(one, meter, calls) for name, one in changed.members.items()}
    return changed


def kept_within(agent: Agent, calls: Calls) -> Agent:
    """The same agent, whose calls of an endpoint's LM are kept one by one: its case is what is counted.

    A module's are not: what its predictors ask is kept where an optimizer plays it.
    """
    free = Meter()
    if isinstance(agent, Program):
        return agent if agent.lm.scores_options else metered(agent, free, calls)
    if agent.lm is None or agent.candidate.kind == "module":
        return agent
    changed = copy.copy(agent)
    changed.lm = metered_lm(agent.lm, free, calls)
    return changed


def metered_lm(lm: LM, meter: Meter, calls: Calls) -> LM:
    """The same LM under this budget; one that is under it already as it is."""
    return lm if isinstance(lm, MeteredLM) else cast("LM", MeteredLM(lm, meter, calls))


def paid_once(
    meter: Meter, calls: Calls, ask: Callable[[], tuple[Json, Usage]], *content: Json
) -> tuple[Json, Usage]:
    """What `ask` comes to: counted before, kept as it ends, and not asked again in this proposal.

    Args:
        meter: the budget, whose `call_seconds` ends a call that hangs.
        calls: what was paid before.
        ask: makes the call; gives what is to be kept and what it used.
        content: all that the answer depends on.

    Raises:
        BudgetSpent: it does not fit into the budget.
        OutOfTime: no answer within `call_seconds`.
    """
    meter.take()
    if (kept := calls.kept(*content)) is not None and isinstance(kept.value, dict):
        usage = Usage.model_validate(kept.value["usage"])
        meter.charge(usage, kept_s=kept.seconds)
        return kept.value["said"], usage
    began, most = time.perf_counter(), meter.budget.call_seconds
    try:
        with given_up_after(most):
            said, usage = ask() if most is None else call(ask, seconds=most)
    except GivenUp as error:
        raise OutOfTime(f"{error} (budget.call_seconds): the call is given up") from error
    meter.charge(usage)
    value: Json = {"said": said, "usage": usage.model_dump(mode="json")}
    calls.keep(*content, value=value, seconds=time.perf_counter() - began)
    return said, usage


class MeteredLM:
    """An LM as a proposer asks it; whatever is not asked here is the LM's own."""

    def __init__(self, lm: LM, meter: Meter, calls: Calls) -> None:
        self._lm, self._meter, self._calls = lm, meter, calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)

    @cached_property
    def dspy(self) -> dspy.LM:
        """The same LM for DSPy's modules, under the same budget; `Stopped` ends a search where it is spent."""
        known = copy.copy(self._lm.dspy)
        known.__class__ = type(known.__class__.__name__, (_MeteredDspy, known.__class__), {})
        known.ratchet_lm = self
        return known

    def answer(self, request: Request, ask: Callable[[], Response]) -> Response:
        """What `ask` answers to a request of DSPy's; of an LM that only scores options only time counts.

        Raises:
            Stopped: no budget is left. No `Exception`, which DSPy would take for a wrong answer.
        """

        def text_of() -> tuple[Json, Usage]:
            response = ask()
            n_in, n_out = response.usage.input_tokens or 0, response.usage.output_tokens or 0
            cost = self._lm.price_usd(n_in, n_out) or 0.0
            usage = Usage(input_tokens=n_in, output_tokens=n_out, lm_calls=1, cost_usd=cost)
            return response.message.text or "", usage

        try:
            if self._lm.scores_options:
                self._meter.take(0)
                return ask()
            content = to_jsonable_python(request, fallback=repr)
            said, usage = paid_once(self._meter, self._calls, text_of, "dspy", self._lm.model, content)
        except BudgetSpent as spent:
            raise Stopped(spent) from None
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant([TextPart(str(said))]),
            finish_reason="stop",
            usage=DspyUsage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "MeteredLM":
        return self  # DSPy copies programs, and what a copy spends is spent of the same budget

    def write(self, prompt: Prompt, *, time_asked: int = 0, **settings: Any) -> Written:
        """What it answers, under the budget; the same prompt with another `time_asked` is another call."""

        def ask() -> tuple[Json, Usage]:
            written = self._lm.write(prompt, **settings)
            return written.text, written.usage

        weights = self._lm.dspy.model  # its name in candidates says nothing of an adapter
        content = ("write", weights, [*prompt], [str(one) for one in settings.items()], time_asked)
        said, usage = paid_once(self._meter, self._calls, ask, *content)
        return Written(str(said), usage)

    def score(self, prompt: Prompt) -> Scores:
        """The log-probabilities of the prompt's choices."""
        self._meter.take(0)
        scores = self._lm.score(prompt)
        self._meter.charge(Usage(input_tokens=scores.input_tokens, lm_calls=1), kept_s=0.0)
        return scores

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> list[Written]:
        """How it goes on."""
        self._meter.take(0)
        written = self._lm.complete(prompts, max_tokens=max_tokens)
        for one in written:
            self._meter.charge(one.usage, kept_s=0.0)
        return written


class _MeteredDspy:
    """In front of an LM's own class, so that DSPy takes it for what it is."""

    ratchet_lm: MeteredLM

    def __call__(self, *asked: Any, **settings: Any) -> Any:
        own: Any = super()
        if len(asked) != 1 or not isinstance(asked[0], Request):  # another adapter than the lean one
            raise BadInput("a proposer's LM is asked by `LeanAdapter` or `Work.write`, which count its calls")
        return self.ratchet_lm.answer(asked[0], lambda: own.__call__(*asked, **settings))

    def __deepcopy__(self, memo: dict[int, Any]) -> "_MeteredDspy":
        return self
