"""What proposers spend, and on what: a round in which one is honest, one spends too much and three cheat."""

import json

import pytest

from ratchet.evaluation.data.selection import SelectionSettings
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.commands.history import history
from ratchet.flows.commands.status import status
from ratchet.flows.improve import improve
from ratchet.flows.project_settings import ImproveSettings
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.registry import seen_case_ids, version_history
from ratchet.infra.store.project_state import project_folder

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("prefect_server")]

PROPOSERS = """
from ratchet.agent.candidate import Demo, Predictor
from ratchet.agent.optimize.budget import Budget
from ratchet.agent.optimize.proposer import Proposal
from ratchet.agent.record import Record


def told(parent, instructions, demos=()):
    predictors = {**parent.candidate.predictors, "choose": Predictor(instructions=instructions, demos=demos)}
    return parent.candidate.model_copy(update={"predictors": predictors})


class Honest(Record):
    name: str = "honest"
    budget: Budget = Budget(calls=3)
    cheat: str = ""

    def propose(self, parent, evidence, work):
        cases = [Case(inputs=example.view.inputs) for example in evidence.examples]
        work.play(parent.candidate, parent.files, cases, what_fits=self.cheat != "greedy")
        demos, seen = (), ()
        if self.cheat == "reports":
            seen = tuple(case.case_id for case in waiting())
        if self.cheat == "shows":
            demos = tuple(Demo(inputs="so", output="left", case_id=case.case_id) for case in waiting())
        if self.cheat == "quotes":
            demos = tuple(Demo(inputs=case.inputs["request"], output="left") for case in waiting())
        return Proposal(candidate=told(parent, f"Go where it says. {self.cheat}", demos), seen_case_ids=seen)
"""
CHEATS = ("greedy", "reports", "shows", "quotes")


def test_what_was_spent_for_nothing_is_seen_and_what_was_taught_by_the_gate_is_refused(make_project, capsys):
    cheats = "".join(f', Honest(name="{how}", cheat="{how}")' for how in CHEATS)
    ours = make_project(proposers=f"Honest(){cheats}", begin=PROPOSERS)
    ours.ask(*(f"{n:03d}{chr(97 + n) * 9} goes {('left', 'right')[n % 2]}" for n in range(20)))
    rules = ImproveSettings(
        selection=SelectionSettings(gate_labels=100), gate=GateSettings(min_cases=1000), budget={"calls": 2}
    )
    report = improve(str(ours.folder), rules)

    lines = {how: [line for line in report.problems if f"proposer {how} " in line] for how in CHEATS}
    assert all(len(found) == 1 and "\n" not in found[0] for found in lines.values()), report.problems
    assert "the budget of 2 calls is spent (0 used): raise budget.calls for more" in lines["greedy"][0]
    for how in CHEATS[1:]:
        assert "taught by what must judge it" in lines[how][0]
        assert "traceback" not in lines[how][0]
    first, honest = version_history(ours.name)
    assert honest.candidate.origin.proposer == "honest"
    assert (honest.cost["calls"], first.cost) == (2, {}), "the run's budget is tighter than its own"
    assert {how for how in CHEATS[1:] if report.cost[how]["calls"] == 2} == {*CHEATS[1:]}
    assert seen_case_ids(ours.name, honest.candidate_id)

    run = connect(ours.name).client.get_run(honest.run_id)
    assert {"cost_calls", "cost_tokens", "cost_seconds"} <= run.data.metrics.keys()
    capsys.readouterr()
    history(ours.folder, None, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert {one["proposer"] for one in told["fruitless"]} >= {*CHEATS[1:]}
    history(ours.folder, None)
    status(ours.folder, None)
    text = capsys.readouterr().err
    assert text.count("nothing came of it") >= 3
    assert max(map(len, text.splitlines())) <= 80
    assert "of it for nothing: 6 calls" in text
    kept = project_folder(ours.name) / "calls.db"
    assert kept.stat().st_mode & 0o077 == 0, "it holds requests"

    improve(
        str(ours.folder), rules.model_copy(update={"budget": rules.budget.model_copy(update={"calls": 3})})
    )
    assert len(version_history(ours.name)) == 2, "a larger budget goes on and comes to the same"
