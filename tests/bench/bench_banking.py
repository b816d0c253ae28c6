"""What each way to learn is worth on the embedded LM: Banking77, 20 intents, free generation.

python tests/bench/bench_banking.py [--sizes 100,300,1000] [--tests 200] [--rows static,replay,…] [--seed 0]
Prints, by number of labelled traces, the share of new messages whose intent is written exactly, with 95 % intervals:
fixed examples, replay (recalled examples), prompt search, LoRA (SFT), LoRA with replay; beside them DSPy's KNNFewShot
and BootstrapFinetune on the same model and in the same plain chat format. Two cores take some five hours for all of
it, an hour for `--sizes 100`; two processes with OMP_NUM_THREADS=1 share the rows well. Reads
../shared/data/banking77 (or RATCHET_SHARED).
"""

import argparse
import csv
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import dspy
import numpy as np
from dspy.clients.provider import Provider, TrainingJob
from dspy.lm15 import Config, Message, Request, Response, TextPart, Usage
from sklearn.feature_extraction.text import TfidfVectorizer

import ratchet
from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.candidate import Candidate, Demo
from ratchet.agent.case import Case
from ratchet.agent.environment import Observation
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.decision import View
from ratchet.agent.lm.embedded import as_prompt
from ratchet.agent.lm.local import Local
from ratchet.agent.lm.weights import EMBEDDED_MODEL, weights_folder
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.optimize.budget import Budget
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.prompts.prompts import Prompts
from ratchet.agent.optimize.proposer import Proposer, Registered, made_by
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.optimize.weights.configuration import LoraSettings
from ratchet.agent.optimize.weights.sft import Conversation, train_sft
from ratchet.agent.optimize.work import Work
from ratchet.agent.part_values import PartValues, load_memories
from ratchet.agent.project import Project
from ratchet.agent.rollout.loop import run
from ratchet.evaluation.data.intervals import Interval, mean_interval
from ratchet.infra.settings import prepare_environment

INTENTS, SHOWN, ANSWER_TOKENS = 20, 4, 16
NOW = datetime(2026, 11, 26, tzinfo=UTC)
ROWS = ("static", "replay", "search", "lora", "lora+replay", "knn", "finetune")
TITLES = {
    "static": "static few-shot (4 fixed)",
    "replay": "replay (4 recalled)",
    "search": "prompt search",
    "lora": "LoRA (SFT)",
    "lora+replay": "LoRA + replay",
    "knn": "dspy.KNNFewShot (4)",
    "finetune": "dspy.BootstrapFinetune",
}
SFT = LoraSettings(rank=16, learning_rate=1e-3, batch_size=8, first_layer=8)
PASSES = 1500
"""Traces read while an adapter is trained, in at least 3 and at most 15 epochs: few traces are read more often."""


class Message77(NamedTuple):
    """A customer's message and its intent in words."""

    text: str
    intent: str


class Data(NamedTuple):
    """Traces that people labelled, in the order in which they came, and messages that nothing has seen."""

    intents: tuple[str, ...]
    traces: tuple[Message77, ...]
    tests: tuple[Message77, ...]


def model() -> str:
    """The embedded model as any other in this process: its adapters may change all layers."""
    return f"local/{weights_folder()}"


class Plain(dspy.ChatAdapter):  # type: ignore[misc]  # dspy ships no types; it fine-tunes on chats alone
    """Instructions as the system's message, each example as two turns, the answer as it is written."""

    def __call__(
        self,
        lm: dspy.BaseLM,
        lm_kwargs: dict[str, Any],
        signature: type[dspy.Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        messages = [
            message
            for demo in demos
            for message in (_user(demo["message"]), Message.assistant([TextPart(demo["intent"])]))
        ]
        config = Config(max_tokens=ANSWER_TOKENS)
        asked = (*messages, _user(inputs["message"]))
        response = lm(Request(model=lm.model, system=signature.instructions, messages=asked, config=config))
        return [{"intent": (response.message.text or "").strip()}]

    def format_finetune_data(self, signature: Any, demos: Any, inputs: Any, outputs: Any) -> dict[str, Any]:
        """What BootstrapFinetune trains on."""
        return {"messages": conversation(signature.instructions, (), inputs["message"], outputs["intent"])}


def _user(text: str) -> Message:
    return Message.user([TextPart(text)])


def conversation(
    system: str, examples: Sequence[tuple[str, str]], text: str, intent: str
) -> list[dict[str, str]]:
    turns = [
        (role, said) for pair in examples for role, said in zip(("user", "assistant"), pair, strict=True)
    ]
    whole = [("system", system), *turns, ("user", text), ("assistant", intent)]
    return [{"role": role, "content": said} for role, said in whole]


def read(seed: int, sizes: Sequence[int], tests: int) -> Data:
    """The messages of 20 intents, drawn and shuffled by the seed."""
    folder = Path(os.environ.get("RATCHET_SHARED", "../shared")) / "data" / "banking77"
    rng = random.Random(seed)
    rows = {name: _rows(folder / f"{name}.csv") for name in ("train", "test")}
    intents = tuple(sorted(rng.sample(sorted({one.intent for one in rows["train"]}), INTENTS)))
    kept = {name: [one for one in rows[name] if one.intent in intents] for name in rows}
    for name in kept:
        rng.shuffle(kept[name])
    if len(kept["train"]) < max(sizes):
        raise BadInput(f"--sizes {max(sizes)}: there are {len(kept['train'])} labelled messages")
    return Data(intents, tuple(kept["train"][: max(sizes)]), tuple(kept["test"][:tests]))


def _rows(path: Path) -> list[Message77]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Message77(row["text"].strip(), row["category"].replace("_", " ").replace("?", "").lower())
            for row in csv.DictReader(file)
        ]


class Bench:
    """One number of traces; every row is a version of the same agent, played by the same rollout code."""

    def __init__(self, data: Data, n: int, folder: Path, seed: int) -> None:
        system = "Name the intent of the customer's message."
        self.data, self.traces, self.seed, self.system = data, data.traces[:n], seed, system
        self.module = dspy.Predict(dspy.Signature("message -> intent", system))
        self.project = Project(name="banking", agent=self.module, effects="none", score=ratchet.exact)
        self.first = Registered(first_candidate(self.project, model(), None))
        self.folder = folder
        self.cost = ""

    def play(self, candidate: Candidate, files: Mapping[str, Path]) -> list[float | None]:
        """The score of each test message."""
        agent = make_agent(self.project, candidate, files, endpoint={"concurrency": 1})
        cases = [Case(inputs={"message": one.text}, expected=one.intent) for one in self.data.tests]
        traces = run(agent, cases, self.project.environment, at=lambda _: NOW)
        if broken := [trace.error for trace in traces if trace.error is not None]:
            raise RuntimeError(f"{len(broken)} of {len(cases)} broke: {broken[0]}")
        return [trace.score for trace in traces]

    def proposed(self, proposer: Proposer) -> tuple[Candidate, dict[str, Path]]:
        """What a proposer makes of the labelled traces; the first version where it finds nothing better."""
        examples = [
            Example(
                view=View(
                    case_id=Case(inputs={"message": one.text}).case_id,
                    observation=Observation(text=one.text),
                    inputs={"message": one.text},
                ),
                answer="respond",
                call=one.intent,
                trace_id=f"trace-{number}",
                seen_at=NOW,
            )
            for number, one in enumerate(self.traces)
        ]
        work = Work(
            folder=self.folder,
            environment=self.project.environment,
            seed=self.seed,
            agent=lambda candidate, files: make_agent(
                self.project, candidate, files, endpoint={"concurrency": 1}
            ),
        )
        made = made_by(proposer, self.first, Evidence(examples=examples), work)
        if made is None:
            return self.first.candidate, {}
        self.cost = ", ".join(f"{value:.0f} {name}" for name, value in made.cost.items() if name != "seconds")
        return made.candidate, made.files

    def static(self) -> list[float | None]:
        chosen = random.Random(self.seed).sample(self.traces, SHOWN)
        demos = tuple(Demo(inputs=one.text, output=one.intent) for one in chosen)
        predictors = {
            name: predictor.model_copy(update={"demos": demos})
            for name, predictor in self.first.candidate.predictors.items()
        }
        return self.play(self.first.candidate.model_copy(update={"predictors": predictors}), {})

    def replay(self) -> list[float | None]:
        return self.play(*self.proposed(Replay(recalls=SHOWN)))

    def search(self) -> list[float | None]:
        return self.play(*self.proposed(Prompts(optimizer="bootstrap", budget=Budget(calls=300))))

    def lora(self) -> list[float | None]:
        trained = [conversation(self.system, (), one.text, one.intent) for one in self.traces]
        return self.play(*self.trained(self.first.candidate, {}, trained))

    def lora_with_replay(self) -> list[float | None]:
        """Trained as it is asked: each message behind what is recalled for it, its own trace left out."""
        candidate, files = self.proposed(Replay(recalls=SHOWN))
        memories: dict[str, Memory] = load_memories(candidate, files, lambda _: None)
        trained = []
        for one in self.traces:
            own = Case(inputs={"message": one.text}).case_id
            values = PartValues(candidate, memories, exclude_case=own)
            recalled = [
                (step.experience.observation, step.experience.said)
                for step in reversed(values.recalled("self", one.text))
            ]
            trained.append(conversation(self.system, recalled, one.text, one.intent))
        return self.play(*self.trained(candidate, files, trained))

    def trained(
        self, candidate: Candidate, files: Mapping[str, Path], conversations: Sequence[list[dict[str, str]]]
    ) -> tuple[Candidate, dict[str, Path]]:
        """The candidate with an adapter that was trained on these conversations."""
        rows = [Conversation(messages=[dict(turn) for turn in one]) for one in conversations]
        settings = SFT.model_copy(update={"epochs": min(max(round(PASSES / len(rows)), 3), 15)})
        digest, _ = train_sft(None, rows, self.folder / "adapters", settings, seed=self.seed)
        changed = candidate.model_copy(update={"adapter": digest})
        return changed, {**files, "adapter": self.folder / "adapters" / digest}

    def knn(self) -> list[float | None]:
        """With labelled neighbours alone: to bootstrap them anew at each message would cost four calls more."""
        words = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit([one.text for one in self.traces])
        vectorizer = dspy.Embedder(
            lambda texts: np.asarray(words.transform(texts).todense()), caching=False
        )  # DSPy would keep it on disk under the text alone, whatever words are known
        search = dspy.KNNFewShot(
            k=SHOWN,
            trainset=self.examples(),
            vectorizer=vectorizer,
            metric=_exact,
            max_bootstrapped_demos=0,
            max_labeled_demos=SHOWN,
        )
        with dspy.context(lm=Local(model()).dspy), _muted():
            program = search.compile(self.module)
            return [self.asked(program, one) for one in self.data.tests]

    def finetune(self) -> list[float | None]:
        """All weights, as DSPy's local provider does by default: 5 epochs, batches of 8, learning rate 1e-5."""
        tuned = FullWeights()
        lm = dspy.LM("full/base", engine=tuned, provider=tuned.provider, cache=False)
        student, teacher = self.module.deepcopy(), self.module.deepcopy()
        student.set_lm(lm)
        teacher.set_lm(
            dspy.LM("labels", engine=Labels({one.text: one.intent for one in self.traces}), cache=False)
        )
        search = dspy.BootstrapFinetune(metric=_exact, adapter=Plain(), num_threads=1)
        with _muted():
            program = search.compile(student, trainset=self.examples(), teacher=teacher)
        return [self.asked(program, one) for one in self.data.tests]

    def asked(self, program: Any, one: Message77) -> float:
        return float(program(message=one.text).intent.casefold().strip(" .") == one.intent)

    def examples(self) -> list[dspy.Example]:
        return [
            dspy.Example(message=one.text, intent=one.intent).with_inputs("message") for one in self.traces
        ]


@contextmanager
def _muted() -> Iterator[None]:
    """DSPy shows a bar for each message."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


def _exact(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> bool:
    return bool(example.intent == prediction.intent.casefold().strip(" ."))


class Labels:
    """Scripted, no LM: it answers what the labels say, so that DSPy learns from the same labels as we do."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels

    def complete(self, request: Request) -> Response:
        return _response(request, self.labels[request.messages[-1].parts[-1].text])


class FullWeights:
    """The embedded LM with all weights trained, by the name that DSPy gives it; answers greedily."""

    def __init__(self) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(weights_folder())
        self.models: dict[str, Any] = {}
        self.provider = _Here(self)

    def complete(self, request: Request) -> Response:
        import torch

        ids = self.tokenizer(as_prompt(request).text, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            out = self.models[request.model].generate(
                **ids, max_new_tokens=ANSWER_TOKENS, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
        text = self.tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        return _response(request, text)

    def train(self, rows: Sequence[Mapping[str, Any]], *, epochs: int = 5, batch: int = 8) -> str:
        import torch
        from transformers import LlamaForCausalLM

        model = LlamaForCausalLM.from_pretrained(weights_folder(), dtype=torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        order = list(range(len(rows)))
        for epoch in range(epochs):
            random.Random(epoch).shuffle(order)
            for start in range(0, len(order), batch):
                for place in order[start : start + batch]:
                    text = self.tokenizer.apply_chat_template(rows[place]["messages"], tokenize=False)
                    ids = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
                    (model(input_ids=ids, labels=ids).loss / batch).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
                optimizer.step()
                optimizer.zero_grad()
        name = f"full/{len(self.models)}"
        self.models[name] = model.eval()
        return name


class _Here(Provider):  # type: ignore[misc]  # dspy ships no types
    def __init__(self, weights: FullWeights) -> None:
        super().__init__()
        self.finetunable, self.weights = True, weights

    def finetune(
        self, job: TrainingJob, model: str, train_data: Any, train_data_format: Any, train_kwargs: Any = None
    ) -> str:
        return self.weights.train(train_data)


def _response(request: Request, text: str) -> Response:
    return Response(
        id=None,
        model=request.model,
        message=Message.assistant([TextPart(text)]),
        finish_reason="stop",
        usage=Usage(input_tokens=0, output_tokens=0),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="100,300,1000", help="labelled traces")
    parser.add_argument("--tests", type=int, default=200, help="new messages")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sizes = [int(one) for one in given.sizes.split(",")]
    rows = given.rows.split(",")
    if unknown := [one for one in rows if one not in ROWS]:
        raise BadInput(f"--rows {unknown[0]}: use some of {','.join(ROWS)}")
    prepare_environment()
    data = read(given.seed, sizes, given.tests)
    dspy.configure(adapter=Plain())
    dspy.disable_logging()
    print(
        f"Banking77, {INTENTS} intents, {len(data.tests)} new messages, {EMBEDDED_MODEL}, seed {given.seed}"
    )
    print(f"{'way':<26}{'traces':>7}{'right, 95 %':>22}{'minutes':>9}  spent")
    found: dict[tuple[str, int], Interval] = {}
    for n in sizes:
        for row in rows:
            with TemporaryDirectory() as folder:
                bench, began = Bench(data, n, Path(folder), given.seed), time.perf_counter()
                way = bench.lora_with_replay if row == "lora+replay" else getattr(bench, row)
                right = found[row, n] = mean_interval(way())
                took = (time.perf_counter() - began) / 60
            interval = f"{right.mean:.3f} [{right.low:.2f}, {right.high:.2f}]"
            print(f"{TITLES[row]:<26}{n:>7}{interval:>22}{took:>9.1f}  {bench.cost}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
