"""How fast the embedded LM scores options and learns to, beside transformers' and peft's own layers on the same prompts.

python tests/bench/bench_embedded.py [--prompts 24] [--examples 16]: two minutes on two cores. BFCL's live requests, each
with its tools; prompts, or training examples, a second, and CPU-seconds each, which say more on a machine that is busy.
"plain" is LlamaForCausalLM in float32, each prompt with its options in one pass under the same mask, logits of read rows
only, all of PyTorch's threads on one prompt; in training the trunk's activations are known to both.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from ratchet.agent.environments.tool_calling import case_observation, live_cases
from ratchet.agent.kinds.program import Program, View, base_candidate
from ratchet.agent.lm.adapters import TRUNK
from ratchet.agent.lm.embedded import smollm2
from ratchet.agent.lm.lm import Prompt
from ratchet.agent.lm.packing import Packed, pack_prompt
from ratchet.agent.lm.side_by_side import side_by_side
from ratchet.agent.lm.smollm2 import SmolLM2, prompts_at_once
from ratchet.agent.lm.weights import weights_folder

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = LoraConfig(r=16, lora_alpha=32, layers_to_transform=list(range(TRUNK, 30)), target_modules=LAYERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--examples", type=int, default=16)
    options = parser.parse_args()
    lm, asked = smollm2(), prompts(max(options.prompts, options.examples))
    plain: Any = LlamaForCausalLM.from_pretrained(
        weights_folder(), dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    packed = [pack_prompt(one, lm.tokens) for one in asked]
    print(
        f"{np.mean([one.n_tokens for one in packed]):.0f} tokens a prompt, {torch.get_num_threads()} threads"
    )
    n = options.prompts
    with torch.no_grad():
        expected = timed(
            "score, plain",
            lambda: [log_probs(plain, plain.model.layers, embedded(plain, p), p) for p in packed[:n]],
        )
    timed("score, ours, one after the other", lambda: [lm.score(one) for one in forgotten(lm, asked[:n])])
    found = timed(
        f"score, ours, {prompts_at_once()} side by side",
        lambda: side_by_side(lm.score, list(forgotten(lm, asked[:n])), at_once=prompts_at_once()),
    )
    far = max(np.abs(a.numpy() - b.log_probs).max() for a, b in zip(expected, found, strict=True))
    lm._scores.clear()
    timed("score, ours, trunk known", lambda: side_by_side(lm.score, asked[:n], at_once=prompts_at_once()))
    print(f"largest difference of a log-probability: {far:.1e} nats")
    train(lm, plain, asked[: options.examples], packed[: options.examples])


def prompts(n: int) -> list[Prompt]:
    """Of requests with several tools, spread over the set."""
    cases = live_cases("live_multiple")
    program = Program(base_candidate("Pick the option that answers the request."))
    some = cases[:: max(len(cases) // n, 1)][:n]
    return [program.prompt(View(case_id=c.case_id, observation=case_observation(c)))[0] for c in some]


def forgotten(lm: SmolLM2, asked: Iterable[Prompt]) -> Iterable[Prompt]:
    """The prompts, when nothing of them is known any more."""
    for kept in (lm._scores, lm._trunks, lm._prefixes, lm._above_prefixes):
        kept.clear()
    return asked


def train(lm: SmolLM2, plain: Any, asked: list[Prompt], packed: list[Packed]) -> None:
    """One step's gradients of every example, from trunk activations that are known."""
    with torch.no_grad():
        trunks = [lm.trunk(*both) for both in zip(asked, packed, strict=True)]
    wrapped = get_peft_model(plain, LORA)
    layers = wrapped.base_model.model.model.layers[TRUNK:]
    parameters = [p for p in wrapped.parameters() if p.requires_grad]

    def loss(scores: torch.Tensor) -> torch.Tensor:
        return cross_entropy(scores[None], torch.tensor([0]))

    timed(
        "train, plain",
        lambda: [
            torch.autograd.grad(loss(log_probs(plain, layers, hidden[None], one)), parameters)
            for hidden, one in zip(trunks, packed, strict=True)
        ],
    )
    with lm.training(LORA, 0) as training:

        def gradient(prompt: Prompt) -> Any:
            return torch.autograd.grad(loss(training.log_probs(prompt)), training.parameters)

        timed("train, ours", lambda: training.each(gradient, asked))


def timed(what: str, run: Callable[[], list[Any]]) -> list[Any]:
    """Do it, and say how many a second and at how many CPU-seconds each."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what:<36}{len(made) / wall:6.1f} a second {cpu / len(made):7.3f} CPU-seconds each", flush=True)
    return made


def embedded(model: Any, packed: Packed) -> torch.Tensor:
    rows: torch.Tensor = model.model.embed_tokens(torch.cat([packed.prefix, packed.rest])[None])
    return rows


def log_probs(model: Any, layers: Iterable[Any], state: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Log-probabilities of the options by transformers' layers."""
    n, prefix = packed.n_tokens, len(packed.prefix)
    mask = torch.ones(n, n, dtype=torch.bool).tril()
    mask[prefix:] = packed.mask
    rotary = model.model.rotary_emb(state, torch.cat([torch.arange(prefix), packed.positions])[None])
    for layer in layers:
        state = layer(state, attention_mask=mask[None, None], position_embeddings=rotary)
    read = state[0].index_select(0, packed.first + packed.read)
    logits = model.lm_head(model.model.norm(read)).log_softmax(-1)
    token = logits.gather(1, packed.targets[:, None])[:, 0]
    return torch.zeros(packed.n_options).index_add(0, packed.owner, token)


if __name__ == "__main__":
    main()
