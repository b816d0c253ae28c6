"""Adapters are loaded where their LM is asked, and proven to answer; a scripted server with vLLM's API."""

import pytest
from tests.scripted_vllm import BASE, adapter_folder, says, scripted_vllm

from ratchet.agent.candidate import Candidate, Demo, Predictor
from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.agent.lm.adapter_name import adapter_name
from ratchet.agent.record import folder_hash
from ratchet.infra import adapter_server
from ratchet.infra.adapter_server import AdapterServer, adapters_behind
from ratchet.infra.settings import Settings


@pytest.fixture
def vllm():
    with scripted_vllm() as server:
        yield server


def tuned(folder, model=f"hosted_vllm/{BASE}"):
    predictor = Predictor(instructions="Answer.", demos=(Demo(inputs="Is it late?", output="No."),))
    return Candidate(predictors={"choose": predictor}, base_model=model, adapter=folder_hash(folder))


def server_of(vllm, folder, **settings):
    adapter_server._made.clear()  # as in another process
    known = Settings(lm_api_base=vllm.address, **settings)
    return AdapterServer(tuned(folder), {"adapter": folder}, known)


def test_an_adapter_is_proven_by_prompts_that_tell_it_from_its_base_and_by_these_ever_after(vllm, tmp_path):
    folder = adapter_folder(tmp_path / "a")
    name = adapter_name(folder_hash(folder))
    probes = server_of(vllm, folder).prove({})
    (probe,) = probes.values()
    assert (list(probes), probe.adapter, len(probe.telling)) == ([name], name, 6)
    assert {"role": "user", "content": "Is it late?"} in probe.telling[0].messages  # the agent's own first
    asked = len(vllm.calls)
    assert server_of(vllm, folder).prove(probes) == probes
    assert len([call for call in vllm.calls[asked:] if "chat" in call]) == 6
    vllm.restart()  # it has forgotten
    assert server_of(vllm, folder).prove(probes) == probes
    assert vllm.loads() == 2


def test_a_server_that_answers_200_with_its_base_is_found_out_at_once_and_later(vllm, tmp_path):
    folder = adapter_folder(tmp_path / "a")
    probes = server_of(vllm, folder).prove({})
    vllm.serves_base = True
    with pytest.raises(
        BadInput, match=rf"answers as its base {BASE} where adapter ratchet-.* no traffic is moved"
    ):
        server_of(vllm, folder).prove(probes)
    with pytest.raises(BadInput, match=r"no probe prompt tells adapter .* 13 were asked and answered alike"):
        server_of(vllm, folder).prove({})
    vllm.serves_base = False
    assert server_of(vllm, folder).prove(probes) == probes


def test_another_adapter_under_the_name_is_loaded_anew_and_refused_if_it_stays(vllm, tmp_path):
    folder, other = adapter_folder(tmp_path / "a"), adapter_folder(tmp_path / "b", "other")
    name = adapter_name(folder_hash(folder))
    probes = server_of(vllm, folder).prove({})
    vllm.loaded[name] = str(other)
    assert server_of(vllm, folder).prove(probes) == probes  # taken off and loaded again
    assert vllm.loaded[name] == str(folder)
    vllm.script = lambda weights, prompt: says("other" if weights == "adapter" else weights, prompt)
    with pytest.raises(BadInput, match="neither as the adapter nor as its base"):
        server_of(vllm, folder).prove(probes)


def test_where_the_base_itself_answers_otherwise_the_probe_is_made_anew(vllm, tmp_path):
    folder = adapter_folder(tmp_path / "a")
    probes = server_of(vllm, folder).prove({})
    vllm.script = lambda weights, prompt: says(f"a new version of the server {weights}", prompt)
    anew = server_of(vllm, folder).prove(probes)
    assert anew != probes
    assert server_of(vllm, folder).prove(anew) == anew


def test_adapters_lie_where_the_server_sees_them_whole(vllm, tmp_path):
    folder, theirs = adapter_folder(tmp_path / "a"), tmp_path / "as the server sees it"
    theirs.symlink_to(tmp_path / "shared", target_is_directory=True)
    name = adapter_name(folder_hash(folder))
    told = {"lora_folder": f"{tmp_path / 'shared'}:{theirs}"}
    server_of(vllm, folder, **told).prove({})
    assert vllm.loaded == {name: f"{theirs}/{name}"}
    (tmp_path / "shared" / name / "adapter_model.safetensors").write_text("cut off")
    vllm.restart()
    server_of(vllm, folder, **told).prove({})
    assert folder_hash(tmp_path / "shared" / name) == folder_hash(folder)
    (tmp_path / "a file").write_text("")
    with pytest.raises(BadInput, match=r"cannot be copied to .*RATCHET_LORA_FOLDER"):
        server_of(vllm, folder, lora_folder=str(tmp_path / "a file")).prove({})


def test_an_adapter_that_is_cut_off_reaches_no_server(vllm, tmp_path):
    folder = adapter_folder(tmp_path / "a")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(BadInput, match="is truncated or altered"):
        server_of(vllm, folder).prove({})
    assert vllm.calls == []


def test_only_versions_whose_lm_a_server_has_are_proven_and_a_vendor_loads_nothing(tmp_path):
    folder = adapter_folder(tmp_path / "a")
    files = {"adapter": folder}
    assert adapters_behind(tuned(folder, "smollm2-135m-instruct"), files) == {}
    assert adapters_behind(tuned(folder).model_copy(update={"adapter": None}), {}) == {}
    with pytest.raises(BadInput, match="its LM hosted_vllm/tiny/base is at its vendor"):
        AdapterServer(tuned(folder), files, Settings(lm_api_base="vendor")).prove({})
    with pytest.raises(ServiceUnavailable, match="ConnectError"):
        AdapterServer(tuned(folder), files, Settings(lm_api_base="http://127.0.0.1:9/v1")).prove({})
