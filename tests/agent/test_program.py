"""One candidate, two ways in: DSPy's call and the batched decision agree, and what is learned is used."""

import dspy
import pytest
from dspy.lm15 import ImagePart, Message, Request, TextPart

from ratchet.agent.candidate import Predictor, ToolOverride, Topology
from ratchet.agent.environment import Action, Observation, Option
from ratchet.agent.environments.tool_calling import ToolCalling, case_observation
from ratchet.agent.errors import BadInput, LMFailure
from ratchet.agent.kinds.arguments import fill_arguments
from ratchet.agent.kinds.program import Choose, Decision, Program, View, base_candidate
from ratchet.agent.lm.embedded import Embedded, as_prompt
from ratchet.agent.lm.lean_adapter import LeanAdapter, nearest
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.rollout.loop import run
from ratchet.agent.trace import Usage


@pytest.fixture(scope="module")
def program(lm):
    return Program(base_candidate("Pick the tool that does what the request asks for."))


@pytest.fixture
def views(short_cases):
    return [View(case_id=c.case_id, observation=case_observation(c)) for c in short_cases[:3]]


def choose(program, view):
    options = [option.model_dump() for option in view.observation.options]
    return program(request=view.observation.text, options=options, case_id=view.case_id).choice


def test_dspys_call_and_the_batched_decision_choose_the_same(program, views):
    assert [choose(program, view) for view in views] == [d.action.name for d in program.decide(views)]


def test_they_agree_with_memory_overridden_tools_own_options_and_weights(program, views):
    memory = Memory(
        Experience(observation=v.observation.text + " please", action=v.observation.options[-1].name, trace_id="t", case_id="other", source="own")
        for v in views
    )  # fmt: skip
    first = views[0].observation.options[0].name
    changed = program.candidate.model_copy(
        update={
            "tools": {first: "Does something else altogether"},
            "extra_options": (Option(name="no_tool", description="None fits"),),
            "topology": Topology(recalls=1, recall_weight=60, retrieval_weight=10, extra_bias=-20),
        }
    )
    learned = Program(changed, memory=memory)
    decided = learned.decide(views)
    assert [choose(learned, view) for view in views] == [d.action.name for d in decided]
    assert [d.action.name for d in decided] == [v.observation.options[-1].name for v in views]
    assert all(d.recalled == ("t",) * len(d.recalled) and d.recalled for d in decided)


def test_a_decision_is_an_offered_option_with_a_probability_and_counted_tokens(program, views):
    for view, decision in zip(views, program.decide(views), strict=True):
        assert decision.action.name in {option.name for option in view.observation.options}
        assert 1 / 5 < decision.confidence <= 1
        assert decision.usage.lm_calls == 1
        assert decision.usage.input_tokens > 20


def test_what_failed_is_not_decided_again(program, views):
    (first,) = program.decide(views[:1])
    (second,) = program.decide([views[0].model_copy(update={"tried": (first.action.name,)})])
    assert second.action.name != first.action.name


def test_without_options_the_lm_writes_freely(program):
    (decision,) = program.decide([View(case_id="c", observation=Observation(text="Say hello."))])
    assert decision.action.name
    assert decision.confidence is None
    assert decision.usage.output_tokens > 0


def test_arguments_are_filled_from_the_chosen_options_parameters(program, short_cases):
    case = next(c for c in short_cases if all(t["parameters"]["properties"] for t in c.inputs["tools"]))
    view = View(case_id=case.case_id, observation=case_observation(case))
    option = view.observation.options[0]
    decided = Decision(action=Action(name=option.name), usage=Usage(input_tokens=5, lm_calls=1))
    (filled,) = fill_arguments(program, [view], [decided])
    assert filled.action.name == option.name
    assert filled.action.arguments is None or set(filled.action.arguments) <= set(
        option.parameters["properties"]
    )
    unknown = Decision(action=Action(name="unknown"))
    assert fill_arguments(program, [view], [unknown]) == [unknown]


def test_the_tokens_of_filled_arguments_are_counted(program, short_cases, at):
    case = next(c for c in short_cases if all(t["parameters"]["properties"] for t in c.inputs["tools"]))
    alone, whole = (
        run(program, [case], ToolCalling, at=at, with_arguments=w)[0].usage for w in (False, True)
    )
    assert whole.lm_calls == alone.lm_calls + 1 == 2
    assert whole.input_tokens > alone.input_tokens
    assert whole.output_tokens > alone.output_tokens == 0


def test_without_retries_the_agent_is_the_same_otherwise(program):
    many = Program(program.candidate.model_copy(update={"topology": Topology(attempts=4, recalls=2)}))
    single = many.single_attempt()
    assert (single.attempts, many.attempts) == (1, 4)
    assert single.candidate.candidate_id == many.candidate.candidate_id


def test_traces_of_an_evaluation_name_the_registered_candidate(program, short_cases, at):
    wrong = short_cases[0].model_copy(update={"expected": "never this"})
    many = Program(program.candidate.model_copy(update={"topology": Topology(attempts=2)}))
    twice, once = (run(p, [wrong], ToolCalling, at=at)[0] for p in (many, many.single_attempt()))
    assert (len(twice.attempts), len(once.attempts)) == (2, 1)
    assert once.candidate_id == twice.candidate_id == many.candidate.candidate_id


@pytest.mark.parametrize("kind", ["memory", "adapter"])
def test_a_candidate_without_the_file_that_it_names_is_refused(program, kind):
    changed = program.candidate.model_copy(update={kind: "0123abcd"})
    with pytest.raises(BadInput, match=rf"names {kind} 0123abcd and none was given: pass the file"):
        Program(changed)


def test_options_answer_one_output_only(program):
    class Two(dspy.Signature):
        request: str = dspy.InputField()
        options: list = dspy.InputField()
        choice: str = dspy.OutputField()
        reason: str = dspy.OutputField()

    with (
        dspy.context(lm=program.lm.dspy, adapter=LeanAdapter()),
        pytest.raises(BadInput, match=r"signature Two has `options` and 2 outputs \(choice, reason\)"),
    ):
        dspy.Predict(Two)(request="hi", options=[{"name": "a"}])


def test_a_renamed_tool_is_read_and_answered_under_its_new_name_and_acts_under_its_own(program, views):
    view = views[0]
    old = view.observation.options[0]
    override = ToolOverride(name="a_better_name", description="What it does.")
    memory = Memory(
        [
            Experience(
                observation=view.observation.text,
                action=old.name,
                trace_id="t",
                case_id="other",
                source="own",
            )
        ]
    )
    changed = program.candidate.model_copy(
        update={"tools": {old.name: override}, "topology": Topology(recalls=1, recall_weight=100)}
    )
    renamed = Program(changed, memory=memory)
    prompt, observation, _ = renamed.prompt(view)
    assert "- a_better_name: What it does." in prompt.prefix
    assert "-> a_better_name" in prompt.suffix
    assert old.name not in prompt.text
    assert prompt.choices[0] == "a_better_name"
    assert observation.options[0].name == old.name
    assert [d.action.name for d in renamed.decide([view])] == [old.name] == [choose(renamed, view)]


def test_two_tools_of_one_name_are_refused(program, views):
    first, second, *_ = views[0].observation.options
    tools = {name: ToolOverride(name="one") for name in (first.name, second.name)}
    with pytest.raises(BadInput, match="would both be called 'one': rename one of them"):
        Program(program.candidate.model_copy(update={"tools": tools}))


def test_a_new_name_that_another_option_bears_is_not_used_there(program, views):
    first, second, *_ = views[0].observation.options
    changed = program.candidate.model_copy(update={"tools": {first.name: ToolOverride(name=second.name)}})
    assert Program(changed).prompt(views[0])[0].choices == program.prompt(views[0])[0].choices


def test_a_schema_override_keeps_the_environments_argument_names(program, views):
    option = views[0].observation.options[0]
    known = next(iter(option.parameters["properties"]))
    for name, used in ((known, True), ("no_such_argument", False)):
        schema = {"properties": {name: {"type": "string", "description": "Seen."}}}
        changed = program.candidate.model_copy(
            update={"tools": {option.name: ToolOverride(parameters=schema)}}
        )
        shown = Program(changed).prompt(views[0])[1].options[0].parameters
        assert shown == (schema if used else option.parameters)


def test_the_adapters_prompt_is_that_of_the_batched_path(program, views):
    adapter = LeanAdapter()
    for view in views:
        prompt, observation, _ = program.prompt(view)
        signature = Choose.with_instructions(program.candidate.predictors["choose"].instructions)
        inputs = {"request": observation.text, "options": observation.options, "before": (), "notes": ()}
        made = adapter.prompt(signature, [], inputs)
        assert made == prompt
        assert as_prompt(adapter.request(program.lm.dspy, {}, made)) == prompt


def test_a_prompt_with_two_to_five_real_tools_takes_at_most_190_tokens_on_average(program, lm):
    from ratchet.agent.environments.tool_calling import live_cases

    cases = [c for c in live_cases("live_multiple") if 2 <= len(c.inputs["tools"]) <= 5][::10]
    prompts = [
        program.prompt(View(case_id="c", observation=case_observation(case)))[0].text for case in cases
    ]
    sizes = [len(lm.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in prompts]
    assert sum(sizes) / len(sizes) <= 190


def test_a_free_text_signature_gets_the_lms_words(program):
    with dspy.context(lm=program.lm.dspy, adapter=LeanAdapter()):
        answer = dspy.Predict("request -> reply", max_tokens=6)(request="Say hello.")
    assert answer.reply


def test_an_answer_that_cannot_be_read_is_a_parse_error():
    for names, text in (("reply", " "), ("city, mood", "city: Oslo"), ("city, mood", "no fields")):
        with pytest.raises(dspy.utils.exceptions.AdapterParseError):
            LeanAdapter().answer(dspy.Signature(f"request -> {names}"), text, ())
    with pytest.raises(dspy.utils.exceptions.AdapterParseError):
        LeanAdapter().answer(dspy.Signature("request -> choice"), "neither", ("left", "right"))


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("book_flight", "book_flight"), (" `book_flight`. ", "book_flight"), ("I would call book_flight.", "book_flight"),
        ("book_flight(to='Rome')", "book_flight"), ("bok_flight", "book_flight"), ("Book_Flight", "book_flight"),
        ("book", "book"), ("It is bookable", None), ("book or taxi", None), ("use book, not book_flight", None),
        ("nothing", None), ("", None),
    ],
)  # fmt: skip
def test_the_choice_that_a_sloppy_answer_means(text, choice):
    assert nearest(text, ("book", "book_flight", "taxi")) == choice


def request(*parts, **changes):
    return Request(model="m", messages=(Message.user(list(parts)),), **changes)


def test_the_lms_name_tells_its_weights(tmp_path):
    assert Embedded().dspy.model != Embedded(tmp_path).dspy.model


def test_what_is_not_text_is_refused():
    with pytest.raises(LMFailure, match="reads text only; the request holds ImagePart"):
        as_prompt(request(ImagePart(url="https://example.org/a.png")))


def test_a_conversation_with_a_system_text_stands_in_the_chat_format():
    messages = (
        Message.user([TextPart("hi")]),
        Message.assistant([TextPart("hello")]),
        Message.user([TextPart("a"), TextPart("b")]),
    )
    prompt = as_prompt(Request(model="m", messages=messages, system="Be kind."))
    assert prompt.prefix == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\nhello<|im_end|>\n<|im_start|>user\na"
    )
    assert prompt.suffix == "b<|im_end|>\n<|im_start|>assistant\n"


def test_a_candidate_without_argument_prompt_fills_none(views):
    bare = Program(
        base_candidate("x").model_copy(update={"predictors": {"choose": Predictor(instructions="x")}})
    )
    decided = Decision(action=Action(name=views[0].observation.options[0].name))
    assert fill_arguments(bare, views[:1], [decided]) == [decided]
