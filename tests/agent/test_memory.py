"""Experience: recall is exact and honest, a vote is bounded, a snapshot is its content."""

import string
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.agent.memory.ranking import Query, RecallSettings
from ratchet.agent.memory.snapshot import NEIGHBOURS, Memory, as_demos
from ratchet.agent.memory.steps import Experience


def experience(observation, action="a", case_id=None, **changes):
    case_id = case_id or f"case of {observation}"
    fields = {
        "observation": observation,
        "action": action,
        "trace_id": "t",
        "case_id": case_id,
        "source": "own",
    }
    return Experience(**(fields | changes))


EXPERIENCES = st.lists(
    st.builds(
        experience,
        st.text(max_size=20),
        st.sampled_from("abc"),
        st.sampled_from(["1", "2", "3"]),
        source=st.sampled_from(["own", "human"]),
        trace_id=st.sampled_from("tuv"),
    ),
    max_size=6,
)


def test_the_most_similar_experience_is_recalled_first():
    memory = Memory(
        [
            experience("weather in Oslo tomorrow"),
            experience("book a table for two"),
            experience("weather in Rome"),
        ]
    )
    found = memory.recall(Query(observation="what is the weather in Oslo tomorrow?"), k=3)
    assert [r.experience.observation for r in found] == ["weather in Oslo tomorrow", "weather in Rome"]
    assert 1 >= found[0].similarity > found[1].similarity > 0


def test_at_most_k_are_recalled_and_none_for_zero():
    memory = Memory(experience(f"weather in town {n}") for n in range(5))
    assert len(memory.recall(Query(observation="weather in town"), k=2)) == 2
    assert memory.recall(Query(observation="weather in town"), k=0) == []


def test_the_case_at_hand_is_not_recalled_and_another_takes_its_place():
    memory = Memory(
        [experience("weather in Oslo", case_id="mine"), experience("weather in Rome", case_id="other")]
    )
    found = memory.recall(Query(observation="weather in Oslo", exclude_case="mine"), k=1)
    assert [r.experience.case_id for r in found] == ["other"]


def test_nothing_similar_recalls_nothing():
    memory = Memory([experience("weather in Oslo")])
    assert memory.recall(Query(observation="zzz qqq"), k=5) == []
    assert memory.recall(Query(observation=""), k=5) == []


@pytest.mark.parametrize(
    "texts", [[], [""], ["  ", "\n"]], ids=["no entries", "an empty text", "white space"]
)
def test_a_memory_without_words_recalls_nothing(texts):
    memory = Memory(experience(text, case_id=str(n)) for n, text in enumerate(texts))
    assert len(memory.experiences) == len(texts)
    assert memory.recall(Query(observation="weather"), k=3) == []


def test_equally_similar_experiences_come_in_a_fixed_order():
    entries = [experience("weather in Oslo", case_id=c) for c in "dbca"]
    for order in (entries, entries[::-1]):
        assert [
            r.experience.case_id for r in Memory(order).recall(Query(observation="weather"), k=4)
        ] == list("abcd")


@given(entries=EXPERIENCES, data=st.data())
def test_a_snapshots_id_does_not_depend_on_the_order_in_which_experience_came(entries, data):
    shuffled = data.draw(st.permutations(entries))
    assert Memory(shuffled).memory_id == Memory(entries).memory_id
    assert Memory(shuffled).experiences == Memory(entries).experiences


def test_of_one_case_and_action_a_persons_entry_is_kept():
    own, human = (experience("x", case_id="1", source=source) for source in ("own", "human"))
    for order in ([own, human], [human, own]):
        assert [e.source for e in Memory(order).experiences] == ["human"]


def test_ids_differ_where_what_is_remembered_differs():
    ids = {Memory([experience("x", action)]).memory_id for action in "ab"} | {Memory([]).memory_id}
    assert len(ids) == 3


@given(entries=EXPERIENCES)
def test_a_saved_snapshot_comes_back_with_the_same_id(entries, tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "snapshot.jsonl"
    memory = Memory(entries)
    memory.save(path)
    again = Memory.load(path)
    assert again.experiences == memory.experiences
    assert again.memory_id == memory.memory_id


def test_line_separators_of_unicode_inside_a_text_do_not_end_a_record(tmp_path):
    memory = Memory([experience("one\u2028two\x85three\u2029four\r\nfive")])
    memory.save(tmp_path / "m.jsonl")
    assert Memory.load(tmp_path / "m.jsonl").experiences == memory.experiences


@pytest.mark.parametrize("broken", [b"{not json", b"", b'{"observation": 1}', b"\xff\xfe"])
def test_a_corrupt_line_is_named_with_its_number(tmp_path, broken):
    good = experience("x").to_json().encode()
    path = tmp_path / "snapshot.jsonl"
    path.write_bytes(good + b"\n" + broken + b"\n" + good + b"\n")
    with pytest.raises(CorruptRecord, match=r"snapshot\.jsonl:2: not a Experience"):
        Memory.load(path)


@given(
    entries=EXPERIENCES,
    request=st.text(alphabet=string.ascii_lowercase + " ", max_size=20),
    options=st.lists(st.sampled_from("abcd"), unique=True, max_size=4),
)
def test_votes_sum_to_at_most_one_and_go_only_to_offered_options(entries, request, options):
    memory = Memory(entries)
    recalled = memory.recall(Query(observation=request), k=NEIGHBOURS)
    votes = memory.vote(recalled, options)
    assert votes.shape == (len(options),)
    assert (votes >= 0).all()
    assert votes.sum() <= 1
    known = {r.experience.action for r in recalled}
    assert all(vote == 0 for vote, name in zip(votes, options, strict=True) if name not in known)


def test_the_more_similar_experience_outvotes_the_less_similar_one():
    memory = Memory([experience("weather in Oslo tomorrow", "forecast"), experience("weather map", "map")])
    votes = memory.vote(
        memory.recall(Query(observation="weather in Oslo tomorrow?"), k=2), ["map", "forecast", "other"]
    )
    assert votes[1] > votes[0] > 0
    assert votes[2] == 0


def test_no_experience_gives_no_vote():
    np.testing.assert_array_equal(Memory([]).vote([], ["a", "b"]), [0, 0])


def test_recalled_steps_stand_in_the_prompt_with_the_nearest_last():
    memory = Memory([experience("weather in Oslo", "a"), experience("weather in a town far away", "b")])
    demos = as_demos(memory.recall(Query(observation="weather in Oslo"), k=2))
    assert [demo.output for demo in demos] == ["b", "a"]
    assert demos[1].case_id == "case of weather in Oslo"


def test_a_memory_of_single_decisions_has_the_id_and_the_file_that_it_always_had(tmp_path):
    memory = Memory(
        [
            experience("weather in Oslo", options=("a", "b"), case_id="c"),
            experience("x", "b", trace_id="t2", case_id="d", source="human"),
        ]
    )
    assert memory.memory_id == "2ebe3c4a6bc15370"  # as before there were steps of trajectories
    memory.save(tmp_path / "m.jsonl")
    assert (tmp_path / "m.jsonl").read_text().splitlines()[0] == (
        '{"observation":"weather in Oslo","action":"a","options":["a","b"],"trace_id":"t","case_id":"c","source":"own"}'
    )


def walk(trace_id, *observations, **changes):
    return [
        experience(text, f"do {i}", trace_id=trace_id, index=i, **({"case_id": trace_id} | changes))
        for i, text in enumerate(observations)
    ]


WALKS = [
    *walk("t1", "a closed door", "an open door", goal="leave the house"),
    *walk("t2", "a closed box", "an open box", goal="find the coin"),
]


def test_steps_of_a_trajectory_are_recalled_by_goal_and_reasoning_with_their_neighbours():
    memory = Memory([*WALKS, *walk("t3", "nothing here", thought="the coin is elsewhere", goal="x")])
    (found,) = memory.recall(Query(observation="an open thing", goal="find the coin"), k=1)
    assert (found.experience.observation, [s.observation for s in found.before]) == (
        "an open box",
        ["a closed box"],
    )
    assert (
        memory.recall(Query(observation="", thought="the coin is elsewhere"), k=1)[0].experience.case_id
        == "t3"
    )
    assert "t2" not in {
        r.experience.case_id
        for r in memory.recall(Query(observation="an open box", goal="find the coin", exclude_case="t2"), k=3)
    }


def test_equal_steps_of_two_trajectories_are_both_remembered_each_at_its_place():
    assert len(Memory([*walk("t1", "x", "x"), *walk("t2", "x", "x")]).experiences) == 4


def test_how_a_memory_recalls_is_part_of_what_it_is_and_comes_back_from_its_file(tmp_path):
    plain, set_up = Memory(WALKS), Memory(WALKS, settings=RecallSettings(window=1))
    assert len({plain.memory_id, set_up.memory_id, Memory(WALKS, settings=RecallSettings()).memory_id}) == 3
    set_up.save(tmp_path / "m.jsonl")
    again = Memory.load(tmp_path / "m.jsonl")
    assert (again.memory_id, again.settings, again.experiences) == (
        set_up.memory_id, set_up.settings, set_up.experiences,
    )  # fmt: skip


def test_an_older_step_counts_less_where_age_counts_and_the_snapshot_itself_says_how_old_it_is():
    old = walk("t3", "a closed door", recorded_at=datetime(2026, 1, 1, tzinfo=UTC))
    new = walk("t4", "a closed shutter", recorded_at=datetime(2026, 3, 1, tzinfo=UTC))
    asked = Query(observation="a closed door")
    assert Memory(old + new).recall(asked, k=1)[0].experience == old[0]
    aging = Memory(old + new, settings=RecallSettings(half_life_days=10))
    assert aging.recall(asked, k=1)[0].experience == new[0]


def of_doors(texts):
    return np.array([[float("door" in t or "gate" in t), float("box" in t), 0.01] for t in texts])


def test_a_memory_that_recalls_by_an_embedding_needs_it(tmp_path):
    named = RecallSettings(embedding="doors")
    Memory(WALKS, settings=named, embed=of_doors).save(tmp_path / "m.jsonl")
    with pytest.raises(BadInput, match="recalls by embedding 'doors', which is not given"):
        Memory.load(tmp_path / "m.jsonl")
    memory = Memory.load(tmp_path / "m.jsonl", embeddings={"doors": of_doors}.get)
    assert memory.recall(Query(observation="gate"), k=1)[0].experience.case_id == "t1"
    assert Memory(WALKS).recall(Query(observation="gate"), k=1) == [], (
        "words alone do not know that a gate is a door"
    )


def test_a_corrupt_first_line_of_settings_is_named(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"recall": {"window": -1}}\n')
    with pytest.raises(CorruptRecord, match=r"m\.jsonl:1: .*recall\.window"):
        Memory.load(tmp_path / "m.jsonl")
