"""The timeline is drawn with and without an alarm, and refuses to draw nothing."""

from pathlib import Path

import pytest

from ratchet.agent.errors import BadInput
from ratchet.evaluation.drift.attribution import Attribution, ChangePoint
from ratchet.evaluation.drift.state import DriftState
from ratchet.infra.pictures.drift import draw_drift


def state(n: int, e_value: float) -> DriftState:
    return DriftState(
        alarm=e_value >= 1_000, e_value=e_value, threshold=1_000.0, since=None, n_seen=50 * n, n_windows=n,
        input=e_value, behaviour=0.0, outcome=0.0, families={},
    )  # fmt: skip


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 2_000.0, 5_000.0], [0.0]])
def test_a_timeline_is_drawn(values: list[float], tmp_path: Path) -> None:
    said = Attribution(kinds=("input",), onset=ChangePoint(message=60, low=40, high=90), reason="because")
    out = draw_drift(
        [state(i + 1, v) for i, v in enumerate(values)], tmp_path / "a" / "t.png", attribution=said
    )
    assert out.read_bytes().startswith(b"\x89PNG")


def test_no_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no window"):
        draw_drift([], tmp_path / "t.png")
