"""What people said, sorted for a judge: what makes it, what audits it, and what it graded by now."""

from ratchet.evaluation.data.cases import side_of, split_salt
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.judge.bias import position_bias
from ratchet.evaluation.judge.graded import Graded, as_audits, people_graded
from ratchet.evaluation.judge.report import JudgeReport, report_of
from ratchet.evaluation.judge.settings import JudgeSettings
from ratchet.infra.judge.kinds import prefers_first
from ratchet.infra.judge.store import load_judge_document, read_licence
from ratchet.infra.registry.gate_cases import spent_cases
from ratchet.infra.review.answers import effective_labels
from ratchet.infra.review.rounds import random_picks
from ratchet.infra.store.collected import collected_traces, newest_grades, newest_labels
from ratchet.infra.store.dataset_store import DatasetVersion, read_dataset


class Material:
    """What people said, for one judge's making and for its audits."""

    def __init__(
        self, name: str, labels: DatasetVersion, settings: JudgeSettings, gate_share: float, seed: int
    ):
        self.salt = split_salt(name, seed)
        self.by_judge = {
            (one.rater, one.trace_id): one.score
            for one in read_dataset(newest_grades(name), Label)
            if one.score is not None
        }
        people = [one for one in read_dataset(labels, Label) if one.source == "human"]
        counted = effective_labels(name, people)
        self.labelled = {one.trace_id for one in people}
        traces = collected_traces(name, sorted(self.labelled))
        at_random, spent = random_picks(name), set(spent_cases(name))
        teaches = [
            one
            for one in traces
            if one.trace_id not in at_random
            and (one.case.case_id in spent or side_of(one, gate_share=gate_share, salt=self.salt) == "train")
        ]
        drawn = [one for one in traces if one.trace_id in at_random]
        version = settings.rubric_version
        self.lessons: list[Graded] = people_graded(teaches, counted, version)
        self.audited: list[Graded] = people_graded(drawn, [one for one in counted if one.asked], version)


def judge_report(
    name: str, settings: JudgeSettings, gate_share: float, *, seed: int = 0, swaps: int = 0
) -> JudgeReport | None:
    """How the judge made last stands; None where none was made. Nothing is graded, and nothing written.

    Args:
        name: the project.
        settings: floors and window.
        gate_share: as the cases are split.
        seed: as the cases are split.
        swaps: pairs of answers to ask about in both orders, twice as many calls of its LM.
    """
    licence = read_licence(name)
    if licence.judge_id is None:
        return None
    document = load_judge_document(name, licence.judge_id)
    seen = Material(name, newest_labels(name), settings, gate_share, seed)
    mine = {trace_id: grade for (by, trace_id), grade in seen.by_judge.items() if by == licence.judge_id}
    audits = as_audits(seen.audited, mine)
    audited = {audit.trace_id for audit in audits}
    others = [grade for trace_id, grade in mine.items() if trace_id not in audited]
    position = None
    if swaps and document.kind == "rubric":
        pairs = [(one.case, one.answer, one.better) for one in seen.lessons if one.better is not None]
        position = position_bias(prefers_first(document), pairs[-swaps:])
    return report_of(document, licence, audits, others, settings, position)
