"""Reflections: attempts that read what the failed one taught; and on single cases, made lasting, as worked examples.

An agent in the user's code, or behind an endpoint, is first given another attempt, where somebody tells it that it
failed: attempts and reflections are part of the candidate, and the gate plays them.

Of the built-in agent, and of one that has its attempts, what they taught becomes worked examples in the prompt. A
reflection counts only if the retry after it won. What is kept is where the winning attempt first did something
else than the failed one, and what it did: not the reflection's words, which may quote what an environment said and
must never become an instruction. Whether that helps is for the gate to say: in Reflexion's own numbers reflection
raises HumanEval and lowers MBPP. Source: Shinn et al., Reflexion (2023).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from pydantic import Field

from ratchet.agent.candidate import Demo
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.program import CHOOSE
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import Record, as_text
from ratchet.agent.trace import Trace

REFLECTIONS: Final = 3
"""What failed attempts taught that the next one reads."""


class Reflections(Record):
    """Show, as examples in the prompt, what retries did right where the agent had failed."""

    name: str = "reflections"
    most: int = Field(default=3, ge=1, le=8)
    """Corrections in the prompt; each costs about 40 tokens a call."""
    attempts: int = Field(default=2, ge=2, le=10)
    """Tries, each with what the failed ones taught, that an agent which answers a case whole is given."""

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The parent with another attempt; or with its commonest mistakes, put right, as examples.

        Its own demos stay and stand first.
        """
        before = parent.candidate
        if before.topology.roles:
            raise NothingToPropose("a team's roles learn from decisions: `replay` and `lora` improve each")
        if before.kind != "built-in" and before.topology.attempts < self.attempts:
            return self._another_attempt(parent, evidence, work)
        prompts = [CHOOSE] if before.kind == "built-in" else list(before.predictors)
        if len(prompts) != 1:
            raise NothingToPropose(f"which of {len(prompts)} prompts a correction belongs to is not known")
        known = corrections(evidence.rollouts)
        if not known:
            raise NothingToPropose(
                f"none of {len(evidence.rollouts)} runs won after a reflection: allow retries (attempts > 1)"
            )
        kept = _commonest(known, self.most)
        demos = tuple(Demo(inputs=one.observation, output=one.worked, case_id=one.case_id) for one in kept)
        old = before.predictors[prompts[0]]
        changed = old.model_copy(update={"demos": (*old.demos, *demos)})
        return Proposal(
            candidate=before.model_copy(update={"predictors": {**before.predictors, prompts[0]: changed}}),
            note=f"{len(kept)} corrections from {len(known)} failures that a retry put right: "
            + "; ".join(f"{one.worked} instead of {one.failed}" for one in kept),
            parameters={"corrections": len(known)},
        )

    def _another_attempt(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal:
        if not work.may_retry:
            raise NothingToPropose(
                "nobody tells the agent that it failed, or a second attempt could act twice: it needs "
                "Project(scores_itself=True) and, in Python, effects='none'"
            )
        scores = [trace.first_score for trace in evidence.own_rollouts if trace.first_score is not None]
        failed = sum(score < 1 for score in scores)
        if scores and not failed:
            raise NothingToPropose(f"none of {len(scores)} runs failed: there is nothing to try again")
        topology = parent.candidate.topology.model_copy(
            update={"attempts": self.attempts, "reflections": REFLECTIONS}
        )
        return Proposal(
            candidate=parent.candidate.model_copy(update={"topology": topology}),
            note=f"Up to {self.attempts} attempts, each with what the failed ones taught, wherever Ratchet calls the "
            f"agent (traffic, /v1/act); {failed} of {len(scores)} runs failed at the first.",
            parameters={"failed": failed, "runs": len(scores)},
        )


class Correction(Record):
    """Where a retry left the way that had failed."""

    observation: str
    failed: str
    """The action of the failed attempt."""
    worked: str
    """The action of the attempt that won."""
    case_id: str


def corrections(traces: Iterable[Trace]) -> list[Correction]:
    """One per trace whose last attempt won after a reflection, where both attempts saw the same and did otherwise."""
    found = []
    for trace in traces:
        if trace.error is not None or trace.score != 1 or len(trace.attempts) < 2:
            continue
        before, won = trace.attempts[-2:]
        if before.reflection is None:
            continue
        for failed, step in zip(before.steps, won.steps, strict=False):
            if failed.observation != step.observation:
                break
            if failed.action != step.action:
                found.append(
                    Correction(
                        observation=step.observation,
                        failed=as_text(failed.action.said),
                        worked=as_text(step.action.said),
                        case_id=trace.case.case_id,
                    )
                )
                break
    return found


def _commonest(known: Sequence[Correction], most: int) -> list[Correction]:
    """One per mistake (this instead of that), the commonest first; whatever order they came in."""
    counts = Counter((one.failed, one.worked) for one in known)
    first: dict[tuple[str, str], Correction] = {}
    for one in sorted(known, key=lambda t: t.case_id):
        first.setdefault((one.failed, one.worked), one)
    ordered = sorted(first, key=lambda pair: (-counts[pair], first[pair].case_id))
    return [first[pair] for pair in ordered[:most]]
