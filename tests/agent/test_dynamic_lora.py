"""Adapters behind a server: its API, the names, and what is asked by them; a scripted server with vLLM's answers."""

import pytest
from tests.scripted_vllm import BASE, adapter_folder, says, scripted_vllm

from ratchet.agent.build import make_agent
from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.environment import Observation
from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.agent.kinds.chat_endpoint import Chat, chat_candidate
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.program import base_candidate
from ratchet.agent.lm.adapter_name import adapter_name, through_adapter, with_adapter
from ratchet.agent.lm.dynamic_lora import LoraServer
from ratchet.agent.lm.lm import Prompt
from ratchet.agent.lm.of_candidate import lm_for
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.optimize.work import Work
from ratchet.agent.parts import model
from ratchet.agent.project import Project

ONE, TWO = "1" * 16, "2" * 16


@pytest.fixture
def vllm():
    with scripted_vllm() as server:
        yield server


def test_an_adapter_is_loaded_once_listed_and_taken_off_again(vllm, tmp_path):
    server, folder = LoraServer(vllm.address), adapter_folder(tmp_path / "a")
    name = adapter_name(ONE)
    assert set(server.served()) == {BASE}
    for _ in range(2):
        listed = server.load(name, str(folder))
        assert (listed.parent, listed.root) == (BASE, str(folder))
    assert vllm.loads() == 1
    server.unload(name)
    server.unload(name)
    assert set(server.served()) == {BASE}


def test_what_the_server_refuses_is_one_line_with_the_remedy(vllm, tmp_path):
    server = LoraServer(vllm.address)
    with pytest.raises(BadInput, match=r"404 .*No adapter found.*RATCHET_LORA_FOLDER"):
        server.load("a", str(tmp_path / "nowhere"))
    other = adapter_folder(tmp_path / "b", config='{"base": "another-base"}')
    with pytest.raises(BadInput, match=r"400 .*expecting other modules.*trained for the model"):
        server.load("b", str(other))
    vllm.forgets_at_once = True
    with pytest.raises(BadInput, match="says that adapter c is loaded and does not list it"):
        server.load("c", str(adapter_folder(tmp_path / "c")))
    with pytest.raises(ServiceUnavailable, match="ConnectError"):
        LoraServer("http://127.0.0.1:9/v1").served()


def test_a_name_that_another_process_loaded_meanwhile_is_fine(vllm, tmp_path):
    folder, first = adapter_folder(tmp_path / "a"), vllm.answer

    def answer(path, body):
        if path == "/v1/load_lora_adapter":
            vllm.loaded["a"] = str(folder)  # a moment before ours
        return first(path, body)

    vllm.answer = answer
    assert LoraServer(vllm.address).load("a", str(folder)).parent == BASE


def test_an_endpoint_asks_by_the_adapter_s_name_and_loads_what_a_restart_lost(vllm, tmp_path):
    digest, folder = ONE, adapter_folder(tmp_path / "a")
    candidate = base_candidate("Answer.", model=f"hosted_vllm/{BASE}", api_base=vllm.address)
    candidate = with_adapter(candidate, digest)
    server = LoraServer(vllm.address)
    told = {"api_key": "x", "load_again": lambda: server.load(adapter_name(digest), str(folder))}
    lm = lm_for(candidate, None, told)
    said = {lm.write(Prompt("", "Hello.")).text}
    vllm.restart()
    said.add(lm.write(Prompt("", "Hello.")).text)
    assert said == {says("adapter", '[{"role": "user", "content": "Hello."}]')}
    assert vllm.loads() == 2
    base = lm_for(candidate.model_copy(update={"adapter": None}), None, {"api_key": "x"})
    assert base.write(Prompt("", "Hello.")).text not in said
    with pytest.raises(BadInput, match="only servers with dynamic LoRA do"):
        through_adapter("anthropic/claude", ONE)


def test_a_chat_endpoint_is_asked_by_the_adapter_s_name_and_loads_what_a_restart_lost(vllm, tmp_path):
    folder, name = adapter_folder(tmp_path / "a"), adapter_name(ONE)
    chat = Chat(upstream=vllm.address, model=BASE)
    project = Project(name="p", agent=chat, effects="none")
    server = LoraServer(vllm.address)
    endpoint = {"load_again": lambda: server.load(name, str(folder)), "num_retries": 0}
    agent = make_agent(project, with_adapter(chat_candidate(chat), ONE), {}, endpoint=endpoint)
    view = View(case_id="c", observation=Observation(text="Hello."), inputs={"request": "Hello."})
    answers = [agent.act(view).action for _ in range(2)]
    assert vllm.calls[-1] == f"/v1/chat/completions {name}"
    assert vllm.loads() == 1
    plain = make_agent(project, chat_candidate(chat), {}, endpoint={"num_retries": 0}).act(view).action
    assert answers[0] == answers[1] != plain


def test_a_callable_s_model_part_says_the_adapter_s_name_while_the_version_is_played():
    def support(question: str) -> str:
        return model("support", default="in the code")

    first = Candidate(kind="callable", predictors={}, base_model="in the agent's code")
    project = Project(name="p", agent=support, effects="none")
    view = View(case_id="c", observation=Observation(text="?"), inputs={"question": "?"})

    def asked(candidate):
        return make_agent(project, candidate, {}).act(view).action.arguments["content"]

    tuned = with_adapter(first, ONE, model_part="support")
    prefixed = first.model_copy(update={"models": {"support": "hosted_vllm/tiny/base"}})
    prefixed = with_adapter(prefixed, TWO, model_part="support")
    assert [asked(one) for one in (first, tuned, prefixed)] == [
        "in the code",
        adapter_name(ONE),
        f"hosted_vllm/{adapter_name(TWO)}",
    ]
    with pytest.raises(BadInput, match=r"name the `ratchet\.model` part"):
        with_adapter(first, ONE)


def test_two_adapters_never_share_an_answer_that_is_kept(vllm, tmp_path):
    """DSPy's cache, the proposers' kept calls, what a server keeps by the adapter's name, and candidates' ids."""
    base = base_candidate("Answer.", model=f"hosted_vllm/{BASE}", api_base=vllm.address)
    tuned = [with_adapter(base, digest) for digest in (ONE, TWO)]
    lms = [lm_for(one, None, {"api_key": "x"}) for one in (base, *tuned)]
    assert len({lm.dspy.model for lm in lms}) == len({lm.model for lm in lms}) == 3
    assert len({one.candidate_id for one in (base, *tuned)}) == 3
    for digest, weights in ((ONE, "one"), (TWO, "two")):
        LoraServer(vllm.address).load(adapter_name(digest), str(adapter_folder(tmp_path / weights, weights)))
    work = Work(folder=tmp_path, calls=Calls(tmp_path / "calls.db", "scope"))
    asked = [{work.write(lm, "Hello.") for _ in range(2)} for lm in lms]
    assert [len(said) for said in asked] == [1, 1, 1]
    assert len(set.union(*asked)) == 3


def test_embedded_adapters_of_one_folder_name_never_share_an_answer_either(tmp_path):
    """MLflow lays each model's adapter in a folder `adapter`."""
    base = Candidate(predictors={"choose": Predictor(instructions="x")}, base_model="smollm2-135m-instruct")
    folders = [adapter_folder(tmp_path / weights / "adapter", weights) for weights in ("one", "two")]
    lms = [lm_for(base, folder) for folder in (None, *folders)]
    assert len({lm.dspy.model for lm in lms}) == 3
