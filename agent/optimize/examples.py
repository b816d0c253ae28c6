"""What proposers do with examples: which are usable, what was never offered, how many the agent gets right."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

from ratchet.agent.environment import Option
from ratchet.agent.errors import LMFailure
from ratchet.agent.kinds.decision import Decision, View
from ratchet.agent.kinds.program import Program
from ratchet.agent.lm.side_by_side import side_by_side
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Example
from ratchet.agent.record import content_hash


def learned_options(examples: Sequence[Example]) -> tuple[Option, ...]:
    """Actions that people named three times or more although no environment offered them, such as to abstain."""
    counts: dict[str, int] = {}
    for example in examples:
        if not example.is_offered:
            counts[example.answer] = counts.get(example.answer, 0) + 1
    return tuple(
        Option(name=name, description="None of the options above does what is asked.")
        for name, count in sorted(counts.items())
        if count >= 3
    )


def usable(examples: Sequence[Example], extra: Sequence[Option]) -> list[Example]:
    """Examples whose answer the agent can give."""
    names = {option.name for option in extra}
    return [e for e in examples if e.is_offered or e.answer in names]


def share_right(program: Program, examples: Sequence[Example]) -> tuple[float, list[Decision]]:
    """Weighted share of right choices in [0, 1], and the decisions; an LM's garbage is a wrong choice."""
    decisions = decide_each(program, [example.view for example in examples])
    right = sum(
        e.weight
        for e, d in zip(examples, decisions, strict=True)
        if d is not None and d.action.name == e.answer
    )
    weight = sum(example.weight for example in examples)
    return right / weight if weight else 0.0, [d for d in decisions if d is not None]


def decide_each(program: Program, views: Sequence[View]) -> list[Decision | None]:
    """One decision per view, in order; None where the LM's answer could not be used."""

    def act(view: View) -> Decision | None:
        try:
            return program.act(view)
        except LMFailure:  # the agent's failure, and as such counted
            return None

    return side_by_side(act, views, at_once=program.at_once)


def superseding(examples: Sequence[Example]) -> list[Example]:
    """The examples in their order, without those whose request a person answered otherwise later.

    The same request is the same words, goal and options; only a person's word replaces another answer, a person's
    or the agent's own, and the newest of them: it tells which traces it replaced. Two at the same moment both stay.
    """
    asked: dict[str, list[Example]] = {}
    for example in examples:
        asked.setdefault(_request(example.view), []).append(example)
    replaced: dict[str, set[str]] = {}
    stale: set[int] = set()
    for group in asked.values():
        last = max((e for e in group if e.source == "human"), key=_said_at, default=None)
        others = [e for e in group if last and (e.answer, e.call) != (last.answer, last.call)]
        for old in others:
            if last is not None and _said_at(old) < _said_at(last):
                stale.add(id(old))
                replaced.setdefault(last.trace_id, {*last.supersedes}).update((old.trace_id, *old.supersedes))
    return [
        e.model_copy(update={"supersedes": tuple(sorted(replaced[e.trace_id] - {e.trace_id}))})
        if e.source == "human" and e.trace_id in replaced
        else e
        for e in examples
        if id(e) not in stale
    ]


def _request(view: View) -> str:
    options = sorted(option.name for option in view.observation.options)
    return content_hash([" ".join(view.observation.text.casefold().split()), view.goal, options])


def _said_at(example: Example) -> datetime:
    return example.said_at or example.seen_at or datetime.min.replace(tzinfo=UTC)


def newest_first(examples: Sequence[Example]) -> list[Example]:
    """The examples by time, newest first, those without a time last; whatever order they came in."""
    begin = datetime.min.replace(tzinfo=UTC)
    return sorted(examples, key=lambda e: (e.seen_at or begin, e.view.case_id), reverse=True)


def as_decisions(steps: Iterable[Experience], names: Collection[str]) -> list[Experience]:
    """Each step as a decision on its own, of those that did something that this agent can do."""
    return [
        Experience(
            observation=step.observation,
            action=step.action,
            trace_id=step.trace_id,
            case_id=step.case_id,
            source=step.source,
            imported_from=step.imported_from,
        )
        for step in steps
        if step.action in names
    ]


def as_experience(example: Example) -> Experience:
    """The example as a memory entry."""
    return Experience(
        observation=example.view.observation.text,
        action=example.answer,
        options=tuple(option.name for option in example.view.observation.options),
        trace_id=example.trace_id,
        case_id=example.view.case_id,
        source="human" if example.source == "human" else "own",
        supersedes=example.supersedes,
    )


def shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """In an order that follows from the seed, whatever order they came in."""
    return sorted(examples, key=lambda e: content_hash([seed, e.view.case_id]))


def spread(examples: Sequence[Example], n: int) -> list[Example]:
    """At most `n` examples, evenly over the order of case ids: a hash, hence a random sample that stays."""
    ordered = sorted(examples, key=lambda e: e.view.case_id)
    step = max(len(ordered) / n, 1.0)
    return [ordered[int(i * step)] for i in range(min(n, len(ordered)))]
