"""What people are told of their judge: how far it agrees with them, what moves it, and what it has to show yet."""

from collections.abc import Sequence

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Record
from ratchet.evaluation.judge.agreement import Agreement, Audit, Verdicts, agreement, by_slice
from ratchet.evaluation.judge.bias import PositionBias, VerbosityBias, verbosity_bias
from ratchet.evaluation.judge.corrections import CorrectedRate, ppi_mean, rogan_gladen
from ratchet.evaluation.judge.document import JudgeDocument
from ratchet.evaluation.judge.judge import RIGHT
from ratchet.evaluation.judge.licence import Licence, recent_audits, shortfalls, standing
from ratchet.evaluation.judge.settings import JudgeSettings


class SliceAgreement(Record):
    """Agreement in one slice, by one version of the rubric."""

    slice: str
    rubric_version: str
    agreement: Agreement


class JudgeReport(Record):
    """A judge as it stands."""

    judge_id: str
    kind: str
    rubric: str
    rubric_version: str
    n_labels: int
    licence: Licence
    whole: Agreement
    """On all audits, each bound at 95 % for one look."""
    standing: Agreement
    """On the newest audits, with the bounds that the licence rests on: they hold at every look."""
    missing: tuple[str, ...]
    """Floors that these do not clear."""
    slices: tuple[SliceAgreement, ...]
    verbosity: VerbosityBias
    position: PositionBias | None = None
    """None = nobody asked, or it grades answers alone and knows no first and second."""
    judged: Verdicts
    naive: float | None = None
    """Share of the answers that it approves."""
    rogan_gladen: CorrectedRate | None = None
    ppi: CorrectedRate | None = None
    why_not: str = ""
    """Why there is no corrected rate."""


def report_of(
    document: JudgeDocument,
    licence: Licence,
    audits: Sequence[Audit],
    others: Sequence[float],
    settings: JudgeSettings,
    position: PositionBias | None = None,
) -> JudgeReport:
    """The report.

    Args:
        document: the judge made last.
        licence: its history, and that of those before it.
        audits: all of its audits, in the order in which people answered.
        others: its grades of answers that nobody labelled, drawn from the same traffic.
        settings: floors and window.
        position: what came of asking in both orders.
    """
    grades = [*(audit.judge for audit in audits), *others]
    approved = sum(grade >= RIGHT for grade in grades)
    judged = Verdicts(approved=approved, refused=len(grades) - approved)
    found = standing(recent_audits(licence, audits), settings, n_starts=max(licence.n_starts, 1))
    corrected: dict[str, CorrectedRate] = {}
    why_not = ""
    try:
        corrected["ppi"] = ppi_mean([a.person for a in audits], [a.judge for a in audits], others)
        corrected["rogan_gladen"] = rogan_gladen(judged, audits)
    except BadInput as error:
        why_not = str(error)
    return JudgeReport(
        judge_id=document.judge_id,
        kind=document.kind,
        rubric=document.rubric,
        rubric_version=document.rubric_version,
        n_labels=document.n_labels,
        licence=licence,
        whole=agreement(audits),
        standing=found,
        missing=tuple(shortfalls(found, settings)),
        slices=tuple(
            SliceAgreement(slice=key[0], rubric_version=key[1], agreement=value)
            for key, value in by_slice(audits).items()
        ),
        verbosity=verbosity_bias(audits),
        position=position,
        judged=judged,
        naive=approved / len(grades) if grades else None,
        why_not=why_not,
        **corrected,
    )
