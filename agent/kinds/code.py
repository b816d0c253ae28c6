"""An agent in the user's own Python, however it is written: how it is called, and whose failure it was.

One boundary says whose. What its clients ran into (no connection, 429, 5xx, a refused key) is not the agent's: it is
tried again where that can do no harm, then the case is left out. Everything else that the code raises is the agent's
own, and counts as a failure.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import tenacity

from ratchet.agent.bounded_call import GivenUp, call
from ratchet.agent.candidate import Candidate
from ratchet.agent.errors import LMFailure, OutOfTime, RatchetError, ServiceUnavailable, named
from ratchet.agent.kinds.answer import as_answer
from ratchet.agent.kinds.decision import Decision, View
from ratchet.agent.kinds.effects import Effects, require_replay
from ratchet.agent.kinds.whole import WholeAgent
from ratchet.agent.lm.patience import BUSY_S, RETRIES, is_from_outside, patience
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.record import Json

SECONDS: Final = 600.0
"""Until a call of the user's code is given up, unless a person says otherwise."""


class CodeAgent(WholeAgent):
    """An agent in the user's own Python code."""

    def __init__(
        self,
        candidate: Candidate,
        memories: Mapping[str, Memory] | None = None,
        *,
        effects: Effects | None = None,
        seconds: float = SECONDS,
        **settings: Any,
    ) -> None:
        """Get ready to answer.

        Args:
            candidate: the version.
            memories: its experience by prompt.
            effects: what the project says of its tools; None = it must not be played again.
            seconds: until a call is given up, where no limit of the project is shorter.
            settings: those of `WholeAgent`.
        """
        super().__init__(candidate, memories, **settings)
        self.effects, self.seconds = effects, seconds

    def act(self, view: View) -> Decision:
        """The whole answer as one action.

        Raises:
            BadInput: it would be played again although nobody said that this changes nothing outside.
        """
        if self.is_trial:
            require_replay(self.effects)
        return super().act(view)

    @property
    def may_repeat(self) -> bool:
        """Whether a failed call may be made again: not a real one, whose tools may have acted already."""
        return self.is_trial or self.effects == "none"

    def attempt(self, function: Callable[[], Any], seconds_left: float | None) -> Json:
        """What a call of the user's code answers, in the time that is left, tried again where that does no harm.

        Raises:
            LMFailure: the agent's own failure; `OutOfTime` where the project's limit ended it.
            ServiceUnavailable: no answer within the time that anybody would wait, and no limit says which that is.
        """
        began = time.perf_counter()
        until = self.seconds if seconds_left is None else min(seconds_left, self.seconds)

        def once() -> Any:
            return call(function, seconds=max(0.001, until - (time.perf_counter() - began)))

        try:
            tries = 1 + RETRIES if self.may_repeat else 1
            busy_s = BUSY_S if self.is_trial else 0.0  # who asks for real is not kept waiting
            return as_answer(tenacity.Retrying(**patience(tries, until_s=until, busy_s=busy_s))(once))
        except GivenUp as error:
            if until == seconds_left:
                raise OutOfTime(f"the agent gave {error} (limits.seconds): its call is given up") from error
            raise ServiceUnavailable(
                f"the agent gave {error}: its call is given up; set RATCHET_AGENT_TIMEOUT_S, or limits.seconds"
            ) from error
        except RatchetError:
            raise
        except (Exception, SystemExit) as error:
            if is_from_outside(error):
                raise
            raise LMFailure(f"the agent raised {named(error)}") from error
