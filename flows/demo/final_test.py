"""The last word: day one's agent and the champion on requests that nothing ever touched, side by side."""

from collections.abc import Sequence
from datetime import UTC, datetime

from prefect import task

from ratchet.agent.case import Case
from ratchet.agent.environments.tool_calling import ToolCalling, case_observation, expected_tool
from ratchet.agent.memory.similarity import option_similarity, words_of
from ratchet.agent.record import Record
from ratchet.agent.rollout.loop import run
from ratchet.evaluation.data.intervals import Interval, mean_interval
from ratchet.evaluation.gate.gate import decide
from ratchet.evaluation.gate.pairs import pair_up
from ratchet.evaluation.gate.plays import side_result
from ratchet.flows.demo.project import project
from ratchet.flows.demo.weeks import weeks
from ratchet.infra.registry.agents import load_agent
from ratchet.tasks.caching import cached_by
from ratchet.tasks.progress import progress


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
    )


def _now(_: int) -> datetime:
    return datetime.now(UTC)


def _most_similar(case: Case) -> str:
    observation = case_observation(case)
    texts = [f"{words_of(o.name)} {o.description}" for o in observation.options]
    return observation.options[int(option_similarity(observation.text, texts).argmax())].name
