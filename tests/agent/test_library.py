"""The library: what won is recalled with its context, and what was acknowledged survives a kill."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from ratchet.agent.case import Case
from ratchet.agent.environment import Outcome
from ratchet.agent.errors import BadInput
from ratchet.agent.memory.library import WORD_INDEX_FOLDER, Library, LibraryView
from ratchet.agent.memory.ranking import Query, RecallSettings
from ratchet.agent.memory.steps import Experience
from ratchet.agent.trace import Attempt, Trace

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 1, 5, tzinfo=UTC)


def steps(goal, *observations, case_id="other", trace="a", **changes):
    return [
        Experience(
            observation=seen,
            action=f"do {index}",
            trace_id=trace * 32,
            case_id=case_id,
            source="own",
            goal=goal,
            index=index,
            **changes,
        )
        for index, seen in enumerate(observations)
    ]


def asked(observation, **fields):
    return Query(observation=observation, **fields)


def seen(recalled):
    return [one.experience.observation for one in recalled]


OSLO = steps("fly to Oslo", "the customer wants a flight", "two flights found", "paid", trace="a")
ROME = steps("cancel the trip to Rome", "the booking is shown", "cancelled", trace="b", case_id="rome")


@pytest.fixture(params=["on disk", "in memory"])
def library(request, tmp_path):
    with Library(tmp_path / "library" if request.param == "on disk" else None) as opened:
        opened.add(OSLO + ROME)
        yield opened


def test_a_step_is_recalled_by_goal_and_observation_with_the_steps_around_it(library):
    (found,) = library.recall(asked("flights found", goal="fly to Oslo"), k=1)
    assert found.experience == OSLO[1]
    assert found.before == (OSLO[0],)
    assert found.after == (OSLO[2],)
    assert 0 < found.similarity <= 1


def test_the_window_bounds_what_stands_around(library):
    (found,) = library.recall(asked("paid"), k=1, settings=RecallSettings(window=1))
    assert (found.before, found.after) == ((OSLO[1],), ())


def test_reasoning_is_compared_with_reasoning(library):
    thinking = steps("x", "nothing", thought="the refund exceeds the price", trace="c", case_id="c")
    library.add(thinking)
    assert seen(library.recall(asked("unknown words", thought="exceeds the price"), k=1)) == ["nothing"]


def test_the_weights_say_which_field_counts(library):
    query = asked("booking is shown", goal="fly to Oslo")
    by_goal = library.recall(query, k=1, settings=RecallSettings(observation=0))
    by_observation = library.recall(query, k=1, settings=RecallSettings(goal=0))
    assert by_goal[0].experience in OSLO
    assert by_observation[0].experience == ROME[0]


def test_the_case_at_hand_is_passed_over_even_where_it_fills_the_shortlist(library):
    own = [
        s
        for n in range(60)
        for s in steps("fly to Oslo", "two flights found", trace=f"{n:02d}", case_id="mine")
    ]
    library.add(own)
    query = asked("two flights found", goal="fly to Oslo", exclude_case="mine")
    assert library.recall(query, k=1)[0].experience == OSLO[1]


def test_only_imported_steps_are_recalled_where_these_are_asked_for_however_many_others_are_nearer(library):
    crowd = [s for n in range(60) for s in steps("fly to Oslo", "two flights found", trace=f"{n:02d}")]
    theirs = steps(
        "fly to Oslo", "no flights", trace="d", case_id="d", imported_from="imported:old", session_id="s"
    )
    library.add(crowd + theirs)
    (found,) = library.recall(asked("two flights found", goal="fly to Oslo", imported=True), k=1)
    assert found.experience == theirs[0]
    assert library.imported() == theirs


def test_only_steps_of_the_named_traces_are_recalled(library):
    crowd = [s for n in range(60) for s in steps("fly to Oslo", "two flights found", trace=f"{n:02d}")]
    library.add(crowd)
    view = LibraryView(library, {"b" * 32, "41" * 32})
    found = view.recall(asked("two flights found", goal="fly to Oslo"), k=3)
    assert found[0].experience.trace_id == "41" * 32
    assert {one.experience.trace_id for one in found} <= {"b" * 32, "41" * 32}


def test_a_step_told_again_says_what_an_older_version_left_out_and_is_no_new_one(library):
    again = [step.model_copy(update={"imported_from": "imported:old", "session_id": "s"}) for step in ROME]
    assert library.add(again) == 0
    assert list(library.steps()) == OSLO + again
    assert library.imported() == again[:1]


def test_what_is_too_far_is_not_recalled(library):
    far = asked("the weather of two days", goal="holidays")
    assert library.recall(far, k=3)
    assert library.recall(far, k=3, settings=RecallSettings(max_distance=0.3)) == []


def test_nothing_asked_and_nothing_known_recall_nothing(library):
    assert library.recall(asked(""), k=3) == []
    assert library.recall(asked("zzz"), k=3) == []
    assert library.recall(asked("flights"), k=0) == []
    assert Library().recall(asked("flights"), k=3) == []


def test_one_step_of_a_trajectory_is_shown_unless_more_are_asked_for(library):
    query = asked("flight flights paid customer", goal="fly to Oslo")
    more = RecallSettings(per_trajectory=3)
    assert sum(one.experience in OSLO for one in library.recall(query, k=5)) == 1
    assert sum(one.experience in OSLO for one in library.recall(query, k=5, settings=more)) == 3


def test_the_same_step_twice_is_shown_once(library):
    library.add(steps("fly to Oslo", "the customer wants a flight", trace="e", case_id="e"))
    found = library.recall(asked("the customer wants a flight", goal="fly to Oslo"), k=3)
    assert seen(found).count("the customer wants a flight") == 1


def run_shown(trace_id, *recalled, score):
    attempt = Attempt(outcome=Outcome(score=score), recalled=recalled)
    return Trace(
        trace_id=trace_id, case=Case(inputs={"n": trace_id}), candidate_id="c", started_at=AT, latency_s=0,
        attempts=(attempt,),
    )  # fmt: skip


def test_an_exemplar_that_never_led_to_success_sinks_below_its_like(library):
    twin = steps("fly to Oslo", "the customer wants a cheap flight", trace="f", case_id="f")
    library.add(twin)
    query = asked("the customer wants a flight", goal="fly to Oslo")
    assert library.recall(query, k=1)[0].experience.trace_id == "a" * 32
    runs = [run_shown(f"{n:032x}", "a" * 32, score=0.0) for n in range(8)]
    assert library.credit(runs) == 8
    assert library.credit(runs) == 0
    first, second = library.recall(query, k=2)
    assert first.experience == twin[0]
    assert (second.experience.shown, second.experience.led_to_success) == (8, 0)
    assert library.recall(query, k=1, settings=RecallSettings(credit=0))[0].experience.shown == 8


def test_an_old_exemplar_counts_less_where_age_counts():
    with Library() as library:
        old = steps("fly", "a flight to Oslo", trace="a", recorded_at=AT)
        new = steps("fly", "a flight to Rome", trace="b", recorded_at=AT + timedelta(days=90))
        library.add(old + new)
        aging = RecallSettings(half_life_days=30)
        now = AT + timedelta(days=91)
        query = asked("a flight to Oslo", goal="fly")
        assert library.recall(query, k=1, now=now)[0].experience == old[0]
        assert library.recall(query, k=1, now=now, settings=aging)[0].experience == new[0]


def test_a_step_is_remembered_once(library):
    assert library.add(OSLO) == 0
    assert len(library) == len(OSLO) + len(ROME)
    assert list(library.steps()) == OSLO + ROME


MEANINGS = {"car": 0, "automobile": 0, "vehicle": 0, "boat": 1, "ship": 1, "flight": 2}


def by_meaning(texts):
    vectors = np.zeros((len(texts), 3), dtype=np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for word in text.split():
            row[MEANINGS.get(word, 2)] += 1
    return vectors


def test_with_an_embedding_other_words_of_the_same_meaning_are_found(tmp_path):
    told = [steps("", text, trace=t, case_id=t)[0] for text, t in (("car", "a"), ("boat", "b"))]
    for folder in (None, tmp_path / "library"):
        with Library(folder, embed=by_meaning, embedding="toy") as library:
            library.add(told)
            (found,) = library.recall(asked("automobile"), k=1)
            assert found.experience == told[0]
            assert found.similarity == pytest.approx(0.5, abs=1e-3)  # no word in common, the same meaning
    with Library(tmp_path / "library") as words_alone:
        assert words_alone.recall(asked("automobile"), k=1) == []


def test_a_library_of_words_alone_embeds_its_past_when_it_is_opened_with_an_embedding(tmp_path):
    with Library(tmp_path) as library:
        library.add([*steps("", "car", trace="a"), *steps("", "", trace="b", case_id="b")])
    with Library(tmp_path, embed=by_meaning, embedding="toy") as library:
        assert seen(library.recall(asked("automobile"), k=2)) == ["car"]


def test_vectors_of_two_embeddings_never_mix(tmp_path):
    with Library(tmp_path, embed=by_meaning, embedding="toy"):
        pass
    with pytest.raises(BadInput, match="vectors of embedding 'toy', not 'other': open it with that one"):
        Library(tmp_path, embed=by_meaning, embedding="other")


@pytest.mark.parametrize("lost", [WORD_INDEX_FOLDER, "vectors"])
def test_a_lost_index_is_made_anew_from_the_steps(tmp_path, lost, monkeypatch):
    monkeypatch.setattr("ratchet.agent.memory.vector_index.SMALLEST", 2)
    with Library(tmp_path, embed=by_meaning, embedding="toy") as library:
        library.add(OSLO + ROME)
    assert any((tmp_path / "vectors").iterdir())
    shutil.rmtree(tmp_path / lost)
    with Library(tmp_path, embed=by_meaning, embedding="toy") as library:
        assert library.recall(asked("two flights found"), k=1)[0].experience == OSLO[1]


def test_an_open_library_sees_what_another_process_adds(tmp_path):
    with Library(tmp_path) as reader:
        assert reader.recall(asked("flights"), k=1) == []
        adds = "import sys; from ratchet.agent.memory.library import Library; from tests.agent.test_library import OSLO; "
        code = f"{adds} Library(__import__('pathlib').Path(sys.argv[1])).add(OSLO)"
        subprocess.run([sys.executable, "-c", code, tmp_path], check=True, cwd=ROOT)
        assert seen(reader.recall(asked("two flights found"), k=1)) == ["two flights found"]


WRITER = """
import sys
from pathlib import Path
from ratchet.agent.memory.steps import Experience
from ratchet.agent.memory.library import WORD_INDEX_FOLDER, Library
with Library(Path(sys.argv[1])) as library:
    for n in range(10**6):
        library.add([Experience(observation=f"seen w{n} x{i}", action="a", trace_id=f"{n:032x}", case_id=str(n),
                                source="own", index=i) for i in range(20)])
        print(n, flush=True)
"""


@pytest.mark.parametrize("survivors", [1, 7, 30])
def test_a_kill_in_the_middle_of_inserts_loses_nothing_that_was_acknowledged(tmp_path, survivors):
    command = [sys.executable, "-c", WRITER, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        acknowledged = [int(writer.stdout.readline()) for _ in range(survivors)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout]  # what it said before the signal reached it
    assert writer.returncode == -signal.SIGKILL
    with Library(tmp_path) as library:
        kept = {(step.trace_id, step.index) for step in library.steps()}
        assert {(f"{n:032x}", i) for n in acknowledged for i in range(20)} <= kept
        assert len(kept) % 20 == 0, "a batch is there whole or not at all"
        for n in acknowledged:
            assert library.recall(asked(f"w{n}"), k=1)[0].experience.case_id == str(n)
        assert library.add(OSLO) == len(OSLO)


def test_what_is_taken_back_is_recalled_no_more_and_its_number_is_given_to_no_other_step(library, tmp_path):
    assert library.forget(["b" * 32, "d" * 32]) == 2
    assert [step.trace_id[0] for step in library.steps()] == ["a", "a", "a"]
    found = library.recall(asked("cancelled", goal="cancel the trip to Rome"), k=3)
    assert {one.experience.trace_id[0] for one in found} <= {"a"}
    assert library.add(steps("paint it", "the wall is grey", trace="e")) == 1
    (found,) = library.recall(asked("the wall is grey", goal="paint it"), k=1)
    assert found.experience.trace_id[0] == "e"
    assert library.add(ROME) == 2, "it may win again"
    found = library.recall(asked("cancelled", goal="cancel the trip to Rome"), k=1)
    assert seen(found) == ["cancelled"]
    assert library.forget(["b" * 32]) == 2
    assert library.forget(["b" * 32]) == 0


def test_taking_back_reaches_a_library_that_another_process_has_open(tmp_path):
    with Library(tmp_path) as one, Library(tmp_path) as other:
        one.add(OSLO + ROME)
        assert seen(other.recall(asked("cancelled", goal="cancel it"), k=1)) == ["cancelled"]
        one.forget(["b" * 32])
        assert other.recall(asked("cancelled", goal="cancel it"), k=1) == []


def test_a_step_with_a_vector_is_taken_back_too(tmp_path):
    def embed(texts):
        return np.array([[float("Rome" in text), 1.0] for text in texts])

    with Library(tmp_path, embed=embed, embedding="two") as library:
        library.add(OSLO + ROME)
        library.forget(["b" * 32])
        library.add(steps("cancel Rome", "it is shown", trace="e"))
        found = library.recall(asked("is it shown", goal="Rome"), k=5)
        assert {one.experience.trace_id[0] for one in found} <= {"a", "e"}
        assert "e" in {one.experience.trace_id[0] for one in found}


@pytest.mark.parametrize("harm", ["deleted", "garbled"])
def test_a_damaged_word_index_is_made_anew_from_the_steps(tmp_path, harm):
    with Library(tmp_path) as library:
        library.add(OSLO)
    for path in tmp_path.glob("words-*/*"):
        if path.suffix in (".term", ".idx") or (harm == "garbled" and path.name == "meta.json"):
            path.unlink() if harm == "deleted" else path.write_bytes(b"x" * 40)
    with Library(tmp_path) as library:
        assert seen(library.recall(asked("flights found", goal="fly to Oslo"), k=1)) == ["two flights found"]


BEFORE_IMPORTS = """
CREATE TABLE steps (
  id INTEGER PRIMARY KEY, trajectory TEXT NOT NULL, place INTEGER NOT NULL, role TEXT NOT NULL,
  case_id TEXT NOT NULL, trace_id TEXT NOT NULL, said TEXT NOT NULL, day REAL, shown INTEGER NOT NULL,
  led_to_success INTEGER NOT NULL, record TEXT NOT NULL, UNIQUE (trajectory, place, role));
"""


def test_a_library_of_the_version_before_opens_with_its_steps_and_tells_none_as_imported(tmp_path):
    with sqlite3.connect(tmp_path / "steps.db") as db:
        db.executescript(BEFORE_IMPORTS)
        for number, step in enumerate(OSLO, 1):
            row = (
                number,
                step.trajectory,
                step.index,
                "",
                step.case_id,
                step.trace_id,
                str(number),
                None,
                0,
                0,
            )
            db.execute(f"INSERT INTO steps VALUES ({','.join('?' * 11)})", (*row, step.to_json()))
    db.close()
    with Library(tmp_path) as library:
        assert list(library.steps()) == OSLO
        assert seen(library.recall(asked("flights found", goal="fly to Oslo"), k=1)) == ["two flights found"]
        assert library.imported() == library.recall(asked("flights found", imported=True), k=1) == []
