"""The licence to grade training data: earned on random audits, held as long as they bear it out, and its history.

Guarantee. Let a judge's TPR (or TNR, or κ, each on its audits as they come) never exceed its floor while it is
audited. Then the probability that any such judge of the project ever holds a licence is at most `alpha`, however
often one looks. Why: each bound is a confidence sequence, which may be looked at after every audit, and each
sequence has a start fixed beforehand: the first audit of a judge, or after drift, or a multiple of the window later.
The v-th time that audits begin anew, window b is given alpha · 6/(π²v²) · 6/(π²b²), which sums to alpha. All three
bounds must clear, so a judge that fails one floor needs that one bound to be wrong: alpha is not divided among them.
A window that slid with each audit would have no such start. What can be lost wrongly is only time: a judge that is
good earns its licence again.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from pydantic import Field

from ratchet.agent.record import Record
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.judge.agreement import Agreement, Audit, agreement
from ratchet.evaluation.judge.bounds import anytime_high, anytime_low
from ratchet.evaluation.judge.judge import RIGHT
from ratchet.evaluation.judge.settings import JudgeSettings

_DRIFT: Final = "the traffic drifted"
_BASEL: Final = 6 / math.pi**2
"""So that 1/1² + 1/2² + … times it is 1."""


class LicenceEvent(Record):
    """A judge is made, or its licence granted or lost."""

    at: datetime
    kind: Literal["made", "granted", "lost"]
    judge_id: str
    rubric_version: str = "1"
    reason: str = ""
    n_audits: int = Field(default=0, ge=0)
    tpr: float = Field(default=0.0, ge=0, le=1)
    """Lower bound, as are the others."""
    tnr: float = Field(default=0.0, ge=0, le=1)
    kappa: float = Field(default=0.0, ge=-1, le=1)
    weight: float = Field(default=0.0, ge=0, le=1)
    """What a label of this judge weighs beside a person's."""


class Licence(Record):
    """Every judge of a project, and what became of its licence."""

    history: tuple[LicenceEvent, ...] = ()

    @property
    def judge_id(self) -> str | None:
        """The judge made last; None = none was."""
        return self.history[-1].judge_id if self.history else None

    @property
    def holds(self) -> bool:
        """Whether that judge may grade training data now."""
        return bool(self.history) and self.history[-1].kind == "granted"

    @property
    def weight(self) -> float:
        """Of its labels beside a person's; 0 without a licence."""
        return self.history[-1].weight if self.holds else 0.0

    @property
    def n_starts(self) -> int:
        """How often audits began anew, with another judge or after drift; each start spends a share of `alpha`."""
        return sum(event.kind == "made" or _by_drift(event) for event in self.history)


def approved_by(licence: Licence, labels: Sequence[Label]) -> set[str]:
    """Traces whose answer the judge approved; none without a licence, and none by a judge before it."""
    if not licence.holds:
        return set()
    return {
        one.trace_id
        for one in labels
        if one.source == "judge" and one.rater == licence.judge_id and (one.score or 0.0) >= RIGHT
    }


def made(licence: Licence, judge_id: str, rubric_version: str, reason: str, *, now: datetime) -> Licence:
    """With another judge, which has no licence yet; one that the last judge held is lost."""
    first = lost(licence, f"another judge took its place: {reason}", now) if licence.holds else licence
    event = LicenceEvent(at=now, kind="made", judge_id=judge_id, rubric_version=rubric_version, reason=reason)
    return Licence(history=(*first.history, event))


def renewed(
    licence: Licence,
    audits: Sequence[Audit],
    settings: JudgeSettings,
    *,
    drifted: str = "",
    now: datetime,
) -> Licence:
    """The licence of the judge made last, after these audits; the same where nothing changed.

    Args:
        licence: as it was.
        audits: all of this judge's, in the order in which people answered; none of which it was made from.
        settings: floors and window.
        drifted: what changed in the traffic, while an alarm stands; "" = none does.
        now: the moment.
    """
    if not licence.history:
        return licence
    if drifted:
        return lost(licence, f"{_DRIFT}: {drifted}", now) if licence.holds else licence
    fresh = recent_audits(licence, audits)
    found = standing(fresh, settings, n_starts=licence.n_starts)
    short = shortfalls(found, settings)
    if short and licence.holds:
        return lost(licence, "audits no longer bear it out: " + "; ".join(short), now, found)
    if short or licence.holds:
        return licence
    return Licence(
        history=(*licence.history, _event(licence, "granted", "its bounds clear the floors", now, found))
    )


def standing(audits: Sequence[Audit], settings: JudgeSettings, *, n_starts: int = 1) -> Agreement:
    """Agreement on the newest audits, with bounds that hold at every look (see the guarantee above)."""
    block = max(len(audits) // settings.window - 1, 0)
    share = settings.alpha * (_BASEL / n_starts**2) * (_BASEL / (block + 1) ** 2)
    recent = audits[block * settings.window :]
    return agreement(recent, alpha=share, low=anytime_low, high=anytime_high)


def shortfalls(found: Agreement, settings: JudgeSettings) -> list[str]:
    """Which floors the bounds do not clear, in words; none: it deserves the licence."""
    floors = (
        ("TPR", found.tpr.low, settings.rate_floor),
        ("TNR", found.tnr.low, settings.rate_floor),
        ("κ", found.kappa.low, settings.kappa_floor),
    )
    return [f"{name} ≥ {low:.2f}, the floor is {floor:.2f}" for name, low, floor in floors if low < floor]


def recent_audits(licence: Licence, audits: Sequence[Audit]) -> Sequence[Audit]:
    """Those that count: what was answered before the traffic drifted says nothing of how it judges now."""
    drifts = [event.at for event in licence.history if _by_drift(event)]
    return [audit for audit in audits if not drifts or audit.at > drifts[-1]]


def _by_drift(event: LicenceEvent) -> bool:
    return event.kind == "lost" and event.reason.startswith(_DRIFT)


def lost(licence: Licence, reason: str, now: datetime, found: Agreement | None = None) -> Licence:
    """Without the licence that it holds."""
    return Licence(history=(*licence.history, _event(licence, "lost", reason, now, found)))


def _event(
    licence: Licence,
    kind: Literal["granted", "lost"],
    reason: str,
    now: datetime,
    found: Agreement | None,
) -> LicenceEvent:
    last = licence.history[-1]
    event = LicenceEvent(
        at=now, kind=kind, judge_id=last.judge_id, rubric_version=last.rubric_version, reason=reason
    )
    if found is None:
        return event
    return event.model_copy(
        update={
            "n_audits": found.n,
            "tpr": found.tpr.low,
            "tnr": found.tnr.low,
            "kappa": found.kappa.low,
            "weight": found.reliability if kind == "granted" else 0.0,
        }
    )
