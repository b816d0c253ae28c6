"""What a person who approves is shown, the same in the terminal, in JSON and in Prefect's UI.

Why the cases beside the verdict: a mean says that it is better, and not for whom it got worse.
"""

import html
import re
from typing import Any, Final, NamedTuple

from ratchet.agent.memory.difference import MemoryDifference, share_differences
from ratchet.agent.memory.steps import Experience
from ratchet.evaluation.gate.approval import Waiting
from ratchet.flows.commands.show import Change, changes
from ratchet.flows.commands.which_project import called
from ratchet.infra.registry.approval import waiting_approval
from ratchet.infra.registry.compared_cases import ComparedCase, ComparedCases, compared_cases
from ratchet.infra.registry.registry import fetch_files
from ratchet.infra.registry.version import Version
from ratchet.infra.store.memory_entries import is_memory, steps_of

SHOWN: Final = 5
"""Entries and cases of each kind that are shown unless asked for otherwise."""
_LONGEST: Final = 300


class ApprovalEvidence(NamedTuple):
    """All of it, for one proven challenger."""

    version: Version
    champion: Version
    waiting: Waiting | None
    changes: list[Change]
    memory: dict[str, MemoryDifference]
    cases: ComparedCases


def approval_evidence(
    project: str, version: Version, champion: Version, *, most: int = SHOWN
) -> ApprovalEvidence:
    """Read from MLflow what changed, how it was proven, and the cases won and lost."""
    return ApprovalEvidence(
        version=version,
        champion=champion,
        waiting=waiting_approval(project, version.candidate_id),
        changes=changes(champion.candidate, version.candidate),
        memory=_memory(project, champion, version),
        cases=compared_cases(project, version.candidate_id, champion.candidate_id, most=most),
    )


def _memory(project: str, old: Version, new: Version) -> dict[str, MemoryDifference]:
    labels = {name for one in (old, new) for name in one.digests if is_memory(name)}
    if all(old.digests.get(name) == new.digests.get(name) for name in labels):
        return {}
    before, after = (steps_of(fetch_files(project, one.candidate_id)) for one in (old, new))
    return share_differences(before, after)


def evidence_json(evidence: ApprovalEvidence, most: int = SHOWN) -> dict[str, Any]:
    """The same as JSON; of memory at most `most` entries of each kind, with all their numbers."""
    waiting, cases = evidence.waiting, evidence.cases
    return {
        "changes": [row._asdict() for row in evidence.changes],
        "memory": {name: _memory_json(one, most) for name, one in evidence.memory.items()},
        "cases": {
            "lost": [one.model_dump(mode="json") for one in cases.lost],
            "won": [one.model_dump(mode="json") for one in cases.won],
            "n_lost": cases.n_lost,
            "n_won": cases.n_won,
            "n_same": cases.n_same,
        },
        "approval": waiting and asked_json(waiting),
    }


def asked_json(waiting: Waiting) -> dict[str, Any]:
    """Who may approve, who did, and until when."""
    return {
        "risk": waiting.risk,
        "who": waiting.policy.who(waiting.risk),
        "approved_by": list(waiting.names),
        "missing": waiting.missing(),
        "expires_at": waiting.expires_at.isoformat(),
    }


def _memory_json(one: MemoryDifference, most: int) -> dict[str, Any]:
    return {
        "summary": one.summary,
        "n_added": len(one.added),
        "n_removed": len(one.removed),
        "n_changed": len(one.changed),
        "added": [entry_line(entry) for entry in one.added[:most]],
        "removed": [entry_line(entry) for entry in one.removed[:most]],
        "changed": [f"{entry_line(old)} ⇒ {entry_line(new)}" for old, new in one.changed[:most]],
    }


def memory_lines(one: MemoryDifference, most: int = SHOWN) -> list[tuple[str, str]]:
    """`+`, `-` or `~` and an entry, the first `most` of each kind."""
    return [
        *(("-", entry_line(entry)) for entry in one.removed[:most]),
        *(("~", f"{entry_line(old)} ⇒ {new.said}") for old, new in one.changed[:most]),
        *(("+", entry_line(entry)) for entry in one.added[:most]),
    ]


def entry_line(entry: Experience) -> str:
    """`request → what was answered`."""
    return f"{_cut(entry.goal or entry.observation)} → {_cut(entry.said)}"


def as_markdown(evidence: ApprovalEvidence) -> str:
    """A page for Prefect's UI, in lists: its form is narrow, and a table's last columns are out of sight there.

    Whatever a trace or a prompt says stands in it as text.
    """
    version, waiting, verdict = evidence.version, evidence.waiting, evidence.version.verdict
    made = _plain(version.candidate.origin.proposer)
    parts = [f"### {called(version)}, made by {made}, in place of {called(evidence.champion)}"]
    if waiting is not None:
        parts.append(f"**{waiting.asked[0].upper()}{waiting.asked[1:]}.**")
    parts.append(_plain(version.reason, 2000))
    if verdict is not None and verdict.screening:
        parts.append(f"**Only screened**: {_plain(verdict.screening, 2000)}")
    if version.golden is not None:
        lost = f": {', '.join(version.golden.lost)}" if version.golden.lost else ""
        parts.append(f"**{'Worse on the ' if lost else ''}{version.golden.words}**{lost}")
    if verdict is not None and version.notes:
        parts.append(_plain(version.notes, 2000))
    for part in verdict.slices if verdict is not None else ():
        parts.append(f"- slice {_plain(part.name)}: {part.gain:+.3f} on {part.n_bets:,}")
    parts += ["### What changes", *(_changed(row) for row in evidence.changes)]
    for name, one in evidence.memory.items():
        parts.append(f"**{_plain(name)}**: {one.summary}")
        parts.append("\n".join(f"- `{sign}` {_plain(line, 700)}" for sign, line in memory_lines(one)))
    cases = evidence.cases
    parts.append("### Cases")
    parts.append(f"{cases.n_won:,} won, {cases.n_lost:,} lost, {cases.n_same:,} the same")
    for title, several, n in (("Lost", cases.lost, cases.n_lost), ("Won", cases.won, cases.n_won)):
        shown = f" ({len(several)} of {n:,} shown)" if n > len(several) else ""
        parts += [f"**{title}**{shown}"] * bool(several) + [_case(one) for one in several]
    return "\n\n".join(part for part in parts if part)


def _changed(row: Change) -> str:
    return f"**{_plain(row.what)}**\n\n- now: {_plain(row.old, 1500)}\n- then: {_plain(row.new, 1500)}"


def _case(one: ComparedCase) -> str:
    champion, challenger = (_plain(side, 700) for side in case_sides(one))
    asked, by = _plain(one.request or one.case_id, 700), _plain(one.label_by)
    return f"{asked}\n\n- champion: {champion}\n- challenger: {challenger}\n- label: {by}"


def case_sides(one: ComparedCase) -> tuple[str, str]:
    """Both sides' answer with its score: `left (0)`."""
    said = one.shown or ("", "")
    return f"{_cut(said[0])} ({one.champion:g})", f"{_cut(said[1])} ({one.challenger:g})"


def _plain(text: str, limit: int = _LONGEST) -> str:
    """Text from a trace, in one line without markup."""
    one_line = re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", _cut(text, limit))
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", html.escape(one_line, quote=False))


def _cut(text: str, limit: int = _LONGEST) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"
