"""Streams of Banking77 messages, with and without drift, that every drift benchmark draws from.

A run draws without replacement wherever it can, so that a message of the reference does not come back.
"""

import csv
import os
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ratchet.agent.memory.ranking import Embed
from ratchet.evaluation.data.embedding import without_numbers
from ratchet.evaluation.drift.message import Message

SHARED: Final = Path(os.environ.get("RATCHET_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FOLDER: Final = SHARED / "data" / "banking77"
REFERENCE: Final = 1_000
WINDOW: Final = 50
BOILERPLATE: Final = "Sent from my phone. This message is confidential and intended for the addressee only."

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Messages:
    """All messages with their intents."""

    texts: list[str]
    intents: NDArray[np.str_]
    names: list[str]


def load() -> Messages:
    if not FOLDER.is_dir():
        raise SystemExit(f"{FOLDER} is absent: put the Banking77 files (train.csv, test.csv) there")
    rows = []
    for name in ("train.csv", "test.csv"):
        with (FOLDER / name).open(encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    intents = np.array([row["category"] for row in rows])
    return Messages([row["text"] for row in rows], intents, sorted(set(intents.tolist())))


def remembered(embed: Embed | None, messages: Messages, cache: Path | None = None) -> Embed | None:
    """The embedding with the vectors of all messages kept, so that a thousand runs pay for them once.

    `cache` is an .npz of `vectors`, row by row those of `messages.texts`; made where it is absent.
    """
    if embed is None:
        return None
    if cache is not None and cache.exists():
        vectors = np.load(cache)["vectors"]
    else:
        vectors = embed([without_numbers(text) for text in messages.texts])
        if cache is not None:
            np.savez(cache, vectors=vectors)
    known = dict(zip(map(without_numbers, messages.texts), vectors, strict=True))

    def looked_up(texts: object) -> NDArray[np.floating]:
        asked = list(texts)  # type: ignore[call-overload]
        unknown = [text for text in asked if text not in known]
        if unknown:
            known.update(zip(unknown, embed(unknown), strict=True))
        return np.array([known[text] for text in asked])

    return looked_up


def windows(rows: list[Message], size: int = WINDOW) -> Iterator[list[Message]]:
    for start in range(0, len(rows) - size + 1, size):
        yield rows[start : start + size]


def reference_rows(messages: Messages, chosen: Ints) -> list[Message]:
    """The reference knows which intent the agent chose; later traffic is text alone."""
    return [Message(text=messages.texts[i], tool=str(messages.intents[i])) for i in chosen]


def null_stream(
    messages: Messages, seed: int, n_windows: int, *, kind: str
) -> tuple[list[Message], list[Message]]:
    """Reference and traffic without drift.

    `independent`, `sessions` of 4 on one intent, `interleaved` ones of 3 and more, `jitter` of the mix, or `long`:
    independent with replacement, for more messages than there are.
    """
    random = np.random.default_rng([seed, 11])
    n = len(messages.texts)
    if kind == "long":
        drawn = random.integers(n, size=REFERENCE + n_windows * WINDOW)
        return reference_rows(messages, drawn[:REFERENCE]), plain(messages, drawn[REFERENCE:])
    if kind == "interleaved":
        rows = interleaved(messages, random, REFERENCE + n_windows * WINDOW)
        return rows[:REFERENCE], [row.model_copy(update={"tool": None}) for row in rows[REFERENCE:]]
    if kind == "independent":
        order = random.permutation(n)
        traffic = order[REFERENCE : REFERENCE + n_windows * WINDOW]
        return reference_rows(messages, order[:REFERENCE]), plain(messages, traffic)
    of_intent = {name: np.flatnonzero(messages.intents == name) for name in messages.names}
    if kind == "sessions":
        rows = []
        for session in range((REFERENCE + n_windows * WINDOW) // 4):
            intent = messages.intents[random.integers(n)]
            rows += [
                Message(text=messages.texts[i], tool=str(intent), session=str(session))
                for i in random.choice(of_intent[str(intent)], 4, replace=False)
            ]
        traffic_rows = [row.model_copy(update={"tool": None}) for row in rows[REFERENCE:]]
        return rows[:REFERENCE], traffic_rows
    usual = np.array([len(of_intent[name]) for name in messages.names], dtype=float)
    chosen = random.choice(n, REFERENCE, replace=False)
    traffic_list: list[int] = []
    for _ in range(n_windows):
        mix = usual * np.exp(0.3 * random.standard_normal(len(usual)))
        for k, count in enumerate(random.multinomial(WINDOW, mix / mix.sum())):
            traffic_list += random.choice(of_intent[messages.names[k]], count).tolist()
        traffic_list[-WINDOW:] = random.permutation(traffic_list[-WINDOW:]).tolist()
    return reference_rows(messages, chosen), plain(messages, np.array(traffic_list))


def interleaved(messages: Messages, random: np.random.Generator, n: int) -> list[Message]:
    """A stretch of 15 conversations at a time: a greeting, two and more messages of one intent, and thanks."""
    of_intent = {name: np.flatnonzero(messages.intents == name) for name in messages.names}
    going: list[list[Message]] = []
    rows: list[Message] = []
    begun, warm = 0, 300
    while len(rows) < n + warm:
        while len(going) < 15:
            intent = str(messages.intents[random.integers(len(messages.texts))])
            asked = random.choice(of_intent[intent], 1 + random.geometric(0.25), replace=False)
            greeting, thanks = random.choice(GREETINGS), random.choice(THANKS)
            texts = [greeting, *(messages.texts[i] for i in asked), thanks]
            going.append([Message(text=str(text), tool=intent, session=str(begun)) for text in texts])
            begun += 1
        i = int(random.integers(15))
        rows.append(going[i].pop(0))
        if not going[i]:
            del going[i]
    return rows[warm:]


def drifted_stream(
    messages: Messages,
    seed: int,
    share: Callable[[int], float],
    *,
    onset: int,
    length: int,
    n_new: int = 3,
    n_domains: int = 0,
    session: int = 1,
    surge: bool = False,
    corrupt: Callable[[str, np.random.Generator], str] | None = None,
) -> tuple[list[Message], list[Message], list[str]]:
    """Reference, traffic that drifts from message `onset`, and the drifted intents.

    `share(m)` is the probability that the m-th message (or session) after the change point is drifted. Drifted
    messages are of `n_new` intents, or all intents of `n_domains` domains, that the reference lacks (with `surge`: has),
    or corrupted ones.
    """
    random = np.random.default_rng([seed, 13])
    new = [str(name) for name in random.permutation(messages.names)[:n_new]]
    if n_domains:
        chosen_domains = set(random.permutation(list(DOMAINS))[:n_domains].tolist())
        new = [name for name in messages.names if domain(name) in chosen_domains]
    is_new = np.isin(messages.intents, new)
    old = random.permutation(
        np.flatnonzero(~is_new) if corrupt is None and not surge else np.arange(len(is_new))
    )
    drifted = np.flatnonzero(is_new)
    by_intent = {name: np.flatnonzero(messages.intents == name) for name in messages.names}
    rows: list[Message] = []
    position = REFERENCE
    while len(rows) < length:
        moved = len(rows) >= onset and random.random() < share(len(rows) - onset)
        seed_row = int(random.choice(drifted)) if moved and corrupt is None else int(old[position])
        position += 1
        of = by_intent[str(messages.intents[seed_row])]
        chosen = [seed_row, *random.choice(of, session - 1).tolist()]
        name = None if session == 1 else str(len(rows))
        for i in chosen:
            text = messages.texts[i]
            rows.append(Message(text=corrupt(text, random) if moved and corrupt else text, session=name))
    usual = reference_rows(messages, old[:REFERENCE])
    if session > 1:
        usual = [row.model_copy(update={"session": f"usual {i}"}) for i, row in enumerate(usual)]
    return usual, rows[:length], new


def plain(messages: Messages, chosen: Ints) -> list[Message]:
    return [Message(text=messages.texts[i]) for i in chosen]


def typos(text: str, random: np.random.Generator) -> str:
    letters = list(text)
    for _ in range(max(1, len(letters) // 12)):
        i = int(random.integers(len(letters)))
        letters[i] = str(random.choice(list(string.ascii_lowercase)))
    return "".join(letters)


GREETINGS: Final = (
    "hello",
    "hi there",
    "good morning",
    "hey, is anybody there?",
    "hello, I need some help please",
)
THANKS: Final = ("thanks", "thank you so much, bye", "ok great", "perfect, that is all", "cheers")
DOMAINS: Final[dict[str, tuple[str, ...]]] = {
    "top up": ("top_up", "topping"),
    "cash": ("cash", "atm"),
    "transfer": ("transfer", "beneficiary", "receiving", "direct_debit"),
    "exchange": ("exchange", "fiat", "currenc"),
    "identity": ("identity", "verify", "personal", "age_limit", "terminate"),
    "security": ("lost", "stolen", "compromised", "pin", "passcode", "swallowed"),
    "refund": ("efund", "reverted", "charged_twice", "extra_charge", "not_recognised"),
    "getting a card": ("order", "arrival", "delivery", "get_", "getting", "expire", "linking", "activate"),
    "using a card": ("card", "contactless", "apple", "country"),
}
"""Banking77's intents by what occurs in their names, the first that fits: like the domains of CLINC150."""


def domain(intent: str) -> str | None:
    """The domain of an intent; None where no word fits."""
    return next((name for name, words in DOMAINS.items() if any(word in intent for word in words)), None)


GERMAN: Final = {
    "the": "die", "my": "meine", "i": "ich", "is": "ist", "card": "karte", "to": "zu", "how": "wie", "a": "ein",
    "do": "tue", "can": "kann", "why": "warum", "not": "nicht", "what": "was", "money": "geld", "account": "konto",
    "transfer": "überweisung", "for": "für", "on": "auf", "in": "in", "was": "war", "have": "habe", "it": "es",
    "payment": "zahlung", "you": "sie", "of": "von", "and": "und", "up": "auf", "top": "oben", "cash": "bargeld",
}  # fmt: skip

CORRUPTIONS: Final[dict[str, Callable[[str, np.random.Generator], str]]] = {
    "typos": typos,
    "truncation": lambda text, random: text[: max(5, len(text) * 2 // 5)],
    "boilerplate": lambda text, random: f"{text} {BOILERPLATE}",
    "upper case": lambda text, random: text.upper(),
    "lower case, no punctuation": lambda text, random: "".join(
        letter for letter in text.lower() if letter not in string.punctuation
    ),
    "another language": lambda text, random: " ".join(
        GERMAN.get(word.strip("?.,!").lower(), word) for word in text.split()
    ),
}
