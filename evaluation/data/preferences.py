"""What people preferred, as pairs and thumbs to learn from.

Decision: a correction is a preference, too: the person saw one answer and wrote a better one. A pick between two
versions names both sides (`Label.over`); a score of 1 or 0 is a thumb. Nothing that a judge said is among them.
"""

from collections.abc import Iterable, Sequence

from ratchet.agent.optimize.evidence import Preference, Thumb
from ratchet.agent.record import Json
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import answer_name
from ratchet.evaluation.data.labels import Label, one_per_rater


def preferences_of(traces: Iterable[Trace], labels: Sequence[Label]) -> list[Preference]:
    """What people picked or wrote, and what they saw instead, oldest first.

    Args:
        traces: those that may teach.
        labels: what people said of them, and of others.
    """
    known = {trace.trace_id: trace for trace in traces if trace.action is not None}
    found = []
    for label in one_per_rater(labels):
        trace = known.get(label.trace_id)
        if label.source != "human" or label.expected is None or trace is None:
            continue
        better, worse = _answer(trace, label.expected), trace.answer
        if label.over is not None:
            worse = _answer(trace, label.over)
        if better != worse:
            found.append(
                Preference(case_id=trace.case.case_id, inputs=trace.case.inputs, better=better, worse=worse)
            )
    return found


def thumbs_of(traces: Iterable[Trace], labels: Sequence[Label]) -> list[Thumb]:
    """Answers that people scored 1 or 0, oldest first; one that they disagree about is neither.

    Args:
        traces: those that may teach.
        labels: what people said of them, and of others.
    """
    known = {trace.trace_id: trace for trace in traces if trace.action is not None}
    said: dict[str, set[float]] = {}
    for label in one_per_rater(labels):
        if label.source == "human" and label.score is not None and label.trace_id in known:
            said.setdefault(label.trace_id, set()).add(label.score)
    return [
        Thumb(
            case_id=known[one].case.case_id,
            inputs=known[one].case.inputs,
            answer=known[one].answer,
            is_good=scores == {1.0},
        )
        for one, scores in said.items()
        if scores in ({0.0}, {1.0})
    ]


def _answer(trace: Trace, said: Json) -> Json:
    return said if trace.is_free else answer_name(said)
