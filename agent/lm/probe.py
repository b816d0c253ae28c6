"""Which adapter answers: prompts at temperature 0 whose answers under the adapter are not those of its base.

Why answers and not names: a server that lists the adapter, and puts its name on each answer, may calculate with the
base's weights all the same. Only what the weights say proves the weights.
Why only answers that come twice alike are used: a server that batches by load rounds by load, and a prompt on which
it wavers would tell nothing.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal

from ratchet.agent.candidate import Candidate
from ratchet.agent.lm.side_by_side import side_by_side
from ratchet.agent.record import Record

TOKENS: Final = 24
"""Of an answer: what differs, differs early, and rounding adds up."""
TELLING: Final = 6
"""Prompts that are kept: what a look at a server costs at most, but where it fails."""
AT_ONCE: Final = 4
_OWN: Final = 18
_REQUESTS: Final = (
    "Say hello and what you can do.",
    "Where is my order 4711?",
    "Write one sentence about the sea.",
    "What is 17 + 25?",
    "Continue: once upon a time",
    "Name three colours, separated by commas.",
)
Messages = list[dict[str, str]]
Ask = Callable[[str, Messages], str]
"""Model and messages → the answer at temperature 0, of at most `TOKENS` tokens."""
WhoAnswers = Literal["adapter", "base", "other", "unknown"]
"""`other`: neither as the adapter nor as the base did when the probe was made; `unknown`: no prompt tells."""


class Telling(Record):
    """A prompt that tells the adapter from its base."""

    messages: tuple[dict[str, str], ...]
    base: str
    adapter: str


class Probe(Record):
    """What was asked when the adapter was loaded, and what was answered."""

    schema_version: Literal[1] = 1
    adapter: str
    """Its name on the server."""
    n_asked: int
    """Prompts in all."""
    telling: tuple[Telling, ...] = ()
    """Those of them that tell, the first so many; empty: nothing tells this adapter from its base."""


def probe_messages(candidate: Candidate) -> list[Messages]:
    """The agent's own worked examples and the fixed prompts under its instructions; then these alone."""
    asked: list[Messages] = []
    for predictor in candidate.predictors.values():
        if predictor.instructions:
            system = {"role": "system", "content": predictor.instructions}
            requests = [*(demo.inputs for demo in predictor.demos[:TELLING]), *_REQUESTS]
            asked += [[system, _user(request)] for request in requests]
    plain = [[_user(request)] for request in _REQUESTS]
    return [*asked[:_OWN], *plain]


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def make_probe(adapter: str, base: str, asked: Sequence[Messages], ask: Ask) -> Probe:
    """Ask the base and the adapter, twice each, until enough prompts tell them apart.

    Args:
        adapter: its name on the server.
        base: the model that it changes, by its name there.
        asked: prompts, as `probe_messages` makes them.
        ask: how to ask.
    """
    telling: list[Telling] = []
    n_asked = 0
    for start in range(0, len(asked), TELLING):
        some = asked[start : start + TELLING]
        calls = [(model, messages) for messages in some for model in (base, base, adapter, adapter)]
        said = side_by_side(lambda one: ask(*one), calls, at_once=AT_ONCE)
        for n, messages in enumerate(some):
            first, again, theirs, theirs_again = said[4 * n : 4 * n + 4]
            if first == again != theirs == theirs_again:
                telling.append(Telling(messages=tuple(messages), base=first, adapter=theirs))
        n_asked += len(some)
        if len(telling) >= TELLING:
            break
    return Probe(adapter=adapter, n_asked=n_asked, telling=tuple(telling[:TELLING]))


def who_answers(probe: Probe, ask: Ask) -> WhoAnswers:
    """Whose answers come under the adapter's name now; half of them must be the adapter's, to the letter."""
    if not probe.telling:
        return "unknown"
    said = _said(probe, probe.adapter, ask)
    ours = sum(text == one.adapter for text, one in zip(said, probe.telling, strict=True))
    bases = sum(text == one.base for text, one in zip(said, probe.telling, strict=True))
    if 2 * ours >= len(said) and ours > bases:
        return "adapter"
    return "base" if 2 * bases >= len(said) else "other"


def base_has_changed(probe: Probe, base: str, ask: Ask) -> bool:
    """Whether the base itself no longer answers as it did: another version of the server, or other hardware."""
    said = _said(probe, base, ask)
    return 2 * sum(text == one.base for text, one in zip(said, probe.telling, strict=True)) < len(said)


def _said(probe: Probe, model: str, ask: Ask) -> list[str]:
    return side_by_side(lambda one: ask(model, list(one.messages)), probe.telling, at_once=AT_ONCE)
