"""`ratchet gc`: a dry run first, and then what it said."""

import json
import os
import time

import pytest

from ratchet.infra.settings import Settings


@pytest.fixture
def old_result():
    """A result that Prefect kept a month ago, in a home where MLflow knows no version yet."""
    path = Settings().home / "prefect" / "results" / "kept"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    os.utime(path, (time.time() - 30 * 86_400,) * 2)
    return path


def test_without_yes_it_says_what_would_go_and_with_it_that_goes(ratchet, old_result):
    said = ratchet("gc")
    assert (said.returncode, old_result.exists()) == (0, True)
    assert "kept results" in said.stderr
    assert "nothing was removed; `ratchet gc --yes` removes them" in said.stderr
    done = json.loads(ratchet("gc", "--yes", "--json").stdout)
    assert (done["done"], done["files"], old_result.exists()) == (True, 1, False)
    assert "nothing is superfluous" in ratchet("gc").stderr
