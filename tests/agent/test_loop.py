"""The loop: retries with reflection, and a failure that stays within its own trace. The policy is scripted."""

import numpy as np
import pytest

from ratchet.agent.candidate import Topology
from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Observation, Option, Outcome
from ratchet.agent.errors import BadInput, LMFailure
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.program import Decision, Program, base_candidate, pick
from ratchet.agent.limits import Limits
from ratchet.agent.lm.smollm2 import SmolLM2
from ratchet.agent.lm.weights import EMBEDDED_MODEL, weights_folder
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.rollout import loop
from ratchet.agent.rollout.loop import run
from ratchet.agent.rollout.reflection import by_template
from ratchet.agent.trace import Step, Usage


class ScriptedProgram(Program):
    """Scripted: takes the first option that it has not tried; fails as told for a request."""

    def __init__(self, *, attempts=1, failures=()):
        super().__init__(base_candidate("Pick one.", attempts=attempts))
        self.failures = dict(failures)
        self.views = []

    def act(self, view):
        for request, error in self.failures.items():
            if view.observation.text.startswith(request):
                raise error
        self.views.append(view)
        left = [o.name for o in view.observation.options if o.name not in view.tried]
        usage = Usage(input_tokens=10, lm_calls=1)
        return Decision(
            action=Action(name=left[0] if left else "left"),
            confidence=0.7,
            recalled=("old", "old"),
            usage=usage,
        )


def cases(*expected):
    return [Case(inputs={"request": f"{n}: go {name}"}, expected=name) for n, name in enumerate(expected)]


@pytest.mark.parametrize("precision", [None, "float31"])
def test_an_lm_that_cannot_be_loaded_ends_the_run_and_is_no_cases_fault(
    precision, scripted_environment, at, tmp_path, monkeypatch
):
    model, why = f"local/{tmp_path}", "config.json is missing"
    if precision:
        monkeypatch.setenv("RATCHET_LM_PRECISION", precision)
        monkeypatch.setattr("ratchet.agent.lm.embedded._loaded", lambda: SmolLM2(weights_folder()))
        model, why = EMBEDDED_MODEL, "RATCHET_LM_PRECISION is 'float31'"
    with pytest.raises(BadInput, match=why):
        run(Program(base_candidate("Pick one.", model=model)), cases("left"), scripted_environment, at=at)


def test_one_attempt_gives_one_scored_trace_per_case_in_order(scripted_environment, at):
    traces = run(
        ScriptedProgram(), cases("left", "right"), scripted_environment, at=at, session=lambda i: f"s{i}"
    )
    assert [t.score for t in traces] == [1.0, 0.0]
    assert [t.session_id for t in traces] == ["s0", "s1"]
    assert [t.started_at for t in traces] == [at(0), at(1)]
    assert all(t.case.expected is None for t in traces)
    assert all(t.usage == Usage(input_tokens=10, lm_calls=1) for t in traces)
    assert all(t.latency_s > 0 and t.error is None for t in traces)
    (step,) = traces[0].attempts[0].steps
    assert (step.action.name, step.confidence) == ("left", 0.7)
    assert "step 0" in step.observation
    assert "step 1" in step.result


def test_no_cases_give_no_traces(scripted_environment, at):
    assert run(ScriptedProgram(), [], scripted_environment, at=at) == []


def test_a_retry_reads_the_reflection_and_does_something_else(scripted_environment, at):
    program = ScriptedProgram(attempts=3)
    (trace,) = run(program, cases("right"), scripted_environment, at=at)
    assert [a.steps[-1].action.name for a in trace.attempts] == ["left", "right"]
    assert (trace.first_score, trace.score) == (0.0, 1.0)
    assert trace.attempts[0].reflection == "left was wrong here. Try the other one."
    assert trace.attempts[1].reflection is None
    assert program.views[1].reflections == ("left was wrong here. Try the other one.",)
    assert program.views[1].tried == ("left",)
    assert trace.usage.lm_calls == 2


@pytest.mark.parametrize(("shown", "expected"), [(0, 0), (1, 1), (3, 2)])
def test_a_retry_reads_as_many_reflections_as_the_candidate_says(scripted_environment, at, shown, expected):
    program = ScriptedProgram(attempts=3)
    topology = program.candidate.topology.model_copy(update={"reflections": shown})
    program.candidate = program.candidate.model_copy(update={"topology": topology})
    make = lambda: scripted_environment(options=tuple("abc"))  # noqa: E731
    (trace,) = run(program, cases("c"), make, at=at)
    assert len(program.views[2].reflections) == expected
    assert all(attempt.reflection for attempt in trace.attempts[:2]), "the trace keeps them all"


def test_attempts_end_at_the_limit_and_no_failed_action_is_repeated(scripted_environment, at):
    make = lambda: scripted_environment(options=tuple("abcdef"))  # noqa: E731
    (trace,) = run(ScriptedProgram(attempts=4), cases("none of them"), make, at=at)
    actions = [a.steps[-1].action.name for a in trace.attempts]
    assert len(actions) == 4 == len(set(actions))


def test_without_an_outcome_there_is_no_retry(scripted_environment, at):
    (trace,) = run(
        ScriptedProgram(attempts=3), cases("right"), lambda: scripted_environment(scored=False), at=at
    )
    assert len(trace.attempts) == 1
    assert trace.score is None
    assert trace.attempts[0].reflection is None


@pytest.mark.parametrize("call", ["reset", "second reset", "step", "outcome"])
def test_an_environment_that_raises_is_recorded_and_others_go_on(scripted_environment, at, call):
    broken = iter([True, False])
    traces = run(
        ScriptedProgram(attempts=2),
        cases("right", "right"),
        lambda: scripted_environment(break_in=call if next(broken) else ""),
        at=at,
    )
    assert traces[0].error.kind == "infrastructure"
    assert traces[0].error.message.startswith(f"environment.{call.split()[-1]}: ConnectionError")
    assert traces[1].error is None
    assert traces[1].score == 1.0


def test_an_environment_that_cannot_be_made_is_recorded(at):
    def make():
        raise OSError("no licence")

    (trace,) = run(ScriptedProgram(), cases("left"), make, at=at)
    assert "no licence" in trace.error.message
    assert trace.attempts == ()


@pytest.mark.parametrize(
    ("call", "value"),
    [("reset", None), ("step", (None, True)), ("step", None), ("outcome", 1.0), ("outcome", None)],
)
def test_an_environment_that_returns_something_else_is_recorded(scripted_environment, at, call, value):
    traces = run(ScriptedProgram(), cases("left"), lambda: scripted_environment(returns={call: value}), at=at)
    assert traces[0].error.kind == "infrastructure"
    assert f"environment.{call}" in traces[0].error.message


def test_the_action_that_broke_the_environment_stays_in_the_history(scripted_environment, at):
    (trace,) = run(ScriptedProgram(), cases("left"), lambda: scripted_environment(break_in="step"), at=at)
    assert trace.action.name == "left"
    assert trace.attempts[0].steps[0].result is None
    assert trace.score is None
    assert trace.usage.lm_calls == 1


@pytest.mark.parametrize(
    ("error", "kind"), [(LMFailure("garbage"), "agent"), (TimeoutError("slow"), "infrastructure")]
)
def test_an_lm_that_fails_at_one_case_leaves_the_others_alone(scripted_environment, at, error, kind):
    traces = run(
        ScriptedProgram(failures={"1:": error}), cases("left", "left", "left"), scripted_environment, at=at
    )
    assert [t.score for t in traces] == [1.0, None, 1.0]
    assert traces[1].error.kind == kind
    assert str(error) in traces[1].error.message
    assert traces[1].latency_s > 0


def test_arguments_that_cannot_be_filled_break_no_other_case(scripted_environment, at, monkeypatch):
    def fill(program, views, decisions):
        if any(view.observation.text.startswith("0:") for view in views):
            raise ValueError("odd schema")
        return [
            d.model_copy(update={"action": Action(name=d.action.name, arguments={"x": 1})}) for d in decisions
        ]

    monkeypatch.setattr(loop, "fill_arguments", fill)
    traces = run(ScriptedProgram(), cases("left", "left"), scripted_environment, at=at, with_arguments=True)
    assert "odd schema" in traces[0].error.message
    assert traces[1].action == Action(name="left", arguments={"x": 1})


def test_a_run_of_many_steps_is_played_to_its_end(scripted_environment, at):
    (trace,) = run(ScriptedProgram(), cases("left"), lambda: scripted_environment(n_steps=5), at=at)
    assert (trace.n_steps, len(trace.attempts), trace.score) == (5, 1, 1.0)


def test_a_run_without_end_is_cut_and_scored(scripted_environment, at):
    (trace,) = run(ScriptedProgram(), cases("left"), lambda: scripted_environment(n_steps=10**6), at=at)
    assert trace.n_steps == Limits().steps
    assert (trace.score, trace.stopped) == (1.0, "steps")


def test_what_failed_as_the_last_step_may_still_be_taken_earlier(scripted_environment, at):
    """Else an agent that always ends with `submit` could never submit again after one failure."""
    program = ScriptedProgram(attempts=2)
    run(program, cases("right"), lambda: scripted_environment(n_steps=2), at=at)
    assert [view.tried for view in program.views] == [(), (), (), ("left",)]


def test_cases_of_one_batch_end_at_different_times(scripted_environment, at):
    lengths = iter([1, 3, 2])
    traces = run(
        ScriptedProgram(), cases(*["left"] * 3), lambda: scripted_environment(n_steps=next(lengths)), at=at
    )
    assert [t.n_steps for t in traces] == [1, 3, 2]


def test_more_cases_than_a_batch_keep_their_order_and_count_as_they_finish(scripted_environment, at):
    done = []
    many = cases(*["left", "right"] * (loop.BATCH // 2 + 2))
    traces = run(ScriptedProgram(), many, scripted_environment, at=at, progress=done.append)
    assert [t.case.case_id for t in traces] == [c.case_id for c in many]
    assert done == [loop.BATCH, 4]


def test_ids_of_traces_repeat_with_the_run_and_differ_between_cases_times_and_sessions(
    scripted_environment, at
):
    def ids(**changes):
        settings = {"at": at, "session": lambda _: "s"} | changes
        return [
            t.trace_id
            for t in run(ScriptedProgram(), cases("left", "right"), scripted_environment, **settings)
        ]

    assert ids() == ids()
    runs = [ids(), ids(at=lambda i: at(i + 10)), ids(session=lambda _: "other")]
    assert len({trace_id for trace_ids in runs for trace_id in trace_ids}) == 6


def test_what_was_recalled_is_recorded_once(scripted_environment, at):
    (trace,) = run(ScriptedProgram(), cases("left"), scripted_environment, at=at)
    assert trace.attempts[0].recalled == ("old",)


def test_a_reflection_without_feedback_names_the_action():
    step = Step(observation="o", action=Action(name="left"))
    assert by_template([step], Outcome(score=0)) == "left was wrong here."


def test_a_reflection_on_many_steps_names_the_last_ones_and_the_limit():
    steps = [Step(observation="o", action=Action(name=name)) for name in "abcd"]
    assert by_template(steps, Outcome(score=0, feedback="Not there."), "steps") == (
        "This did not work: b; c; d. It took too many steps. Not there."
    )


def test_the_best_option_that_has_not_failed_is_picked_with_its_own_probability():
    score = np.log([0.5, 0.3, 0.2])
    assert pick(score, "abc", ()) == (0, pytest.approx(0.5))
    assert pick(score, "abc", ("a",)) == (1, pytest.approx(0.3))
    assert pick(score, "abc", tuple("abc"))[0] == 0
    assert pick(np.array([-9000.0, -9001.0]), "ab", ())[0] == 0


def test_budgets_stop_a_run_where_it_stands_and_say_which(scripted_environment, at):
    make = lambda: scripted_environment(n_steps=10)  # noqa: E731
    (trace,) = run(ScriptedProgram(), cases("left"), make, at=at, limits=Limits(tokens=30))
    assert (trace.stopped, trace.n_steps, trace.usage.input_tokens) == ("tokens", 3, 30)
    assert (trace.score, trace.error) == (1.0, None)
    (trace,) = run(ScriptedProgram(), cases("left"), make, at=at, limits=Limits(seconds=1e-9))
    assert (trace.stopped, trace.n_steps) == ("seconds", 1)


def test_a_budget_that_is_used_up_keeps_a_retry_from_beginning(scripted_environment, at):
    program = ScriptedProgram(attempts=3)
    (trace,) = run(program, cases("nowhere"), scripted_environment, at=at, limits=Limits(tokens=20))
    assert (trace.stopped, len(trace.attempts), trace.score) == ("tokens", 2, 0.0)


def test_limits_may_allow_fewer_attempts_than_the_topology(scripted_environment, at):
    program = ScriptedProgram(attempts=3)
    (trace,) = run(program, cases("nowhere"), scripted_environment, at=at, limits=Limits(attempts=2))
    assert (len(trace.attempts), trace.stopped) == (2, None)


@pytest.fixture
def still(scripted_environment):
    """Nothing that is done shows."""

    class Still(scripted_environment):
        def _see(self):
            return Observation(text="a wall", options=tuple(Option(name=name) for name in self.options))

    return lambda: Still(n_steps=99)


def test_an_option_repeated_in_one_state_is_not_offered_again_and_circling_is_cut(still, at):
    program = ScriptedProgram(attempts=2)
    (trace,) = run(program, cases("up"), still, at=at, limits=Limits(repeats=2, attempts=1))
    assert [step.action.name for step in trace.attempts[0].steps] == ["left", "left", "right", "right"]
    assert trace.stopped == "repeats"
    assert trace.score == 0.0
    assert "It went in circles." in trace.attempts[0].reflection


def test_each_attempt_counts_its_own_repetitions(still, at):
    program = ScriptedProgram(attempts=2)
    (trace,) = run(program, cases("up"), still, at=at, limits=Limits(repeats=1))
    assert [a.steps[0].action.name for a in trace.attempts] == ["left", "left"]


def test_what_was_done_in_the_attempt_is_in_the_view(scripted_environment, at):
    program = ScriptedProgram()
    run(program, cases("left"), lambda: scripted_environment(n_steps=6), at=at)
    assert [len(view.done) for view in program.views] == [0, 1, 2, 3, 4, 4]


def test_the_view_tells_what_the_case_is_for(scripted_environment, at):
    program = ScriptedProgram()
    run(program, cases("left"), lambda: scripted_environment(n_steps=2), at=at)
    assert [view.goal for view in program.views] == ["0: go left"] * 2


def test_steps_of_a_won_trajectory_are_recalled_by_the_goal_as_well(at):
    def step(index, goal, action):
        return Experience(
            observation="a corridor",
            action=action,
            goal=goal,
            index=index,
            trace_id=goal,
            case_id=goal,
            source="own",
        )

    steps = [step(0, "bring the lamp", "go left"), step(0, "feed the otter", "go right")]
    program = Program(
        base_candidate("Go.").model_copy(update={"topology": Topology(recalls=1)}), memory=Memory(steps)
    )
    seen = Observation(text="a corridor", options=(Option(name="go left"), Option(name="go right")))
    for goal, action in (("feed an otter", "go right"), ("find a lamp", "go left")):
        prompt, _, _ = program.prompt(View(case_id="new", observation=seen, goal=goal))
        assert f"Before: a corridor -> {action}" in prompt.text
