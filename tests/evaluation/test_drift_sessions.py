"""Conversations that interleave and go on over many windows: no drift by themselves, and drift is found in them."""

import numpy as np
import pytest

from ratchet.evaluation.drift.conformal import QUANTILES, log_bets, low_counts, message_shares, usual_size
from ratchet.evaluation.drift.message import Message
from ratchet.evaluation.drift.monitor import DriftMonitor

KNOWN = (
    "card",
    "transfer",
    "cash withdrawal",
    "top up",
    "refund",
    "account",
    "pin",
    "exchange",
    "fee",
    "loan",
)
NEW = ("mortgage", "pension", "insurance")
OPENINGS = ("hello", "hi there", "good morning", "hey, is anybody there?", "hello, I need some help")
QUESTIONS = (
    "why was my {} declined", "how do I get a {}", "where is my {} please", "my {} costs too much?",
    "can I change my {}", "the {} does not work since Monday",
)  # fmt: skip
DETAILS = (
    "it was the {} of last week",
    "yes, the {}",
    "no, the {} on my phone",
    "I tried the {} twice already",
)
CLOSINGS = ("thanks", "thank you so much, bye", "ok great", "perfect, that is all", "cheers")
OPEN = 15


def conversation(random: np.random.Generator, name: str, kind: str) -> list[Message]:
    """Greeting, question, some details, thanks: a first message is not like a last one."""
    frames = [OPENINGS, QUESTIONS, *[DETAILS] * int(random.geometric(0.2)), CLOSINGS]
    texts = [str(random.choice(frame)).format(kind) for frame in frames]
    return [Message(text=text, session=name, tool=kind) for text in texts]


def interleaved(seed: int, n: int, drifts_at: int | None = None) -> list[Message]:
    """Messages of 15 conversations at a time, long begun; from `drifts_at` on 40 % of new ones are of new kinds."""
    random = np.random.default_rng(seed)
    going: list[list[Message]] = []
    rows: list[Message] = []
    begun, warm = 0, 20 * OPEN
    while len(rows) < n + warm:
        while len(going) < OPEN:
            new = drifts_at is not None and len(rows) - warm >= drifts_at and random.random() < 0.4
            going.append(conversation(random, str(begun), str(random.choice(NEW if new else KNOWN))))
            begun += 1
        i = int(random.integers(OPEN))
        rows.append(going[i].pop(0))
        if not going[i]:
            del going[i]
    return rows[warm:]


def alarm_at(rows: list[Message], seed: int, reference: int = 1_000) -> int | None:
    """Number of messages after which it alarmed."""
    monitor = DriftMonitor(rows[:reference], seed=seed)
    for start in range(reference, len(rows), 50):
        window = [row.model_copy(update={"tool": None}) for row in rows[start : start + 50]]
        if monitor.update(window).alarm:
            return monitor.n_seen
    return None


@pytest.mark.parametrize("seed", range(6))
def test_interleaved_conversations_that_stay_the_same_raise_no_alarm(seed: int) -> None:
    assert alarm_at(interleaved(seed, 2_500), seed) is None


@pytest.mark.parametrize("seed", range(3))
def test_new_requests_are_found_in_interleaved_conversations(seed: int) -> None:
    found = alarm_at(interleaved(seed, 2_500, drifts_at=1_500), seed)
    assert found is not None
    assert 500 < found <= 1_000


@pytest.mark.parametrize("seed", [0, 3])
def test_a_tool_that_a_conversation_keeps_to_is_no_drift(seed: int) -> None:
    random = np.random.default_rng(seed)
    tools = [f"tool {i}" for i in range(40)]
    rows = [row.model_copy(update={"text": None}) for row in interleaved(seed, 3_000)]
    kept = {row.session: str(random.choice(tools)) for row in rows}
    told = [row.model_copy(update={"tool": kept[row.session]}) for row in rows]
    monitor = DriftMonitor(told[:1_000])
    assert not any(monitor.update(told[start : start + 50]).alarm for start in range(1_000, 3_000, 50))


def test_a_session_is_one_bet_in_however_many_windows_it_comes() -> None:
    p, session = np.array([0.01, 0.6, 0.04, 0.2]), np.zeros(4, dtype=np.int64)
    first, rest = low_counts(p[:1], session[:1], 1), low_counts(p[1:], session[1:], 1)
    parts = log_bets(first, size=4.0) + log_bets(rest, before=first, size=4.0)
    np.testing.assert_allclose(parts, log_bets(first + rest, size=4.0))


def test_the_bet_of_a_session_is_fair_however_alike_its_messages_are() -> None:
    p, session = (np.arange(1_000) + 0.5) / 1_000, np.zeros(6, dtype=np.int64)
    bets = [np.exp(log_bets(low_counts(np.full(6, one), session, 1), size=4.0)) for one in p]
    np.testing.assert_allclose(np.mean(bets, axis=0), 1.0)
    assert len(bets[0]) == 4 * len(QUANTILES)


def test_a_message_weighs_the_same_wherever_it_stands_until_its_session_is_longer_than_usual() -> None:
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert usual_size(groups) == 4.0
    np.testing.assert_allclose(message_shares(np.array([0, 1]), np.array([0, 3]), 4.0).weights, 0.25)
    np.testing.assert_allclose(message_shares(np.array([0, 0]), np.array([6, 6]), 4.0).weights, 1 / 8)
