"""Teams: who said what stands in one trace, every role learns its own share, and a broken team is refused by name."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from ratchet.agent.candidate import Candidate, Predictor, Role, Topology
from ratchet.agent.environment import Observation, Option
from ratchet.agent.environments.tool_calling import ToolCalling
from ratchet.agent.errors import BadInput, NothingToPropose
from ratchet.agent.kinds.program import Program, View, base_candidate
from ratchet.agent.memory.ranking import RecallSettings
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.optimize.team import best_weights, blackboard_accuracy, role_examples
from ratchet.agent.optimize.weights.lora import Lora
from ratchet.agent.rollout.loop import run
from ratchet.agent.team.deliberation import PLANNED_OPTIONS, Blackboard
from ratchet.agent.team.roles import (
    PLANNER_WORKER,
    SOLVER_CRITIC_JUDGE,
    as_single,
    as_team,
    check_team,
    member_of,
    with_member,
)
from ratchet.agent.team.team import Team, make_program

PARENT = base_candidate("Pick the tool that does what the request asks for.", attempts=2)
TRIO = as_team(PARENT)
PAIR = as_team(PARENT, PLANNER_WORKER)


def named(*names):
    return Observation(text="go", options=tuple(Option(name=name) for name in names))


def test_a_solver_critic_and_judge_leave_one_trace_that_shows_who_did_what(lm, short_cases, at):
    (trace,) = run(Team(TRIO, {}), short_cases[:1], ToolCalling, at=at)
    assert trace.error is None
    assert trace.candidate_id == TRIO.candidate_id
    for attempt in trace.attempts:
        (step,) = attempt.steps
        assert step.actor == "judge"
        assert [part.actor for part in step.parts] == ["solver", "critic", "critic", "judge"]
        solver, first, second, judge = step.parts
        assert solver.said == first.about
        assert {first.said, second.said} <= {"right", "wrong"}
        assert f"Answer '{first.about}" in first.observation
        assert short_cases[0].inputs["request"] in first.observation
        assert judge.said in {first.about, second.about} >= {step.action.name}
    assert trace.usage.lm_calls == 4 * len(trace.attempts)
    assert trace.usage.input_tokens > 100


def test_a_planner_narrows_what_the_worker_chooses_from(lm, examples):
    options = tuple(o for e in examples[:4] for o in e.view.observation.options)
    options = tuple({option.name: option for option in options}.values())[:6]
    view = examples[0].view.model_copy(
        update={"observation": Observation(text=examples[0].view.observation.text, options=options)}
    )
    team = Team(PAIR, {})
    board = team.weigh(view)
    plan, work = board.parts
    assert (plan.actor, len(plan.options)) == ("planner", 6)
    assert (work.actor, len(work.options)) == ("worker", PLANNED_OPTIONS)
    assert plan.said in work.options
    (decision,) = team.decide([view])
    assert decision.actor == "worker"
    assert decision.action.name in work.options


def test_a_team_of_one_decides_as_the_agent_itself(lm, examples):
    views = [example.view for example in examples[:4]]
    alone = Program(PARENT).decide(views)
    team = make_program(as_team(PARENT, (("solver", "solve"),)), {}).decide(views)
    assert [d.action for d in team] == [d.action for d in alone]
    assert [d.confidence for d in team] == pytest.approx([d.confidence for d in alone])
    assert [d.usage for d in team] == [d.usage for d in alone]


def test_a_team_does_not_repeat_what_failed(lm, examples):
    for candidate in (TRIO, PAIR):
        team, view = Team(candidate, {}), examples[0].view
        (first,) = team.decide([view])
        (second,) = team.decide([view.model_copy(update={"tried": (first.action.name,)})])
        assert second.action.name != first.action.name


def test_dspys_call_and_the_decision_of_a_team_agree(lm, examples):
    team, view = Team(TRIO, {}), examples[0].view
    options = [option.model_dump() for option in view.observation.options]
    chosen = team(request=view.observation.text, options=options, case_id=view.case_id)
    assert chosen.choice == team.decide([view])[0].action.name
    scored = team.score(view)
    assert scored.names[int(scored.log_scores.argmax())] == chosen.choice


def test_a_team_has_an_option_of_its_own_and_every_role_sees_it(lm, examples):
    own = TRIO.model_copy(update={"extra_options": (Option(name="no_tool", description="None fits."),)})
    biased = tuple(r.model_copy(update={"extra_bias": 100.0, "weight": 1.0}) for r in own.topology.roles)
    own = own.model_copy(update={"topology": Topology(roles=biased)})
    (decision,) = Team(own, {}).decide([examples[0].view])
    assert decision.action.name == "no_tool"


def test_without_options_the_roles_write_and_the_last_who_answers_acts(lm):
    (decision,) = Team(TRIO, {}).decide([View(case_id="c", observation=Observation(text="Say hello."))])
    assert decision.actor == "judge"
    assert decision.action.name
    assert [part.actor for part in decision.parts] == ["solver", "critic", "judge"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((("critic", "criticize"),), "nobody with the duty to solve: add a solver"),
        ((("critic", "criticize"), ("solver", "solve")), "'critic' would speak before anybody has answered"),
        ((("solver", "solve"), ("planner", "plan")), "'planner' would plan what is already done"),
        ((("solver", "solve"), ("solver", "judge")), "two roles of one name"),
    ],
)
def test_a_team_that_cannot_work_is_refused(members, message):
    with pytest.raises(BadInput, match=message):
        as_team(PARENT, members)


def test_a_role_without_prompt_and_a_role_that_is_not_there_are_refused():
    with pytest.raises(BadInput, match="role 'solver' has no prompt"):
        check_team(PARENT.model_copy(update={"topology": TRIO.topology}))
    with pytest.raises(BadInput, match=r"no role 'poet' in the team \['solver', 'critic', 'judge'\]"):
        with_member(TRIO, "poet", PARENT)


def test_a_team_is_not_run_as_a_single_agent_and_its_files_are_asked_for():
    with pytest.raises(BadInput, match=r"is a team of 3: build it with ratchet\.agent"):
        Program(TRIO)
    critic = TRIO.topology.roles[1].model_copy(update={"memory": "0123"})
    changed = with_member(TRIO, "critic", member_of(TRIO, critic))
    with pytest.raises(BadInput, match="names memory 0123 and none was given"):
        make_program(changed, {})


def test_a_single_agent_becomes_a_team_and_is_itself_again():
    learned = PARENT.model_copy(
        update={
            "memory": "m",
            "adapter": "a",
            "topology": Topology(attempts=3, reflections=1, recalls=2, extra_bias=-5),
        }
    )
    team = as_team(learned, (("solver", "solve"),))
    assert (team.memory, team.adapter, team.topology.recalls) == (None, None, 0)
    assert as_single(team) == learned
    assert len({learned.candidate_id, team.candidate_id, as_team(learned).candidate_id}) == 3
    assert Candidate.from_json(team.to_json()) == team


def test_a_critic_learns_from_right_and_wrong_answers_and_a_judge_from_what_it_would_read(lm, examples):
    team, few = Team(TRIO, {}), examples[:3]
    assert role_examples(team, "solver", few) == few
    learned = role_examples(team, "critic", few)
    assert [e.answer for e in learned] == ["right", "wrong"] * 3
    assert {e.view.case_id for e in learned} == {e.view.case_id for e in few}
    assert all(
        f"Answer '{e.answer}" in c.view.observation.text for e, c in zip(few, learned[::2], strict=True)
    )
    for example in role_examples(team, "judge", few):
        assert example.is_offered
        assert len(example.view.observation.options) == 2
        assert [note.split()[0] for note in example.view.reflections] == ["solver", "critic", "critic"]


def improved(proposer, team, examples, work):
    return made_by(proposer, Registered(team), Evidence(examples=examples), work)


def test_replay_gives_every_role_its_own_share(lm, examples, work):
    proposal = improved(Replay(recalls=1, tune_on=4), TRIO, examples[:3], work)
    roles = {role.name: role for role in proposal.candidate.topology.roles}
    critic = Memory.load(proposal.files["memory.critic"])
    assert roles["critic"].memory == critic.memory_id
    assert {e.action for e in critic.experiences} == {"right", "wrong"}
    assert {e.action for e in Memory.load(proposal.files["memory.solver"]).experiences} == {
        example.answer for example in examples[:3]
    }
    assert set(proposal.seen_case_ids) == {e.view.case_id for e in examples[:3]}
    assert "critic: Remembers 6 steps" in proposal.candidate.origin.note
    (decision,) = make_program(proposal.candidate, proposal.files).decide([examples[4].view])
    assert decision.action.name in {o.name for o in examples[4].view.observation.options}


@pytest.mark.slow
def test_all_roles_learn_in_turn_each_with_an_adapter_of_its_own(lm, examples, work):
    lora = Lora(rank=4, epochs=1, batch_size=2, first_layer=29, tune_share=0)
    proposal = improved(lora, TRIO, examples[:4], work)
    roles = proposal.candidate.topology.roles
    assert len({role.adapter for role in roles}) == 3
    assert {f"adapter.{r.name}": r.adapter for r in roles} == {n: p.name for n, p in proposal.files.items()}
    assert proposal.candidate.parent == TRIO.candidate_id
    assert set(proposal.seen_case_ids) == {e.view.case_id for e in examples[:4]}
    assert proposal.cost["lm_calls"] > 4
    assert make_program(proposal.candidate, proposal.files).decide([examples[4].view])


def test_a_team_without_examples_learns_nothing(work):
    with pytest.raises(NothingToPropose, match="no labelled example"):
        improved(Replay(), TRIO, [], work)


def boards(*rows):
    view = View(case_id="c", observation=named("a", "b"))
    return [
        Blackboard(
            view, view.observation.options, {name: np.array(log_scores) for name, log_scores in row.items()}
        )
        for row in rows
    ]


def test_weights_are_tuned_without_asking_again_and_a_useless_role_weighs_nothing():
    roles = tuple(Role(name=name, duty="solve") for name in ("one", "helpful", "useless"))
    rows = boards(
        {"one": [0.0, -1.0], "helpful": [-3.0, 0.0], "useless": [0.0, 0.0]},
        {"one": [0.0, -1.0], "helpful": [0.0, -0.1], "useless": [0.0, 0.0]},
    )
    asked = [
        Example(view=View(case_id=name, observation=named("a", "b")), answer=name, trace_id="t")
        for name in "ba"
    ]
    tuned, score = best_weights(roles, rows, asked, (0.0, 0.5, 1.0))
    assert score == 1
    assert [role.weight for role in tuned] == [1.0, 1.0, 0.0]
    assert blackboard_accuracy(roles[:1], rows, asked) == 0.5
    assert blackboard_accuracy(roles[:1], rows, asked, within=2) == 1


@pytest.fixture
def endpoint_team(scripted_endpoint):
    def make(members, answer):
        scripted_endpoint.answer = answer
        alone = base_candidate("Pick one.", model="openai/scripted", api_base=scripted_endpoint.url)
        return Team(as_team(alone, members), {}, endpoint={"api_key": "x", "num_retries": 0})

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="litellm|pydantic|openai|aiohttp|httpx")
        yield make


def by_role(solver, critic, judge=""):
    def answer(prompt):
        if "Say right or wrong" in prompt:
            return critic
        if "Read what the others said" in prompt:
            return judge
        return "right_tool" if "Note: critic says wrong_tool is wrong" in prompt else solver

    return answer


def test_behind_an_endpoint_the_judge_reads_the_others_and_has_the_last_word(
    endpoint_team, scripted_endpoint
):
    team = endpoint_team(SOLVER_CRITIC_JUDGE, by_role("wrong_tool", "wrong", "right_tool"))
    (decision,) = team.decide([View(case_id="c", observation=named("wrong_tool", "right_tool"))])
    assert (decision.actor, decision.action.name) == ("judge", "right_tool")
    assert [(part.actor, part.said) for part in decision.parts] == [
        ("solver", "wrong_tool"), ("critic", "wrong"), ("judge", "right_tool"),
    ]  # fmt: skip
    assert "Note: critic says wrong_tool is wrong" in scripted_endpoint.prompts[-1]
    assert decision.usage.lm_calls == 3
    assert decision.usage.input_tokens == 21


def test_without_a_judge_the_solver_answers_its_critic(endpoint_team):
    team = endpoint_team(SOLVER_CRITIC_JUDGE[:2], by_role("wrong_tool", "wrong"))
    (decision,) = team.decide([View(case_id="c", observation=named("wrong_tool", "right_tool"))])
    assert (decision.actor, decision.action.name) == ("solver", "right_tool")
    assert [part.actor for part in decision.parts] == ["solver", "critic", "solver"]


def test_a_planner_behind_an_endpoint_writes_and_the_worker_reads_it(endpoint_team, scripted_endpoint):
    team = endpoint_team(
        PLANNER_WORKER, lambda p: "take the second" if "comes closest" in p else "right_tool"
    )
    (decision,) = team.decide([View(case_id="c", observation=named("wrong_tool", "right_tool"))])
    assert decision.action.name == "right_tool"
    assert decision.parts[0].said == "take the second"
    assert "Note: planner says take the second" in scripted_endpoint.prompts[-1]


def test_the_prompts_of_roles_are_their_own(lm, examples):
    spoken = {name: Predictor(instructions=f"I am the {name}.") for name in ("solver", "critic", "judge")}
    team = Team(TRIO.model_copy(update={"predictors": spoken}), {})
    for name, member in team.members.items():
        assert member.prompt(examples[0].view)[0].prefix.startswith(f"<|im_start|>user\nI am the {name}.\n")


def test_an_experience_of_one_role_is_recalled_by_it_alone(lm, examples, tmp_path):
    memory = Memory(
        [
            Experience(
                observation=examples[0].view.observation.text,
                action="x",
                trace_id="t",
                case_id="o",
                source="own",
            )
        ]
    )
    memory.save(tmp_path / "m.jsonl")
    critic = TRIO.topology.roles[1].model_copy(update={"memory": memory.memory_id, "recalls": 1})
    team = Team(with_member(TRIO, "critic", member_of(TRIO, critic)), {"memory.critic": tmp_path / "m.jsonl"})
    assert team.members["solver"].memory is None
    (decision,) = team.decide([examples[0].view])
    assert {part.actor for part in decision.parts if part.recalled} == {"critic"}
    assert decision.recalled == ("t",)


def test_the_embedding_that_a_role_s_memory_names_reaches_it(tmp_path):
    step = Experience(observation="go", action="x", trace_id="t", case_id="o", source="own")
    memory = Memory([step], settings=RecallSettings(embedding="doors"), embed=by_length)
    memory.save(tmp_path / "m.jsonl")
    alone = base_candidate("Pick one.").model_copy(update={"memory": memory.memory_id})
    files = {"memory.solver": tmp_path / "m.jsonl"}
    team = make_program(as_team(alone), files, embeddings={"doors": by_length}.get)
    assert team.members["solver"].memory.memory_id == memory.memory_id
    with pytest.raises(BadInput, match="'doors', which is not given"):
        make_program(as_team(alone), files)


def by_length(texts):
    return np.array([[len(text), 1.0] for text in texts])


def test_behind_an_endpoint_only_those_who_answer_learn_from_examples(endpoint_team, examples, work):
    team = endpoint_team(SOLVER_CRITIC_JUDGE, by_role("a", "right", "a"))
    behind = replace(work, agent=lambda one, files: make_program(one, files, endpoint=team.endpoint))
    proposal = improved(Replay(recalls=1), team.candidate, examples[:3], behind)
    assert set(proposal.files) == {"memory.solver"}
    with pytest.raises(BadInput, match="role 'critic' learns from how the embedded LM scores"):
        role_examples(team, "critic", examples[:3])
