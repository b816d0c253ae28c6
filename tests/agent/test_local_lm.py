"""Any causal LM that transformers loads as the agent's: a tiny random Llama with a chat template of its own."""

import pytest
import torch
from tests.tiny_models import tiny_adapter, tiny_model

from ratchet.agent.environment import Observation, Option
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.program import base_candidate
from ratchet.agent.lm.lm import Prompt
from ratchet.agent.lm.local import Local, LocalModel, as_asked, by_length, loaded
from ratchet.agent.lm.of_candidate import address_of, lm_for
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.proposer import Registered
from ratchet.agent.optimize.weights.lora import Lora
from ratchet.agent.optimize.work import Work
from ratchet.agent.team.team import make_program

CHOICES = ("left", "right away", "no")
PROMPT = Prompt(
    "<|im_start|>user\nPick one.\n", "Request: where?<|im_end|>\n<|im_start|>assistant\n", CHOICES
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return tiny_adapter(base, tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def lm(base):
    return Local(f"local/{base}")


def one_by_one(model, text, choice):
    """The plain way: the whole sequence, without a cache or a batch."""
    ids = model._tokens(text)
    option = [*model._tokens(choice), model.tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model.model(torch.tensor([ids + option])).logits[0].log_softmax(-1)
    return float(sum(logits[len(ids) - 1 + n, token] for n, token in enumerate(option)))


def test_options_are_scored_in_the_model_s_own_template_as_one_by_one(lm):
    scores = lm.score(PROMPT)
    asked = "Pick one.\nRequest: where?\nAnswer with the name of one option and nothing else."
    text = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    model = loaded(lm.model)
    assert scores.log_probs == pytest.approx([one_by_one(model, text, one) for one in CHOICES], abs=1e-4)
    assert (lm.score(PROMPT).log_probs == scores.log_probs).all()
    with pytest.raises(BadInput, match="has no choices to score"):
        lm.score(PROMPT._replace(choices=()))


def test_texts_are_written_by_like_length_each_as_if_alone_and_from_where_the_prompt_begins_them(lm):
    prompts = [Prompt("", "order " * n) for n in (1, 40, 2, 39, 3)]
    together = lm.complete(prompts, max_tokens=6)
    assert [one.text for one in together] == [lm.write(one, max_tokens=6).text for one in prompts]
    assert all(0 < one.usage.output_tokens <= 6 for one in together)
    assert list(by_length([10, 100, 12, 90, 11], 250, 10)) == [[1, 3], [2, 4, 0]]
    assert list(by_length([900], 250, 10)) == [[0]]
    begun = Prompt(PROMPT.prefix, PROMPT.suffix + "{")
    assert as_asked(begun).begun == "{"
    turns = (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [one["role"] for one in as_asked(Prompt("", turns)).messages] == ["system", "user"]
    long = lm.write(Prompt("", "order " * 2000), max_tokens=6)
    assert long.usage.input_tokens == 512 - 6
    with pytest.raises(BadInput, match="the model reads 512 in all"):
        lm.write(Prompt("", "order"), max_tokens=512)


def test_adapters_change_without_a_load_of_the_model_and_share_no_answer(
    lm, base, adapter, monkeypatch, tmp_path
):
    tuned = Local(lm.model, adapter)
    first = lm.score(PROMPT).log_probs, lm.write(PROMPT, max_tokens=8).text
    monkeypatch.setattr(LocalModel, "__init__", lambda *_: pytest.fail("the model was loaded again"))
    other = Local(lm.model, tiny_adapter(base, tmp_path, seed=5))
    for one in (tuned, other, lm, tuned):
        said = one.score(PROMPT).log_probs, one.write(PROMPT, max_tokens=8).text
        assert (abs(said[0] - first[0]).max() < 1e-5) == (one is lm)
        assert (said[1] == first[1]) == (one is lm)
    assert len({one.dspy.model for one in (lm, tuned, other)}) == 3


def test_an_adapter_of_another_base_or_cut_off_and_a_model_that_is_none_are_one_line(lm, adapter, tmp_path):
    another = tiny_model(tmp_path / "another", seed=9)
    with pytest.raises(BadInput, match="was trained on"):
        Local(f"local/{another}", adapter).score(PROMPT)
    cut = tmp_path / "cut"
    cut.mkdir()
    for path in adapter.iterdir():
        (cut / path.name).write_bytes(path.read_bytes()[: -100 if path.suffix == ".safetensors" else None])
    with pytest.raises(BadInput, match="truncated or altered"):
        Local(lm.model, cut).score(PROMPT)
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match=r"no model in .*config\.json is missing"):
        Local(f"local/{tmp_path / 'none'}").score(PROMPT)
    with pytest.raises(BadInput, match=r'give Lora method="sft"'):
        lm.training(None, seed=0)


def test_the_built_in_agent_runs_on_it_learns_by_sft_and_answers_what_it_learned(base, tmp_path):
    candidate = base_candidate("Pick one.", model=f"local/{base}")
    assert address_of(candidate.base_model, None) is None
    options = tuple(Option(name=name) for name in CHOICES)
    views = [
        View(case_id=f"c{n}", observation=Observation(text=f"where {n}", options=options)) for n in range(6)
    ]
    evidence = Evidence(
        examples=lambda: [Example(view=view, answer="right away", trace_id=view.case_id) for view in views]
    )
    lora = Lora(method="sft", epochs=8, learning_rate=0.02, batch_size=2, rank=8, first_layer=0)
    proposal = lora.propose(Registered(candidate), evidence, Work(folder=tmp_path))
    tuned = proposal.candidate
    assert tuned.base_model == candidate.base_model
    agent = make_program(tuned, proposal.files)
    assert {decision.action.name for decision in agent.decide(views)} == {"right away"}
    assert lm_for(tuned, proposal.files["adapter"]).write(agent.prompt(views[0])[0]).text == "right away"
    by_dspy = agent(request="where 9", options=[option.model_dump() for option in options])
    assert by_dspy.choice == "right away"
