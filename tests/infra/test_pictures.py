import pytest

from ratchet.agent.errors import BadInput
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
