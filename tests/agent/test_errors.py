"""Errors of others, told on one line that never ends at a colon."""

import pytest

from ratchet.agent.errors import BadInput, named, said
from ratchet.agent.project import load_project


@pytest.mark.parametrize(
    ("error", "line", "whole"),
    [
        (ValueError("no such column\nand more"), "no such column", "ValueError: no such column"),
        (AssertionError(), "AssertionError", "AssertionError"),
        (TimeoutError("  \n "), "TimeoutError", "TimeoutError"),
    ],
)
def test_an_error_is_told_by_its_first_line_or_its_kind(error, line, whole):
    assert (said(error), named(error)) == (line, whole)


def test_a_project_that_raises_nothing_but_a_kind_is_named_by_it(tmp_path):
    (tmp_path / "project.py").write_text("raise AssertionError")
    with pytest.raises(BadInput, match=r"does not run: AssertionError$"):
        load_project(tmp_path)
