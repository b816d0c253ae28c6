"""Lexical similarity: bounded, blind to order, and right where a person would say so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.agent.memory.similarity import CharacterIndex, option_similarity, words_of


@pytest.mark.parametrize(
    ("name", "words"),
    [("getUser_profile.v2", "get User profile v"), ("weather", "weather"), ("a__b--c", "a b c"), ("42", "")],
)
def test_a_tools_name_is_read_as_words(name, words):
    assert words_of(name) == words


def test_the_option_that_the_request_names_is_most_similar():
    options = ["get current weather in a city", "book a flight between airports", "send an e-mail"]
    for request, best in [
        ("what is the wether in Oslo", 0),
        ("flights to Rome please", 1),
        ("mail my boss", 2),
    ]:
        assert option_similarity(request, options).argmax() == best


def test_an_equal_text_has_similarity_one_and_a_foreign_one_zero():
    same, foreign = option_similarity("order a taxi", ["order a taxi", "xyzzy"])
    assert same == pytest.approx(1)
    assert foreign == 0


def test_no_options_and_empty_texts_are_no_error():
    assert option_similarity("hello", []).shape == (0,)
    assert option_similarity("", ["a tool"]).tolist() == [0.0]
    assert option_similarity("hello", ["", "hello"])[0] == 0


@given(
    request=st.text(max_size=40),
    options=st.lists(st.text(max_size=30), min_size=1, max_size=5),
    data=st.data(),
)
def test_similarity_is_bounded_and_follows_the_options_around(request, options, data):
    scores = option_similarity(request, options)
    assert (scores >= 0).all()
    assert (scores <= 1 + 1e-9).all()
    order = data.draw(st.permutations(range(len(options))))
    np.testing.assert_allclose(
        option_similarity(request, [options[i] for i in order]), scores[list(order)], atol=1e-12
    )


def test_texts_without_a_letter_are_alike_to_nothing():
    assert CharacterIndex(["  ", ""]).similarity(["a"]).tolist() == [[0.0], [0.0]]
