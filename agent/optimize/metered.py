"""LMs under a budget: what a proposer asks one is looked at before, counted, and kept as it ends.

Decision: the LM that a proposer is given is metered, not each place that asks it, so that a proposer of the user's
own is held, too. A text that is written is a call; what an LM in this process makes of given options is none, and
takes time and tokens all the same.
"""

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from ratchet.agent.bounded_call import GivenUp, call
from ratchet.agent.errors import OutOfTime
from ratchet.agent.kinds.program import Program
from ratchet.agent.lm.lm import LM, Prompt, Scores, Written
from ratchet.agent.lm.patience import given_up_after
from ratchet.agent.optimize.budget import Meter
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
