"""What recurs together, and what a new one is: the unit that is left out where something is chosen on examples.

Why groups: cases of one toolset, or of one conversation, are alike, so what was learned from the others of its group
helps an example that is left out by itself. Whatever is chosen on such examples trusts experience too much where a
request comes that is like nothing before (leave-one-group-out; Roberts et al., Ecography 2017, on blocked
cross-validation). Two notions, for two uses: a partition, to hold whole groups out, and a neighbourhood, to make a
memory forget all that it knows of what is at hand.
"""

import random
import re
from collections.abc import Sequence
from typing import TypeVar

from ratchet.agent.kinds.decision import View
from ratchet.agent.memory.delexicalization import SLOT
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Example

T = TypeVar("T")
_VALUE = re.compile(r"\"[^\"]*\"|“[^”]*”|\S*\d\S*|(?<=[\w,] )[A-Z]\w*")


def group_of(example: Example) -> str:
    """The toolset where an action is chosen, the trajectory where it is one of several steps, else the template.

    The template is the request with its values (numbers, quotations, names) as `*`.
    """
    view = example.view
    if view.done or (view.goal and view.goal != view.observation.text):
        return f"case {view.case_id}"
    names = sorted(option.name for option in view.observation.options)
    return "\n".join(names) if names else _VALUE.sub(SLOT, view.observation.text).casefold()


def is_neighbour(step: Experience, view: View) -> bool:
    """Whether the step tells of what is offered here: of its case, or a decision that had one of these options."""
    if step.case_id == view.case_id or step.index is not None:
        return step.case_id == view.case_id
    here = {option.name for option in view.observation.options}
    return step.action in here or not here.isdisjoint(step.options)


def hold_out(examples: Sequence[Example], n: int, seed: int) -> tuple[list[Example], list[Example]]:
    """About `n` examples in whole groups, drawn at random, and the rest; single ones where groups are too large.

    Returns:
        Held out (at most `n`) and the others.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(group_of(example), []).append(example)
    rng = random.Random(seed)
    held: list[Example] = []
    for members in _shuffled(list(groups.values()), rng):
        if len(held) + len(members) <= n:
            held += members
    if len(held) <= n // 2:
        held = _shuffled(examples, rng)[:n]
    chosen = {id(example) for example in held}
    return held, _shuffled([example for example in examples if id(example) not in chosen], rng)


def _shuffled(items: Sequence[T], rng: random.Random) -> list[T]:
    found = list(items)
    rng.shuffle(found)
    return found
