"""Free text through the whole `improve`: people write what is right and replay learns; a shipped scorer compares, or
people do, side by side.

The LM is scripted (`scripted_llm.answer`): right only where its prompt holds an example of the same topic.
"""

from datetime import UTC, datetime

import mlflow
import pytest

from ratchet.evaluation.data.selection import SelectionSettings
from ratchet.evaluation.gate.questions import Reply
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.commands.explain import answer_of
from ratchet.flows.improve import improve
from ratchet.flows.project_settings import ImproveSettings
from ratchet.flows.template.desk.scripted_llm import TOPICS, topics
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.registry import champion, fetch_files
from ratchet.infra.review.comparisons import pending_comparisons, reply
from ratchet.infra.review.queue import answer, pending
from ratchet.infra.traces.lookup import look_up_traces

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("prefect_server")]

PROJECT = '''"""Scripted: a desk that answers in sentences, no two of which are the same."""

import hashlib
import ratchet
from ratchet import Case, Project, Replay
from ratchet.flows.template.desk.scripted_llm import answer, topics

system = ratchet.prompt("__NAME__-system", default="Which team solves the request?")


def desk(request: str) -> str:
    shown = ratchet.examples("__NAME__-system", request)
    messages = [{"role": "system", "content": system()}, *shown, {"role": "user", "content": request}]
    number = hashlib.sha256(request.encode()).hexdigest()[:6]
    return f"Ticket {number}: {answer(messages)} will see to it."


def waiting():
    return [Case(inputs={"request": request}) for request in sorted(topics())]


project = Project(
    name="__NAME__", agent=desk, parts=[system], score=__SCORE__, effects="none", traffic=waiting,
    proposers=(Replay(),),
)
'''
RULES = ImproveSettings(
    selection=SelectionSettings(gate_labels=40, train_labels=40, gate_share=0.4),
    gate=GateSettings(min_cases=10),
    approved_by="a policy",
)


def people_answer(name):
    """The team's name, which the agent's sentence should hold; returns what people were shown of its answers."""
    items = pending(name)
    page = mlflow.get_trace(f"tr-{items[0].trace_id}")  # what the Review page shows
    (choice,) = page.data.spans[0].outputs["choices"]
    assert choice["message"]["content"] == answer_of(
        look_up_traces(name, [items[0].trace_id]).traces[items[0].trace_id].trace
    )
    traces = look_up_traces(name, [item.trace_id for item in items]).traces
    for trace_id, found in traces.items():
        right = TOPICS[topics()[found.trace.case.inputs["request"]]]
        answer(name, trace_id, expected=right, rater="anna")
    return [answer_of(found.trace) for found in traces.values()]


def people_compare(name):
    """Which of the sentences that stand side by side hold the right team; returns what people were asked."""
    waiting = pending_comparisons(name)
    for question in waiting:
        right = TOPICS[topics()[question.case.inputs["request"]]]
        good = tuple(place for place, text in enumerate(question.answers) if right in str(text))
        said = Reply(question_id=question.question_id, rater="anna", good=good, created_at=datetime.now(UTC))
        reply(name, said)
    return waiting


def asked_and_answered(project, tmp_path, score, rules):
    """A project that was asked about what teaches, and told."""
    (tmp_path / "project.py").write_text(PROJECT.replace("__NAME__", project).replace("__SCORE__", score))
    asked = improve(str(tmp_path), rules)
    assert "questions wait for people" in asked.decision.reason
    shown = people_answer(project)
    assert len(set(shown)) == len(shown) >= 35
    assert all(text.startswith("Ticket ") for text in shown)


def proven_with_people(project, tmp_path, rules):
    """Runs until the challenger serves, people comparing in between; returns its verdict and what they were asked."""
    asked = []
    for _ in range(6):
        report = improve(str(tmp_path), rules)
        assert report.problems == ()
        (judged,) = report.judged
        if report.decision.promoted:
            break
        questions = people_compare(project)
        assert len(questions) == judged.verdict.n_waiting > 0
        asked += questions
    verdict, serving = judged.verdict, champion(project)
    assert (verdict.decision, verdict.n_waiting) == ("promote", 0), verdict.reason
    assert verdict.gain > 0.2
    assert serving.candidate_id == judged.candidate_id
    assert serving.candidate.topology.recalls == 4
    assert '"source":"human"' in fetch_files(project, serving.candidate_id)["memory"].read_text()
    assert [entry.proven for entry in read_ledger(project).current] == [True]
    return verdict, asked


def test_people_correct_sentences_and_what_they_wrote_teaches_and_judges(project, tmp_path):
    asked_and_answered(project, tmp_path, "ratchet.contains", RULES)
    verdict, asked = proven_with_people(project, tmp_path, RULES)
    assert verdict.n_labelled > len(asked), "the scorer compared with what people had written"


def test_where_nobody_can_score_people_compare_what_differs_and_the_better_version_is_promoted(
    project, tmp_path
):
    selection = SelectionSettings(train_labels=40, gate_share=0.4)
    rules = RULES.model_copy(update={"selection": selection})
    asked_and_answered(project, tmp_path, "None", rules)
    verdict, asked = proven_with_people(project, tmp_path, rules)
    assert verdict.n_labelled == len(asked) > 0, "they alone judged, each once"
    assert verdict.n_alike > 0, "the rest was answered alike, and nobody was asked"
