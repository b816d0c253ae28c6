"""What a group of messages is called: one of them, cut around what sets it apart; never torn words, never another's."""

import numpy as np

from ratchet.evaluation.drift.clusters import name_group
from ratchet.evaluation.drift.monitor import DriftMonitor

USUAL = [
    "where is my card please",
    "my transfer has not arrived",
    "how do I top up",
    "the fee is too high for me",
] * 20


def test_a_group_is_called_by_its_most_central_message_that_has_what_is_new() -> None:
    texts = [
        "my transfer has not arrived yet",
        "can I get a mortgage",
        "a mortgage for a flat",
        "mortgage rates?",
    ]
    name, examples = name_group(texts, USUAL)
    assert name == "can I get a mortgage"
    assert examples == ("can I get a mortgage", "a mortgage for a flat", "mortgage rates?")


def test_a_long_message_is_cut_to_what_stands_around_the_new_word() -> None:
    preamble = "You are a helpful assistant.\nAnswer in one sentence and always stay polite to the person who asks.\n"
    usual = [preamble + text for text in USUAL]
    texts = [
        f"{preamble}Question {i}: what does a mortgage cost me each month in the first year?"
        for i in range(5)
    ]
    name, _ = name_group(texts, usual)
    assert len(name) <= 60
    assert "mortgage" in name
    assert name.startswith("…")
    assert not any(half in name for half in ("helpful", "\n"))


def test_one_long_word_is_cut_as_well() -> None:
    assert len(name_group(["x" * 400] * 3, USUAL)[0]) <= 60


def test_without_blanks_the_pieces_that_recur_are_the_name() -> None:
    random = np.random.default_rng(0)

    def say(things: list[str], ends: list[str]) -> str:
        return (
            str(random.choice(["昨天", "今天", "朋友"]))
            + "点的"
            + str(random.choice(things))
            + str(random.choice(ends))
        )

    usual = [say(["面条", "套餐", "米饭"], ["味道很好", "有点咸", "都凉了"]) for _ in range(200)]
    group = [say(["酒店"], ["空调坏了", "早餐太少"]) for _ in range(20)]
    name, examples = name_group(["今天点的面条都凉了", *group], usual)
    assert name.split()[0] == "酒店"
    assert all("酒店" in text for text in examples)


def test_the_clusters_of_an_alarm_are_called_by_their_own_messages() -> None:
    random = np.random.default_rng(1)
    usual = [f"where is my {random.choice(['card', 'pin', 'fee'])} number {i}" for i in range(300)]
    new = [
        f"do you offer {random.choice(['a mortgage', 'insurance'])} to students, case {i}" for i in range(100)
    ]
    monitor = DriftMonitor(usual[:200])
    for start in range(0, 100, 25):
        monitor.update([*new[start : start + 25], *usual[200 + start : 225 + start]])
    said = monitor.explain()
    assert said.clusters
    assert all(cluster.name in new for cluster in said.clusters)
