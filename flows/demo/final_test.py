"""The last word: day one's agent and the champion on requests that nothing ever touched, side by side."""

from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import task

from ratchet.agent.case import Case
from ratchet.agent.environments.tool_calling import ToolCalling, case_observation, expected_tool
from ratchet.agent.memory.similarity import option_similarity, words_of
from ratchet.agent.record import Record
from ratchet.agent.rollout.loop import run
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.intervals import Interval, mean_interval
from ratchet.evaluation.gate.gate import decide
from ratchet.evaluation.gate.pairs import pair_up
from ratchet.evaluation.gate.plays import side_result
from ratchet.flows.demo.project import project
from ratchet.flows.demo.weeks import weeks
from ratchet.infra.registry.agents import load_agent
from ratchet.tasks.caching import cached_by
from ratchet.tasks.progress import progress

WITH_ARGUMENTS = 6
"""Requests for which the arguments are written and scored, too: free text is slow on two cores."""


class FinalTest(Record):
    """Both versions on the same untouched requests."""

    first: Interval
    champion: Interval
    gain: float
    ci: tuple[float, float]
    """95 % confidence sequence for the gain."""
    retrieval: Interval
    """Lexical similarity of request and tool alone, without any LM: it never abstains."""
    chance: float
    arguments: tuple[float, float] | None = None
    """Share of right calls, arguments included, of both; over the first requests only."""


@task(name="final test", **cached_by("name", "part", "first", "champion", result=FinalTest))
def final_test(name: str, part: str, first: str, champion: str) -> FinalTest:
    """Run both versions on one of the held-out parts (`fresh`, `unseen`)."""
    cases: Sequence[Case] = getattr(weeks(), part)
    with progress(f"final test: {part}", 2 * len(cases)) as advance:
        ours, theirs = (
            run(load_agent(project, side).single_attempt(), cases, ToolCalling, at=_now, progress=advance)
            for side in (first, champion)
        )
    verdict = decide(pair_up(*({t.case.case_id: side_result(t) for t in side} for side in (ours, theirs))))
    return FinalTest(
        first=mean_interval([t.first_score for t in ours]),
        champion=mean_interval([t.first_score for t in theirs]),
        gain=verdict.gain or 0.0,
        ci=verdict.ci,
        retrieval=mean_interval(
            [float(_most_similar(case) == expected_tool(case.expected)) for case in cases]
        ),
        chance=sum(1 / len(case.inputs["tools"]) for case in cases) / len(cases),
        arguments=_with_arguments((first, champion), cases[:WITH_ARGUMENTS]) if part == "unseen" else None,
    )


def _now(_: int) -> datetime:
    return datetime.now(UTC)


def _most_similar(case: Case) -> str:
    observation = case_observation(case)
    texts = [f"{words_of(o.name)} {o.description}" for o in observation.options]
    return observation.options[int(option_similarity(observation.text, texts).argmax())].name


def _with_arguments(sides: tuple[str, str], cases: Sequence[Case]) -> tuple[float, float]:
    shares = []
    for side in sides:
        program = load_agent(project, side).single_attempt()
        traces = run(program, cases, ToolCalling, at=_now, with_arguments=True)
        shares.append(sum(_whole_call(trace) for trace in traces) / len(traces))
    return shares[0], shares[1]


def _whole_call(trace: Trace) -> float:
    return trace.attempts[0].outcome.details.get("arguments", 0.0) if trace.attempts else 0.0
