"""`ratchet status`: the state of play in one panel, and the one thing to do next.

Why one next step and not a list: who comes back after a week wants to know where to begin.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ratchet.agent.settings_table import SETTINGS_FILE
from ratchet.evaluation.gate.ledger import Ledger
from ratchet.flows.commands.approve import awaiting_approval
from ratchet.flows.commands.label_progress import progress_lines
from ratchet.flows.commands.label_raters import rules_of
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name
from ratchet.flows.commands.terminal import console, emit_json, moment, outside
from ratchet.flows.commands.which_project import called, which_project
from ratchet.flows.commands.wording import spent, summed
from ratchet.flows.project_settings import in_file, leaves, ledger_as_set
from ratchet.infra.drift.log import DriftLook, last_look
from ratchet.infra.registry.diversity import VersionDiversity, read_diversity
from ratchet.infra.registry.fruitless import Fruitless, all_fruitless
from ratchet.infra.registry.prompts import prompts_behind
from ratchet.infra.registry.registry import version_history
from ratchet.infra.registry.version import Version
from ratchet.infra.review.back_end import back_end
from ratchet.infra.review.queue import waiting
from ratchet.infra.serve.backlog import count_left_behind
from ratchet.infra.serve.journal import journals_folder
from ratchet.infra.settings import Settings
from ratchet.infra.store.project_state import read_state
from ratchet.infra.traces.read import IGNORE
from ratchet.infra.traces.spool import count_spooled
from ratchet.infra.traces.write import spool_folder


@dataclass(frozen=True)
class ProjectStatus:
    """Everything that the panel tells."""

    project: str
    versions: list[Version]
    n_traces: int
    n_labels: int
    n_pending: int
    n_questions: int
    """Of the gate: answers that stand side by side."""
    progress: list[str]
    """How far people are with each open test, and with this round's traces."""
    n_spooled: int
    unreadable: dict[str, str]
    """Traces in MLflow that cannot be read, and why."""
    ledger: Ledger
    fruitless: list[Fruitless]
    """What proposers spent on nothing."""
    look: DriftLook | None
    diversity: VersionDiversity
    """How varied the champion's answers are."""
    prompts_behind: dict[str, int]
    """Prompts whose `champion` in MLflow is not what the serving version names, with that version."""
    proven: list[Version]
    """Versions that only a person's approval is missing for."""
    settings: dict[str, Any]
    """What the project's `ratchet.toml` sets, by dotted key; all else is as by default."""

    @property
    def champion(self) -> Version | None:
        """The version that serves."""
        return _champion_of(self.versions)

    @property
    def drifted(self) -> bool:
        """Whether the last look raised the alarm."""
        return self.look is not None and bool(self.look.values.get("drift_alarm"))


def status(project: Folder = CURRENT_FOLDER, name: Name = None, as_json: AsJson = False) -> None:
    """The state of play in one panel, and what to do next.

    Champion, challengers, what waits for people, traces, error budget, drift, and what `ratchet.toml` sets.
    """
    state = _read(which_project(project, name), None if name else project)
    if as_json:
        emit_json(_answer(state))
    else:
        console.print(_panel(state))


def _read(project: str, folder: Path | None) -> ProjectStatus:
    collected, versions = read_state(project), version_history(project)
    serving = _champion_of(versions)
    return ProjectStatus(
        project=project,
        versions=versions,
        diversity=read_diversity(project, serving.candidate_id) if serving else VersionDiversity(),
        proven=[version for version, _ in awaiting_approval(project, versions, serving)],
        n_traces=collected.traces.n_rows if collected.traces else 0,
        n_labels=collected.labels.n_rows if collected.labels else 0,
        n_pending=len(waiting(project)),
        n_questions=len(back_end(rules_of(folder)).pending_comparisons(project)),
        progress=progress_lines(project, folder),
        n_spooled=count_spooled(spool_folder(project))
        + count_left_behind(journals_folder(Settings().home, project)),
        unreadable=collected.unreadable,
        ledger=ledger_as_set(project, folder),
        fruitless=all_fruitless(project),
        look=last_look(project),
        prompts_behind=prompts_behind(project),
        settings=dict(leaves(in_file(folder))) if folder else {},
    )


def _champion_of(versions: list[Version]) -> Version | None:
    return next((v for v in versions if "champion" in v.aliases), None)


def next_step(state: ProjectStatus) -> str:
    """What to do now, in one line."""
    if not state.versions:
        return "`ratchet improve` serves what waits and makes the first version"
    if state.n_spooled:
        return "`ratchet improve` sends the records that MLflow did not take; `ratchet doctor` says if it answers"
    if state.proven:
        return f"`ratchet approve {state.proven[-1].candidate_id[:8]}` shows a proven challenger"
    if state.n_pending or state.n_questions:
        return "`ratchet label`: people's answers are what the next version learns from, and is proven with"
    if state.ledger.exhausted:
        return "the error budget is exhausted: grant a new one, in your name and with a reason"
    if state.drifted:
        return "`ratchet improve`: the traffic changed, ask for labels where it did"
    return "`ratchet improve` when new traces have come in"


def _answer(state: ProjectStatus) -> dict[str, Any]:
    champion = state.champion
    return {
        "project": state.project,
        "champion": champion and champion.candidate_id,
        "versions": len(state.versions),
        "proven": [version.candidate_id for version in state.proven],
        "pending_labels": state.n_pending,
        "pending_comparisons": state.n_questions,
        "progress": state.progress,
        "traces": state.n_traces,
        "labels": state.n_labels,
        "spooled": state.n_spooled,
        "unreadable": state.unreadable,
        "ledger": {
            "summary": state.ledger.summary,
            "left": max(state.ledger.alpha - state.ledger.spent, 0.0),
            "exhausted": state.ledger.exhausted,
        },
        "cost": {
            "versions": summed(version.cost for version in state.versions),
            "nothing": summed(one.cost for one in state.fruitless),
        },
        "drift": state.look and state.look.model_dump(mode="json"),
        "diversity": {**state.diversity.model_dump(mode="json"), "narrower": state.diversity.narrower},
        "prompts_behind": state.prompts_behind,
        "settings": state.settings,
        "next": next_step(state),
    }


def _panel(state: ProjectStatus) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_row("champion", _champion(state))
    table.add_row("challengers", _challengers(state))
    table.add_row("people", _people(state))
    table.add_row("collected", f"{state.n_traces:,} traces, {state.n_labels:,} labels")
    table.add_row("error budget", outside(state.ledger.summary))
    if cost := _cost(state):
        table.add_row("proposers' cost", cost)
    table.add_row("drift", _drift(state))
    if said := _diversity(state.diversity):
        table.add_row("diversity", said)
    if state.settings:
        table.add_row(
            SETTINGS_FILE, ", ".join(f"{key} = {json.dumps(value)}" for key, value in state.settings.items())
        )
    if state.prompts_behind:
        behind = ", ".join(f"{page} is not at {n}" for page, n in state.prompts_behind.items())
        table.add_row(
            "[yellow]prompts[/]", outside(f"{behind}: `ratchet improve` points them to the champion")
        )
    if state.n_spooled:
        table.add_row("[yellow]not sent[/]", f"[yellow]{state.n_spooled:,} records wait for MLflow[/]")
    if state.unreadable:
        table.add_row("[red]not read[/]", outside(_unreadable(state.unreadable), 600))
    table.add_row("[bold]next[/]", Text(next_step(state), style="bold"))
    return Panel(table, title=state.project, expand=False)


def _champion(state: ProjectStatus) -> str:
    version = state.champion
    if version is None:
        return "none yet"
    moves = [event.at for event in version.events if event.action in ("promoted", "restored")]
    since = f", serves since {moment(moves[-1])}" if moves else ""
    score = next(iter(version.scores.values()), None)
    found = f", {score.mean:.3f} [{score.low:.2f}, {score.high:.2f}]" if score else ""
    return f"{called(version)} by {version.candidate.origin.proposer}{found}{since}"


def _people(state: ProjectStatus) -> str:
    both = ((state.n_questions, "comparisons"), (state.n_pending, "traces"))
    told = " and ".join(f"{n} {what}" for n, what in both if n)
    return "\n".join([f"{told} wait for an answer" if told else "nothing waits", *state.progress])


def _challengers(state: ProjectStatus) -> str:
    proven = ", ".join(called(version) for version in state.proven)
    tried = sum(v.decision is not None for v in state.versions) - len(state.proven)
    return f"{proven} proven, not approved yet" if proven else f"none is proven; {tried} tried so far"


def _cost(state: ProjectStatus) -> str:
    """All that proposers spent, and how much of it on nothing."""
    lost = summed(one.cost for one in state.fruitless)
    total = spent(summed([lost, *(version.cost for version in state.versions)]))
    return total + (f"\nof it for nothing: {spent(lost)}" if spent(lost) else "")


def _drift(state: ProjectStatus) -> str:
    if state.look is None:
        return "nobody looked yet: `ratchet monitor`"
    seen = "no alarm in what can be read" if state.unreadable else "no alarm"
    found = "[red]alarm[/]" if state.drifted else seen
    return f"{found} at look {state.look.step}, {moment(state.look.at)}"


def _diversity(found: VersionDiversity) -> Text | None:
    """How varied the champion's answers are, in production or else at the gate; None where nobody looked."""
    if found.narrower:
        return Text(found.narrower, "red")
    seen = found.production.diversity if found.production else found.gate.challenger if found.gate else None
    if seen is None:
        return None
    return Text(
        f"{seen.distinct_2:.2f} of word pairs differ, {seen.duplicate_share:.0%} of {seen.n_answers:,} answers repeat"
    )


def _unreadable(unreadable: dict[str, str]) -> str:
    """How many, and why the newest cannot be read."""
    trace_id, why = list(unreadable.items())[-1]
    told = f"{len(unreadable):,} in MLflow, the newest {trace_id}: {why}"
    return f"{told}; what is no agent's answer, delete there or give the tag {IGNORE!r}"
