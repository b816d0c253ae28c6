"""The records of the gate's tests: opened, stored after every batch, and closed, in an order that no kill can break.

Opening: the share in the ledger, then the order of cases, then the first case. Asking: what is asked is stored with
the test, and then put before people. Closing: the ledger with the verdict and the cases that it used, then the
version's page. What a kill left in between is found by the next run and finished; a proven challenger is never lost,
and never tested a second time.
"""

import tempfile
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ratchet.agent.candidate import Kind
from ratchet.agent.errors import BadInput
from ratchet.evaluation.data.cases import LabelledCase, case_text, fresh_for_gate
from ratchet.evaluation.drift.diversity import narrowing
from ratchet.evaluation.gate.betting import TrustPrior
from ratchet.evaluation.gate.choice import ProvenChallenger
from ratchet.evaluation.gate.gate import GatePolicy
from ratchet.evaluation.gate.horizon import plan_horizon
from ratchet.evaluation.gate.judged import JudgePlan
from ratchet.evaluation.gate.ledger import Entry
from ratchet.evaluation.gate.order import in_order
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.evaluation.gate.trial import Trial, TrialState
from ratchet.evaluation.gate.verdict import VerdictKind
from ratchet.infra.judge.at_gate import GateJudge
from ratchet.infra.pictures.gate import draw_gate
from ratchet.infra.pictures.versions import draw_confusion
from ratchet.infra.registry.approval import declined, lapsed
from ratchet.infra.registry.closing import closed_by_people
from ratchet.infra.registry.diversity import VersionDiversity, record_diversity
from ratchet.infra.registry.gate_cases import read_open_test, spent_cases, write_open_test
from ratchet.infra.registry.ledger import close_ledger_test, open_ledger_test, read_ledger
from ratchet.infra.registry.registry import record_evaluation, seen_case_ids, version_history
from ratchet.infra.registry.version import Version
from ratchet.infra.store.dataset_store import read_dataset
from ratchet.infra.store.experience import asked_by
from ratchet.infra.traces.write import attach_labels
from ratchet.tasks.curate import RoundData
from ratchet.tasks.people import People

ACCURACY = "accuracy"


def has_open_test(name: str) -> bool:
    """Whether a test goes on, whatever is new."""
    return any(entry.decision is None for entry in read_ledger(name).entries)


class GateTests:
    """The tests of one project against its present champion."""

    def __init__(self, name: str, data: RoundData, settings: GateSettings, people: People) -> None:
        self.name, self.champion, self.settings, self.people = name, data.champion, settings, people
        self.judge = GateJudge(name)
        self.labelled = {item.case_id: item for item in read_dataset(data.labelled, LabelledCase)}
        self.problems: list[str] = []
        versions = {version.candidate_id: version for version in version_history(name)}
        ledger = read_ledger(name, alpha=settings.alpha, spending=settings.spending)
        if (ledger.alpha, ledger.spending) != (settings.alpha, settings.spending):
            self.problems.append(
                f"gate.alpha = {settings.alpha:g}, gate.spending = {settings.spending}: without effect, because the "
                f"project's first test fixed {ledger.alpha:g}, {ledger.spending}; set them back"
            )
        self._recorded = {one: (version.verdict, version.compared_with) for one, version in versions.items()}
        serving = versions.get(self.champion)
        self._kind: Kind = "built-in" if serving is None else serving.candidate.kind
        entries = [entry for entry in ledger.entries if entry.candidate in versions]
        for entry in entries:
            if entry.decision is None and entry.champion != self.champion:
                self._give_up(entry, "given up: the champion changed")
        self._lapsed = lapsed(name)
        tests = [entry for entry in entries if entry.champion == self.champion]
        self._newest = {entry.candidate: entry for entry in tests}
        self.begun = [entry.candidate for entry in self._newest.values() if entry.decision is None]
        """Challengers whose test is open."""
        closed = [entry for entry in self._newest.values() if entry.decision is not None]
        found = (self._proven_before(entry, versions[entry.candidate]) for entry in closed)
        self.proven: list[ProvenChallenger] = [one for one in found if one is not None]
        """Those of earlier runs that never served (a kill came between, or nobody approved yet), then this run's."""
        unchosen = _unchosen(entries, versions.values(), declined(name))
        self.unchosen = [one for one in unchosen if one not in self._newest]
        """Proven against the champion before this one, which was preferred to them: they may be better still."""
        refused = {entry.candidate for entry in closed if entry.decision == "reject"}
        self.ended = refused | closed_by_people(name, self.champion)
        """Shown to be worse than this champion, or closed by a person: the same one is not tested once more."""

    def _proven_before(self, entry: Entry, version: Version) -> ProvenChallenger | None:
        verdict = version.verdict if version.compared_with == self.champion else None
        found = verdict and (verdict.decision, min(verdict.e_value, 1e300))
        recorded = found == (entry.decision, entry.e_value)
        if recorded and not entry.proven:
            return None
        trial = self._kept(entry)
        if not recorded and trial is not None:  # a kill came after the ledger
            self.record(trial)
            verdict = trial.verdict
        served = any(event.action == "promoted" for event in version.events)
        if not entry.proven or verdict is None or served or entry.candidate in self._lapsed:
            return None
        return ProvenChallenger(
            candidate_id=entry.candidate, verdict=verdict, plays=tuple(trial.plays) if trial else ()
        )

    def _kept(self, entry: Entry) -> Trial | None:
        """A closed test, as it was stored; one that cannot be read is told and costs only a comparison."""
        try:
            return self._resumed(entry, ())
        except BadInput as error:
            self.problems.append(str(error))
            return None

    def open_again(self, fresh: Sequence[LabelledCase]) -> list[Trial]:
        """Tests that were left open, each on its own order; `fresh` cases that it does not know come last."""
        return [trial for one in self.begun for trial in self._again(self._newest[one], fresh)]

    def _again(self, entry: Entry, fresh: Sequence[LabelledCase]) -> list[Trial]:
        try:
            return [self._resumed(entry, fresh) or self._begin(entry, in_order(fresh), self._plan())]
        except BadInput as error:  # of another version of Ratchet, or corrupt
            self._give_up(entry, f"given up: {error}")
            return []

    def _give_up(self, entry: Entry, why: str) -> None:
        """Close a test that cannot go on, by its evidence as far as that can be read; its cases are spent."""
        decision: VerdictKind = "continue"
        used, e_value = [], 0.0
        try:
            state = self._stored(entry.candidate)
            if state is None or state.opened_at != entry.opened_at:
                e_value = 1.0  # no case was drawn
            else:
                used = [play.case_id for play in state.plays if play.is_evidence]
                trial = Trial.resume(state, (), (), 0, self._kind)
                trial.hear(self.people.settled(trial.questions), self.people.same, datetime.now(UTC))
                decision = trial.verdict.decision
                e_value = trial.verdict.e_value if decision == "promote" else trial.e_at_closing
                attach_labels(self.name, trial.labels(datetime.now(UTC)))
        except BadInput:  # said by `why`, or once more by the next test of this challenger
            pass
        close_ledger_test(
            self.name,
            entry.candidate,
            champion=entry.champion,
            opened_at=entry.opened_at,
            decision=decision,
            e_value=e_value,
            reason=why,
            cases=used,
        )
        write_open_test(self.name, entry.candidate, "")
        self.problems.append(f"the open test of {entry.candidate} was {why}")

    def _resumed(self, entry: Entry, fresh: Sequence[LabelledCase]) -> Trial | None:
        """This very test as it was stored, with what people said since; None if it did not come to that."""
        state = self._stored(entry.candidate)
        if state is None or (state.champion, state.opened_at) != (self.champion, entry.opened_at):
            return None
        if entry.decision is None and state.same != self.people.same_id:
            raise BadInput("what says that two answers are the same was changed in the middle of it")
        trial = Trial.resume(state, list(self.labelled.values()), fresh, self.settings.max_cases, self._kind)
        if entry.decision is None:
            trial.hear(self.people.settled(trial.questions), self.people.same, datetime.now(UTC))
        return trial

    def _stored(self, challenger: str) -> TrialState | None:
        text = read_open_test(self.name, challenger)
        return TrialState.from_json(text, where=f"the stored test of {challenger}") if text else None

    def fresh(self, challengers: Collection[str]) -> list[LabelledCase]:
        """Gate cases that none of these candidates' proposers saw, and that no test looked at."""
        seen = {i for one in (self.champion, *challengers) for i in seen_case_ids(self.name, one)}
        known = list(self.labelled.values())
        texts: dict[str, str | None] = {i: case_text(c.case) for i, c in self.labelled.items() if i in seen}
        texts |= asked_by(self.name, seen - set(texts))  # of runs without a label, and of imported ones
        return fresh_for_gate(known, seen, texts, spent_cases(self.name) | self._looked_at())[0]

    def _looked_at(self) -> set[str]:
        """Cases that are evidence in a test that is open: what they say may have led to whatever comes now."""
        states = (self._stored(one) for one in self.begun)
        return {play.case_id for state in states if state for play in state.plays if play.is_evidence}

    def open(self, challenger: str, order: Sequence[LabelledCase]) -> Trial:
        """Register both sides, the judge and the order before the first case is drawn."""
        plan = self._plan()
        entry = open_ledger_test(
            self.name,
            challenger,
            champion=self.champion,
            judge=plan[0].judge_id if plan else "",
            alpha=self.settings.alpha,
            spending=self.settings.spending,
        )
        trial = self._begin(entry, order, plan)
        self.store(trial)
        return trial

    def _plan(self) -> tuple[JudgePlan, TrustPrior] | None:
        """The judge that takes part in a test that opens now, where one is wanted and only people can score."""
        if not self.settings.judge or not self.people.alone:
            return None
        return self.judge.plan(self.settings.judge_share, self.name)

    def _begin(
        self, entry: Entry, order: Sequence[LabelledCase], plan: tuple[JudgePlan, TrustPrior] | None
    ) -> Trial:
        rules = self.settings
        # a judged bet is no sign: the horizon's test would never get one
        wanted = rules.min_gain == 0 and plan is None
        horizon = plan_horizon(entry.alpha_k, rules.gain_worth_finding) if wanted else None
        policy = GatePolicy(alpha=entry.alpha_k, min_gain=rules.min_gain, horizon=horizon)
        return Trial.begin(
            self.champion,
            entry.candidate,
            entry.opened_at,
            policy,
            order,
            self.settings.max_cases,
            self._kind,
            self.people.same_id,
            self.people.answer_days,
            *(plan or ()),
        )

    def store(self, trial: Trial) -> None:
        """So far the test is settled."""
        write_open_test(self.name, trial.challenger, trial.state().to_json())

    def close(self, trial: Trial) -> None:
        """What people said to the traces, the verdict and the cases to the ledger, then the version's page.

        Stored first: after a kill the page is written from what is stored, and without the answers that decided it
        would say less than the ledger, so that nothing could promote what is proven.
        """
        self.store(trial)
        verdict = trial.verdict
        attach_labels(self.name, trial.labels(datetime.now(UTC)))
        close_ledger_test(
            self.name,
            trial.challenger,
            champion=self.champion,
            opened_at=trial.opened_at,
            decision=verdict.decision,
            e_value=verdict.e_value,
            reason=verdict.reason,
            cases=trial.used,
        )
        self.record(trial)
        if verdict.decision == "promote":
            proven = ProvenChallenger(
                candidate_id=trial.challenger, verdict=verdict, plays=tuple(trial.plays)
            )
            self.proven.append(proven)

    def record(self, trial: Trial) -> None:
        """How the test stands, on the page of the version, unless that says so already."""
        stands = (trial.verdict, trial.champion)
        if self._recorded.get(trial.challenger) == stands:
            return
        accuracy = trial.accuracy
        shown = [play.shown for play in trial.plays if play.shown and all(play.shown)]
        varied = narrowing([ours for ours, _ in shown], [theirs for _, theirs in shown])
        if varied is not None:  # before the verdict, which says that the page is whole
            record_diversity(self.name, trial.challenger, gate=varied)
        with tempfile.TemporaryDirectory() as scratch:
            record_evaluation(
                self.name,
                trial.challenger,
                scores={ACCURACY: accuracy} if accuracy else {},
                verdict=trial.verdict,
                compared_with=trial.champion,
                pictures=_pictures(Path(scratch), trial),
                notes=VersionDiversity(gate=varied).narrower,
            )
        self._recorded[trial.challenger] = stands


def _unchosen(entries: Sequence[Entry], versions: Iterable[Version], declined: Collection[str]) -> list[str]:
    """Candidates whose newest test proved them, that never served, and to whom nobody said no."""
    served = {v.candidate_id for v in versions if any(event.action == "promoted" for event in v.events)}
    newest = {entry.candidate: entry for entry in entries}
    return [
        one for one, entry in newest.items() if entry.proven and one not in served and one not in declined
    ]


def _pictures(folder: Path, trial: Trial) -> dict[str, Path]:
    pictures = {}
    if trial.path:
        draw_gate(trial.path, trial.verdict, folder / "wealth.png")
        pictures["wealth"] = folder / "wealth.png"
    known = [(play.expected, play.chosen) for play in trial.plays if play.expected is not None]
    if known:
        expected, chosen = [e for e, _ in known], [c for _, c in known]
        pictures["confusion"] = draw_confusion(expected, chosen, folder / "confusion.png")
    return pictures
