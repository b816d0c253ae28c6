"""What every proposer gets for nothing: its papers are complete, and a broken one is refused by name."""

from dataclasses import dataclass

import pytest

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.program import View, base_candidate
from ratchet.agent.memory.ranking import Query
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.other_model import OtherModel
from ratchet.agent.optimize.proposer import (
    Proposal,
    Registered,
    check_proposers,
    made_by,
    named_proposers,
    recipe_of,
)
from ratchet.agent.project import Project
from ratchet.agent.team.roles import as_team

PARENT = Registered(base_candidate("Go."), {}, frozenset(["old"]))


@dataclass(frozen=True)
class Rule:
    """A user's own: the prompt with a rule added."""

    rule: str = "Never guess."
    name: str = "rule"
    reads: str = "examples"

    def propose(self, parent, evidence, work):
        list(getattr(evidence, self.reads))
        predictors = {**parent.candidate.predictors, "choose": Predictor(instructions=self.rule)}
        changed = parent.candidate.model_copy(update={"predictors": predictors})
        return Proposal(candidate=changed, note="A rule.", parameters={"found": 1}, cost={"lm_calls": 2})


def example(observation_of, case_id="c1"):
    return Example(view=View(case_id=case_id, observation=observation_of), answer="left", trace_id="t")


@pytest.fixture
def evidence(make_trace, scripted_environment):
    shown = scripted_environment().reset(make_trace("go").case)
    steps = [
        Experience(observation=text, action="left", trace_id="t", case_id=f"m{text}", source="own")
        for text in "12"
    ]
    digests = {"examples": "d1", "rollouts": "d2"}
    runs = [make_trace("a run", candidate_id="ours"), make_trace("imported", candidate_id="theirs")]
    return Evidence(
        examples=lambda: [example(shown)], rollouts=lambda: runs, memory=lambda: Memory(steps), digests=digests,
        versions=frozenset(["ours"]),
    )  # fmt: skip


def test_a_proposer_gives_a_candidate_and_a_note_and_its_papers_are_completed(evidence, work):
    made = made_by(Rule(), PARENT, evidence, work)
    origin = made.candidate.origin
    assert (made.candidate.parent, origin.proposer, origin.note) == (
        PARENT.candidate.candidate_id,
        "rule",
        "A rule.",
    )
    assert origin.parameters == {"rule": "Never guess.", "reads": "examples", "seed": 0, "found": 1}
    assert origin.data_digest == "d1"
    assert made.seen_case_ids == ("c1", "old")
    assert made.cost["lm_calls"] == 2
    assert made.cost["seconds"] >= 0


def test_what_was_read_was_seen_and_nothing_else(evidence, work):
    runs = {run.case.case_id for run in evidence.rollouts}
    assert evidence.seen == runs
    assert evidence.digest == "d2"
    assert [run.candidate_id for run in evidence.own_rollouts] == ["ours"]
    assert evidence.memory.recall(Query(observation="1"), k=1)
    assert evidence.seen == {"m1", *runs}, "of the memory, what it told"
    assert evidence.digest == "d2"
    assert Evidence(examples=[1]).seen == frozenset()
    assert Evidence().digest is None


def test_nothing_and_the_same_agent_are_no_proposal(evidence, work):
    class Idle(Rule):
        def propose(self, parent, evidence, work):
            return None

    assert made_by(Idle(), PARENT, evidence, work) is None
    assert made_by(Rule(rule="Go."), PARENT, evidence, work) is None


def test_files_that_are_kept_are_the_parents_and_one_that_is_missing_is_refused(evidence, work, tmp_path):
    learned = Candidate(predictors=PARENT.candidate.predictors, base_model="m", memory="me", adapter="ad")
    files = {"memory": tmp_path / "me.jsonl", "adapter": tmp_path / "ad"}
    made = made_by(Rule(), Registered(learned, files), evidence, work)
    assert made.files == files
    moved = made_by(
        OtherModel(model="openai/big", at="https://lm.example/v1"), Registered(learned, files), evidence, work
    )
    assert moved.files == {"memory": files["memory"]}
    with pytest.raises(BadInput, match="names memory me, and no such file was given"):
        made_by(Rule(), Registered(learned, {"adapter": tmp_path / "ad"}), evidence, work)


def test_what_is_no_proposal_or_no_candidate_is_refused(evidence, work):
    class Broken(Rule):
        def propose(self, parent, evidence, work):
            return self.rule

    with pytest.raises(BadInput, match="proposer rule gave str: return a Proposal, or None"):
        made_by(Broken(), PARENT, evidence, work)
    unreadable = PARENT.candidate.model_copy(
        update={"topology": PARENT.candidate.topology.model_copy(update={"recalls": 99})}
    )

    class Careless(Rule):
        def propose(self, parent, evidence, work):
            return Proposal.model_construct(candidate=unreadable)

    with pytest.raises(
        BadInput, match=r"proposer rule's candidate: not a Candidate: field topology\.recalls"
    ):
        made_by(Careless(), PARENT, evidence, work)


def test_the_recipe_is_name_settings_and_code():
    assert recipe_of(Rule()) == recipe_of(Rule())
    assert len({recipe_of(Rule()), recipe_of(Rule(rule="Other.")), recipe_of(Rule(name="other"))}) == 3


@pytest.mark.parametrize(
    ("proposers", "message"),
    [
        (
            ("experience",),
            r"proposers hold 'experience', which has no `propose`: give objects, such as Replay\(\)",
        ),
        ((Rule,), "which has no `propose`: give objects"),
        ((Rule(name="a/b"),), "proposer Rule has the name 'a/b': use 1–31 lower-case letters"),
        ((Rule(name=None),), "has the name None"),
        ((Rule(), Rule(rule="x")), "two proposers are called 'rule': give one another name, rule2"),
        (
            (Rule(rule=object()),),
            "proposer rule: JSON cannot hold .* keep settings to numbers, texts and lists",
        ),
    ],
)
def test_proposers_that_cannot_be_told_apart_or_run_are_refused_in_a_line(proposers, message):
    with pytest.raises(BadInput, match=message):
        check_proposers(proposers)
    with pytest.raises(BadInput, match=message):
        Project(name="mine", instructions="x", environment=object, proposers=proposers)


def test_proposers_are_chosen_by_name_in_the_order_of_the_names():
    first, second = Rule(), Rule(name="second")
    assert named_proposers((first, second), ["second", "rule"]) == (second, first)
    with pytest.raises(BadInput, match="the project has no proposer 'lora': name some of rule, second"):
        named_proposers((first, second), ["lora"])


def test_another_lm_keeps_all_but_weights_and_address(work):
    solving = as_team(base_candidate("Go."), (("solver", "solve"),)).topology.roles[0]
    role = solving.model_copy(update={"adapter": "ad0", "memory": "me1"})
    topology = base_candidate("Go.").topology.model_copy(update={"roles": (role,)})
    prompts = {"solver": Predictor(instructions="Choose.")}
    before = Candidate(predictors=prompts, base_model="small", adapter="ad1", memory="me0", topology=topology)
    files = {
        "memory": work.folder,
        "memory.solver": work.folder,
        "adapter": work.folder,
        "adapter.solver": work.folder,
    }
    other = OtherModel(model="openai/big", at="https://lm.example/v1")
    made = made_by(other, Registered(before, files, frozenset(["old"])), Evidence(examples=[1]), work)
    after = made.candidate
    assert (after.base_model, after.api_base, after.adapter) == ("openai/big", "https://lm.example/v1", None)
    assert (after.memory, after.predictors) == (before.memory, before.predictors)
    assert [(role.adapter, role.memory) for role in after.topology.roles] == [(None, "me1")]
    assert set(made.files) == {"memory", "memory.solver"}
    assert (after.parent, after.origin.proposer, made.seen_case_ids) == (
        before.candidate_id,
        "model",
        ("old",),
    )
    assert made_by(OtherModel(model="small"), Registered(before, files), Evidence(), work) is None
