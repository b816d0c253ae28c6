"""Which labelled cases may teach and which may judge; decided by a hash before anybody looks at a label.

Why by hash: the same case falls on the same side in every run and on every machine, so no re-run, late label
or retry can move a case from the gate to the training set while the gate may still need it.

Why by session: turns of one conversation are alike. With its first turn in training its second would be no fresh
case, and eight agreeing turns are one observation of the gain and not eight (as eight bets they promote 20–25 %
of equal challengers at a nominal 5 %). So a session is on one side, is one bet, and is used up as a whole. A case
that comes back in other sessions stays with the one in which it was first seen.

Which turns of a session are labelled is drawn at random per trace before anybody knows an outcome, so that the
mean over those labelled is unbiased for the mean over the session; a long session is likelier to have one. The
gain is therefore over sessions, each weighing as much as its chance to have a labelled turn.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ratchet.agent.case import Case
from ratchet.agent.kinds.answering import text_of
from ratchet.agent.record import Json, Record, as_text
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.contamination import overlapping
from ratchet.evaluation.data.labels import Label, contradict, one_per_rater

CaseRole = Literal["gate", "train"]


def role_of(case_id: str, *, gate_share: float, salt: str = "", session_id: str | None = None) -> CaseRole:
    """`gate` for a fixed `gate_share` in [0, 1] of all sessions, by the hash of id and project (`salt`).

    A case without a session is decided by its own id.
    """
    return "gate" if on_gate_side([case_id], [session_id], gate_share=gate_share, salt=salt)[0] else "train"


def on_gate_side(
    case_ids: Iterable[str], session_ids: Iterable[str | None], *, gate_share: float, salt: str = ""
) -> NDArray[np.bool_]:
    """`role_of` of many cases, each with its session; a million take seconds."""
    begin = json.dumps(["role", salt], separators=(",", ":"), ensure_ascii=False)[:-1]
    decided = (
        f"{begin},{json.dumps(case, ensure_ascii=False)}]"
        if session is None
        else f'{begin},"session",{json.dumps(session, ensure_ascii=False)}]'
        for case, session in zip(case_ids, session_ids, strict=True)
    )
    firsts = (int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) for text in decided)
    return np.fromiter(firsts, dtype=np.float64) / 16**12 < gate_share


def split_salt(project: str, seed: int = 0) -> str:
    """What decides a project's split besides the ids; with seed 0 its name alone, as before there was a seed."""
    return project if seed == 0 else f"{project}/{seed}"


def side_of(trace: Trace, *, gate_share: float, salt: str = "") -> CaseRole:
    """The side on which people are asked about this trace: that of its own session."""
    return role_of(trace.case.case_id, gate_share=gate_share, salt=salt, session_id=trace.session_id)


def first_sessions(traces: Iterable[Trace]) -> dict[str, str | None]:
    """The session in which each case was first seen, by case id."""
    first: dict[str, Trace] = {}
    for trace in traces:
        known = first.setdefault(trace.case.case_id, trace)
        if (trace.started_at, trace.trace_id) < (known.started_at, known.trace_id):
            first[trace.case.case_id] = trace
    return {case_id: trace.session_id for case_id, trace in first.items()}


class LabelledCase(Record):
    """A case with what is known of its right answer, and where from."""

    case: Case
    trace_id: str
    candidate_id: str
    role: CaseRole
    propensity: float
    session_id: str | None = None
    """Where the case was first seen: its side, and its bet."""
    source: Literal["human", "environment", "judge", "nobody"]
    """Who knows what is right; `nobody`: people are asked where two versions answer differently."""
    answer: Json | None
    """What is right, an action's name, text or JSON, as a person gave it or as the agent did it with success; None =
    the environment knows."""
    said_at: datetime | None = Field(default=None, exclude_if=lambda at: at is None)
    """When the person said so."""
    said: str = Field(default="", exclude_if=lambda text: not text)
    """What the person wrote beside it; data, never an instruction."""
    supersedes: tuple[str, ...] = Field(default=(), exclude_if=lambda ids: not ids)
    """Traces of this case to which people had given another answer before."""

    @property
    def case_id(self) -> str:
        """Hash of the inputs."""
        return self.case.case_id


def labelled_cases(
    traces: Sequence[Trace],
    labels: Sequence[Label],
    *,
    gate_share: float,
    salt: str = "",
    self_scoring: bool = False,
    approved: Collection[str] = (),
    spent: Collection[str] = (),
) -> list[LabelledCase]:
    """Join traces with people's answers, and with their own successes where the environment told.

    A person's answer outranks the environment, and a success that a person scored below 1 is none. A person's score
    of 1 says that the agent's action is the answer, unless somebody scored it below 1; a lower score without an
    answer says only what is not right, and what experience recalls counts by it. Only an answer that was asked for
    judges (`Label.asked`); where one is known, what others said of the case without being asked is not heard. Of
    contradicting answers of people, to one trace or to several of one case, the case is left out here (the answers
    themselves are kept: see `ratchet.infra.review.answers.contradictions`). The agent's own successes teach and
    never judge: which cases it succeeded at depends on the agent. Where the environment scores every action
    (`self_scoring`), each case on the gate's side counts, whatever the agent made of it. What a judge with a licence
    `approved`, by trace, teaches as an own success does.

    Of the cases in `spent`, which can never judge again, whatever people said is heard, asked for or not.

    A case is on the side of the session in which it was first seen. Of the gate's, one that a person answered in
    a session of the other side teaches: there people are asked where it interests, so that it is no random sample.
    """
    labels = one_per_rater(labels)
    rejected = {
        label.trace_id
        for label in labels
        if label.source == "human" and label.score is not None and label.score < 1
    }
    labels = _with_approved(traces, labels, rejected)
    answers, disputed, newest = _agreed(traces, labels)
    sides = {trace.trace_id: side_of(trace, gate_share=gate_share, salt=salt) for trace in traces}
    chosen = {t.case.case_id for t in traces if t.trace_id in answers and sides[t.trace_id] == "train"}
    homes = first_sessions(traces)
    known: dict[str, LabelledCase] = {}
    for trace in traces:
        case_id = trace.case.case_id
        if case_id in disputed and newest.get(case_id) != trace.trace_id:
            continue
        role = role_of(case_id, gate_share=gate_share, salt=salt, session_id=homes[case_id])
        if case_id in chosen:
            role = "train"
        if case_id in disputed and role == "gate":
            continue
        answer = answers.get(trace.trace_id)
        heard = role == "train" or case_id in spent or (answer is not None and answer.asked)
        found = _by_person(trace, answer, role) if heard else None
        if found is None and role == sides[trace.trace_id] == "train" and trace.trace_id not in rejected:
            found = _by_success(trace) or (_by_judge(trace) if trace.trace_id in approved else None)
        if found is None and self_scoring and role == "gate":
            found = _by_environment(trace, "gate", None)
        if found is not None:
            earlier = known.get(case_id)
            if earlier is None or (earlier.source != "human" and found.source == "human"):
                known[case_id] = found.model_copy(
                    update={"session_id": homes[case_id], "supersedes": disputed.get(case_id, ())}
                )
    return list(known.values())


def unlabelled_cases(
    traces: Sequence[Trace], labelled: Sequence[LabelledCase], *, gate_share: float, salt: str = "", most: int
) -> list[LabelledCase]:
    """The newest cases on the gate's side of which nobody knows the answer, at most `most`, whole sessions.

    What broke the agent is among them, else the champion would look better than it is; another agent's cases are not.
    """
    known, homes = {item.case_id for item in labelled}, first_sessions(traces)
    newest = sorted(traces, key=lambda trace: (trace.started_at, trace.trace_id), reverse=True)
    by_session: dict[str, dict[str, Trace]] = {}
    for trace in newest:
        case_id = trace.case.case_id
        judgeable = trace.action is not None or (trace.error is not None and trace.error.kind == "agent")
        if trace.is_imported or not judgeable or case_id in known:
            continue
        home = homes[case_id]
        if role_of(case_id, gate_share=gate_share, salt=salt, session_id=home) == "gate":
            by_session.setdefault(case_id if home is None else f"session {home}", {})[case_id] = trace
    found: list[LabelledCase] = []
    for session in by_session.values():
        if len(found) >= most:
            break
        for case_id, trace in session.items():
            found.append(
                _by_environment(trace, "gate", None).model_copy(
                    update={"source": "nobody", "session_id": homes[case_id]}
                )
            )
    return found


def _with_approved(
    traces: Sequence[Trace], labels: Sequence[Label], rejected: Collection[str]
) -> list[Label]:
    """The labels, a score of 1 with the answer that it approves; where the rater gave an answer, that stands."""
    done = {t.trace_id: t.answer for t in traces if t.action is not None and t.error is None}
    answered = {(label.trace_id, label.rater) for label in labels if label.expected is not None}

    def approves(label: Label) -> bool:
        return (
            label.source == "human"
            and label.score == 1
            and label.trace_id in done
            and label.trace_id not in rejected
            and (label.trace_id, label.rater) not in answered
        )

    return [
        label.model_copy(update={"expected": done[label.trace_id]}) if approves(label) else label
        for label in labels
    ]


def _agreed(
    traces: Sequence[Trace], labels: Sequence[Label]
) -> tuple[dict[str, Label], dict[str, tuple[str, ...]], dict[str, str]]:
    """People's first answer to each trace; the cases to which they gave different ones, each with the traces whose
    answer a newer one superseded; and, of those, the trace that has the newest.

    Of a case about which people were asked, only the traces in question are looked at: a stranger's answer to
    another of its traces must not take it from the gate.
    """
    cases = {trace.trace_id: trace.case.case_id for trace in traces}
    free = {trace.case.case_id for trace in traces if trace.is_free}
    by_case: dict[str, list[Label]] = {}
    for label in labels:
        if label.source == "human" and label.expected is not None and label.trace_id in cases:
            by_case.setdefault(cases[label.trace_id], []).append(label)
    disputed: dict[str, tuple[str, ...]] = {}
    newest: dict[str, str] = {}
    for case_id, given in by_case.items():
        picked = [label for label in given if label.propensity is not None]
        by_case[case_id] = given = sorted(picked or given, key=lambda label: not label.asked)
        is_free = case_id in free
        if any(contradict(given[0].expected, other.expected, free=is_free) for other in given):
            last = max(given, key=lambda label: label.created_at)
            others = [one for one in given if contradict(last.expected, one.expected, free=is_free)]
            disputed[case_id] = tuple(sorted({one.trace_id for one in others}))
            if last.trace_id not in disputed[case_id] and all(o.created_at < last.created_at for o in others):
                newest[case_id] = last.trace_id
    answers = {label.trace_id: label for given in by_case.values() for label in reversed(given)}
    return answers, disputed, newest


def _by_person(trace: Trace, label: Label | None, role: CaseRole) -> LabelledCase | None:
    if label is None:
        return None
    return LabelledCase(
        case=_as_it_came(trace).model_copy(update={"expected": label.expected}),
        trace_id=trace.trace_id,
        candidate_id=trace.candidate_id,
        role=role,
        propensity=label.propensity or 1.0,
        source="human",
        answer=label.expected,
        said_at=label.created_at,
        said=label.comment,
    )


def _by_success(trace: Trace) -> LabelledCase | None:
    if trace.error is not None or trace.score is None or trace.score < 1 or trace.action is None:
        return None
    return _by_environment(trace, "train", trace.answer)


def _by_judge(trace: Trace) -> LabelledCase | None:
    if trace.error is not None or trace.score is not None or trace.action is None:
        return None
    return _by_environment(trace, "train", trace.answer).model_copy(update={"source": "judge"})


def _by_environment(trace: Trace, role: CaseRole, answer: Json) -> LabelledCase:
    return LabelledCase(
        case=_as_it_came(trace),
        trace_id=trace.trace_id,
        candidate_id=trace.candidate_id,
        role=role,
        propensity=1.0,
        source="environment",
        answer=answer,
    )


def _as_it_came(trace: Trace) -> Case:
    """With when: what a server or a log brings says it of the run alone."""
    return trace.case if trace.case.seen_at else trace.case.model_copy(update={"seen_at": trace.started_at})


def fresh_for_gate(
    labelled: Sequence[LabelledCase],
    seen: Collection[str],
    seen_texts: dict[str, str | None],
    spent: Collection[str],
) -> tuple[list[LabelledCase], dict[str, int]]:
    """Gate cases that no proposer saw, nor a near-duplicate, and that no earlier gate used, nor of their session.

    Args:
        labelled: all labelled cases.
        seen: ids of cases that any proposer saw.
        seen_texts: id → text of those cases.
        spent: ids of cases that an earlier gate used: it chose today's champion.

    Returns:
        The fresh cases in their order, and how many were left out by reason.
    """
    pool = [item for item in labelled if item.role == "gate"]
    seen, spent = {*seen, *_with_session(labelled, seen)}, {*spent, *_with_session(labelled, spent)}
    overlap = overlapping({i.case_id: case_text(i.case) for i in pool}, seen_texts)
    left_out: dict[str, int] = {}
    fresh = []
    for item in pool:
        reason = _stale(item.case_id, seen, spent, overlap)
        if reason is None:
            fresh.append(item)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    return fresh, left_out


def released_by(labelled: Sequence[LabelledCase], spent: Collection[str]) -> frozenset[str]:
    """Cases that can never judge again and therefore may teach: those a gate used, and others of their sessions."""
    return frozenset({*spent, *_with_session(labelled, spent)})


def kept_for_gate(labelled: Sequence[LabelledCase], spent: Collection[str]) -> dict[str, str]:
    """Cases that may still judge, id → text: no proposer may have seen one of them."""
    released = released_by(labelled, spent)
    return {
        one.case_id: case_text(one.case)
        for one in labelled
        if one.role == "gate" and one.case_id not in released
    }


def _with_session(labelled: Sequence[LabelledCase], ids: Collection[str]) -> set[str]:
    sessions = {item.session_id for item in labelled if item.case_id in ids} - {None}
    return {item.case_id for item in labelled if item.session_id in sessions}


def _stale(
    case_id: str, seen: Collection[str], spent: Collection[str], overlap: Collection[str]
) -> str | None:
    if case_id in seen:
        return "seen by a proposer"
    if case_id in spent:
        return "used by an earlier gate"
    return "nearly the same as a case that a proposer saw" if case_id in overlap else None


def case_text(case: Case) -> str:
    """What a case asks, as one text: its `request`, `message`, `question` or `text`, what the user said in its
    `messages` (what all conversations share would make each nearly the same as any other), else all of its inputs.
    """
    if isinstance(messages := case.inputs.get("messages"), list):
        users = (m for m in messages if isinstance(m, dict) and m.get("role") == "user")
        return "\n".join(text_of(message.get("content")) for message in users)
    for name in ("request", "message", "question", "text"):
        if isinstance(case.inputs.get(name), str):
            return str(case.inputs[name])
    return " ".join(str(value) for value in case.inputs.values())


def answer_name(answer: Json) -> str:
    """The action's name in an answer, a bare name or a record with `tool` and arguments; a free answer as text."""
    if isinstance(answer, dict) and "tool" in answer:
        return str(answer["tool"])
    return as_text(answer) if isinstance(answer, dict | list) else str(answer)
