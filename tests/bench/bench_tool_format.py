"""A conversation of five turns with two tools: does an adapter trained by SFT answer in the tool format more often?

python tests/bench/bench_tool_format.py [--train 48] [--test 24]      (embedded LM, CPU: some 10 minutes on two idle cores)
Each conversation asks for two things that need a tool each, and says thanks; names, keys and answers are drawn. The
adapter is trained on whole conversations (all turns, two epochs, all layers); tested is the next answer at both turns
that need a tool, in conversations of other customers. Printed is the share that is exactly one `<tool_call>` whose
JSON can be read, whose tool is the right one, and whose arguments are right too, with 95 % intervals (Wilson), of base
and adapter.
"""

import argparse
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ratchet.agent.lm.weights import weights_folder
from ratchet.agent.optimize.weights.chat_template import rendered_turn
from ratchet.agent.optimize.weights.configuration import LoraSettings
from ratchet.agent.optimize.weights.conversations import Conversation, Message
from ratchet.agent.optimize.weights.sft import train_sft
from ratchet.agent.optimize.weights.training import quiet
from ratchet.evaluation.data.intervals import mean_interval

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name, "description": what,
            "parameters": {"type": "object", "properties": {key: {"type": "string"}}},
        },
    }
    for name, what, key in [
        ("find_order", "Find where an order is.", "order"),
        ("open_ticket", "Open a ticket about a product.", "product"),
    ]
]  # fmt: skip
GRADES = ("tool format", "right tool", "right arguments")
PRODUCTS = ("kettle", "lamp", "chair", "radio", "camera", "printer", "heater", "desk", "phone", "mixer")
PLACES = ("Lyon", "Porto", "Graz", "Ghent", "Turin", "Malmo", "Cork", "Basel")
ASKS = ("Where is order {}?", "Has {} been sent?", "I wait for order {}.", "What about my order {}?")
BREAKS = (
    "My {} is broken.",
    "The {} does not work.",
    "I have a problem with the {}.",
    "Please help, the {} fails.",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=48)
    parser.add_argument("--test", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(2)
    draw = random.Random(0)
    told = [conversation(draw) for _ in range(options.train)]
    tests = [turn for _ in range(options.test) for turn in needing_tools(conversation(draw))]
    with TemporaryDirectory() as folder:
        settings = LoraSettings(epochs=options.epochs, first_layer=0, batch_size=4)
        digest, losses = train_sft(None, told, Path(folder), settings)
        print(f"{len(told)} conversations, loss {losses[0]:.2f} -> {losses[-1]:.2f} nats a token", flush=True)
        for name, adapter in (("base", None), ("adapter", Path(folder) / digest)):
            said = answers(tests, adapter)
            graded = [grade(text, turn["messages"][-1]) for text, turn in zip(said, tests, strict=True)]
            for what, n in zip(GRADES, zip(*graded, strict=True), strict=True):
                print(f"  {name:8} {what:16} {mean_interval([float(one) for one in n])}", flush=True)
            print(f"  {name:8} for instance: {said[0][:100]!r}", flush=True)


def conversation(draw: random.Random) -> Conversation:
    """Five turns of the agent's, two of them calls."""
    order, product = f"{draw.choice('ABCDEFGH')}{draw.randrange(100, 1000)}", draw.choice(PRODUCTS)
    place, ticket = draw.choice(PLACES), str(draw.randrange(1000, 10_000))
    messages: list[Message] = [
        {"role": "user", "content": draw.choice(ASKS).format(order)},
        called("find_order", order=order),
        {"role": "tool", "content": json.dumps({"place": place})},
        {"role": "assistant", "content": f"Order {order} is in {place}."},
        {"role": "user", "content": draw.choice(BREAKS).format(product)},
        called("open_ticket", product=product),
        {"role": "tool", "content": json.dumps({"ticket": ticket})},
        {"role": "assistant", "content": f"I opened ticket {ticket} about the {product}."},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "Gladly."},
    ]
    return {"messages": messages, "tools": TOOLS}


def called(name: str, **arguments: str) -> Message:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def needing_tools(whole: Conversation) -> list[Conversation]:
    """The conversation up to each call."""
    calls = [i for i, message in enumerate(whole["messages"]) if message.get("tool_calls")]
    return [{"messages": whole["messages"][: i + 1], "tools": whole.get("tools")} for i in calls]


def answers(turns: Sequence[Conversation], adapter: Path | None, batch: int = 8) -> list[str]:
    """Greedy answers to all but the last message, in the template that is trained with."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(weights_folder(), padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(weights_folder(), dtype=torch.float32)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, str(adapter))
        model.eval()
        said: list[str] = []
        for start in range(0, len(turns), batch):
            texts = [
                rendered_turn(tokenizer, one["messages"], one.get("tools"))[0]
                for one in turns[start : start + batch]
            ]
            read = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
            with torch.no_grad():
                out = model.generate(
                    **read, max_new_tokens=40, do_sample=False, pad_token_id=tokenizer.pad_token_id
                )
            said += tokenizer.batch_decode(out[:, read["input_ids"].shape[1] :], skip_special_tokens=True)
    return said


def grade(text: str, right: Message) -> tuple[bool, bool, bool]:
    """Whether it is one readable call, of the right tool, with the right arguments."""
    found = re.fullmatch(r"<tool_call>(.*)</tool_call>", text.strip(), re.DOTALL)
    try:
        call = json.loads(found[1]) if found else None
    except ValueError:
        call = None
    if not isinstance(call, dict) or "name" not in call or "arguments" not in call:
        return False, False, False
    wanted = right["tool_calls"][0]["function"]
    same_tool = call["name"] == wanted["name"]
    return True, same_tool, same_tool and call["arguments"] == json.loads(wanted["arguments"])


if __name__ == "__main__":
    main()
