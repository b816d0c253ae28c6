"""Prompts, weights and prompts again: one proposer twice, each step a version with the step before as its parent."""

import pytest

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.improve import improve
from ratchet.flows.project_settings import SETTINGS_FILE, ImproveSettings
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.registry import seen_case_ids, version_history

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("prefect_server", "scripted_lm")]

STEPS = '''
from dataclasses import dataclass

from ratchet.agent.errors import NothingToPropose
from ratchet.agent.optimize.proposer import Proposal


@dataclass(frozen=True)
class Says:
    """One sentence more; what it learned from is the examples."""

    name: str = "prompts"

    def propose(self, parent, evidence, work):
        list(evidence.examples)
        before = parent.candidate.predictors["choose"]
        longer = before.model_copy(update={"instructions": f"{before.instructions} Think."})
        return Proposal(candidate=parent.candidate.model_copy(update={"predictors": {"choose": longer}}))


@dataclass(frozen=True)
class Weighs:
    """Another weight, once."""

    name: str = "lora"

    def propose(self, parent, evidence, work):
        if parent.candidate.topology.retrieval_weight:
            raise NothingToPropose("it is trained")
        topology = parent.candidate.topology.model_copy(update={"retrieval_weight": 10.0})
        return Proposal(candidate=parent.candidate.model_copy(update={"topology": topology}))
'''


def test_each_step_goes_on_from_the_one_before_and_each_is_tested_against_the_champion(make_project):
    ours = make_project(proposers="Says(), Weighs()", begin=STEPS)
    (ours.folder / SETTINGS_FILE).write_text(
        'stacked = true\nproposers = ["prompts", "lora", "lora", "prompts"]\n'
    )
    ours.ask(*(f"{n:03d}{chr(97 + n) * 9} goes {('left', 'right')[n % 2]}" for n in range(20)))
    report = improve(str(ours.folder), ImproveSettings(gate=GateSettings(min_cases=2)))
    assert report.nothing_new == {"lora (step 3)": "it is trained"}
    assert report.problems == ()

    first, *steps = sorted(version_history(ours.name), key=lambda version: version.number)
    assert [one.candidate.origin.proposer for one in steps] == ["prompts", "lora", "prompts"]
    ids = [one.candidate_id for one in (first, *steps)]
    assert [one.candidate.parent for one in steps] == ids[:-1]
    last = steps[-1].candidate
    assert last.predictors["choose"].instructions.count("Think.") == 2
    assert last.topology.retrieval_weight == 10
    assert seen_case_ids(ours.name, ids[2]) >= seen_case_ids(ours.name, ids[1]) > set()
    assert [one.candidate_id for one in report.judged] == list(reversed(ids[1:]))
    assert [entry.candidate for entry in read_ledger(ours.name).current] == list(reversed(ids[1:]))

    with pytest.raises(BadInput, match=r"prompts, prompts: one comes twice.*set stacked = true"):
        improve(str(ours.folder), ImproveSettings(stacked=False, proposers=("prompts", "prompts")))
