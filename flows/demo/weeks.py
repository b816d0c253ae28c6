"""Which of BFCL's requests come when: a usual week, then a week in which the traffic drifts.

Tools recur and requests are new: week 1 draws from one connected family of toolsets. Week 2 mixes in requests
that no tool fits and toolsets that were never there. A third part of the toolsets is never served at all: what is
reached on it is shown apart.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ratchet.agent.case import Case
from ratchet.agent.environments.tool_calling import live_cases, toolset, toolset_groups
from ratchet.flows.project_settings import ProjectSettings, read_settings
from ratchet.infra.store.project_state import project_folder, write_whole

FOLDER = Path(__file__).parent
DEMO_PROJECT = "demo"
WEEK_1 = 150
WEEK_2_USUAL, WEEK_2_NO_TOOL, WEEK_2_NEW_TOOLS = 60, 190, 60
"""As many as it takes: at the third share of the error budget a gain of 0.17 needs some 140 fresh cases."""
HELD_OUT = 40
"""Requests in each of the two final tests."""


_LASTS = timedelta(days=11)
"""Both weeks together: the last request comes just before the demo is first started, and none after."""


class Weeks(NamedTuple):
    """The demo's traffic, in the order in which it comes."""

    usual: tuple[Case, ...]
    drifted: tuple[Case, ...]
    fresh: tuple[Case, ...]
    """Drawn like week 2, never served: the final test."""
    unseen: tuple[Case, ...]
    """Toolsets that were never served."""


def weeks() -> Weeks:
    """Split BFCL's live sets; the same seed and size give the same weeks."""
    return weeks_of(read_settings(FOLDER, ProjectSettings).seed, size())


@cache
def weeks_of(seed: int, scale: float) -> Weeks:
    """The weeks that a seed gives, at this share of their usual size."""
    rng = random.Random(seed)
    n_usual, held_out = round(WEEK_1 * scale), round(HELD_OUT * scale)
    multiple, simple, no_tool = (
        _shuffled(name, rng) for name in ("live_multiple", "live_simple", "live_irrelevance")
    )
    group = toolset_groups([*multiple, *simple, *no_tool])
    sizes: dict[int, int] = {}
    for case in multiple:
        number = group[toolset(case)[0]]
        sizes[number] = sizes.get(number, 0) + 1
    family = max(sizes, key=lambda number: sizes[number])
    recurring = [case for case in multiple if group[toolset(case)[0]] == family]
    others = sorted({group[toolset(case)[0]] for case in multiple} - {family})
    rng.shuffle(others)
    new, never = set(others[::2]), set(others[1::2])
    new_tools = [c for c in (*multiple, *simple) if group[toolset(c)[0]] in new]
    no_tool = [c for c in no_tool if len(toolset(c)) > 1 and group[toolset(c)[0]] not in never]
    rng.shuffle(new_tools)
    parts = (recurring[n_usual:], no_tool, new_tools)
    counts = [round(n * scale) for n in (WEEK_2_USUAL, WEEK_2_NO_TOOL, WEEK_2_NEW_TOOLS)]
    drifted = [case for part, n in zip(parts, counts, strict=True) for case in part[:n]]
    total = sum(counts)
    fresh = [
        case
        for part, n in zip(parts, counts, strict=True)
        for case in part[n : n + held_out * n // total + 1]
    ]
    rng.shuffle(drifted)
    rng.shuffle(fresh)
    unseen = [case for case in multiple if group[toolset(case)[0]] in never]
    return Weeks(
        tuple(recurring[:n_usual]), tuple(drifted), tuple(fresh[:held_out]), tuple(unseen[:held_out])
    )


def _shuffled(name: str, rng: random.Random) -> list[Case]:
    cases = list(live_cases(name))
    rng.shuffle(cases)
    return cases


def traffic() -> Sequence[Case]:
    """What has come in so far: week 1, and week 2 once it has begun; each request at its time."""
    split, began = weeks(), started()
    arrived = [*split.usual, *(split.drifted if week() == 2 else ())]
    apart = _LASTS / (len(split.usual) + len(split.drifted))
    return [case.model_copy(update={"seen_at": began + apart * i}) for i, case in enumerate(arrived)]


def size() -> float:
    """Share of the demo's usual number of requests, set at its first start."""
    path = project_folder(DEMO_PROJECT) / "size"
    return float(path.read_text()) if path.exists() else 1.0


def begin(scale: float) -> None:
    """Fix the size at the first start; a later start keeps it."""
    path = project_folder(DEMO_PROJECT) / "size"
    if not path.exists():
        write_whole(path, str(scale))


def week() -> int:
    """1 or 2."""
    path = project_folder(DEMO_PROJECT) / "week"
    return int(path.read_text()) if path.exists() else 1


def begin_week(number: int) -> None:
    """Let the traffic of this week come in."""
    write_whole(project_folder(DEMO_PROJECT) / "week", str(number))


def started() -> datetime:
    """When week 1 began: eleven days before the demo's first start, so that MLflow's usual views show it."""
    path = project_folder(DEMO_PROJECT) / "started"
    if not path.exists():
        write_whole(path, (datetime.now(UTC) - _LASTS).replace(microsecond=0).isoformat())
    return datetime.fromisoformat(path.read_text())
