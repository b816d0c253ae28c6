"""Judge: make one from what people said, audit it on random picks, renew its licence, grade what nobody labelled.

Why its grades lie here and not on the traces: who labels a trace must not see what a judge made
of it, or the audits would measure how far people follow the judge. A frozen judge gives the same grades again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from prefect import task

from ratchet.agent.errors import LMFailure, RatchetError, said
from ratchet.agent.project import load_project
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import on_gate_side
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.judge.agreement import Audit
from ratchet.evaluation.judge.document import JudgeDocument
from ratchet.evaluation.judge.graded import Graded, as_audits
from ratchet.evaluation.judge.judge import Judge, judge_scores
from ratchet.evaluation.judge.licence import Licence, lost, made, renewed
from ratchet.evaluation.judge.settings import JudgeSettings
from ratchet.infra.drift.watch_store import read_watch
from ratchet.infra.judge.kinds import fits, judge_of, make_judge_of
from ratchet.infra.judge.material import Material
from ratchet.infra.judge.store import keep_judge, load_judge_document, read_licence, write_licence
from ratchet.infra.store.collected import (
    TRACES,
    collected_traces,
    columns_of,
    keep_grades,
)
from ratchet.tasks.collect import Collection

_MORE: Final = 2
"""A judge without a licence is made anew when there are so many times the labels it was made from."""


@task(name="judge")
def judge_traces(
    folder: str, collection: Collection, settings: JudgeSettings, gate_share: float, *, seed: int = 0
) -> tuple[str, ...]:
    """Keep what the judge says of audited and unlabelled traces; returns why it could not, which stops nobody."""
    name = (project := load_project(Path(folder))).name
    if project.scores_itself or not collection.labels.n_rows:
        return ()
    try:
        grades = _Round(name, collection, settings, gate_share, seed).grades()
    except RatchetError as error:
        return (f"the judge graded nothing: {said(error)}",)
    keep_grades(name, grades)
    return ()


class _Round:
    """One round of one project's judge."""

    def __init__(
        self, name: str, collection: Collection, settings: JudgeSettings, gate_share: float, seed: int
    ) -> None:
        self.name, self.collection, self.settings = name, collection, settings
        self.gate_share, self.now = gate_share, datetime.now(UTC)
        self.material = Material(name, collection.labels, settings, gate_share, seed)

    def grades(self) -> list[Label]:
        """What the judge says of the audited traces and of the newest that nobody labelled."""
        before = read_licence(self.name)
        licence, judge = self._judge(before)
        if judge is None:
            write_licence(self.name, before, licence)
            return []
        audited = self._grades(judge, [(one.trace_id, one) for one in self.material.audited])
        drifted = self._drifted()
        audits = _with_failures(self.material.audited, audited)
        licence = renewed(licence, audits, self.settings, drifted=drifted, now=self.now)
        write_licence(self.name, before, licence)
        waiting = [(one.trace_id, one) for one in self._unlabelled(judge)]
        grades = {one: grade for one, grade in audited.items() if grade is not None}
        grades |= {one: grade for one, grade in self._grades(judge, waiting).items() if grade is not None}
        known = self.material.by_judge
        return [
            Label(
                trace_id=trace_id,
                score=grade,
                source="judge",
                rater=judge.judge_id,
                rubric_version=self.settings.rubric_version,
                created_at=self.now,
            )
            for trace_id, grade in grades.items()
            if (judge.judge_id, trace_id) not in known
        ]

    def _judge(self, licence: Licence) -> tuple[Licence, Judge | None]:
        """The judge that stays, or a new one where the settings changed or much was learned since."""
        if self.settings.kind == "off":
            return (lost(licence, "switched off", self.now) if licence.holds else licence), None
        document = load_judge_document(self.name, licence.judge_id) if licence.judge_id else None
        stays = document is not None and fits(document, self.settings)
        if document is not None and stays and not self._outgrown(document, licence):
            return licence, judge_of(document)
        new = make_judge_of(self.name, self.material.lessons, self.settings)
        if new is None:
            if document is not None and stays:
                return licence, judge_of(document)
            why = "the rubric or the kind of judge changed"
            return (lost(licence, why, self.now) if licence.holds else licence), None
        made_one, told = new
        keep_judge(self.name, made_one)
        if made_one.judge_id == licence.judge_id:
            return licence, judge_of(made_one)
        version = self.settings.rubric_version
        return made(licence, made_one.judge_id, version, told, now=self.now), judge_of(made_one)

    def _outgrown(self, document: JudgeDocument, licence: Licence) -> bool:
        if licence.holds or (document.kind == "rubric" and not self.settings.align):
            return False
        return len(self.material.lessons) >= _MORE * max(document.n_labels, 1)

    def _drifted(self) -> str:
        watch = read_watch(self.name)
        if watch.episodes.open is None:
            return ""
        return next(iter(watch.drifted.values()), f"incident {watch.episodes.open.number} is open")

    def _unlabelled(self, judge: Judge) -> list[Trace]:
        """The newest traces on the training side that it can grade and nobody did."""
        columns = ("trace_id", "case_id", "session_id", "score", "error", "answered")
        table = columns_of(TRACES, self.collection.traces, *columns)
        ids = table.column("trace_id").to_pylist()
        mine = ~on_gate_side(
            table.column("case_id").to_pylist(),
            table.column("session_id").to_pylist(),
            gate_share=self.gate_share,
            salt=self.material.salt,
        )
        open_ = mine & table.column("answered").to_numpy() & ~table.column("error").is_valid().to_numpy()
        open_ &= ~table.column("score").is_valid().to_numpy()
        known = self.material.by_judge
        fresh = [
            ids[row]
            for row in np.flatnonzero(open_).tolist()
            if ids[row] not in self.material.labelled and (judge.judge_id, ids[row]) not in known
        ]
        return collected_traces(self.name, fresh[len(fresh) - min(self.settings.most_graded, len(fresh)) :])

    def _grades(self, judge: Judge, asked: Sequence[tuple[str, Graded | Trace]]) -> dict[str, float | None]:
        """Its grade of each; None where it gave none. Where it gave none at all it is out of order: its error."""
        grades: dict[str, float | None] = {}
        failed: list[LMFailure] = []
        for trace_id, one in asked:
            known = self.material.by_judge.get((judge.judge_id, trace_id))
            try:
                grades[trace_id] = (
                    known if known is not None else judge_scores(judge, one.case, [one.answer])[0]
                )
            except LMFailure as error:
                grades[trace_id] = None
                failed.append(error)
        if failed and len(failed) == len(asked):
            raise failed[0]
        return grades


def _with_failures(audited: Sequence[Graded], grades: dict[str, float | None]) -> list[Audit]:
    """The audits; an answer on which the judge fails counts as one that it got wrong, whatever made it fail."""
    told = {
        one.trace_id: float(not one.is_right) if (grade := grades[one.trace_id]) is None else grade
        for one in audited
    }
    return as_audits(audited, told)
