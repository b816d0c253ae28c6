"""Parts of a user's own agent: what they say under a candidate, and that they never break the code that asks."""

import contextlib
import threading
from datetime import UTC, datetime

import dspy
import pytest

import ratchet
from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.candidate import Demo, Predictor
from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.part_values import PartValues
from ratchet.agent.parts import playing, read_from
from ratchet.agent.project import Project
from ratchet.agent.rollout.loop import run

NOW = datetime(2026, 11, 25, tzinfo=UTC)
SYSTEM = ratchet.prompt("desk-system", default="Name the team.")
TOOL = ratchet.tool_description("lookup", default="Find an order.")


def desk(question: str) -> str:
    """Scripted: says what it was told and shown."""
    shown = [message["content"] for message in ratchet.examples("desk-system", question)]
    return (
        f"{SYSTEM()} | {TOOL()} | {ratchet.model('desk', default='small')} | {shown} | {ratchet.is_trial()}"
    )


def knows(case: Case, answer: object) -> float:
    """Right where the agent was told of herons, or of what went wrong before."""
    return float("heron" in str(answer) or "was wrong" in str(answer))


def project(**changes) -> Project:
    return Project(
        **{"name": "desk", "agent": desk, "parts": [SYSTEM, TOOL], "score": knows, "effects": "none"}
        | changes
    )


def play(agent, **inputs):
    (trace,) = run(
        agent, [Case(inputs=inputs or {"question": "my parcel"})], project().environment, at=lambda _: NOW
    )
    return trace


def test_outside_of_any_candidate_a_part_has_its_default():
    assert desk("my parcel") == "Name the team. | Find an order. | small | [] | False"


def test_the_first_candidate_is_the_code_as_it_is():
    agent = make_agent(project(), first_candidate(project(), None, None), {})
    trace = play(agent)
    assert trace.answer == "Name the team. | Find an order. | small | [] | True"
    assert trace.score == 0
    assert play(agent.serving()).answer.endswith("| False")


def test_a_candidate_s_parts_are_what_it_says_and_what_it_was_shown_is_noted(tmp_path):
    first = first_candidate(project(), None, None)
    worked = Experience(
        observation="a parcel is late",
        action="respond",
        arguments={"content": "heron"},
        trace_id="t1",
        case_id="c1",
        source="own",
    )
    memory = Memory([worked])
    memory.save(path := tmp_path / "memory.jsonl")
    changed = first.model_copy(
        update={
            "predictors": {
                "desk-system": Predictor(instructions="Be kind.", demos=(Demo(inputs="a", output="b"),))
            },
            "tools": {"lookup": "Find it."},
            "models": {"desk": "large"},
            "memory": memory.memory_id,
            "topology": first.topology.model_copy(update={"recalls": 1}),
        }
    )
    assert changed.candidate_id != first.candidate_id
    trace = play(make_agent(project(), changed, {"memory": path}))
    shown = "['a parcel is late', 'heron']"
    assert trace.answer == f"Be kind.\n\n### Example 1\na\n→ b | Find it. | large | {shown} | True"
    assert trace.attempts[0].recalled == ("t1",)
    assert trace.score == 1


def test_a_retry_reads_what_the_failed_attempt_taught():
    first = first_candidate(project(attempts=2), None, None)
    trace = play(make_agent(project(attempts=2), first, {}))
    assert [attempt.outcome.score for attempt in trace.attempts] == [0, 1]
    assert "Notes from earlier attempts at this request:\n- " in trace.answer


def test_a_thread_that_lost_the_context_is_told_and_one_that_carries_it_is_not():
    def in_thread(question: str) -> str:
        said = []
        thread = threading.Thread(target=WRAP(lambda: said.append(SYSTEM())))
        thread.start()
        thread.join()
        return said[0]

    first = first_candidate(project(), None, None)
    for wrap, broken in ((lambda f: f, True), (ratchet.carried, False)):
        WRAP = wrap
        trace = play(make_agent(project(agent=in_thread), first, {}))
        assert (trace.error is not None and "ratchet.carried" in trace.error.message) is broken


def test_a_part_never_raises_even_where_what_it_reads_from_does(caplog):
    class Broken:
        def values(self, kind, part, session):
            raise OSError("gone")

        def around(self, session):
            raise AssertionError("not asked")

    read_from(Broken())
    try:
        assert SYSTEM() == "Name the team."
    finally:
        read_from(None)
    assert "gone" in caplog.text


def test_json_is_an_answer_too():
    def as_json(question: str) -> dict:
        return {"team": "heron", "sure": 0.9}

    trace = play(make_agent(project(agent=as_json), first_candidate(project(agent=as_json), None, None), {}))
    assert trace.answer == {"team": "heron", "sure": 0.9}


class Desk(dspy.Module):
    """Scripted: a module whose predictor says its own instructions."""

    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict(dspy.Signature("question -> team", "Name the team."))

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(team=self.answer.signature.instructions)


def test_a_module_s_predictors_are_its_parts_and_the_module_stays_as_it_is():
    module = Desk()
    whole = project(agent=module, parts=())
    first = first_candidate(whole, None, None)
    assert first.predictors == {"answer": Predictor(instructions="Name the team.")}
    changed = first.model_copy(update={"predictors": {"answer": Predictor(instructions="Say heron.")}})
    trace = play(make_agent(whole, changed, {}))
    assert (trace.answer, trace.score) == ("Say heron.", 1)
    assert module.answer.signature.instructions == "Name the team."


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({"agent": None}, "give `agent`"),
        ({"instructions": "Be kind."}, "leave out environment"),
        ({"agent": "desk"}, "cannot be called"),
        ({"effects": "some"}, "'none' or 'guarded'"),
    ],
)
def test_a_project_that_contradicts_itself_is_one_line(given, remedy):
    with pytest.raises(BadInput, match=remedy):
        project(**given)


def test_what_is_played_is_seen_only_while_it_is_played():
    first = first_candidate(project(), None, None)
    with playing(PartValues(first, notes=("say heron",)), trial=True):
        assert SYSTEM() == "Name the team.\n\nNotes from earlier attempts at this request:\n- say heron"
    assert SYSTEM() == "Name the team."


def test_what_the_user_refused_is_read_by_the_session_s_next_attempt_of_a_version_that_retries():
    first = first_candidate(project(), None, None)
    retries = first.model_copy(update={"topology": first.topology.model_copy(update={"attempts": 2})})

    class Serving:
        def __init__(self, candidate):
            self.found = PartValues(candidate)

        def values(self, kind, part, session):
            return self.found

        def around(self, session):
            return contextlib.nullcontext()

    ratchet.failed("heron")  # nobody's session
    try:
        for candidate, reads in ((first, False), (retries, True)):
            read_from(Serving(candidate))
            with ratchet.session("conversation-18"):
                assert SYSTEM() == "Name the team." if not reads else "Notes" in SYSTEM()
                ratchet.failed("heron", because="They sent me\naway.")
                told = "Name the team.\n\nNotes from earlier attempts at this request:\n"
                told += "- heron was wrong here. They sent me away."
                assert SYSTEM().startswith(told) is reads
            with ratchet.session("conversation-19"):
                assert SYSTEM() == "Name the team."
    finally:
        read_from(None)
