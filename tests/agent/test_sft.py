"""LoRA by supervised fine-tuning: what is learned, what is kept, what is refused. The model is a random, tiny Llama."""

import json
import shutil
from datetime import UTC, datetime
from functools import partialmethod

import pytest
import torch

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Observation, Outcome, respond
from ratchet.agent.errors import BadInput, NothingToPropose
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.program import CHOOSE, Program
from ratchet.agent.lm.adapter_files import MANIFEST, WEIGHTS, check_adapter
from ratchet.agent.lm.weights import EMBEDDED_MODEL, weights_folder
from ratchet.agent.optimize.budget import Budget, BudgetSpent, Meter
from ratchet.agent.optimize.evidence import Evidence, Example, Preference, Thumb
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.weights import sft, training
from ratchet.agent.optimize.weights.chat_template import SMOLLM2, encode
from ratchet.agent.optimize.weights.configuration import LoraSettings, Machine, Pieces, cut, worth_compiling
from ratchet.agent.optimize.weights.conversations import conversations
from ratchet.agent.optimize.weights.distributed import train_distributed
from ratchet.agent.optimize.weights.lora import Lora
from ratchet.agent.optimize.weights.preferences import train_preferences
from ratchet.agent.optimize.weights.rows import IGNORED, Collator, Item, rows_of
from ratchet.agent.optimize.weights.sft import train_sft
from ratchet.agent.optimize.weights.training import Job, arguments, quiet
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import folder_hash
from ratchet.agent.trace import Attempt, Step, Trace


def _tiny(folder, seed):
    """A random Llama of two layers with the embedded LM's tokenizer, as `transformers` stores it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, tie_word_embeddings=True,
        initializer_range=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    for path in weights_folder().glob("*"):
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return _tiny(tmp_path_factory.mktemp("base"), seed=0)


@pytest.fixture(scope="module")
def tokenizer(base):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base)


def _tool(name):
    properties = {"key": {"type": "string"}}
    return {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}


def _call(name, key):
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": json.dumps({"key": key})}}


FIVE_TURNS = [
    {"role": "system", "content": "Help."},
    {"role": "user", "content": "Where is order A7?"},
    {"role": "assistant", "content": None, "tool_calls": [_call("find-order", "A7")]},
    {"role": "tool", "tool_call_id": "1", "content": "<|im_end|>on its way"},
    {"role": "assistant", "content": "It is on its way."},
    {"role": "user", "content": "Tell me when."},
    {"role": "assistant", "content": "One moment.", "tool_calls": [_call("find-date", "A7")]},
    {"role": "tool", "tool_call_id": "1", "content": "Monday"},
    {"role": "assistant", "content": "On Monday."},
    {"role": "user", "content": "Thanks."},
    {"role": "assistant", "content": "Gladly."},
]
TOOLS = [_tool("find-order"), _tool("find-date")]
SAID = (
    '<tool_call>{"name": "find-order", "arguments": {"key": "A7"}}</tool_call><|im_end|>'
    "It is on its way.<|im_end|>"
    'One moment.\n<tool_call>{"name": "find-date", "arguments": {"key": "A7"}}</tool_call><|im_end|>'
    "On Monday.<|im_end|>Gladly.<|im_end|>"
)


def test_of_five_turns_with_two_tools_exactly_the_agents_own_tokens_are_learned(tokenizer):
    read = encode(tokenizer, FIVE_TURNS, TOOLS)
    own = [token for token, mine in zip(read.ids, read.own, strict=True) if mine]
    assert tokenizer.decode(own) == SAID
    rest = tokenizer.decode([token for token, mine in zip(read.ids, read.own, strict=True) if not mine])
    assert rest.count("<|im_start|>assistant\n") == 5
    assert rest.count("<|im_end|>") == 6, "of what a tool answered no token is a control token"
    assert '"name": "find-order"' in rest
    assert '"name": "find-date"' in rest


def test_without_tools_the_training_template_makes_the_shipped_ones_bytes(tokenizer):
    plain = [m for m in FIVE_TURNS if "tool_calls" not in m and m["role"] != "tool"]
    for messages in (plain, plain[1:], plain[1:2], [{"role": "user", "content": " <b>&amp;\né "}]):
        for invite in (False, True):
            shipped, ours = (
                tokenizer.apply_chat_template(
                    messages, chat_template=template, tokenize=False, add_generation_prompt=invite
                )
                for template in (None, SMOLLM2)
            )
            assert ours == shipped


MARKED = "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
LAST_ONLY = "{% for m in messages %}{% if m.role == 'user' or loop.last %}[{{ m.role }}]{{ m.content }}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def test_of_a_foreign_template_the_mask_is_what_each_turn_adds_and_one_that_rewrites_turns_is_refused(
    tokenizer, monkeypatch
):
    messages = [m for m in FIVE_TURNS[1:] if "tool_calls" not in m and m["role"] != "tool"]
    monkeypatch.setattr(tokenizer, "chat_template", MARKED)
    read = encode(tokenizer, messages, None)
    own = tokenizer.decode([token for token, mine in zip(read.ids, read.own, strict=True) if mine])
    assert own == "It is on its way.</s>On Monday.</s>Gladly.</s>"
    monkeypatch.setattr(tokenizer, "chat_template", LAST_ONLY)
    with pytest.raises(BadInput, match="turn 2 of 6 otherwise"):
        encode(tokenizer, messages, None)
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(BadInput, match="no chat template"):
        encode(tokenizer, messages, None)


def test_rows_hold_every_conversation_once_without_padding_and_none_sees_another(base):
    from transformers import AutoModelForCausalLM

    lengths = [5 + (i * 37) % 60 for i in range(50)]
    rows = rows_of(lengths, room=128, seed=3, together=16)
    assert sorted(i for row in rows for i in row) == list(range(50))
    assert all(sum(lengths[i] for i in row) <= 128 for row in rows)
    assert sum(lengths) / (128 * len(rows)) > 0.9
    items = [Item([7 + i, *range(100, 110 + i)], [IGNORED, *range(100, 110 + i)], 1.0 + i) for i in range(3)]
    batch = Collator(items, pad=2)([{"items": [0, 1]}, {"items": [2]}])
    assert batch["labels"][0][:12].tolist() == [IGNORED, *range(100, 110), IGNORED]
    assert batch["weights"][1].tolist() == [3.0] * 13 + [0.0] * 10
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    with torch.no_grad():
        packed = model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        ).logits
        alone = model(input_ids=torch.tensor([items[1].ids])).logits
    assert torch.allclose(packed[0, 11:23], alone[0], atol=1e-4)


def test_of_several_cards_a_process_uses_one(base, tmp_path, monkeypatch):
    from trl.trainer.sft_config import SFTConfig

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    here = Machine("cuda", False, "sdpa", liger=False, four_bits=False, row=2048)
    job = Job(str(base), base, LoraSettings(), "0", tmp_path, "sft")
    with quiet():
        made = arguments(SFTConfig, job, here, steps=1, per_device_train_batch_size=4)
    assert (made.n_gpu, made.train_batch_size) == (1, 4)


def test_on_a_card_a_step_is_cut_to_what_fits_and_on_a_cpu_it_is_whole():
    card = Machine("cuda", True, "flex_attention", True, False, 2048, free_bytes=64 * 10**9)
    assert cut(card, rows=16, width=2048, n_layers=16, hidden=2048) == Pieces(8, 2, False)
    assert cut(card, rows=16, width=2048, n_layers=32, hidden=4096) == Pieces(3, 6, False)
    assert cut(card._replace(free_bytes=4 * 10**9), 16, 2048, 32, 4096) == Pieces(3, 6, True)
    assert cut(card._replace(device="cpu", free_bytes=0), 5, 1024, 30, 576) == Pieces(5, 1, False)


def _chats(n):
    return [
        {
            "messages": [{"role": "user", "content": f"number {i}"}, {"role": "assistant", "content": "yes " * (i % 3 + 1)}],
            "weight": 1.0 if i % 2 else 0.5,
        }
        for i in range(n)
    ]  # fmt: skip


QUICK = LoraSettings(epochs=2, batch_size=4, rank=4, learning_rate=0.05, first_layer=0)


def test_a_killed_training_goes_on_to_the_same_adapter_and_its_files_say_what_it_is(base, tmp_path):
    whole, losses = train_sft(base, _chats(40), tmp_path / "one" / "adapters", QUICK, seed=3)
    assert losses[1] < losses[0]
    done = []

    def killed(n):
        done.append(n)
        if len(done) == 13:
            raise KeyboardInterrupt

    folder = tmp_path / "two" / "adapters"
    with pytest.raises(KeyboardInterrupt):
        train_sft(base, _chats(40), folder, QUICK, seed=3, progress=killed)
    (checkpoints,) = (folder.parent / "training").iterdir()
    broken = checkpoints / "checkpoint-99"
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"half')
    again = []
    assert train_sft(base, _chats(40), folder, QUICK, seed=3, progress=again.append) == (whole, losses)
    assert sum(again) < 40 + 28, "it went on, and did not begin anew"
    assert not checkpoints.exists()
    manifest = check_adapter(folder / whole, base=base)
    assert folder_hash(folder / whole) == whole
    assert manifest.parameters["rank"] == 4
    assert len(manifest.losses) == 20
    other, _ = train_sft(base, _chats(41), folder, QUICK, seed=3)
    assert check_adapter(folder / other).data_digest != manifest.data_digest


def test_a_long_training_on_a_card_compiles_its_layers_and_a_short_one_or_one_in_4_bits_does_not():
    card = Machine("cuda", True, "flex_attention", True, False, 2048, free_bytes=64 * 10**9)
    assert worth_compiling(card, n_weights=8 * 10**9, n_tokens=10**6)
    assert not worth_compiling(card, n_weights=8 * 10**9, n_tokens=10**5)
    assert not worth_compiling(card._replace(four_bits=True), 8 * 10**9, 10**6)
    assert not worth_compiling(card._replace(device="cpu"), 8 * 10**9, 10**9)


@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_layers_learn_the_same_from_batches_that_all_have_the_same_shape(
    base, tmp_path, monkeypatch, recompute
):
    """Traced by Dynamo as on a card, and calculated as before; 3 rows a batch do not divide the rows."""
    eager = partialmethod(torch.nn.Module.compile, backend="eager")
    monkeypatch.setattr(torch.nn.Module, "compile", eager)
    monkeypatch.setattr(sft, "cut", lambda *_: Pieces(3, 1, recompute))
    monkeypatch.setattr(Collator, "__call__", _filled_to(64, Collator.__call__))
    settings = QUICK.model_copy(update={"epochs": 1})
    _, plain = train_sft(base, _chats(40), tmp_path / "plain", settings)
    monkeypatch.setattr(sft, "worth_compiling", lambda *_: True)
    counters = torch._dynamo.utils.counters
    counters.clear()
    _, compiled = train_sft(base, _chats(40), tmp_path / "compiled", settings)
    assert compiled == pytest.approx(plain, rel=1e-5)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 2, (
        "the first layer, whose input has no gradient, and the others"
    )


def _filled_to(width, collate):
    def call(self, rows):
        self._multiple = width
        return collate(self, rows)

    return call


def test_a_training_in_bfloat16_learns_what_one_in_float32_does(base, tmp_path, monkeypatch):
    _, exact = train_sft(base, _chats(40), tmp_path / "float32", QUICK)
    half = Machine("cpu", True, "sdpa", liger=False, four_bits=False, row=1024)
    monkeypatch.setattr(training, "machine", lambda *_: half)
    seen = set()

    class Watched(torch.nn.Linear):
        def forward(self, x):
            seen.add(x.dtype)
            return super().forward(x)

    monkeypatch.setattr("peft.tuners.lora.layer.nn.Linear", Watched)
    _, rounded = train_sft(base, _chats(40), tmp_path / "bfloat16", QUICK)
    assert rounded == pytest.approx(exact, rel=0.05)
    assert seen == {torch.bfloat16}, "no input was widened to the adapters' float32"


@pytest.mark.parametrize("compared", [True, False], ids=["dpo", "kto"])
def test_preferences_teach_in_bfloat16_what_they_do_in_float32(base, tmp_path, monkeypatch, compared):
    said = [_said(i, "yes yes" if compared or i % 2 else "no") for i in range(12)]
    rows = [(one, _said(i, "no") if compared else bool(i % 2)) for i, one in enumerate(said)]
    _, exact = train_preferences(str(base), rows, tmp_path / "float32", QUICK)
    half = Machine("cpu", True, "sdpa", liger=False, four_bits=False, row=1024)
    monkeypatch.setattr(training, "machine", lambda *_: half)
    _, rounded = train_preferences(str(base), rows, tmp_path / "bfloat16", QUICK)
    assert rounded == pytest.approx(exact, rel=0.1)


def _said(number, answer):
    asked = {"role": "user", "content": f"number {number}"}
    return {"messages": [asked, {"role": "assistant", "content": answer}]}


def test_an_adapter_for_another_base_and_a_truncated_one_are_refused_in_one_line(base, tmp_path):
    digest, _ = train_sft(base, _chats(4), tmp_path / "adapters", QUICK.model_copy(update={"epochs": 1}))
    adapter = tmp_path / "adapters" / digest
    other = _tiny(tmp_path / "other", seed=1)
    with pytest.raises(BadInput, match=r"was trained on .* is another .*: load it on its own base"):
        check_adapter(adapter, base=other)
    weights = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(weights[:-100])
    with pytest.raises(BadInput, match="truncated or altered"):
        check_adapter(adapter)
    (adapter / WEIGHTS).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(BadInput, match="not what its manifest names"):
        check_adapter(adapter)
    (adapter / MANIFEST).unlink()
    assert check_adapter(adapter) is None, "adapters of earlier versions have no manifest"


def test_a_budget_ends_the_training_between_two_steps_and_a_larger_one_goes_on_from_there(base, tmp_path):
    settings = QUICK.model_copy(update={"epochs": 1})
    whole, _ = train_sft(base, _chats(40), tmp_path / "whole" / "adapters", settings)
    folder = tmp_path / "adapters"
    with pytest.raises(BudgetSpent, match=r"1e-09 seconds is spent.*raise budget\.seconds"):
        train_sft(base, _chats(40), folder, settings, meter=Meter(Budget(seconds=1e-9)))
    part, _ = train_sft(base, _chats(40), folder, settings, meter=Meter(Budget(tokens=700)))
    assert part != whole
    assert check_adapter(folder / part).parameters["steps"] < 10
    assert train_sft(base, _chats(40), folder, settings)[0] == whole


CHAT = Candidate(
    kind="chat",
    predictors={"system": Predictor(instructions="You help with orders.")},
    base_model="openai/tiny",
    api_base="http://localhost:1/v1",
)
PARENT = Registered(CHAT)


def _example(question, answer, **more):
    inputs = {"messages": [{"role": "user", "content": question}], "tools": TOOLS}
    view = View(case_id=f"case {question}", observation=Observation(text=question), inputs=inputs)
    return Example(view=view, answer="respond", call=answer, trace_id="0" * 32, **more)


def _run(question, score):
    steps = (
        Step(observation=question, action=Action(name="find-order", arguments={"key": "B2"}), result="lost"),
        Step(observation="lost", action=respond("It is lost.")),
    )
    return Trace(
        trace_id="1" * 32, case=Case(inputs={"messages": [{"role": "user", "content": question}]}), tools=tuple(TOOLS),
        candidate_id="me", started_at=datetime(2026, 1, 5, tzinfo=UTC), latency_s=1,
        attempts=(Attempt(steps=steps, outcome=Outcome(score=score)),),
    )  # fmt: skip


def test_what_people_said_and_what_won_become_conversations_in_the_form_that_is_served():
    call = {"tool_calls": [{"name": "find-order", "arguments": {"key": "A7"}}]}
    examples = [
        _example("Where is A7?", call, weight=0.3),
        _example("Hello", "Good day.", source="own", weight=0.3),
        _example("Hello", "Good day.", source="own", weight=0.3),
        _example("Which?", None),
    ]
    first, second, third = conversations(CHAT, examples, [_run("Where is B2?", 1.0), _run("And C3?", 0.5)])
    assert [m["role"] for m in first["messages"]] == ["system", "user", "assistant"]
    assert first["messages"][0]["content"] == "You help with orders."
    assert first["messages"][2]["tool_calls"][0]["function"] == {
        "name": "find-order",
        "arguments": '{"key": "A7"}',
    }
    assert (first["weight"], second["weight"], third["weight"]) == (1.0, 0.3, 0.5), (
        "a person's word weighs at least 1"
    )
    assert first["tools"] == TOOLS
    assert [m["role"] for m in third["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert third["messages"][-1]["content"] == "It is lost."


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_by_each_method_the_parent_gets_an_adapter_of_the_named_base_and_what_was_read_was_seen(
    base, tmp_path, method
):
    evidence = Evidence(
        examples=[_example(f"Where is {i}?", f"There, {i}.") for i in range(4)],
        preferences=[
            Preference(case_id=f"pair {i}", inputs={"question": f"q{i}"}, better="Yes.", worse="No.")
            for i in range(4)
        ],
        thumbs=[
            Thumb(case_id=f"thumb {i}", inputs={"question": f"q{i}"}, answer="Yes.", is_good=i % 2 == 0)
            for i in range(4)
        ],
    )
    lora = Lora(base=str(base), method=method, rank=4, epochs=1, batch_size=2, first_layer=0)
    made = made_by(lora, PARENT, evidence, Work(folder=tmp_path))
    assert made.candidate.adapter == folder_hash(made.files["adapter"])
    assert made.candidate.base_model == CHAT.base_model
    assert {case.split()[0] for case in made.seen_case_ids} == {
        {"sft": "case", "dpo": "pair", "kto": "thumb"}[method]
    }
    found = made.candidate.origin.parameters
    assert found["n_examples"] == 4
    assert found["conversations_digest"] == check_adapter(made.files["adapter"], base=base).data_digest
    assert len(found["loss"]) == 1
    assert made.cost["tokens"] > 0


def test_of_the_built_in_agent_sft_trains_layers_that_its_lm_swaps(lm, examples, tmp_path):
    told = Predictor(instructions="Pick the option that answers the request.")
    candidate = Candidate(predictors={CHOOSE: told}, base_model=EMBEDDED_MODEL)
    lora = Lora(method="sft", rank=4, epochs=2, batch_size=2, learning_rate=5e-3)
    made = made_by(lora, Registered(candidate), Evidence(examples=examples[:2]), Work(folder=tmp_path))
    prompt, _, _ = Program(candidate).prompt(examples[0].view)
    right = prompt.choices.index(examples[0].answer)
    before, after = lm.score(prompt), lm.score(prompt, adapter=made.files["adapter"])
    assert after.log_probs[right] > before.log_probs[right] + 0.1


def test_what_a_method_lacks_it_says(base, tmp_path):
    work = Work(folder=tmp_path)
    for lora, why in [
        (Lora(method="sft"), "give Lora a base"),
        (Lora(), "built-in|Ratchet's own agent"),
        (Lora(base=str(base), method="dpo"), "picked side by side, and there are none yet"),
    ]:
        with pytest.raises(NothingToPropose, match=why):
            lora.propose(PARENT, Evidence(), work)
    thumb = Thumb(case_id="1", inputs={"question": "q"}, answer="Yes.", is_good=True)
    with pytest.raises(BadInput, match=r"1 and 0: it needs at least 2 of each"):
        Lora(base=str(base), method="kto").propose(PARENT, Evidence(thumbs=[thumb]), work)


@pytest.mark.parametrize(
    ("chats", "why"),
    [
        ([], "at least 1 conversation"),
        ([{"messages": [{"role": "user", "content": "x"}]}], "no turn of the agent's"),
    ],
)
def test_nothing_to_learn_is_refused(base, tmp_path, chats, why):
    with pytest.raises(BadInput, match=why):
        train_sft(base, chats, tmp_path, QUICK)


def test_a_base_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"no model in .*config\.json is missing"):
        train_sft(tmp_path, _chats(1), tmp_path, QUICK)


@pytest.mark.slow
def test_two_processes_train_what_one_does_within_the_same_budget(base, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a core for each
    settings = QUICK.model_copy(update={"epochs": 1})
    done, meter = [], Meter()
    alone, losses = train_sft(base, _chats(40), tmp_path / "one" / "adapters", settings, seed=3, meter=meter)
    two, counted = settings.model_copy(update={"processes": 2}), Meter()
    folder = tmp_path / "two" / "adapters"
    together, theirs = train_distributed(
        "sft", str(base), _chats(40), folder, two, seed=3, progress=done.append, meter=counted
    )
    assert theirs == pytest.approx(losses, rel=1e-3)
    assert sum(done) == 40
    assert counted.spent.tokens == pytest.approx(meter.spent.tokens, rel=0.1), "rows are filled up otherwise"
    ours, other = (
        check_adapter(path, base=base) for path in (folder / together, tmp_path / "one" / "adapters" / alone)
    )
    assert ours.data_digest == other.data_digest
    assert ours.parameters["steps"] == other.parameters["steps"] == 10
    lora = Lora(base=str(base), method="sft", processes=2, epochs=1, batch_size=2, budget=Budget(tokens=700))
    asked = Evidence(examples=[_example(f"Where is {i}?", f"There, {i}.") for i in range(20)])
    part = made_by(lora, PARENT, asked, Work(folder=tmp_path / "part"))
    assert 700 <= part.cost["tokens"] < 1000
    assert part.candidate.origin.parameters["steps"] < 10
