"""The real embedded LM: its shortcuts change no number, and no question changes another's answer."""

import numpy as np
import pytest
import torch
from peft import LoraConfig

from ratchet.agent.errors import BadInput
from ratchet.agent.lm import smollm2
from ratchet.agent.lm.adapters import TRUNK
from ratchet.agent.lm.lm import Prompt
from ratchet.agent.lm.packing import MAX_PROMPT_TOKENS, pack_prompt
from ratchet.agent.lm.prompt_format import ASSISTANT, USER
from ratchet.agent.lm.side_by_side import side_by_side
from ratchet.agent.lm.smollm2 import SmolLM2
from ratchet.agent.lm.weights import weights_folder

PREFIX = f"{USER}Pick one.\nOptions:\n- weather: Tells the weather\n- taxi: Calls a taxi\n"
CHOICES = ("weather", "taxi_service.call", "x")


def prompt(request="Is it warm in Oslo?", choices=CHOICES, prefix=PREFIX):
    return Prompt(prefix, f"Request: {request}{ASSISTANT}", choices)


def scores(lm, asked):
    return [lm.score(one).log_probs for one in asked]


def forget(lm):
    for cache in (lm._scores, lm._trunks, lm._prefixes, lm._above_prefixes):
        cache.clear()


def plain_score(lm, prompt, choice):
    """Log-probability of the choice and the end of turn by one ordinary forward pass over all tokens."""
    start = lm.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
    option = lm.tokenizer(choice + "<|im_end|>", add_special_tokens=False)["input_ids"]
    with torch.no_grad(), lm.adapters.using(None):
        logits = lm.model(torch.tensor([start + option])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(start) - 1 + place, token]) for place, token in enumerate(option))


def test_option_scores_equal_a_plain_forward_pass_token_by_token(lm):
    for asked in (prompt(), prompt("taxi!", ("taxi", "a rather long option name")), prompt("?", ("one",))):
        expected = [plain_score(lm, asked, choice) for choice in asked.choices]
        np.testing.assert_allclose(lm.score(asked).log_probs, expected, atol=1e-3)


def test_scores_of_a_prompt_do_not_depend_on_what_else_is_asked_nor_on_the_order(lm):
    asked = [prompt(f"request {n} about " + "rain " * n) for n in range(4)]
    forget(lm)
    together = scores(lm, asked)
    forget(lm)
    backwards = scores(lm, asked[::-1])[::-1]
    for one, (first, second) in zip(asked, zip(together, backwards, strict=True), strict=True):
        forget(lm)
        np.testing.assert_array_equal(lm.score(one).log_probs, first)
        np.testing.assert_array_equal(second, first)


def test_prompts_side_by_side_score_and_train_to_the_same_bits_as_one_after_the_other(lm, monkeypatch):
    asked = [prompt(f"request {n % 3} about " + "rain " * n) for n in range(4)]
    config = LoraConfig(r=2, layers_to_transform=[28, 29], target_modules=["q_proj", "down_proj"])

    def gradients(one):
        return torch.autograd.grad(training.log_probs(one).log_softmax(0)[0], training.parameters)

    def calculated(workers):
        forget(lm)
        before = torch.get_num_threads()
        with smollm2._pool(workers, workers) as pool:
            monkeypatch.setattr(lm, "_pool", pool)
            torch.set_num_threads(before)
            found = side_by_side(lm.score, asked, at_once=workers)
            each = [part for parts in training.each(gradients, asked) for part in parts]
        return [one.log_probs.tobytes() for one in found], [part.numpy().tobytes() for part in each]

    with lm.training(config, 0) as training:
        for parameter in training.parameters:
            torch.nn.init.normal_(parameter, std=0.2, generator=torch.manual_seed(0))
        assert calculated(3) == calculated(1)


def test_no_cache_changes_a_number(lm):
    asked = prompt("Will it snow?")
    forget(lm)
    cold = lm.score(asked).log_probs
    np.testing.assert_array_equal(lm.score(asked).log_probs, cold)
    lm._scores.clear()
    np.testing.assert_array_equal(lm.score(asked).log_probs, cold)  # trunk known
    lm._scores.clear()
    lm._trunks.clear()
    np.testing.assert_array_equal(lm.score(asked).log_probs, cold)  # prefix known
    lm._scores.clear()
    lm._above_prefixes.clear()
    np.testing.assert_array_equal(lm.score(asked).log_probs, cold)  # all below known


def test_what_recurs_without_an_extra_option_is_calculated_once_and_changes_no_number(lm, monkeypatch):
    start = PREFIX + "Options:\n- ask_weather: Asks.\n- book_train: Books.\n"
    extra = Prompt(start + "- no_tool: None.\n", f"Request: Hi{ASSISTANT}", (*CHOICES, "no_tool"), len(start))
    forget(lm)
    cold = lm.score(extra).log_probs
    forget(lm)
    lm.score(Prompt(start, f"Request: Hi{ASSISTANT}", CHOICES))
    rows, below = [], lm._below
    monkeypatch.setattr(lm, "_below", lambda ids, before: rows.append(len(ids)) or below(ids, before))
    np.testing.assert_array_equal(lm.score(extra).log_probs, cold)
    assert rows == [len(lm.tokens("- no_tool: None.\n"))], "the extra option's line alone"
    np.testing.assert_allclose(lm.score(extra._replace(recurs=0)).log_probs, cold, atol=1e-3)


def test_a_score_handed_out_can_be_changed_without_harm(lm):
    first = lm.score(prompt()).log_probs
    kept = first.copy()
    first += 100
    np.testing.assert_array_equal(lm.score(prompt()).log_probs, kept)


@pytest.mark.parametrize("choices", [CHOICES, ("taxi_service.call", "taxi_service.cancel", "taxi", "taxi")])
def test_options_do_not_see_each_other_whatever_they_begin_with(lm, choices):
    alone = [lm.score(prompt(choices=(choice,))).log_probs[0] for choice in choices]
    np.testing.assert_allclose(lm.score(prompt(choices=choices)).log_probs, alone, atol=1e-3)


def test_an_adapter_added_to_the_weights_scores_as_it_did_beside_them_in_training(lm, tmp_path):
    config = LoraConfig(r=2, layers_to_transform=[28, 29], target_modules=["q_proj", "v_proj", "down_proj"])
    with lm.training(config, 0) as training:
        for parameter in training.parameters:
            torch.nn.init.normal_(parameter, std=0.2)
        with torch.no_grad():
            beside = training.log_probs(prompt()).numpy()
        training.save(tmp_path / "adapter")
    np.testing.assert_allclose(lm.score(prompt(), adapter=tmp_path / "adapter").log_probs, beside, atol=1e-3)
    assert np.abs(lm.score(prompt()).log_probs - beside).max() > 0.1


def test_tokens_count_the_same_whether_or_not_a_cache_spared_the_work(lm):
    counted = [lm.score(prompt("How many tokens?")).input_tokens for _ in range(2)]
    assert counted[0] == counted[1] > len(CHOICES)


def test_a_prompt_without_choices_is_refused(lm):
    with pytest.raises(BadInput, match="has no choices to score: give at least one"):
        lm.score(prompt(choices=()))


def ids(lm, text):
    return lm.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("n_prefix", "n_suffix"), [(3000, 10), (10, 3000), (3000, 3000), (300, 1000), (1000, 300)]
)
def test_an_over_long_prompt_is_cut_in_the_middle_to_the_limit(lm, n_prefix, n_suffix):
    prefix, suffix = (
        " ".join(f"p{n}" for n in range(n_prefix // 3)),
        " ".join(f"s{n}" for n in range(n_suffix // 3)),
    )
    packed = pack_prompt(Prompt(prefix, suffix, ("a",)), lm.tokens)
    n_rest = len(packed.rest) - (len(ids(lm, "a<|im_end|>")) - 1)
    whole_prefix, whole_suffix = ids(lm, prefix), ids(lm, suffix)
    kept_prefix, kept_suffix = packed.prefix.tolist(), packed.rest[:n_rest].tolist()
    assert len(kept_prefix) + len(kept_suffix) <= MAX_PROMPT_TOKENS
    assert kept_suffix == whole_suffix[-len(kept_suffix) :]
    if len(kept_prefix) < len(whole_prefix):
        half = len(kept_prefix) // 2
        assert kept_prefix == whole_prefix[:half] + whole_prefix[-half:]
    else:
        assert kept_prefix == whole_prefix
    fits = len(whole_prefix) + len(whole_suffix) <= MAX_PROMPT_TOKENS
    assert fits == ((kept_prefix, kept_suffix) == (whole_prefix, whole_suffix))


def test_an_over_long_prompt_still_scores(lm):
    score = lm.score(prompt("word " * 3000, ("a", "b"))).log_probs
    assert np.isfinite(score).all()
    assert (score < 0).all()


@pytest.mark.slow
def test_what_was_used_least_recently_is_evicted_and_comes_back_the_same(lm):
    small = SmolLM2(weights_folder(), cache_bytes=1)
    asked = [prompt(f"Request {n}", prefix=PREFIX + f"{n}\n") for n in range(3)]
    first = scores(small, asked)
    assert (len(small._trunks), len(small._prefixes)) == (1, 1)
    small._scores.clear()
    for again, before, real in zip(scores(small, asked), first, scores(lm, asked), strict=True):
        np.testing.assert_array_equal(again, before)
        np.testing.assert_array_equal(again, real)


def test_eviction_drops_the_oldest_and_spares_what_was_used_again(lm, monkeypatch):
    forget(lm)
    asked = [prompt(f"Request {n}") for n in range(3)]
    scores(lm, asked[:2])
    lm._scores.clear()
    scores(lm, asked[:1])  # the first is now the one used last
    packed = [pack_prompt(p, lm.tokens) for p in asked]
    size = max(lm.trunk(*both).nbytes for both in zip(asked[1::-1], packed[1::-1], strict=True))
    monkeypatch.setattr(lm._trunks, "room", int(2.5 * size))
    scores(lm, asked[2:])
    known = len(lm._trunks)
    lm.trunk(asked[0], packed[0])
    assert len(lm._trunks) == known == 2, "the first was kept, the second dropped"
    monkeypatch.undo()
    forget(lm)


def test_a_batch_writes_the_same_texts_as_one_by_one(lm):
    asked = [prompt(r, ()) for r in ("Say hello.", "What is the capital of France? Answer shortly.")]
    together = lm.generate(asked, max_tokens=8)
    assert lm.generate(asked, max_tokens=8) == together
    lm._written.clear()
    assert [g.text for g in together] == [lm.generate([one], max_tokens=8)[0].text for one in asked]
    assert [g.usage.input_tokens for g in together] == [len(ids(lm, one.text)) for one in asked]
    assert all(1 <= g.usage.output_tokens <= 8 for g in together)
    assert all("<|im_" not in g.text for g in together)


def test_the_trunk_ends_below_the_last_layer(lm):
    assert 0 < TRUNK < len(lm.model.model.layers)


@pytest.fixture
def two_threads():
    """As on a user's machine; the other tests have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_gradients_are_the_same_bits_whatever_else_the_machine_does(lm, two_threads):
    """Many options read the prompt's last row: its gradient must not be a race between threads."""
    names = tuple(
        f"{verb}_a_rather_long_option_name" for verb in ("book", "call", "find", "send", "tell", "play")
    )
    packed = pack_prompt(prompt(choices=names), lm.tokens)
    assert len(packed.read) * lm.model.config.hidden_size >= 32_768  # from here on PyTorch works side by side
    trunk = lm.trunk(prompt(choices=names), packed)
    found = set()
    for _ in range(25):
        hidden = trunk.clone().requires_grad_()
        lm.upper(hidden, packed).log_softmax(0)[0].backward()
        found.add(hidden.grad.numpy().tobytes())
    assert len(found) == 1
