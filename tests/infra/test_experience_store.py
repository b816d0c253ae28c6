"""The project's library and the snapshots made of it recall by meaning where a model is configured."""

import numpy as np
import pytest

from ratchet.agent.memory.ranking import Query, RecallSettings
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.infra.store import experience as experience_store
from ratchet.infra.store.experience import open_library, recall_of_snapshots


def of_vehicles(texts):
    return np.array([[float("car" in t or "automobile" in t), 0.01 + float("boat" in t)] for t in texts])


@pytest.fixture
def model(monkeypatch):
    """A model is configured; the name reaches whoever makes it."""
    monkeypatch.setenv("RATCHET_EMBEDDING", "toy")
    monkeypatch.setenv("RATCHET_EMBEDDING_MODEL", "v1")
    monkeypatch.setattr(experience_store, "embedding_named", {"toy v1": of_vehicles, "own": of_vehicles}.get)


STEP = Experience(
    observation="an automobile", action="drive", trace_id="a" * 32, case_id="c", source="own", index=0
)


def test_without_a_model_words_alone_are_compared(tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    assert recall_of_snapshots(None) == (None, None)
    chosen = RecallSettings(window=2)
    assert recall_of_snapshots(chosen) == (chosen, None)


@pytest.mark.usefixtures("model")
def test_with_a_model_meaning_is_compared_as_well_unless_the_settings_say_otherwise():
    settings, embed = recall_of_snapshots(None)
    assert settings == RecallSettings(embedding="toy v1")
    memory = Memory([STEP], settings=settings, embed=embed)
    assert memory.recall(Query(observation="a car"), k=1)[0].experience == STEP
    assert recall_of_snapshots(RecallSettings(embedding="own"))[1] is of_vehicles
    assert recall_of_snapshots(RecallSettings())[1] is None


@pytest.mark.usefixtures("model")
def test_the_library_of_a_project_recalls_by_the_configured_model(tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    with open_library("p") as library:
        library.add([STEP])
        assert library.recall(Query(observation="a car"), k=1)[0].experience == STEP
