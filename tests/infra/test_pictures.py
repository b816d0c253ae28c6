import pytest

from ratchet.agent.errors import BadInput
from ratchet.infra.pictures.reinforcement import Curve, draw_reinforcement
from ratchet.infra.pictures.versions import draw_confusion


def test_confusion_of_more_tools_than_fit_is_a_png(tmp_path):
    right = [f"tool_{n % 20}" for n in range(60)]
    chosen = [None if n % 7 == 0 else f"tool_{(n + n % 3) % 20}" for n in range(60)]
    out = draw_confusion(right, chosen, tmp_path / "confusion.png", most=6)
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("right", "chosen"), [([], []), (["a"], [])])
def test_confusion_without_cases_or_of_unequal_lists_is_refused(tmp_path, right, chosen):
    with pytest.raises(BadInput, match="need as many"):
        draw_confusion(right, chosen, tmp_path / "confusion.png")


def test_learning_from_oneself_is_a_picture_and_nothing_measured_is_refused(tmp_path):
    curves = {
        "none": Curve([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        "kept": Curve([1.0, 1.1, 1.1], [1.0, 1.1, 1.1]),
    }
    out = draw_reinforcement(curves, {"kept": curves["kept"]}, 1.645, tmp_path / "rounds.png")
    assert out.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="nothing to draw"):
        draw_reinforcement({}, curves, 1.645, tmp_path / "rounds.png")
