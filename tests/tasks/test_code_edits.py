"""Edits of the code's defaults, and agents that must not be played again, from project.py to the registry."""

import threading

import dspy
import pytest
from tests.evidence import give_verdict

from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.proposer import made_by
from ratchet.agent.optimize.reflections import Reflections
from ratchet.agent.project import load_project
from ratchet.evaluation.gate.gate import decide
from ratchet.evaluation.gate.pairs import Pair
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.infra.registry.registry import promote, register, version_of
from ratchet.tasks.code_edits import edited_version
from ratchet.tasks.evidence import registered, work_of
from ratchet.tasks.gate import gate_candidates
from ratchet.tasks.propose import propose_each
from ratchet.tasks.serve import first_champion

CODE = """
import ratchet
system, lookup = ratchet.prompt("{name}-system", default={system!r}), ratchet.tool_description("lookup", default={tool!r})

def support(question):
    return f"{{system()}} {{lookup()}} {{question}}"

project = ratchet.Project(name="{name}", agent=support, parts=[system, lookup], effects={effects!r},
    scores_itself=True, score=lambda case, answer: float("heron" in answer), proposers=())
"""


@pytest.fixture
def written(project, tmp_path):
    def write(system="Be kind.", tool="Find it.", effects="none"):
        (tmp_path / "project.py").write_text(
            CODE.format(name=project, system=system, tool=tool, effects=effects)
        )
        return load_project(tmp_path)

    write.folder = str(tmp_path)
    return write


def prove_and_promote(name, candidate_id, champion):
    pairs = [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)]
    better = decide(pairs, alpha=0.005)
    give_verdict(name, candidate_id, champion, better)
    promote(name, candidate_id, approved_by="test", reason="better")


def test_an_edited_default_is_a_challenger_that_keeps_what_was_learned_and_is_asked_about_until_it_is_judged(
    written,
):
    first = first_champion(written()).candidate
    name = written().name
    prompt = f"{name}-system"
    assert edited_version(written(), first.candidate_id) is None

    learned = first.model_copy(
        update={
            "tools": {"lookup": "Find an order by its number."},
            "parent": first.candidate_id,
            "origin": first.origin.model_copy(update={"proposer": "tools"}),
        }
    )
    register(name, learned, files={}, seen_case_ids=["a"], cost={})
    prove_and_promote(name, learned.candidate_id, first.candidate_id)
    assert (
        edited_version(written(), learned.candidate_id) is None
    )  # the code says what the first version said

    edit = edited_version(written(system="Be brief."), learned.candidate_id)
    version = version_of(name, edit)
    assert version.candidate.predictors[prompt].instructions == "Be brief."
    assert version.candidate.tools == learned.tools
    assert (version.candidate.parent, version.n_seen_cases) == (learned.candidate_id, 1)
    assert version.candidate.origin.note == f"The defaults in the code as they are now: {prompt}."
    assert edited_version(written(system="Be brief."), learned.candidate_id) == edit  # not judged yet
    prove_and_promote(name, edit, learned.candidate_id)
    assert edited_version(written(system="Be brief."), edit) is None
    assert edited_version(written(), edit) is None  # as it was once: that has served
    assert edited_version(written(system="Be brief.", tool="Look it up."), edit) not in (None, edit)


def test_an_agent_that_must_not_be_played_again_costs_no_proposal_and_no_test_and_one_line(written):
    project = written(effects=None)
    first_champion(project)
    proposed = propose_each(written.folder, [Reflections()], None, seed=0, edits=True)
    gated = gate_candidates.fn(written.folder, None, ["c"], GateSettings())
    assert proposed.problems == gated.problems == (project.no_replay,)
    assert not proposed.challengers
    assert not gated.judged
    assert 'Project(effects="none")' in project.no_replay


def test_another_attempt_is_proposed_where_a_failure_is_told_and_a_second_try_does_no_harm(written):
    project = written()
    parent = registered(project.name, first_champion(project).candidate_id)
    proposal = made_by(Reflections(attempts=3), parent, Evidence(), work_of(project, 0))
    assert (proposal.candidate.topology.attempts, proposal.candidate.topology.reflections) == (3, 3)
    with pytest.raises(Exception, match="effects='none'"):
        Reflections().propose(parent, Evidence(), work_of(written(effects="guarded"), 0))


def test_a_project_that_configures_dspy_can_be_read_by_any_thread(tmp_path):
    (tmp_path / "project.py").write_text(
        "import dspy, ratchet\ndspy.configure(lm=dspy.LM('openai/x', api_base='http://127.0.0.1:9/v1'))\n"
        "project = ratchet.Project(name='own', agent=dspy.Predict('question -> answer'), proposers=())\n"
    )
    read = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: read.append(load_project(tmp_path).name))
        thread.start()
        thread.join()
    assert read == ["own", "own"]
    # nor does the thread that read it own DSPy:
    dspy.configure(max_history_size=dspy.settings.max_history_size)
