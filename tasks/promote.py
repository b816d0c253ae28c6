"""Approve and promote: of what is proven, the best; by a person, or by a policy that needs none."""

from prefect import task

from agent.record import Record
from infra.question_rounds import end_round
from infra.registry import promote, set_alias
from tasks.gate import Judged


class Decision(Record):
    """What a round came to."""

    best: str | None = None
    """The proven challenger with the largest lower bound of its gain."""
    promoted: bool = False
    reason: str


@task(name="promote")
def promote_best(name: str, judged: list[Judged], *, approved_by: str | None) -> Decision:
    """Point `challenger` to the best proven one, and `champion` too if a policy approves in advance."""
    proven = [j for j in judged if j.verdict.decision == "promote"]
    if not proven:
        end_round(name)
        tested = f"none of {len(judged)} challengers is proven to be better"
        nothing = (
            "no challenger was tested: nothing new was learned, or too few fresh cases are left for the gate"
        )
        return Decision(reason=f"{tested if judged else nothing}; the champion stays")
    best = max(proven, key=lambda j: (j.verdict.ci[0], j.verdict.gain or 0))
    set_alias(name, best.candidate_id, "challenger")
    end_round(name)
    if approved_by is None:
        reason = f"{best.verdict.reason}; waits for `ratchet approve {best.candidate_id}`"
        return Decision(best=best.candidate_id, reason=reason)
    promote(name, best.candidate_id, approved_by=approved_by, reason=best.verdict.reason)
    return Decision(best=best.candidate_id, promoted=True, reason=best.verdict.reason)
