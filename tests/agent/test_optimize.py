"""Proposers on a handful of real cases: what they learn, what they record, and that seeds repeat."""

import itertools
import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from ratchet.agent.candidate import Topology
from ratchet.agent.environment import Option
from ratchet.agent.errors import BadInput, NothingToPropose
from ratchet.agent.kinds.program import RULED_OUT, Program, View, base_candidate, beside_the_lm
from ratchet.agent.lm.adapters import TRUNK
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import as_experience, learned_options, usable
from ratchet.agent.optimize.prompts.prompts import Prompts
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.optimize.vote_weights import Grid, tune
from ratchet.agent.optimize.weights.lora import Lora
from ratchet.agent.optimize.weights.options import train
from ratchet.agent.record import folder_hash

PARENT = base_candidate("Pick the tool that does what the request asks for.")
TINY = Lora(rank=4, epochs=2, batch_size=2, learning_rate=2e-3, first_layer=28)


def abstaining(example, answer="no_tool"):
    return example.model_copy(update={"answer": answer})


def test_an_answer_that_was_never_offered_becomes_an_option_from_three_on(examples):
    assert learned_options([abstaining(e) for e in examples[:2]]) == ()
    mixed = [*examples[:4], *(abstaining(e) for e in examples[4:7]), abstaining(examples[7], "typo")]
    assert [option.name for option in learned_options(mixed)] == ["no_tool"]
    assert len(usable(mixed, learned_options(mixed))) == 7
    assert len(usable(mixed, [])) == 4


def test_an_example_becomes_experience_with_its_source(examples):
    own = as_experience(examples[0].model_copy(update={"source": "own"}))
    assert (own.source, as_experience(examples[0]).source) == ("own", "human")
    assert own.action in own.options


class ScriptedFeatures(Program):
    """Scripted: the first feature names the answer, the others are noise that never helps."""

    def features(self, observation, recalled, goal=""):
        answers = {e.view.observation.text: e.answer for e in self.examples}
        names = [option.name for option in observation.options]
        right = np.array([float(name == answers[observation.text]) for name in names])
        return np.stack([right, *np.zeros((3, len(names)))])


def test_tuning_takes_the_smallest_helpful_weight_and_leaves_useless_ones_at_zero(lm, examples):
    program = ScriptedFeatures(
        PARENT.model_copy(update={"extra_options": (Option(name="no_tool"),)}), memory=Memory([])
    )
    program.examples = examples[:5]
    topology, accuracy, *_ = tune(
        program, examples[:5], Grid(retrieval=(0, 100, 200), recall=(0, 5), extra=(0, 5))
    )
    assert beside_the_lm(topology) == (100, 0, 0, RULED_OUT)
    assert accuracy == 1


def test_every_weight_that_tuning_tries_can_be_read_back():
    for values in itertools.product(*Grid()):
        names = ("retrieval_weight", "recall_weight", "extra_bias")
        tuned = Topology().model_copy(update=dict(zip(names, values, strict=True)))
        assert Topology.from_json(tuned.to_json(), where="a candidate") == tuned


def test_tuning_without_examples_is_refused():
    with pytest.raises(BadInput, match="at least 1 labelled example, got 0"):
        tune(Program(PARENT), [])


def made(proposer, examples, work, parent=PARENT, seen=("old",)):
    evidence = Evidence(examples=examples, digests={"examples": "d"})
    return made_by(proposer, Registered(parent, {}, frozenset(seen)), evidence, work)


def test_replay_remembers_tunes_and_records_what_it_saw(lm, examples, work):
    done = []

    @contextmanager
    def progress(title, total):
        assert (title, total) == ("replay: weighing the memory", 3)
        yield done.append

    replay = Replay(recalls=1, tune_on=3)
    proposal = made(replay, examples[:5], replace(work, progress=progress))
    candidate = proposal.candidate
    memory = Memory.load(proposal.files["memory"])
    assert candidate.memory == memory.memory_id
    assert len(memory.experiences) == 5
    assert (candidate.parent, candidate.topology.recalls) == (PARENT.candidate_id, 1)
    assert (candidate.origin.proposer, candidate.origin.data_digest) == ("replay", "d")
    assert set(proposal.seen_case_ids) == {"old", *(e.view.case_id for e in examples[:5])}
    assert sum(done) == 3
    again = made(replay, examples[4::-1], work)
    assert again.candidate.candidate_id == candidate.candidate_id
    assert type(candidate).from_json(candidate.to_json()) == candidate


def scores(lm, program, examples, adapter=None):
    return [lm.score(program.prompt(e.view)[0], adapter=adapter).log_probs for e in examples]


def test_replay_of_no_steps_is_no_challenger(examples, work):
    unusable = [example.model_copy(update={"answer": "what nobody offered"}) for example in examples[:2]]
    for nothing in ([], unusable):
        assert made(Replay(), nothing, work) is None


def test_lora_learns_repeats_by_seed_and_leaves_the_base_as_it_was(lm, examples, tmp_path):
    few, program = examples[:6], Program(PARENT)
    before = scores(lm, program, few)
    digests = [train(program, few, tmp_path / str(n), TINY, seed=seed) for n, seed in enumerate([0, 0, 1])]
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]
    assert digests[0][1][-1] < digests[0][1][0], "the loss falls"
    folders = [tmp_path / str(n) / digest for n, (digest, _) in enumerate(digests)]
    assert all(folder_hash(folder) == folder.name for folder in folders)
    config = json.loads((folders[0] / "adapter_config.json").read_text())
    assert "/" not in config["base_model_name_or_path"], "no path of this machine"
    assert config["target_modules"] == sorted(config["target_modules"]), "a set's order differs by process"

    lm._scores.clear()
    np.testing.assert_array_equal(np.concatenate(scores(lm, program, few)), np.concatenate(before))
    adapted = np.concatenate(scores(lm, program, few, folders[0]))
    assert not np.array_equal(adapted, np.concatenate(before))
    other = np.concatenate(scores(lm, program, few, folders[2]))
    assert not np.array_equal(adapted, other)
    lm._scores.clear()
    np.testing.assert_array_equal(np.concatenate(scores(lm, program, few, folders[1])), adapted)
    np.testing.assert_array_equal(np.concatenate(scores(lm, program, few)), np.concatenate(before))

    train(program, few[:2], tmp_path / "more", TINY.model_copy(update={"epochs": 1}))
    lm._scores.clear()
    np.testing.assert_array_equal(np.concatenate(scores(lm, program, few)), np.concatenate(before))
    np.testing.assert_array_equal(np.concatenate(scores(lm, program, few, folders[0])), adapted)


@pytest.mark.parametrize(
    ("n", "batch_size", "epochs"), [(1, 8, 1), (2, 1, 1), (2, 1, 5)], ids=["1 step", "2 steps", "10 steps"]
)
def test_lora_trains_whatever_the_number_of_steps(lm, examples, tmp_path, n, batch_size, epochs):
    settings = TINY.model_copy(update={"batch_size": batch_size, "epochs": epochs, "first_layer": 29})
    digest, losses = train(Program(PARENT), examples[:n], tmp_path, settings)
    assert len(losses) == epochs
    assert (tmp_path / digest / "adapter_model.safetensors").exists()
    assert not (tmp_path / "partial").exists()


def test_lora_refuses_no_examples_and_answers_outside_the_options(lm, examples, tmp_path):
    with pytest.raises(BadInput, match="at least 1 example, got 0"):
        train(Program(PARENT), [], tmp_path, TINY)
    with pytest.raises(
        BadInput, match=r"answer 'no_tool' is not among .*: drop the example or add the option"
    ):
        train(Program(PARENT), [abstaining(examples[0])], tmp_path, TINY)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_is_not_there_is_refused_by_name(lm, examples, tmp_path):
    with pytest.raises(BadInput, match=r"no adapter in .*nowhere"):
        scores(lm, Program(PARENT), examples[:1], tmp_path / "nowhere")


def test_an_adapter_of_shared_layers_is_refused(lm, examples, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "layers_to_transform": [3, 29]}')
    save_file({"weights": np.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(
        BadInput, match=rf"changes layers \[3, 29\]; the embedded LM shares all below {TRUNK}"
    ):
        scores(lm, Program(PARENT), examples[:1], tmp_path)


def test_lora_as_a_proposal_learns_new_options_and_records_what_it_saw(lm, examples, work):
    mixed = [examples[0], *(abstaining(e) for e in examples[1:4]), abstaining(examples[4], "typo")]
    proposal = made(TINY.model_copy(update={"epochs": 1, "first_layer": 29}), mixed, work)
    assert [option.name for option in proposal.candidate.extra_options] == ["no_tool"]
    assert proposal.candidate.adapter == proposal.files["adapter"].name
    assert proposal.candidate.origin.parameters["n_examples"] == 4
    assert set(proposal.seen_case_ids) == {"old", *(e.view.case_id for e in mixed)}
    assert "learned to answer no_tool" in proposal.candidate.origin.note


def test_lora_has_nothing_to_train_on_without_examples_or_behind_an_endpoint(examples, work):
    with pytest.raises(NothingToPropose, match="none of 0 examples has an answer"):
        made(TINY, [], work)
    with pytest.raises(NothingToPropose, match="the agent runs on openai/scripted"):
        made(TINY, examples[:2], work, base_candidate("Pick one.", model="openai/scripted"))


@pytest.mark.slow
def test_the_prompt_search_shows_training_cases_and_records_all_it_saw(lm, examples, work):
    few = [*examples[:8], abstaining(examples[8])]
    proposal = made(Prompts(demos=1, programs=1, validation=2, lead=0, instructions=()), few, work)
    predictor = proposal.candidate.predictors["choose"]
    by_case = {e.view.case_id: e for e in few}
    for demo in predictor.demos:
        assert demo.inputs == by_case[demo.case_id].view.observation.text
    assert len(predictor.demos) == 1
    assert set(proposal.seen_case_ids) == {"old", *by_case}
    assert proposal.cost["lm_calls"] > 0
    assert proposal.candidate.topology == Topology()
    assert type(proposal.candidate).from_json(proposal.candidate.to_json()) == proposal.candidate


def test_the_prompt_search_needs_something_to_show_and_something_to_score(examples, work):
    with pytest.raises(NothingToPropose, match="at least 2 examples whose answer was offered, got 1"):
        made(Prompts(), [examples[0], abstaining(examples[1])], work)


def test_an_example_knows_whether_its_answer_was_offered(examples):
    assert examples[0].is_offered
    assert not abstaining(examples[0]).is_offered
    assert isinstance(examples[0], Example)
    assert isinstance(examples[0].view, View)
