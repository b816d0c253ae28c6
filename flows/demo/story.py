"""What `make demo` tells, stage by stage, with real numbers; a second start goes on where the first stood."""

from collections.abc import Callable
from typing import TypeVar

from prefect import flow

from ratchet.agent.optimize.proposer import named_proposers
from ratchet.agent.project import load_project
from ratchet.agent.record import Record
from ratchet.evaluation.data.selection import SelectionSettings
from ratchet.evaluation.drift.watch_state import WatchSettings
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.commands.report import say, show_drift, show_round
from ratchet.flows.demo.deciding import Asked, Round, decided, show_people, take_turns
from ratchet.flows.demo.final_test import FinalTest, final_test
from ratchet.flows.demo.negative_control import NegativeControl, make_negative_control
from ratchet.flows.demo.simulated_annotator import answer_queue
from ratchet.flows.demo.telling import Stages, show_final, show_history, show_negative_control
from ratchet.flows.demo.weeks import DEMO_PROJECT, FOLDER, begin_week, size
from ratchet.flows.improve import ImproveReport, improve
from ratchet.flows.monitor import MonitorReport, monitor
from ratchet.flows.project_settings import ImproveSettings, MonitorSettings, read_settings
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.registry import champion, version_history
from ratchet.infra.store.project_state import project_folder, write_whole
from ratchet.tasks.gate import GateResult
from ratchet.tasks.propose import propose
from ratchet.tasks.serve import serve_waiting

REFERENCE = 110
"""Requests of week 1 that are what is usual; the rest of the week must raise no alarm."""
USUAL = SelectionSettings(gate_labels=0, train_labels=60)
DRIFTED = SelectionSettings(gate_labels=0, train_labels=110)
"""Of the gate's cases nobody is asked before versions answer them differently."""
MOST = (60, 140)
"""Fresh cases for each week's challengers; the rest is left for those that come after."""
RecordT = TypeVar("RecordT", bound=Record)


class Story(Record):
    """What the demo came to."""

    seconds: dict[str, float]
    promotions: int
    """Moves of the champion by evidence; the first version is none."""
    refusals: int
    final: dict[str, FinalTest]


class Week(Record):
    """How a week's serving and asking went."""

    served: int
    watched: MonitorReport
    answered: int


class Refusal(Record):
    """The negative control, the one that reflection made, and their verdicts."""

    control: NegativeControl
    taught: str | None
    """Its candidate id; None where no retry after a reflection won."""
    judged: tuple[GateResult, ...]
    people: Asked


@flow(name="demo", persist_result=False)
def tell(*, auto_approve: bool) -> Story:
    """Two weeks of production in minutes."""
    stages = Stages()
    first_rules = rules(USUAL, auto_approve, ("prompts", "lora", "replay"), MOST[0])
    then_rules = rules(DRIFTED, auto_approve, ("lora", "replay"), MOST[1])

    with stages("Week 1 · the agent of the first day serves, people are asked"):
        show_week(once("week 1", Week, lambda: play_week(1, first_rules)))
    with stages("Week 1 · replay, LoRA and DSPy propose, the gate decides"):
        show_decided(play_round(1, first_rules))
    with stages("Week 2 · the traffic drifts, the on-call team is told, people are asked where it matters"):
        show_week(once("week 2", Week, lambda: play_week(2, then_rules)))
    with stages("Week 2 · new challengers, the gate decides"):
        second = play_round(2, then_rules)
        show_decided(second)
    with stages("One challenger knows its few cases by heart, one keeps what reflection taught"):
        refused = once("two challengers", Refusal, lambda: judge_negative_control(second.report, then_rules))
        show_negative_control(refused.control, refused.taught, refused.judged, version_history(DEMO_PROJECT))
        show_people(refused.people)
    with stages("The last word · requests that nothing ever touched"):
        tests = last_word()
        show_final(tests)

    versions = version_history(DEMO_PROJECT)
    show_history(versions, read_ledger(DEMO_PROJECT), stages.seconds)
    return Story(
        seconds=stages.seconds,
        promotions=sum(event.action == "promoted" for v in versions for event in v.events) - 1,
        refusals=sum(v.decision == "reject" for v in versions),
        final=tests,
    )


def rules(
    selection: SelectionSettings, auto_approve: bool, proposers: tuple[str, ...], most: int
) -> ImproveSettings:
    """The demo's `ratchet.toml`, and above it what differs from week to week."""
    given = ImproveSettings(
        selection=selection,
        gate=GateSettings(max_cases=most),
        proposers=proposers,
        approved_by="demo policy" if auto_approve else None,
    )
    return read_settings(FOLDER, ImproveSettings, given)


def once(name: str, kind: type[RecordT], make: Callable[[], RecordT]) -> RecordT:
    """Do it, or remember what came of it when a former start did."""
    path = project_folder(DEMO_PROJECT) / f"{name}.json"
    if path.exists():
        say("done by an earlier start", "dim")
        return kind.from_json(path.read_text(), where=str(path))
    result = make()
    write_whole(path, result.to_json())
    return result


def play_week(number: int, settings: ImproveSettings) -> Week:
    """Serve, watch, ask; the simulated annotator answers what was asked."""
    begin_week(number)
    served = serve_waiting(str(FOLDER))
    reference = max(40, round(REFERENCE * size()))
    watched = monitor(str(FOLDER), MonitorSettings(watch=WatchSettings(reference=reference)))
    improve(str(FOLDER), settings)  # asks people; nothing is proposed until they have answered
    return Week(served=served, watched=watched, answered=answer_queue())


def show_week(played: Week) -> None:
    """What came in, whether it is unusual, what people said."""
    serving = champion(DEMO_PROJECT)
    say(f"served {played.served} requests with version {serving.number if serving else '?'}")
    show_drift(played.watched.watched)
    say(
        f"people were asked about {played.answered} traces; a simulated annotator answered from BFCL's answer key, "
        "through the same call as a person on the Review page"
    )


def play_round(number: int, settings: ImproveSettings) -> Round:
    """Learn and test; people answer where versions differ, until every test has ended or no case is left."""
    asked = f"round {number}, before people answered"
    return once(
        f"round {number}",
        Round,
        lambda: decided(once(asked, ImproveReport, lambda: improve(str(FOLDER), settings)), settings),
    )


def show_decided(played: Round) -> None:
    """The verdicts, and what it took of people's time."""
    show_round(played.report, version_history(DEMO_PROJECT))
    show_people(played.people)


def judge_negative_control(second: ImproveReport, rules: ImproveSettings) -> Refusal:
    """Let one that is better on its own cases, and one whose reflections were made lasting, face fresh ones."""
    serving = champion(DEMO_PROJECT)
    if second.data is None or serving is None:
        raise RuntimeError("the negative control needs a finished round")
    data = second.data.model_copy(update={"champion": serving.candidate_id})
    control = make_negative_control(str(FOLDER), DEMO_PROJECT, data, rules.seed)
    (reflections,) = named_proposers(load_project(FOLDER).proposers, ["reflections"])
    taught = propose(str(FOLDER), reflections, serving.candidate_id, data, rules.seed).candidate_id
    challengers = [one for one in (control.candidate_id, taught) if one]
    gated, people = take_turns(data, challengers, rules)
    return Refusal(control=control, taught=taught, judged=gated.judged, people=people)


def last_word() -> dict[str, FinalTest]:
    """Day one's agent and today's champion on what was held out."""
    versions, serving = version_history(DEMO_PROJECT), champion(DEMO_PROJECT)
    if serving is None:
        raise RuntimeError("the final test needs a champion")
    first, last = versions[0].candidate_id, serving.candidate_id
    return {
        "fresh, drawn like week 2": final_test(DEMO_PROJECT, "fresh", first, last),
        "toolsets never served": final_test(DEMO_PROJECT, "unseen", first, last),
    }
