"""How answers are ordered and indexed: ranks fused, credit and age scaled, common words left out, files replaced whole."""

import numpy as np
import pytest

from ratchet.agent.memory import vector_index, word_index
from ratchet.agent.memory.ranking import (
    Found,
    Query,
    RecallSettings,
    embedded,
    fused,
    scaled,
    select_recalled,
)
from ratchet.agent.memory.vector_index import VectorIndex
from ratchet.agent.memory.word_index import FIELDS, WordIndex

EVEN = dict.fromkeys(FIELDS, 1.0)


def test_what_both_rankings_have_first_is_worth_one_and_what_one_has_less():
    worth = fused([[1, 2, 3], [1, 3]])
    assert worth[1] == pytest.approx(1)
    assert worth[3] > worth[2]
    assert fused([[5, 6], []]) == fused([[5, 6]]), "a ranking without an answer takes nothing away"
    assert fused([]) == {}


def test_never_shown_and_half_won_change_nothing_age_halves():
    plain = RecallSettings()
    assert scaled(0.8, plain) == pytest.approx(0.8)
    assert scaled(0.8, plain, credit=0.9) > 0.8 > scaled(0.8, plain, credit=0.1)
    aging = RecallSettings(half_life_days=10)
    assert scaled(0.8, aging, age_days=10) == pytest.approx(0.4)
    assert scaled(0.8, aging) == scaled(0.8, aging, age_days=-1) == pytest.approx(0.8)


def found(number, worth, **changes):
    fields = {
        "case_id": str(number),
        "trajectory": str(number),
        "said": str(number),
        "similarity": 0.5,
    }
    return Found(number=number, worth=worth, **(fields | changes))


def test_the_worthiest_that_may_be_shown_are_chosen_in_a_fixed_order():
    several = [found(3, 0.5), found(2, 0.5), found(1, 0.4), found(4, 0.9, similarity=0.0)]
    assert [f.number for f in select_recalled(several, Query(observation="x"), RecallSettings(), 2)] == [2, 3]


def test_fields_weigh_in_the_vector_as_they_were_told():
    def embed(texts):
        return np.array([[float("a" in text), float("b" in text)] for text in texts])

    fields = {"goal": "a", "observation": "b", "thought": ""}
    (even,), (goal,) = (embedded(embed, [fields], EVEN | {"goal": w}) for w in (1.0, 3.0))
    assert even[0] == pytest.approx(even[1])
    assert goal[0] == pytest.approx(3 * goal[1])
    assert not embedded(embed, [dict.fromkeys(FIELDS, "")], EVEN).any()


def row(number, text):
    return number, asked(text), "case"


def asked(text):
    return dict.fromkeys(FIELDS, "") | {"observation": text}


def test_words_of_any_script_and_case_are_found_and_signs_are_not_words():
    index = WordIndex(None)
    index.add([row(1, "ÜBER-Fluß; Київ"), row(2, '"quoted" AND (brackets) OR +'), row(3, "东京 flight")])
    for text, number in (("über", 1), ("київ", 1), ("and", 2), ("brackets)", 2), ("东京", 3)):
        assert [n for n, _ in index.search(asked(text), EVEN, 5)] == [number]
    assert index.search(asked("+ - () \" ' ^ ~"), EVEN, 5) == []


def test_the_same_text_has_similarity_near_one_and_a_shared_word_less():
    index = WordIndex(None)
    index.add(
        [row(1, "cancel the flight to Oslo"), row(2, "book a flight to Rome"), row(3, "what is the weather")]
    )
    ranked = index.search(asked("cancel the flight to Oslo"), EVEN, 3)
    assert ranked[0][0] == 1
    assert 0.8 < ranked[0][1] <= 1
    assert all(0 < similarity < 0.6 for _, similarity in ranked[1:])


def test_common_words_are_looked_up_only_as_far_as_the_budget_goes(monkeypatch):
    index = WordIndex(None)
    index.add([row(n, "please rare" if n == 7 else "please") for n in range(1, 50)])
    assert len(index.search(asked("please rare"), EVEN, 60)) == 49
    monkeypatch.setattr(word_index, "POSTINGS", 10)
    assert [n for n, _ in index.search(asked("please rare"), EVEN, 60)] == [7]
    assert len(index.search(asked("please"), EVEN, 60)) == 49, "the only word is looked up, however common"


def test_vectors_are_found_before_and_after_they_are_written_and_by_the_next_to_open(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_index, "SMALLEST", 30)
    vectors = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    index = VectorIndex(tmp_path, 8)
    for start in range(0, 100, 20):
        numbers = np.arange(start + 1, start + 21)
        index.add([(numbers, vectors[start : start + 20])])
        index.write_if_due()
        for n in (1, start + 20):
            number, cosine = index.search(vectors[n - 1], 1)[0]
            assert (number, cosine) == (n, pytest.approx(1, abs=1e-3))
    assert len(list(tmp_path.iterdir())) == 1, "older files and partial ones are gone"
    again = VectorIndex(tmp_path, 8)
    assert again.last == 80
    assert again.search(vectors[70], 1)[0][0] == 71
