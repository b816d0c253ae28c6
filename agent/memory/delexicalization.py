"""What an action is in terms of the goal: what two cases share that name everything differently.

`dice tomato with knife`, where a diced tomato is wanted, and `chop onion with knife`, where a chopped onion is, are
both `* with knife`; `SELECT count(*) FROM singer` for "How many singers are there?" is `select count from *`. So a
step is recalled where the same *kinds* of action were offered, and votes for the one of its own kind.

Why not an LM's or an embedding's analogy: the words are there already, this costs microseconds, and a model of 135 M
parameters draws none. Measured by `tests/bench/bench_agent.py` on games whose foods seldom recur.
"""

import hashlib
import re
from collections.abc import Iterable

SLOT = "*"
"""Stands for words that the goal has, too."""
_WORD = re.compile(r"[^\W_]+")


def template(action: str, goal: str) -> str:
    """The action in lower case with every run of words that the goal has as `*`; plurals count as the same word."""
    return _form(action, _words(goal))


def templates(actions: Iterable[str], goal: str) -> tuple[str, ...]:
    """The form of each action, in order."""
    known = _words(goal)
    return tuple(_form(action, known) for action in actions)


def template_hashes(actions: Iterable[str], goal: str) -> str:
    """The different forms of what is offered, each as one word for an index of words."""
    return " ".join(
        sorted(hashlib.sha256(f.encode()).hexdigest()[:12] for f in set(templates(actions, goal)))
    )


def _form(action: str, known: frozenset[str]) -> str:
    said: list[str] = []
    for word in _WORD.findall(action.lower()):
        shown = SLOT if _stem(word) in known else word
        if shown != SLOT or said[-1:] != [SLOT]:
            said.append(shown)
    return " ".join(said)


def _words(text: str) -> frozenset[str]:
    return frozenset(_stem(word) for word in _WORD.findall(text.lower()))


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word
