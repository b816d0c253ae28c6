"""What agents that answer a case whole have in common: a callable, a module, a chat endpoint.

Decision: they are all played the same way. Their parts have the candidate's values while they answer, in the text in
which they are served; what they were shown is noted; the answer is one action.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

from ratchet.agent.candidate import Candidate
from ratchet.agent.environment import respond
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.decision import Decision, View
from ratchet.agent.lm.endpoint import CONCURRENCY
from ratchet.agent.lm.lm import LM
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.part_values import PartValues
from ratchet.agent.parts import Playing, playing
from ratchet.agent.record import Json


class WholeAgent(ABC):
    """One candidate of such an agent, ready to answer. Safe for use from several threads."""

    def __init__(
        self,
        candidate: Candidate,
        memories: Mapping[str, Memory] | None = None,
        *,
        at_once: int = CONCURRENCY,
        lm: LM | None = None,
    ) -> None:
        """Get ready to answer.

        Args:
            candidate: the version.
            memories: its experience by prompt; `ratchet.agent.part_values.WHOLE` is what all prompts share.
            at_once: cases that may be played at the same time.
            lm: what writes reflections; None = a template stands in.
        """
        self.candidate = candidate
        self.attempts = candidate.topology.attempts
        self.memories = dict(memories or {})
        self.lm = lm
        self.at_once = at_once
        self.is_trial = True
        self.asked: set[str] = set()
        """Kinds and names of the parts that its code asked for until now, such as `prompt support-system`."""

    @abstractmethod
    def answer(self, view: View, now: Playing) -> Json:
        """The answer to a case, text or JSON; called in a context in which parts have the candidate's values.

        Raises:
            LMFailure: there is none that can be used.
        """

    def act(self, view: View) -> Decision:
        """The whole answer as one action."""
        shown = self.candidate.topology.reflections
        values = PartValues(
            self.candidate,
            self.memories,
            exclude_case=view.case_id if self.is_trial else "",
            notes=view.reflections[-shown:] if shown else (),
        )
        with playing(values, trial=self.is_trial) as now:
            try:
                content = self.answer(view, now)
            finally:
                self.asked |= now.asked
        if now.lost:
            raise BadInput(
                f"{now.lost} was read in a thread that does not know which version is played: "
                "hand the thread `ratchet.carried(function)`"
            )
        recalled = tuple(dict.fromkeys(now.recalled))
        return Decision(action=respond(content), parts=tuple(now.said), recalled=recalled, usage=now.usage)

    def with_attempts(self, attempts: int) -> Self:
        """The same agent with another number of tries; traces name the same candidate."""
        changed = copy.copy(self)
        changed.attempts = attempts
        return changed

    def single_attempt(self) -> Self:
        """The same agent without retries."""
        return self.with_attempts(1)

    def serving(self) -> Self:
        """The same agent for real requests."""
        changed = copy.copy(self)
        changed.is_trial = False
        return changed
