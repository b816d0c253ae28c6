"""Instructions and tool descriptions written by an LM, by what went wrong: the library `gepa` over named texts.

Decision: GEPA decides what is tried next, and nothing else. Cases are played and texts are written by `Work`, which
counts each before it is made and keeps what it came to; so no state of GEPA's is kept: with the same seed and the
calls that are kept a second start takes the same way to the same candidate. Its own budget is looked at between
iterations only (117 paid of 100), its resume pays again, and its cache takes training scores for validation scores
where ids are numbers: none of the three is used.

What is tried is scored at validation cases that no text was written from; a session is whole on one side.
Source: Agrawal et al., GEPA (arXiv 2507.19457).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from ratchet.agent.errors import NothingToPropose
from ratchet.agent.lm.lm import LM
from ratchet.agent.optimize.budget import BudgetSpent
from ratchet.agent.optimize.evidence import NOBODY, Evidence, Example
from ratchet.agent.optimize.prompts.cases import playable
from ratchet.agent.optimize.prompts.reflecting import reflection_prompt, too_long, written_text
from ratchet.agent.optimize.prompts.texts import length_told, texts_of, with_texts
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import as_text, content_hash
from ratchet.agent.trace import Trace

if TYPE_CHECKING:
    from ratchet.agent.optimize.prompts.prompts import Prompts

UNREADABLE: Final = 5
"""Replies in a row that hold no text, before any did, after which the LM is not asked again."""
PATIENCE: Final = 40
"""Rounds without a better text after which the search ends, whatever is left of the budget."""
Texts = Mapping[str, str]


def search(settings: "Prompts", parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
    """The parent with the texts that led on the validation cases; None where none did by enough."""
    writer = work.writer(parent.candidate)
    if writer is None:
        raise NothingToPropose(
            "nobody can write instructions: the agent's own LM is not known or cannot; set RATCHET_REFLECTION_LM to "
            "one that can"
        )
    texts = texts_of(parent.candidate)
    if not texts:
        raise NothingToPropose("the agent has no prompt and no tool description: name them as `parts`")
    training, validation = split(playable(evidence), settings.validation, work.seed)
    tries = Tries(settings, parent, work, writer, training=_worth_reading(training, evidence.served))
    with work.progress(f"{settings.name}: writing with GEPA", settings.budget.calls or 0) as done:
        tries.progress = done
        _run(tries, texts, tries.scorable(texts, validation))
    return _led(tries, texts)


def split(examples: Sequence[Example], n_validation: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples to write from, and about `n_validation`, at most half, to choose by; a session is on one side.

    Raises:
        NothingToPropose: there are no two groups of cases that can be played.
    """
    groups: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda e: e.view.case_id):
        if example.view.inputs:
            groups.setdefault(example.session_id or example.view.case_id, []).append(example)
    if len(groups) < 2:
        raise NothingToPropose(
            "it needs scored or labelled cases of at least 2 sessions, to write from and to choose by, got "
            f"{len(groups)}"
        )
    ordered = sorted(groups, key=lambda group: content_hash([seed, group]))
    most = min(n_validation, sum(map(len, groups.values())) // 2)
    training: list[Example] = []
    validation: list[Example] = []
    for group in ordered:
        into = validation if not validation or len(validation) + len(groups[group]) <= most else training
        into += groups[group]
    if not training:
        raise NothingToPropose("all cases are of one session: none is left to write from")
    return training, validation


def _worth_reading(training: Sequence[Example], served: Sequence[Trace]) -> list[Example]:
    """What the parent is known to have done wrong, and as many others; all where nothing is known of it."""
    answers = {e.view.case_id: e.answer for e in training}
    wrong = {
        trace.case.case_id
        for trace in served
        if trace.case.case_id in answers
        and (trace.error is not None or as_text(trace.answer) != answers[trace.case.case_id])
    }
    wrong |= {e.view.case_id for e in training if e.source == NOBODY}
    failed = [e for e in training if e.view.case_id in wrong]
    others = [e for e in training if e.view.case_id not in wrong]
    return [*failed, *others[: len(failed)]] if failed else list(training)


def _led(tries: "Tries", texts: Texts) -> Proposal | None:
    """The best by validation, the shorter of equal ones."""
    if len(tries.validated) < 2:
        raise NothingToPropose(f"no better text was found: {tries.told()}")
    before = tries.validated[0][1]
    best, score = max(tries.validated, key=lambda one: (one[1], -sum(map(len, one[0].values()))))
    if score - before < max(tries.settings.lead, 1e-9):
        return None
    return Proposal(
        candidate=with_texts(tries.parent.candidate, best),
        note=f"Written by {tries.writer.model} with GEPA: {score:.2f} on {tries.n_validation} validation cases where "
        f"the parent has {before:.2f}; {length_told(texts, best)}; {tries.told()}",
        parameters={
            "accuracy_on_validation": score,
            "accuracy_before": before,
            "characters": sum(map(len, best.values())),
            "characters_before": sum(map(len, texts.values())),
            "written": dict(tries.counts),
        },
    )


def _run(tries: "Tries", texts: Texts, validation: Sequence[Example]) -> None:
    """Let GEPA try until the budget is spent, nothing is left to learn, or nothing better comes."""
    from gepa.api import optimize

    tries.n_validation = len(validation)
    try:
        optimize(
            seed_candidate=dict(texts),
            trainset=list(tries.training),
            valset=list(validation),
            adapter=_adapter(tries),
            reflection_minibatch_size=min(tries.settings.batch, len(tries.training)),
            stop_callbacks=[lambda state: tries.is_over()],
            callbacks=[cast(Any, tries)],  # of its many methods all are optional
            logger=_Silent(),
            seed=tries.work.seed,
            raise_on_exception=True,
        )
    except BudgetSpent as spent:
        tries.spent = spent
    if tries.broke is not None:
        raise tries.broke
    if not tries.validated:
        raise NothingToPropose(
            f"{tries.spent}: it does not reach to score the parent on its validation cases"
        )


@dataclass
class Tries:
    """What was tried: GEPA's calls, answered by `Work`."""

    settings: "Prompts"
    parent: Registered
    work: Work
    writer: LM
    training: Sequence[Example]
    n_validation: int = 0
    progress: Callable[[int], None] = lambda done: None
    validated: list[tuple[Texts, float]] = field(default_factory=list)
    """Texts and their mean score on the validation cases, the parent's first."""
    counts: Counter[str] = field(default_factory=Counter)
    """Replies by what came of them: readable, unreadable, too long."""
    spent: BudgetSpent | None = None
    broke: Exception | None = None
    """What asking the writer ended with: GEPA would try the same again and say nothing."""
    played: dict[tuple[str, str], Trace] = field(default_factory=dict)
    """Candidate and case → what came of it: nothing is counted twice within a search."""
    asked: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    better_in: int = 0
    """The round in which a better text was last found."""

    def scorable(self, texts: Texts, validation: Sequence[Example]) -> list[Example]:
        """Those of the validation cases at which the parent's answer can be scored.

        Raises:
            NothingToPropose: there is none, or the budget does not reach.
        """
        try:
            traces = self.play(texts, validation)
        except BudgetSpent as spent:
            raise NothingToPropose(
                f"{spent}, and {len(validation)} calls go into scoring the parent on its validation cases"
            ) from spent
        found = [e for e, t in zip(validation, traces, strict=True) if _score(t) is not None]
        if not found:
            raise NothingToPropose(
                f"of {len(validation)} validation cases none could be scored: give the project a `score`, or "
                "label more"
            )
        return found

    def play(self, texts: Texts, examples: Sequence[Example]) -> list[Trace]:
        """Each example once with these texts, in order."""
        candidate = with_texts(self.parent.candidate, texts)
        key = candidate.candidate_id
        new = [e for e in examples if (key, e.view.case_id) not in self.played]
        if new:
            cases = [e.case for e in new]
            traces = self.work.play(candidate, self.parent.files, cases, progress=self.progress)
            self.played |= {(key, e.view.case_id): t for e, t in zip(new, traces, strict=True)}
        return [self.played[key, e.view.case_id] for e in examples]

    def write(self, part: str, text: str, cases: Sequence[tuple[Example, Trace]]) -> str | None:
        """A new text of this part; None where what was written cannot be read, is too long, or changes nothing."""
        most = self.settings.max_chars
        prompt = reflection_prompt(part, text, cases, most)
        new = written_text(self._ask(prompt))
        if new is not None and len(new) > most:
            new = written_text(self._ask(prompt + too_long(new, most)))
        kind = "unreadable" if new is None else "too long" if len(new) > most else "readable"
        self.counts[kind] += 1
        return new if kind == "readable" and new != text else None

    def _ask(self, prompt: str) -> str:
        time_asked = self.asked[prompt]
        self.asked[prompt] += 1
        self.progress(1)
        return self.work.write(self.writer, prompt, time_asked=time_asked)

    def is_over(self) -> bool:
        """Whether to end before the next round."""
        self.rounds += 1
        never_read = self.counts["unreadable"] >= UNREADABLE and not self.counts["readable"]
        perfect = bool(self.validated) and max(score for _, score in self.validated) >= 1
        tired = self.rounds - self.better_in > PATIENCE
        return self.spent is not None or self.broke is not None or never_read or perfect or tired

    def on_valset_evaluated(self, event: Any) -> None:
        """GEPA scored texts on all validation cases."""
        if event["is_best_program"]:
            self.better_in = self.rounds
        self.validated.append((dict(event["candidate"]), float(event["average_score"])))

    def told(self) -> str:
        """How the writing went, in words."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.counts.items())) or "none"
        accepted = max(0, len(self.validated) - 1)
        end = f"; {self.spent}" if self.spent else ""
        return f"texts written: {kinds}; better on what they were written from: {accepted}{end}"


def _score(trace: Trace) -> float | None:
    """In [0, 1]; an answer that cannot be used is a 0, and what broke otherwise is not known."""
    if trace.error is not None:
        return 0.0 if trace.error.kind == "agent" else None
    return trace.score


def _adapter(tries: Tries) -> Any:
    from gepa.core.adapter import EvaluationBatch, GEPAAdapter

    class Named(GEPAAdapter[Example, Any, Trace]):
        """GEPA's way to play and to write."""

        def evaluate(
            self, batch: list[Example], candidate: dict[str, str], capture_traces: bool = False
        ) -> EvaluationBatch[Any, Trace]:
            traces = tries.play(candidate, batch)
            scores = [_score(trace) or 0.0 for trace in traces]
            return EvaluationBatch(
                outputs=traces, scores=scores, trajectories=list(zip(batch, traces, strict=True))
            )

        def make_reflective_dataset(
            self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
        ) -> dict[str, list[dict[str, Any]]]:
            return {
                part: [{"case": case} for case in eval_batch.trajectories] for part in components_to_update
            }

        def propose_new_texts(
            self, candidate: dict[str, str], reflective_dataset: Any, components_to_update: list[str]
        ) -> dict[str, str]:
            found = {}
            try:
                for part in components_to_update:
                    cases = [one["case"] for one in reflective_dataset[part]]
                    if (new := tries.write(part, candidate[part], cases)) is not None:
                        found[part] = new
            except BudgetSpent as spent:
                tries.spent = spent
                return {}
            except Exception as error:  # noqa: BLE001  raised when GEPA, which would swallow it, has ended
                tries.broke = error
                return {}
            return found

    return Named()


class _Silent:
    """GEPA logs whole prompts, which hold users' words."""

    def log(self, message: str) -> None:
        """Nothing."""
