"""Failed trajectories, repaired from feedback; the right answer never reaches what is stored.

Decision: the answer is taken out before the agent reads anything, not only before something is stored. The agent
plays the case again in a `RedactedEnvironment`, whose feedback never holds the answer; what it then does right
it found itself. Of a repaired trajectory only the winning attempt is kept, without the sentences of its thoughts
that mention hints, and a text that still holds the answer is dropped. Source: Zhao et al., SiriuS (2025), which
regenerates with feedback and rephrases; there the model itself is trusted to leave the hint out.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Environment, Observation, Outcome
from ratchet.agent.kinds.agent import Agent
from ratchet.agent.record import Json
from ratchet.agent.trace import Step, Trace

REDACTED = "…"
NEUTRAL = "It is over."
"""All that is said in the end where the right answer is unknown: nobody could check what else would tell it."""
_HINTS = re.compile(
    r"\b(hints?|feedback|told|the (right|correct|expected|true) \w+|(last|previous|earlier|first) (try|attempt))\b",
    re.IGNORECASE,
)
_ATTEMPTS = 3
Play = Callable[[Agent, Sequence[Case], Callable[[], Environment]], list[Trace]]


def repair(
    agent: Agent,
    failed: Sequence[Trace],
    cases: Mapping[str, Case],
    make_environment: Callable[[], Environment],
    *,
    play: Play,
) -> list[Trace]:
    """Failed cases, played again with feedback: what then won, each as if it had been the first attempt.

    Args:
        agent: who plays.
        failed: traces whose last attempt was scored below 1; others are left out.
        cases: the cases with their right answers where these are known, by id.
        make_environment: one that scores the cases.
        play: plays the cases in such worlds, or some of them; `run` with its times and limits.
    """
    wanted = [
        trace for trace in failed if trace.score is not None and trace.score < 1 and trace.error is None
    ]
    known = [cases.get(trace.case.case_id, trace.case) for trace in wanted]
    again = play(agent.with_attempts(_ATTEMPTS), known, lambda: RedactedEnvironment(make_environment()))
    by_id = {case.case_id: case for case in known}
    won = [
        (by_id[trace.case.case_id], _winning(trace))
        for trace in again
        if trace.error is None and trace.score is not None and trace.score >= 1
    ]
    return [trace for case, trace in won if not leaked(trace, case)]


class RedactedEnvironment:
    """An environment whose feedback does not tell the right answer."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._case: Case | None = None

    def reset(self, case: Case) -> Observation:
        """Begin the case."""
        self._case = case
        return self._environment.reset(case)

    def step(self, action: Action) -> tuple[Observation, bool]:
        """Carry out the action; what is seen when all is over is a verdict, too, and redacted like feedback."""
        seen, done = self._environment.step(action)
        return seen.model_copy(update={"text": self._hidden(seen.text)}) if done else seen, done

    def outcome(self) -> Outcome:
        """The same score; the feedback with every part of the answer redacted."""
        outcome = self._environment.outcome()
        return outcome.model_copy(update={"feedback": self._hidden(outcome.feedback)})

    def _hidden(self, text: str) -> str:
        known = answer_tokens(self._case.expected) if self._case is not None else ()
        if not text:
            return text
        return redact(text, known) if known else NEUTRAL


def answer_tokens(expected: Json) -> tuple[str, ...]:
    """Every text and number in an answer, longest first; names of fields are no secret."""
    found: set[str] = set()

    def collect(value: Json) -> None:
        if isinstance(value, dict):
            for item in value.values():
                collect(item)
        elif isinstance(value, list | tuple):
            for item in value:
                collect(item)
        elif value is not None and not isinstance(value, bool) and str(value).strip():
            found.add(str(value).strip())

    collect(expected)
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def redact(text: str, secrets: Sequence[str]) -> str:
    """The text with every secret replaced, however it is cased, spaced or punctuated."""
    for secret in secrets:
        text = _pattern(secret).sub(REDACTED, text)
    return text


def tokens_within(text: str, secrets: Sequence[str]) -> tuple[str, ...]:
    """The secrets that stand in the text."""
    return tuple(secret for secret in secrets if _pattern(secret).search(text))


def _pattern(secret: str) -> re.Pattern[str]:
    """`book_flight` also as `book flight`, `BookFlight` and `book-flight`; never inside another word."""
    words = re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+", secret) or [secret]
    spaced = r"[\W_]*".join(map(re.escape, words))
    return re.compile(rf"(?<![^\W_]){spaced}(?![^\W_])", re.IGNORECASE)


def leaked(trace: Trace, case: Case) -> tuple[str, ...]:
    """Parts of the right answer in what the agent is said to have thought, unless the environment had shown them.

    Its actions are its own: they were found without the answer.
    """
    secrets = answer_tokens(case.expected)
    found: list[str] = []
    for attempt in trace.attempts:
        shown = " ".join(map(str, case.inputs.values()))
        for step in attempt.steps:
            own = {step.action.name, *answer_tokens(step.action.said)}
            own |= {part.said for part in step.parts if part.options}
            offered = " ".join(option for part in step.parts for option in part.options)
            shown = f"{shown} {step.observation} {offered}"
            private = [
                secret for secret in secrets if not tokens_within(shown, [secret]) and secret not in own
            ]
            written = [step.thought or "", *(part.said for part in step.parts if not part.options)]
            found += [secret for text in written for secret in tokens_within(text, private)]
        found += tokens_within(attempt.reflection or "", secrets)
    return tuple(dict.fromkeys(found))


def _winning(trace: Trace) -> Trace:
    """The last attempt as if it had been the first: no reflection, no word of a hint, no verdict on it."""
    last = trace.attempts[-1]
    steps = [_without_hints(step) for step in last.steps]
    steps[-1] = steps[-1].model_copy(update={"result": None})
    outcome = last.outcome.model_copy(update={"feedback": ""})
    won = last.model_copy(update={"steps": tuple(steps), "reflection": None, "outcome": outcome})
    return trace.model_copy(update={"attempts": (won,)})


def _without_hints(step: Step) -> Step:
    if step.thought is None:
        return step
    kept = [s for s in re.split(r"(?<=[.!?])\s+|\n+", step.thought) if s.strip() and not _HINTS.search(s)]
    return step.model_copy(update={"thought": " ".join(kept) or None})
