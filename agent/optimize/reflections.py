"""Reflections on single cases, made lasting: what they taught becomes worked examples in the prompt.

A reflection counts only if the retry after it won. What is kept is where the winning attempt first did something
else than the failed one, and what it did: not the reflection's words, which may quote what an environment said and
must never become an instruction. Whether that helps is for the gate to say: in Reflexion's own numbers reflection
raises HumanEval and lowers MBPP. Source: Shinn et al., Reflexion (2023).
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import Field

from ratchet.agent.candidate import Demo
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.program import CHOOSE
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.proposer import Proposal, Registered, Work
from ratchet.agent.record import Record
from ratchet.agent.trace import Trace


class Reflections(Record):
    """Show, as examples in the prompt, what retries did right where the agent had failed."""

    name: str = "reflections"
    most: int = Field(default=3, ge=1, le=8)
    """Corrections in the prompt; each costs about 40 tokens a call."""

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The parent with its commonest mistakes, put right, as examples; its own demos stay and stand first."""
        if parent.candidate.topology.roles:
            raise NothingToPropose("a team's roles learn from decisions: `replay` and `lora` improve each")
        known = corrections(evidence.rollouts)
        if not known:
            raise NothingToPropose(
                f"none of {len(evidence.rollouts)} runs won after a reflection: allow retries (attempts > 1)"
            )
        kept = _commonest(known, self.most)
        demos = tuple(Demo(inputs=one.observation, output=one.worked, case_id=one.case_id) for one in kept)
        predictors = dict(parent.candidate.predictors)
        before = predictors[CHOOSE]
        predictors[CHOOSE] = before.model_copy(update={"demos": (*before.demos, *demos)})
        return Proposal(
            candidate=parent.candidate.model_copy(update={"predictors": predictors}),
            note=f"{len(kept)} corrections from {len(known)} failures that a retry put right: "
            + "; ".join(f"{one.worked} instead of {one.failed}" for one in kept),
            parameters={"corrections": len(known)},
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
                        failed=failed.action.name,
                        worked=step.action.name,
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
