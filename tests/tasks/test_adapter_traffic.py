"""No case is played and no traffic moves where a server answers 200 and serves its base: a real registry, a scripted
server with vLLM's API."""

import asyncio
import json

import pytest
from tests.scripted_vllm import BASE, adapter_folder, says, scripted_vllm
from tests.tasks.test_chat_gate import JUDGED, SYSTEM, Straight, case, team

from ratchet.agent.errors import BadInput
from ratchet.agent.lm.adapter_name import adapter_name, with_adapter
from ratchet.agent.project import load_project
from ratchet.agent.record import folder_hash
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.infra import adapter_server
from ratchet.infra.registry.agents import _loaded
from ratchet.infra.registry.registry import aliased, champion, fetch_files, promote, register, version_of
from ratchet.infra.serve.chat import ChatRoute
from ratchet.infra.serve.journal import Journal
from ratchet.infra.serve.relay import Relay
from ratchet.infra.serve.report import Served
from ratchet.infra.serve.server import Server
from ratchet.infra.settings import Settings
from ratchet.infra.store.dataset_store import write_dataset
from ratchet.tasks.adapters import probe_adapters
from ratchet.tasks.curate import RoundData
from ratchet.tasks.gate import hold
from ratchet.tasks.promote import promote_best
from ratchet.tasks.serve import first_champion


def trained(weights, prompt):
    """The adapter knows the teams, the base does not."""
    request = json.loads(prompt)[-1]["content"]
    known = [one for one in JUDGED if one == request]
    return team(known[0]) if known and weights != BASE else says(weights, prompt)


@pytest.fixture
def vllm():
    with scripted_vllm(trained) as server:
        yield server


@pytest.fixture
def folder(project, vllm, tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_LM_API_KEY", "x")
    (tmp_path / "ratchet.toml").write_text(
        f'[agent]\nname = "{project}"\nupstream = "{vllm.address}"\nmodel = "{BASE}"\n'
        f'system = "{SYSTEM}"\nscore = "contains"\n'
    )
    return tmp_path


@pytest.fixture
def versions(project, folder):
    """Ids of the first day's version, which serves, and of one with an adapter."""
    first = first_champion(load_project(folder))
    adapter = adapter_folder(folder / "adapter")
    tuned = with_adapter(first.candidate, folder_hash(adapter)).model_copy(
        update={"parent": first.candidate_id}
    )
    register(project, tuned, files={"adapter": adapter}, seen_case_ids=[], cost={})
    return first.candidate_id, tuned.candidate_id


def another_process():
    """Nothing is known but what MLflow keeps."""
    adapter_server._made.clear()
    _loaded.cache_clear()


def test_a_gate_a_promotion_and_a_schedule_believe_answers_and_not_names(
    project, folder, vllm, versions, capsys
):
    first, tuned = versions
    labelled = write_dataset("labelled", [case(request) for request in JUDGED])
    data = RoundData(
        training=labelled, labelled=labelled, rollouts=labelled, imported=labelled, champion=first,
        n_human=len(JUDGED), left_out={},
    )  # fmt: skip

    def gate():
        another_process()
        players = Straight(str(folder), project, labelled)
        return hold(project, data, [tuned], GateSettings(min_cases=8, batch=16), players)

    def decide(gated):
        another_process()
        return promote_best.fn(project, gated, approved_by="a policy", folder=str(folder))

    vllm.serves_base = True
    gated = gate()
    assert (gated.judged, gated.best) == ((), None)
    (problem,) = gated.problems
    assert problem.startswith(f"no case is played on {tuned}: no probe prompt tells adapter ratchet-")

    vllm.serves_base = False
    gated = gate()
    assert gated.best.candidate_id == tuned
    vllm.serves_base = True
    decision = decide(gated)
    assert not decision.promoted
    assert f"not promoted: {vllm.address} answers as its base" in decision.reason
    assert champion(project).candidate_id == first
    assert aliased(project, "challenger") is None
    with pytest.raises(BadInput, match=r"answers as its base .* no traffic is moved to it"):
        promote(project, tuned, approved_by="anna", reason="it looks good")
    assert champion(project).candidate_id == first
    vllm.serves_base = False
    assert decide(gated).promoted
    assert champion(project).candidate_id == tuned

    vllm.restart()
    assert probe_adapters.fn(str(folder)) == ()
    assert list(vllm.loaded) == [adapter_name(version_of(project, tuned).candidate.adapter)]
    vllm.serves_base = True
    (line,) = probe_adapters.fn(str(folder))
    assert line.startswith(f"champion {tuned}: {vllm.address} answers as its base")
    assert "CRITICAL · adapter" in capsys.readouterr().err


def test_a_process_that_serves_moves_to_a_version_only_if_its_adapter_answers_and_loads_what_a_restart_lost(
    project, folder, vllm, versions, tmp_path
):
    first, tuned = (
        Served(number=n, candidate=version_of(project, one).candidate, files=fetch_files(project, one))
        for n, one in enumerate(versions, start=1)
    )
    server = Server(load_project(folder), Settings())
    name = adapter_name(tuned.candidate.adapter)

    def serves():
        return server.deployments.by_alias["champion"].number

    async def switch(one):
        another_process()
        await server._switch({"champion": one}, [1, 2])

    async def ask(route):
        body = {"model": f"ratchet/{project}", "messages": [{"role": "user", "content": JUDGED[0]}]}
        messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        sent = []

        async def receive():
            return messages.pop() if messages else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        await route({"headers": []}, receive, send)
        return sent[0]["status"], json.loads(sent[-1]["body"])["choices"][0]["message"]["content"]

    async def story():
        await switch(first)
        vllm.serves_base = True
        await switch(tuned)
        assert serves() == 1, "the alias stays as it was"
        vllm.serves_base = False
        await switch(tuned)
        assert serves() == 2
        relay, journal = Relay(vllm.address, None, timeout_s=10), Journal(tmp_path / "journals")
        route = ChatRoute(server.deployments, relay, journal, max_body=10_000)
        vllm.restart()
        assert await ask(route) == (200, team(JUDGED[0]))
        assert name in vllm.loaded
        await journal.close()
        await relay.close()

    asyncio.run(story())
