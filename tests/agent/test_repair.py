"""Repair: an answer that is planted in the feedback reaches no prompt, no experience and no demo."""

import warnings
from functools import partial

import pytest

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Observation, Option, Outcome
from ratchet.agent.kinds.program import Program, base_candidate
from ratchet.agent.memory.ranking import Query
from ratchet.agent.memory.snapshot import Memory, as_demos
from ratchet.agent.memory.steps import winning_steps
from ratchet.agent.rollout import repair as repairing
from ratchet.agent.rollout.loop import run
from ratchet.agent.rollout.repair import (
    NEUTRAL,
    REDACTED,
    RedactedEnvironment,
    answer_tokens,
    leaked,
    redact,
    repair,
    tokens_within,
)
from ratchet.agent.team.roles import as_team
from ratchet.agent.team.team import Team
from ratchet.agent.trace import Attempt, Contribution, Step

GOLD = {"tool": "gamma", "arguments": {"code": ["ZX-4711", ""], "city": "Port Vila", "n": 12}}
PLANTED = "Wrong! The right call is gamma with code=ZX-4711 (zx 4711), city PORT VILA and n = 12."
NAMES = ("alpha", "beta", "gamma")
CASE = Case(inputs={"request": "Open the gate."}, expected=GOLD)


class Telling:
    """Scripted: its feedback tells the whole answer."""

    def reset(self, case):
        self.case = case
        return Observation(text="Open the gate.", options=tuple(Option(name=n) for n in NAMES))

    def step(self, action):
        self.done = action.name
        return Observation(text=f"Done. {PLANTED}"), True

    def outcome(self):
        right = self.done == self.case.expected["tool"]
        return Outcome(score=float(right), feedback="" if right else PLANTED)


class SilentAnswer(Telling):
    """Scripted: tells the answer, which it alone knows."""

    def outcome(self):
        return Outcome(score=float(self.done == "gamma"), feedback=PLANTED)


@pytest.fixture
def endpoint(scripted_endpoint):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="litellm|pydantic|openai|aiohttp|httpx")
        scripted_endpoint.answer = lambda p: next((n for n in NAMES if f"- {n}:" in p), "Try another one.")
        yield {"api_base": scripted_endpoint.url, "api_key": "x", "num_retries": 0}


def agent(endpoint):
    return Program(base_candidate("Pick one.", model="openai/scripted"), endpoint=endpoint)


def failures(program, at, make=Telling):
    traces = run(program, [CASE], make, at=at)
    assert traces[0].score == 0
    return traces


def test_an_answer_planted_in_the_feedback_reaches_no_prompt_no_experience_and_no_demo(
    endpoint, scripted_endpoint, at
):
    program = agent(endpoint)
    failed = failures(program, at)
    scripted_endpoint.prompts.clear()
    mended = repair(program, failed, {CASE.case_id: CASE}, Telling, play=partial(run, at=at))
    (trace,) = mended
    assert (trace.score, len(trace.attempts), trace.action.name) == (1.0, 1, "gamma")

    assert sum("- gamma:" in prompt for prompt in scripted_endpoint.prompts) == 3
    for prompt in scripted_endpoint.prompts:
        notes = [line for line in prompt.splitlines() if line.startswith("Note:")]
        assert not tokens_within(prompt, ("ZX-4711", "Port Vila", "12"))
        assert not tokens_within(" ".join(notes), ("gamma",))
    assert any(REDACTED in prompt for prompt in scripted_endpoint.prompts), "the feedback itself was read"

    memory = Memory(winning_steps(trace))
    (experience,) = memory.experiences
    demos = as_demos(memory.recall(Query(observation="Open the gate."), k=1))
    for stored in (trace.to_json(), experience.to_json(), *(demo.to_json() for demo in demos)):
        assert not tokens_within(stored, ("ZX-4711", "Port Vila", "right call"))
        assert "4711" not in stored
    assert (experience.observation, experience.action) == ("Open the gate.", "gamma")
    assert demos


def test_every_role_of_a_team_reads_the_blotted_feedback_only(endpoint, scripted_endpoint, at):
    team = Team(
        as_team(
            base_candidate("Pick one.", model="openai/scripted"),
            (("solver", "solve"), ("critic", "criticize")),
        ),
        {},
        endpoint=endpoint,
    )
    offered = scripted_endpoint.answer
    scripted_endpoint.answer = lambda p: "right" if "- wrong:" in p else offered(p)
    mended = repair(team, failures(team, at), {CASE.case_id: CASE}, Telling, play=partial(run, at=at))
    (step,) = mended[0].attempts[-1].steps
    assert {part.actor: part.said for part in step.parts} == {"solver": "gamma", "critic": "right"}
    assert not tokens_within(mended[0].to_json(), ("ZX-4711", "Port Vila"))


def test_where_the_answer_is_unknown_the_feedback_is_not_shown_at_all(endpoint, scripted_endpoint, at):
    program = agent(endpoint)
    failed = failures(program, at, SilentAnswer)
    scripted_endpoint.prompts.clear()
    mended = repair(program, failed, {}, SilentAnswer, play=partial(run, at=at))
    assert len(mended) == 1
    assert NEUTRAL in scripted_endpoint.prompts[1]
    assert not tokens_within(" ".join(scripted_endpoint.prompts), ("ZX-4711", "4711", "right call"))


def test_what_fails_again_and_what_did_not_fail_is_left_out_with_its_reason(endpoint, at, make_trace):
    program = agent(endpoint)
    never = CASE.model_copy(update={"expected": {"tool": "delta"}})
    mended = repair(
        program,
        [*failures(program, at), make_trace()],
        {CASE.case_id: never},
        Telling,
        play=partial(run, at=at),
    )
    assert mended == []


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("book_flight", "call book flight now"), ("book_flight", "BookFlight!"), ("bookFlight", "book-flight"),
        ("ZX-4711", "zx4711"), ("Port Vila", "port\nvila"), ("12", "n=12."), ("№", "the № sign"), ("3.5", "about 3.5"),
    ],
)  # fmt: skip
def test_a_secret_is_found_however_it_is_written(secret, text):
    assert tokens_within(text, [secret]) == (secret,)
    assert not tokens_within(redact(text, [secret]), [secret])


@pytest.mark.parametrize(("secret", "text"), [("12", "in 2012"), ("art", "the party"), ("book", "booking")])
def test_a_secret_is_not_seen_inside_another_word(secret, text):
    assert tokens_within(text, [secret]) == ()


def test_secrets_are_the_values_of_an_answer_and_not_its_field_names():
    assert answer_tokens(GOLD) == ("Port Vila", "ZX-4711", "gamma", "12")
    assert answer_tokens({"a": [True, None, ""], "b": "x"}) == ("x",)
    assert answer_tokens("left") == ("left",)
    assert answer_tokens(None) == ()


def won(make_trace, thought, *, parts=(), reflection=None):
    step = Step(
        observation="Open the gate.",
        thought=thought,
        action=Action(name="gamma"),
        parts=parts,
        result=PLANTED,
    )
    attempt = Attempt(steps=(step,), outcome=Outcome(score=1.0, feedback=PLANTED), reflection=reflection)
    return make_trace(attempts=(attempt,), case=CASE.model_copy(update={"expected": None}))


def test_a_thought_that_holds_the_answer_is_a_leak_unless_the_environment_showed_it(make_trace):
    assert leaked(won(make_trace, "The code must be zx 4711."), CASE) == ("ZX-4711",)
    assert leaked(won(make_trace, "I take gamma, it opens gates."), CASE) == ()
    written = (Contribution(actor="planner", said="go to Port Vila"),)
    assert leaked(won(make_trace, None, parts=written), CASE) == ("Port Vila",)
    assert leaked(won(make_trace, None, reflection="gamma it was"), CASE) == ("gamma",)
    public = CASE.model_copy(update={"inputs": {"request": "Open the gate with ZX-4711."}})
    assert leaked(won(make_trace, "The code is ZX-4711."), public) == ()


def test_of_a_winning_attempt_neither_hints_nor_verdict_are_kept(make_trace):
    thought = "The feedback said alpha was wrong. Gates are opened by gamma. So the correct answer is gamma."
    mended = repairing._winning(won(make_trace, thought, reflection="it was told"))
    (attempt,) = mended.attempts
    assert attempt.steps[0].thought == "Gates are opened by gamma."
    assert (attempt.reflection, attempt.outcome.feedback, attempt.steps[0].result) == (None, "", None)
    assert PLANTED not in mended.to_json()
    assert repairing._winning(won(make_trace, "I was told so.")).attempts[0].steps[0].thought is None


def test_a_discreet_environment_keeps_score_and_details():
    environment = RedactedEnvironment(Telling())
    environment.reset(CASE)
    environment.step(Action(name="alpha"))
    outcome = environment.outcome()
    assert outcome.score == 0
    assert not tokens_within(outcome.feedback, answer_tokens(GOLD))
    assert outcome.feedback.startswith("Wrong! The right call is …")
