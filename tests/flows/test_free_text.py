"""Free text through the whole `improve`: people write what is right, a shipped scorer compares, replay learns.

The LM is scripted (`scripted_llm.answer`): right only where its prompt holds an example of the same topic.
"""

import mlflow
import pytest

from ratchet.evaluation.data.selection import SelectionSettings
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.commands.explain import answer_of
from ratchet.flows.improve import improve
from ratchet.flows.project_settings import ImproveSettings
from ratchet.flows.template.desk.scripted_llm import TOPICS, topics
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.registry import champion, fetch_files
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
    assert page.data.spans[0].outputs == answer_of(
        look_up_traces(name, [items[0].trace_id]).traces[items[0].trace_id].trace
    )
    traces = look_up_traces(name, [item.trace_id for item in items]).traces
    for trace_id, found in traces.items():
        right = TOPICS[topics()[found.trace.case.inputs["request"]]]
        answer(name, trace_id, expected=right, rater="anna")
    return [answer_of(found.trace) for found in traces.values()]


@pytest.mark.parametrize("score", ["ratchet.contains", "None"])
def test_people_correct_sentences_and_what_they_wrote_teaches_and_judges(project, tmp_path, score):
    (tmp_path / "project.py").write_text(PROJECT.replace("__NAME__", project).replace("__SCORE__", score))
    asked = improve(str(tmp_path), RULES)
    assert "questions wait for people" in asked.decision.reason
    shown = people_answer(project)
    assert len(set(shown)) == len(shown) >= 70
    assert all(text.startswith("Ticket ") for text in shown)
    report = improve(str(tmp_path), RULES)
    if score == "None":
        assert champion(project).number == 1
        assert read_ledger(project).current == ()
        (told,) = report.problems
        assert "nobody can score the answers" in told
        assert "give the project a `score`" in told
        return
    assert report.problems == ()
    (judged,) = report.judged
    assert judged.verdict.decision == "promote", judged.verdict.reason
    assert judged.verdict.gain > 0.2
    assert champion(project).candidate.topology.recalls == 4
    kept = fetch_files(project, champion(project).candidate_id)["memory"].read_text()
    assert '"source":"human"' in kept
