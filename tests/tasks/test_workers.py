"""Versions played by workers: the same tasks in the same order, and what is sent to them can travel."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput
from ratchet.flows.improve import improve
from ratchet.tasks import gate
from ratchet.tasks.gate import Players, evaluate, gate_candidates
from ratchet.tasks.workers import working_on

BENCH = Path(__file__).parents[1] / "bench" / "bench_workers.py"


@pytest.mark.parametrize("sent", [improve, gate_candidates, evaluate])
def test_what_a_worker_is_sent_holds_no_terminal_and_no_lock(sent):
    assert cloudpickle.loads(cloudpickle.dumps(sent)).name == sent.name


def test_side_by_side_the_same_tasks_are_begun_as_one_after_the_other(make_trace, monkeypatch):
    cases = {case.case_id: case for case in (Case(inputs={"n": n}) for n in range(6))}
    a, b, c, d, e, f = cases
    wanted = [
        ("champion", [a, b, c]),
        ("one", [a, b, c]),
        ("champion", [b, c, d, e]),
        ("other", [b, c, d, e]),
    ]
    wanted += [("champion", [f]), ("one", [])]
    begun = []

    def begin(task, folder, name, candidate_id, labelled, case_ids):
        begun.append((candidate_id, case_ids))
        return lambda: [make_trace(case=cases[i], candidate_id=candidate_id) for i in case_ids]

    monkeypatch.setattr(gate, "start", begin)
    alone = Players("folder", "name", None)
    for candidate_id, case_ids in wanted:
        alone.at(candidate_id, case_ids)
    one_by_one = list(begun)

    begun.clear()
    spread = Players("folder", "name", None)
    spread.play_ahead(wanted)
    assert begun == [], "in one process nothing is played before it is needed"
    monkeypatch.setattr(gate, "side_by_side_here", lambda: True)
    spread.play_ahead(wanted)
    assert begun == one_by_one
    assert list(spread.at("other", [d, e])) == [d, e]
    assert begun == one_by_one, "what was played ahead is not played again"


@pytest.mark.parametrize("workers", ["ray", "dask"])
def test_workers_whose_runner_is_not_installed_are_refused_in_a_line(workers):
    if importlib.util.find_spec(f"prefect_{workers}") is not None:
        pytest.skip(f"prefect-{workers} is installed, so that nothing is refused")
    with pytest.raises(BadInput, match=rf"pip install \"ratchet-loop\[{workers}\]\""), working_on(workers):
        pass


@pytest.mark.slow
@pytest.mark.server
def test_two_workers_of_ray_come_to_the_same_verdicts_as_one_process():
    pytest.importorskip("prefect_ray", reason='not installed: pip install "ratchet-loop[ray]"')
    command = [sys.executable, str(BENCH), "--workers", "local,ray", "--cases", "60", "--seconds", "0.05"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same verdicts: yes") == 2
