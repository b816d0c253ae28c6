"""From remembered windows to `Attribution`: which evidence, since when, which messages, words and slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ratchet.evaluation.data.arrays import Floats, Ints
from ratchet.evaluation.data.intervals import mean_interval
from ratchet.evaluation.drift.attribution import Attribution, ChangePoint, Cluster, SliceDrift, StrangeMessage
from ratchet.evaluation.drift.change_point import Ranks, locate_change_point
from ratchet.evaluation.drift.clusters import (
    central,
    is_known,
    is_surge,
    name_group,
    near_share,
    risen_groups,
)
from ratchet.evaluation.drift.history import History
from ratchet.evaluation.drift.message import GROUPS, Group
from ratchet.evaluation.drift.shift import DIRECTION, RECURRENCE, ShiftDetector
from ratchet.evaluation.drift.state import DriftState

_MESSAGES: Final = 10
_MIN_SLICE: Final = 10
_STRANGE: Final = 0.1
_NOVELTY: Final = "novelty"
_APART: Final = 0.65
"""A message belongs to a cluster's region this far on the way from usual messages to the cluster's own."""


@dataclass
class _Past:
    """The remembered windows, end to end."""

    numbers: Ints
    texts: list[str | None]
    slices: list[str | None]
    weights: Floats
    vectors: NDArray[np.float32]
    window: Ints
    p: dict[str, Floats]
    """For each stream (n,) p-values; NaN where a message was not ranked."""


def attribute_drift(
    state: DriftState,
    history: History,
    groups: Mapping[str, tuple[str, Group]],
    lagging: frozenset[str],
    shift: ShiftDetector | None,
    usual: tuple[Sequence[str], NDArray[np.float32]],
) -> Attribution:
    """Explain the evidence; the same history gives the same answer.

    `groups` tells for each stream its detector and group, `usual` holds texts and vectors of the reference.
    `lagging` streams learn what to look for only after the change point, and date it where no other stream can.
    """
    past = _flatten(history)
    kinds = _cause_first(state)
    streams = [stream for stream, (_, group) in groups.items() if group in kinds and stream in past.p]
    dating = [stream for stream in streams if stream not in lagging] or streams
    position, low, high = _change_point(past, history, dating, shift if "input" in kinds else None)
    since = np.arange(len(past.numbers)) >= position
    p = np.array([np.nan_to_num(past.p[stream], nan=0.5) for stream in streams])
    strangeness = -np.log(np.clip(p, 1e-4, 1.0)).mean(axis=0)
    surge = kinds == ("input",) and _is_surge(past, since)
    clusters = _clusters(past, since, strangeness, usual, surge=surge) if "input" in kinds else ()
    carried = sum(state.families.values())
    at = history.windows[int(past.window[position])].at
    change = ChangePoint(
        message=int(past.numbers[position]),
        low=int(past.numbers[low]),
        high=int(past.numbers[high]),
        at=None if at is None else datetime.fromisoformat(at),
    )
    return Attribution(
        kinds=kinds,
        surge=surge,
        families={name: value / carried for name, value in state.families.items()} if carried else {},
        onset=change,
        top_messages=_top_messages(past, since, strangeness, p, [groups[stream][0] for stream in streams]),
        clusters=clusters,
        slices=_slices(past, since, strangeness),
        reason=_reason(state, kinds, surge, change, clusters),
    )


def _flatten(history: History) -> _Past:
    windows = list(history.windows)
    sizes = [len(window.texts) for window in windows]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    streams = list(dict.fromkeys(stream for window in windows for stream in window.ranks))
    p = {stream: np.full(int(starts[-1]), np.nan) for stream in streams}
    for start, window in zip(starts, windows, strict=False):
        for stream, (rows, ranks) in window.ranks.items():
            p[stream][start + rows] = ranks
    return _Past(
        numbers=np.concatenate([window.numbers for window in windows]),
        texts=[text for window in windows for text in window.texts],
        slices=[name for window in windows for name in window.slices],
        weights=np.concatenate([window.weights for window in windows]),
        vectors=np.concatenate([window.vectors for window in windows]).astype(np.float32),
        window=np.repeat(np.arange(len(windows)), sizes),
        p=p,
    )


def _cause_first(state: DriftState) -> tuple[Group, ...]:
    """Groups that passed, in the order in which one causes the next; the strongest where none passed."""
    passed = tuple(group for group in GROUPS if group in state.groups)
    return passed or (max(GROUPS, key=lambda group: float(getattr(state, group))),)


def _change_point(
    past: _Past, history: History, streams: list[str], shift: ShiftDetector | None
) -> tuple[int, int, int]:
    """Change point and its interval as positions in `past`; also leaves the hindsight ranks of a shift in `past`."""
    n = len(past.numbers)
    random = np.random.default_rng(n)
    located = locate_change_point([_ranks(past, stream) for stream in streams], n)
    texts = np.flatnonzero(~np.isnan(past.vectors[:, 0]))
    if shift is None or not len(texts):
        return located
    for _ in range(2):
        windows = [shift.features(window.vectors, window.surface) for window in history.windows]
        ranked = shift.hindsight(windows, int(past.window[located[0]]), random)
        for stream, found in zip((DIRECTION, RECURRENCE), ranked, strict=True):
            past.p.setdefault(stream, np.full(n, np.nan))[texts] = found.p
        located = locate_change_point([_ranks(past, stream) for stream in streams], n)
    return located


def _ranks(past: _Past, stream: str) -> Ranks:
    rows = np.flatnonzero(~np.isnan(past.p[stream]))
    return Ranks(rows, past.p[stream][rows], past.weights[rows])


def _top_messages(
    past: _Past, since: NDArray[np.bool_], strangeness: Floats, p: Floats, detectors: list[str]
) -> tuple[StrangeMessage, ...]:
    found: dict[str, StrangeMessage] = {}
    for i in np.argsort(-np.where(since, strangeness, -np.inf), kind="stable")[: int(since.sum())]:
        text = past.texts[i]
        if text is None or text in found:
            continue
        strangest = int(np.argmin(p[:, i]))
        found[text] = StrangeMessage(
            text=text,
            message=int(past.numbers[i]),
            family=detectors[strangest],
            p=float(p[strangest, i]),
            slice=past.slices[i],
        )
        if len(found) == _MESSAGES:
            break
    return tuple(found.values())


def _is_surge(past: _Past, since: NDArray[np.bool_]) -> bool:
    if _NOVELTY not in past.p:
        return False
    rows = np.flatnonzero(since & ~np.isnan(past.p[_NOVELTY]))
    return len(rows) > 0 and is_surge(past.p[_NOVELTY][rows], past.weights[rows])


def _clusters(
    past: _Past,
    since: NDArray[np.bool_],
    strangeness: Floats,
    usual: tuple[Sequence[str], NDArray[np.float32]],
    *,
    surge: bool,
) -> tuple[Cluster, ...]:
    """The three groups of messages whose share rose most."""
    rows = np.flatnonzero(since & ~np.isnan(past.vectors[:, 0]))
    before = np.flatnonzero(~since & ~np.isnan(past.vectors[:, 0]))
    if not len(rows) or _NOVELTY not in past.p:
        return ()
    vectors = past.vectors[rows]
    usual_texts = [*usual[0], *(past.texts[i] or "" for i in before)]
    usual_vectors = np.concatenate([usual[1], past.vectors[before]])
    found = []
    for group in risen_groups(vectors, usual_vectors, strangeness[rows]):
        centre, at_least, order = central(vectors[group])
        name, examples = name_group([past.texts[rows[group[i]]] or "" for i in order], usual_texts)
        usual_near = float((usual_vectors @ centre).mean())
        bound = usual_near + _APART * (at_least - usual_near)
        found.append(
            Cluster(
                name=name,
                size=len(group),
                share=near_share(centre, vectors, at_least),
                usual_share=near_share(centre, usual_vectors, at_least),
                known=surge or is_known(past.p[_NOVELTY][rows[vectors @ centre >= at_least]]),
                examples=examples,
                messages=tuple(past.numbers[rows[vectors @ centre >= bound]].tolist()),
            )
        )
    return tuple(found)


def _slices(past: _Past, since: NDArray[np.bool_], strangeness: Floats) -> tuple[SliceDrift, ...]:
    """Slices with at least ten messages since the change point, strangest first."""
    before = strangeness[~since]
    if not since.any() or len(before) < _MIN_SLICE:
        return ()
    bound = float(np.quantile(before, 1.0 - _STRANGE))
    names = sorted({name for name in past.slices if name is not None})
    found = []
    for name in names:
        rows = since & np.array([value == name for value in past.slices])
        n = int(rows.sum())
        if n >= _MIN_SLICE:
            share = mean_interval((strangeness[rows] > bound).tolist())
            found.append(
                SliceDrift(slice=name, n=n, strange_share=share.mean, low=share.low, high=share.high)
            )
    return tuple(sorted(found, key=lambda one: -one.low))


_SAYS: Final[dict[Group, str]] = {
    "input": "people ask differently: label the new requests",
    "behaviour": "the agent acts differently: investigate tools, latency and cost",
    "outcome": "results changed: compare with the last version and consider a rollback",
}


def _reason(
    state: DriftState, kinds: tuple[Group, ...], surge: bool, change: ChangePoint, clusters: Sequence[Cluster]
) -> str:
    if not state.alarm:
        return f"No drift: evidence {state.e_value:,.1f} is below {state.threshold:,.0f}."
    what = "known requests surge: check capacity, nothing new to label" if surge else _SAYS[kinds[0]]
    after = f" ({' and '.join(kinds[1:])} followed)" if len(kinds) > 1 else ""
    names = "; ".join(f"“{cluster.name}”" for cluster in clusters)
    told = f", mostly {names}" if names else ""
    return (
        f"Since {change.words} {what}{after}{told}; "
        f"evidence {state.e_value:,.0f} against {state.threshold:,.0f}."
    )
