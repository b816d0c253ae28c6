"""The search over topologies: what it tries, what it proposes, and that what does not help goes."""

import pytest

from ratchet.agent.candidate import Role, Topology
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.program import base_candidate
from ratchet.agent.optimize import team_search
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.team_moves import MOST_ROLES, moves
from ratchet.agent.optimize.team_search import TeamSearch
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


def made(search, examples, work, parent=PARENT):
    evidence = Evidence(examples=examples, digests={"examples": "d"})
    return made_by(search, Registered(parent, {}, frozenset(["old"])), evidence, work)


def test_too_few_examples_are_refused(examples, work):
    with pytest.raises(NothingToPropose, match="at least 4 examples that the agent can answer, got 3"):
        made(TeamSearch(), examples[:3], work)


def test_which_half_is_searched_follows_from_the_seed_and_not_from_the_order(examples):
    one = TeamSearch().halves(PARENT, examples[:8], 0)
    assert (
        one == TeamSearch().halves(PARENT, examples[7::-1], 0) != TeamSearch().halves(PARENT, examples[:8], 1)
    )
    assert [len(half) for half in one] == [4, 4]


@pytest.mark.slow
def test_a_team_whose_roles_do_not_help_becomes_a_single_agent_for_fewer_tokens(
    lm, examples, monkeypatch, work
):
    useless = tuple(
        r if r.duty == "solve" else r.model_copy(update={"weight": 0.0}) for r in TRIO.topology.roles
    )
    team = TRIO.model_copy(update={"topology": Topology(roles=useless)})
    monkeypatch.setattr(team_search, "WEIGHTS", (0.0,))
    proposal = made(TeamSearch(rounds=3, min_gain=0.0), examples[:8], work, team)
    candidate = proposal.candidate
    assert candidate.topology.roles == ()
    assert candidate.candidate_id == PARENT.candidate_id
    assert "tokens a case" in candidate.origin.note
    assert "that chose nothing" in candidate.origin.note
    assert proposal.cost["topologies"] == candidate.origin.parameters["topologies_tried"] > 1
    assert set(proposal.seen_case_ids) == {"old", *(e.view.case_id for e in examples[:8])}
    assert (candidate.parent, candidate.origin.proposer) == (team.candidate_id, "team")
    assert candidate.origin.data_digest == "d"


def test_attempts_grow_as_long_as_they_help_on_top_of_a_better_team(lm, examples, work):
    origin = team_search._try("as it is", TRIO, {}, examples[:6], work)
    found, _ = TeamSearch(attempts=4, min_gain=0.01).finished(PARENT, origin, examples[:6])
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
