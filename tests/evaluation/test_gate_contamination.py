import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.agent.errors import BadInput
from ratchet.evaluation.data import near_text
from ratchet.evaluation.data.contamination import overlapping
from ratchet.evaluation.gate.pairs import Pair, refuse_contaminated

QUESTION = "My card was charged twice for the hotel in Lisbon last weekend, can you refund one of them?"
WORDS = [
    "".join(letters) for letters in np.random.default_rng(0).choice(list("aeioubdfgklmnprst"), size=(3000, 7))
]


def sentences(n, seed, length=25):
    rng = np.random.default_rng(seed)
    return {f"{seed}-{i}": " ".join(rng.choice(WORDS, size=length)) + f" {i}" for i in range(n)}


def test_same_id_same_text_and_near_text_are_found_and_others_are_not():
    seen = {"s1": QUESTION, "s2": None}
    cases = {
        "s2": "anything",
        "spaced": f"  {QUESTION.upper()}  ",
        "near": QUESTION.replace("can you", "could you"),
        "other": "Why is the exchange rate for euros different from the one that the app shows?",
        "unknown": None,
    }
    assert overlapping(cases, seen) == {"s2", "spaced", "near"}


def test_every_near_duplicate_among_thousands_is_found_within_seconds():
    seen = sentences(800, seed=1)
    rng = np.random.default_rng(2)
    copies = {}
    for name in list(seen)[::10]:
        words = seen[name].split()
        words[rng.integers(len(words))] = "changed"
        copies[f"copy of {name}"] = " ".join(words)
    start = time.process_time()
    found = overlapping(sentences(800, seed=3) | copies, seen, near=0.7)
    assert time.process_time() - start < 20
    assert found >= set(copies)


def templated(n, seed, own):
    """Letters from one template, each with `own` words and a number of its own."""
    rng = np.random.default_rng(seed)
    frame = "Dear team, I am writing because of the booking that I made with you last week, it concerns"
    return {
        f"{seed}-{i}": f"{frame} {' '.join(rng.choice(WORDS, size=own))} {i}, thank you for your help"
        for i in range(n)
    }


@pytest.mark.parametrize("own", [1, 2, 5])
@pytest.mark.parametrize("affordable", [near_text.AFFORDABLE, 0])
def test_near_duplicates_among_thousands_from_one_template_are_found_within_seconds(
    own, affordable, monkeypatch
):
    monkeypatch.setattr(near_text, "AFFORDABLE", affordable)
    seen = templated(2000, 1, own)
    copies = {f"copy of {name}": text.replace("thank", "many thank", 1) for name, text in seen.items()}
    same = {f"same as {name}": text.upper() for name, text in list(seen.items())[::10]}
    start = time.process_time()
    found = overlapping(templated(500, 2, own) | copies | same, seen)
    assert time.process_time() - start < 15
    assert len(set(copies) & found) >= (1 if affordable else 0.99) * len(copies)
    assert set(same) <= found


@given(st.lists(st.text("abc", max_size=12), max_size=6), st.lists(st.text("abc", max_size=12), max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_nearest_is_that_of_comparing_with_each(texts, known):
    def shingles(text):
        return {text[i : i + 5] for i in range(max(len(text) - 4, 1))}

    def similarity(one, other):
        return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))

    found = near_text.nearest_texts(texts, known)
    for text, (place, value) in zip(texts, found, strict=True):
        each = [similarity(text, other) for other in known]
        assert value == pytest.approx(max(each, default=0))
        assert place == (each.index(max(each)) if max(each, default=0) else None)


@given(st.text(max_size=60))
@settings(max_examples=50, deadline=None)
def test_any_text_overlaps_with_itself_unless_it_has_no_word(text):
    found = overlapping({"a": text}, {"b": text})
    assert len(found) == (1 if any(c.isalnum() or c == "_" for c in text) else 0)


def test_a_pair_whose_case_was_seen_is_refused():
    assert len(list(refuse_contaminated([Pair(case_id="fresh")], {"a", "b"}))) == 1
    with pytest.raises(BadInput, match="'b' was seen by the proposer"):
        list(refuse_contaminated([Pair(case_id="b")], {"a", "b"}))
