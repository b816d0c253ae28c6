"""The search over topologies: what it tries, what it proposes, and that what does not help goes."""

import pytest

from ratchet.agent.candidate import Role, Topology
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.program import base_candidate
from ratchet.agent.optimize import team_search
from ratchet.agent.optimize.team_moves import MOST_ROLES, moves
from ratchet.agent.optimize.team_search import TeamSettings, propose_team
from ratchet.agent.team.roles import SOLVER, as_team, check_team

PARENT = base_candidate("Pick the tool that does what the request asks for.")
ONE = as_team(PARENT, ((SOLVER, "solve"),))
TRIO = as_team(PARENT)


def tried(candidate, files=None):
    return {change: (one, kept) for change, one, kept in moves(candidate, files or {})}


def test_from_one_agent_roles_are_added_and_whole_teams_tried():
    found = tried(ONE, {"memory.solver": "m"})
    assert set(found) == {
        "solver and critic and judge", "planner and worker", "with a second", "with a critic", "with a judge",
        "with a planner",
    }  # fmt: skip
    assert found["planner and worker"][1] == {"memory.worker": "m"}
    assert found["with a critic"][1] == {"memory.solver": "m"}
    for one, _ in found.values():
        check_team(one)


def test_from_a_team_roles_are_dropped_with_their_files_and_reordered():
    remembering = TRIO.topology.roles[0].model_copy(update={"memory": "m", "recalls": 1})
    team = TRIO.model_copy(update={"topology": Topology(roles=(remembering, *TRIO.topology.roles[1:]))})
    found = tried(team, {"memory.solver": "m", "memory.critic": "c"})
    assert {
        "without critic",
        "without judge",
        "judge before critic",
        "solver recalls 0",
        "solver recalls 2",
    } <= set(found)
    assert "without solver" not in found
    assert "critic before solver" not in found
    without, files = found["without critic"]
    assert [role.name for role in without.topology.roles] == ["solver", "judge"]
    assert "critic" not in without.predictors
    assert files == {"memory.solver": "m"}
    for one, _ in found.values():
        check_team(one)


def test_a_full_team_is_not_made_larger():
    roles = tuple(Role(name=f"s{n}", duty="solve") for n in range(MOST_ROLES))
    predictors = {role.name: PARENT.predictors["choose"] for role in roles}
    full = PARENT.model_copy(update={"topology": Topology(roles=roles), "predictors": predictors})
    assert not [change for change in tried(full) if change.startswith("with a")]


def test_too_few_examples_are_refused(examples):
    with pytest.raises(BadInput, match="at least 4 examples that the agent can answer, got 3"):
        propose_team(PARENT, examples[:3], TeamSettings())


@pytest.mark.slow
def test_a_search_on_the_real_lm_ends_in_a_proposal_that_names_all_it_saw(lm, examples):
    done = []
    proposal = propose_team(
        PARENT, examples[:8], TeamSettings(rounds=1), seen=["old"], data_digest="d", progress=done.append
    )
    assert sum(done) == 6
    assert proposal.cost["topologies"] == 7
    assert set(proposal.seen_case_ids) == {"old", *(e.view.case_id for e in examples[:8])}
    made = proposal.candidate
    if made is not PARENT:
        assert (made.parent, made.origin.proposer, made.origin.data_digest) == (
            PARENT.candidate_id,
            "team",
            "d",
        )
        assert made.origin.parameters["topologies_tried"] == 7
        assert "that chose nothing" in made.origin.note
    again = propose_team(PARENT, examples[7::-1], TeamSettings(rounds=1))
    assert again.candidate.candidate_id == made.candidate_id


@pytest.mark.slow
def test_a_team_whose_roles_do_not_help_becomes_a_single_agent_for_fewer_tokens(lm, examples, monkeypatch):
    useless = tuple(
        r if r.duty == "solve" else r.model_copy(update={"weight": 0.0}) for r in TRIO.topology.roles
    )
    team = TRIO.model_copy(update={"topology": Topology(roles=useless)})
    monkeypatch.setattr(team_search, "WEIGHTS", (0.0,))
    made = propose_team(team, examples[:8], TeamSettings(rounds=3, min_gain=0.0)).candidate
    assert made.topology.roles == ()
    assert made.candidate_id == PARENT.candidate_id
    assert "tokens a case" in made.origin.note


def test_attempts_grow_as_long_as_they_help_on_top_of_a_better_team(lm, examples):
    origin = team_search._try("as it is", TRIO, {}, examples[:6])
    found, _ = team_search._finished(PARENT, origin, examples[:6], TeamSettings(attempts=4, min_gain=0.01))
    within = [
        team_search.blackboard_accuracy(
            origin.candidate.topology.roles, origin.boards, examples[:6], within=n
        )
        for n in (1, 2, 3, 4)
    ]
    expected = 1
    while expected < 4 and within[expected] - within[expected - 1] >= 0.01:
        expected += 1
    assert found.topology.attempts == expected
