"""`ratchet explain TRACE_ID`: from one answer back to the prompt, memory, data, labels and verdict behind it."""

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ratchet.agent.environment import Action
from ratchet.agent.errors import BadInput
from ratchet.agent.record import as_text
from ratchet.agent.trace import UNKNOWN, Attempt, Trace
from ratchet.evaluation.data.cases import case_text
from ratchet.evaluation.data.labels import Label
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name
from ratchet.flows.commands.show import ancestors, facts
from ratchet.flows.commands.terminal import console, emit_json, moment, outside
from ratchet.flows.commands.which_project import which_project
from ratchet.infra.registry.registry import version_history
from ratchet.infra.registry.version import Version
from ratchet.infra.traces.lookup import FoundTrace, look_up_traces


def explain(
    trace_id: Annotated[str, typer.Argument(help="32 hex digits, or MLflow's tr-….")],
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """How one answer came about, back to the data behind it.

    Its steps, recalled experience, candidate, people's labels and verdict.
    """
    chosen = which_project(project, name)
    found = _found(chosen, trace_id)
    recalled_ids = [one for attempt in found.trace.attempts for one in attempt.recalled]
    recalled = look_up_traces(chosen, recalled_ids).traces
    versions = version_history(chosen)
    version = next((one for one in versions if one.candidate_id == found.trace.candidate_id), None)
    if as_json:
        emit_json(_answer(chosen, found, recalled, version, ancestors(version, versions) if version else []))
        return
    _show_run(found.trace, recalled)
    _show_labels(found)
    if found.trace.candidate_id == UNKNOWN:
        console.print("[bold]candidate[/]  unknown: the trace does not say which version made it")
    elif version is None:
        console.print(f"[bold]candidate[/]  {found.trace.candidate_id} is not registered: it was only tried")
    else:
        console.print(facts(version, versions))
        _show_prompts(version)


def _found(project: str, trace_id: str) -> FoundTrace:
    own = trace_id.removeprefix("tr-")
    traces, unreadable = look_up_traces(project, [trace_id])
    if own in unreadable:
        raise BadInput(unreadable[own])
    if own not in traces:
        raise BadInput(f"no trace {trace_id!r} in {project!r}: give 32 hex digits or tr-… as MLflow shows it")
    return traces[own]


def request_of(trace: Trace) -> str:
    """What was asked, in the words that the agent saw."""
    steps = trace.attempts[0].steps if trace.attempts else ()
    return steps[0].observation if steps else case_text(trace.case)


def _answer(
    project: str,
    found: FoundTrace,
    recalled: dict[str, FoundTrace],
    version: Version | None,
    parents: list[Version],
) -> dict[str, Any]:
    return {
        "project": project,
        "trace": found.trace.model_dump(mode="json"),
        "recalled": [
            {"trace_id": key, "request": request_of(one.trace), "answer": answer_of(one.trace)}
            for key, one in recalled.items()
        ],
        "labels": [label.model_dump(mode="json") for label in found.labels],
        "candidate": version and version.candidate.model_dump(mode="json"),
        "version": version and version.number,
        "digests": version.digests if version else {},
        "parents": [{"number": v.number, "candidate_id": v.candidate_id} for v in parents],
        "verdict": version and version.verdict and version.verdict.model_dump(mode="json"),
        "events": [event.model_dump(mode="json") for event in version.events] if version else [],
    }


def answer_of(trace: Trace) -> str | None:
    """What it answered: an action's name, or what a message says."""
    return None if trace.action is None else as_text(trace.answer)


def _show_run(trace: Trace, recalled: dict[str, FoundTrace]) -> None:
    facts = Table.grid(padding=(0, 2))
    facts.add_row("trace", trace.trace_id)
    facts.add_row("when", f"{moment(trace.started_at)}, took {trace.latency_s:.2f} s")
    facts.add_row("request", outside(request_of(trace), 1000))
    facts.add_row("answer", outside(answer_of(trace) or "none"))
    used = trace.usage
    facts.add_row("used", f"{used.lm_calls} LM calls, {used.input_tokens} + {used.output_tokens} tokens")
    if trace.session_id or trace.case.slice:
        facts.add_row("where", outside(f"session {trace.session_id or '–'}, slice {trace.case.slice or '–'}"))
    if trace.error is not None:
        facts.add_row("[red]broke[/]", outside(f"{trace.error.kind}: {trace.error.message}"))
    if trace.stopped is not None:
        facts.add_row("stopped", f"by the limit on {trace.stopped}")
    console.print(facts)
    for number, attempt in enumerate(trace.attempts, start=1):
        _show_attempt(number, attempt, recalled)


def _did(action: Action) -> str:
    """What a message says; of any other action its name and arguments."""
    if action.is_free:
        return as_text(action.said)
    return action.name + ("" if action.arguments is None else f" {action.arguments}")


def _show_attempt(number: int, attempt: Attempt, recalled: dict[str, FoundTrace]) -> None:
    score = attempt.outcome.score
    title = f"attempt {number}: {'not scored' if score is None else f'score {score:g}'}"
    table = Table(title=title, title_justify="left")
    for column, ratio in (("who", 1), ("saw", 4), ("did", 2), ("sure", 1), ("got", 3)):
        table.add_column(column, ratio=ratio, overflow="fold")
    for step in attempt.steps:
        thought = "" if step.thought is None else f"\n(thought: {step.thought})"
        for part in step.parts:
            about = "" if part.about is None else f" of {part.about}"
            table.add_row(
                part.actor,
                outside(part.observation or ""),
                outside(part.said + about),
                _sure(part.confidence),
            )
        did = outside(_did(step.action))
        seen, result = outside(step.observation + thought), outside(step.result or "")
        table.add_row(step.actor, seen, did, _sure(step.confidence), result)
    console.print(table)
    for label, text in (("feedback", attempt.outcome.feedback), ("reflection", attempt.reflection)):
        if text:
            console.print(Text.assemble((f"  {label}  ", "bold"), outside(text)))
    for trace_id in attempt.recalled:
        console.print(
            Text.assemble(("  recalled  ", "bold"), trace_id, "  ", _remembered(trace_id, recalled))
        )


def _sure(confidence: float | None) -> str:
    return "–" if confidence is None else f"{confidence:.0%}"


def _remembered(trace_id: str, recalled: dict[str, FoundTrace]) -> Text:
    if trace_id not in recalled:
        return Text("no longer in MLflow", style="dim")
    trace = recalled[trace_id].trace
    said = [str(label.expected) for label in recalled[trace_id].labels if label.expected is not None]
    return outside(f"{request_of(trace)[:80]} → {said[-1] if said else answer_of(trace)}", 160)


def _show_labels(found: FoundTrace) -> None:
    for label in found.labels:
        said = [f"score {label.score:g}"] if label.score is not None else []
        said += [f"expected {label.expected}"] if label.expected is not None else []
        comment = f" ({label.comment})" if label.comment else ""
        who = f"{label.source} {label.rater}, {moment(label.created_at)}"
        text = outside(f"{' and '.join(said)}{comment}; {who}; {_how_asked(label)}")
        console.print(Text.assemble(("label  ", "bold"), text))
    if not found.labels:
        console.print("[bold]label[/]  none: nobody was asked, or nobody has answered yet")
    for problem in found.problems:
        console.print(Text.assemble(("label  ", "bold yellow"), outside(problem.reason)))


def _how_asked(label: Label) -> str:
    if label.propensity is None:
        return "nobody was asked about it: it does not judge"
    return f"picked with probability {label.propensity:g}" + (
        "" if label.asked else ", but not answered by who completed the item: it does not judge"
    )


def _show_prompts(version: Version) -> None:
    table = Table.grid(padding=(0, 2))
    for name, predictor in version.candidate.predictors.items():
        table.add_row(f"prompt {name}", outside(predictor.instructions, 1000))
        for demo in predictor.demos:
            table.add_row("", outside(f"example: {demo.inputs[:120]} → {demo.output}"))
    console.print(table)
