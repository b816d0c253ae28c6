"""Parts in the user's own process: the version that MLflow's alias points to, its traces, and an MLflow that is gone."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
from tests.evidence import give_verdict

from ratchet.agent import parts
from ratchet.agent.candidate import IN_CODE, Candidate, Predictor, Topology
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience, tally
from ratchet.agent.record import content_hash
from ratchet.agent.trace import RECALLED
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.infra.parts.kept import keep
from ratchet.infra.parts.look import look_at_mlflow
from ratchet.infra.parts.serving import Asked, Known
from ratchet.infra.parts.source import ServedParts
from ratchet.infra.registry.promotion import promote, roll_back
from ratchet.infra.registry.registry import register, set_alias
from ratchet.infra.settings import Settings
from ratchet.infra.traces.foreign import KnownVersions, Reading, foreign_trace

BETTER = decide(
    [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)], alpha=0.001
)


def candidate(project, text, **changes):
    told = {"tools": {f"{project}-find": f"tool of {text}"}, "base_model": IN_CODE, "kind": "callable"}
    prompts = {f"{project}-system": Predictor(instructions=text)}
    return Candidate(**(told | {"predictors": prompts} | changes))


def registered(project, made, **files):
    return register(project, made, files=files, seen_case_ids=[], cost={})


def serve(project, made, **files):
    """Register it and let it serve, as proven against the one before."""
    version = registered(project, made, **files)
    before = next((v for v in _versions(project) if "champion" in v.aliases), None)
    if before is not None:
        give_verdict(project, version.candidate_id, before.candidate_id, BETTER)
    promote(project, version.candidate_id, approved_by="anna", reason="proven")
    return version


def _versions(project):
    from ratchet.infra.registry.registry import version_history

    return version_history(project)


@pytest.fixture
def source(monkeypatch):
    """This process reads its parts from MLflow, and asks each time."""
    monkeypatch.setenv("RATCHET_PARTS_TTL_S", "0")
    monkeypatch.setattr(parts, "_declared", set())
    parts.read_from(made := ServedParts())
    yield made
    parts.read_from(None)


def test_a_part_has_the_champion_s_value_and_follows_promotion_and_rollback(project, source, tmp_path):
    system = parts.prompt(f"{project}-system", default="as in the code")
    find = parts.tool_description(f"{project}-find", default="a tool")
    unknown = parts.prompt(f"{project}-other", default="nobody's")
    assert (system(), find(), unknown()) == ("as in the code", "a tool", "nobody's")
    serve(project, candidate(project, "first"))
    assert (system(), find(), unknown()) == ("first", "tool of first", "nobody's")
    assert parts.model(project, default="small") == "small"
    memory = Memory(
        [Experience(case_id="c", observation="my card fails", action="heron", trace_id="t", source="human")]
    )
    memory.save(tmp_path / "memory.jsonl")
    second = candidate(
        project, "second", memory=memory.memory_id, models={project: "big"}, topology={"recalls": 2}
    )
    serve(project, second, memory=tmp_path / "memory.jsonl")
    assert (system(), str(find), parts.model(project, default="small")) == (
        "second",
        str(find),
        "big",
    )
    assert parts.examples(project, "the card fails") == [
        {"role": "user", "content": "my card fails"},
        {"role": "assistant", "content": "heron"},
    ]
    roll_back(project, by="anna", reason="worse")
    assert (system(), parts.examples(project, "the card fails")) == ("first", [])


def test_a_trace_names_the_version_that_its_parts_were_read_from_and_keeps_it_while_the_alias_moves(
    project, source
):
    system = parts.prompt(f"{project}-system", default="as in the code")
    first = serve(project, candidate(project, "first"))
    second = registered(project, candidate(project, "second"))
    give_verdict(project, second.candidate_id, first.candidate_id, BETTER)
    with mlflow.start_span("answer") as span:
        before = system()
        promote(project, second.candidate_id, approved_by="anna", reason="proven")
        assert (before, system()) == ("first", "first")
    assert system() == "second"
    mlflow.flush_trace_async_logging()
    tags = mlflow.get_trace(span.trace_id).info.tags
    assert tags["candidate_id"] == first.candidate_id
    assert json.loads(tags["mlflow.linkedPrompts"]) == [{"name": f"{project}-system", "version": "1"}]


def test_a_trace_of_the_users_own_code_names_the_examples_that_it_was_shown(project, source, tmp_path):
    steps = [
        Experience(case_id=n, observation=f"my card {n}", action="heron", trace_id=n * 32, source="own")
        for n in "ab"
    ]
    memory = Memory(steps)
    memory.save(path := tmp_path / "memory.jsonl")
    recalling = candidate(project, "first", memory=memory.memory_id, topology=Topology(recalls=1))
    serve(project, recalling, memory=path)
    system = parts.prompt(f"{project}-system", default="x")
    assert len(parts.examples(f"{project}-system", "my card a")) == 2, "no trace: there is nothing to mark"
    with mlflow.start_span("answer") as span:
        system()
        assert len(parts.examples(f"{project}-system", "my card a")) == 2
        parts.examples(f"{project}-system", "my card b")
        with mlflow.start_span("llm", span_type="CHAT_MODEL") as call:
            call.set_inputs({"messages": [{"role": "user", "content": "my card a"}]})
            call.set_outputs({"choices": [{"message": {"role": "assistant", "content": "heron"}}]})
    mlflow.flush_trace_async_logging()
    found = mlflow.get_trace(span.trace_id)
    assert found.info.tags[RECALLED] == f"{'a' * 32},{'b' * 32}"
    trace, _ = foreign_trace(found, Reading(), KnownVersions())
    assert trace.attempts[0].recalled == ("a" * 32, "b" * 32)
    assert tally([trace], {trace.trace_id: 1.0})["b" * 32].led_to_success == 1
    found.info.tags[RECALLED] = f"<script>,{'c' * 32},{'c' * 32}"
    assert foreign_trace(found, Reading(), KnownVersions())[0].attempts[0].recalled == ("c" * 32,)


def test_a_session_is_answered_by_one_version_until_that_is_rolled_back(project, source):
    system = parts.prompt(f"{project}-system", default="as in the code")
    serve(project, candidate(project, "first"))

    def said(session_id):
        with parts.session(session_id):
            return system()

    assert said("before") == "first"
    second = serve(project, candidate(project, "second"))
    assert (said("before"), said("after"), system()) == ("first", "second", "second")
    with parts.session("after"), mlflow.start_span("autologged") as span:
        pass
    mlflow.flush_trace_async_logging()
    info = mlflow.get_trace(span.trace_id).info
    assert info.tags["candidate_id"] == second.candidate_id
    assert info.trace_metadata["mlflow.trace.session"] == "after"
    with parts.session("after"):
        roll_back(project, by="anna", reason="worse")
        assert system() == "second", "what is under way ends as its trace says"
    assert (said("before"), said("after")) == ("first", "first")


def test_a_share_of_the_sessions_is_drawn_by_their_ids_and_the_trace_keeps_arm_and_propensity(
    project, source, monkeypatch
):
    monkeypatch.setenv("RATCHET_PARTS_TTL_S", "600")
    system = parts.prompt(f"{project}-system", default="as in the code")
    serve(project, candidate(project, "first"))
    alone = _in_session("s0", 0.3, system)
    assert alone[1] == {"ratchet.arm": "champion", "ratchet.propensity": "1"}, "nobody was drawn"
    other = registered(project, candidate(project, "other"))
    set_alias(project, other.candidate_id, "challenger")
    parts.read_from(ServedParts())
    ids = [f"s{n}" for n in range(400)]
    drawn = {one: _in_session(one, 0.3, system) for one in ids}
    by_challenger = [one for one, (text, _) in drawn.items() if text == "other"]
    assert 90 < len(by_challenger) < 150
    told = dict(drawn.values())
    assert told["other"] == {"ratchet.arm": "challenger", "ratchet.propensity": "0.3"}
    assert told["first"] == {"ratchet.arm": "champion", "ratchet.propensity": "0.7"}
    parts.read_from(ServedParts())
    again = [one for one in ids if _in_session(one, 0.3, system)[0] == "other"]
    assert again == by_challenger, "another process draws the same"
    set_alias(project, None, "challenger")
    parts.read_from(ServedParts())
    assert _in_session(by_challenger[0], 0.3, system)[0] == "first"


def _in_session(session_id, share, system):
    from mlflow.tracing.context import get_configured_trace_tags

    with parts.session(session_id, share=share):
        tags = get_configured_trace_tags() or {}
        return system(), {name: value for name, value in tags.items() if name.startswith("ratchet.")}


def test_tasks_and_threads_read_the_session_s_version(project, source):
    system = parts.prompt(f"{project}-system", default="as in the code")
    serve(project, candidate(project, "first"))

    async def answer(session_id):
        with parts.session(session_id):
            await asyncio.sleep(0)
            return system(), await asyncio.to_thread(system)

    async def side_by_side():
        return await asyncio.gather(*(answer(f"s{n}") for n in range(8)))

    assert asyncio.run(side_by_side()) == [("first", "first")] * 8
    serve(project, candidate(project, "second"))
    with ThreadPoolExecutor(4) as pool, parts.session("s1"):
        carried = [pool.submit(parts.carried(system)) for _ in range(8)]
        plain = [pool.submit(system) for _ in range(8)]
        assert {one.result() for one in carried} == {"first"}
        assert {one.result() for one in plain} == {"second"}, "a plain thread knows no session"


@pytest.mark.parametrize("hangs", [False, True])
def test_while_mlflow_is_gone_a_part_keeps_its_last_value_and_nobody_waits(
    project, source, monkeypatch, hangs
):
    system = parts.prompt(f"{project}-system", default="as in the code")
    serve(project, candidate(project, "first"))
    assert system() == "first"
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        if hangs:
            gone.listen(100)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{gone.getsockname()[1]}")
        assert _within(1.5, system) == "first"
        assert _within(5, lambda: {system() for _ in range(20)}) == {"first"}, "not a second for each"
        parts.read_from(ServedParts())
        assert _within(1.5, system) == "as in the code"
        assert _within(5, lambda: {system() for _ in range(20)}) == {"as in the code"}
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        until = time.monotonic() + 30
        while system() != "first" and time.monotonic() < until:
            time.sleep(0.05)
        assert system() == "first"


def test_a_process_that_starts_while_mlflow_is_gone_begins_with_what_its_machine_knew(
    project, source, monkeypatch, tmp_path
):
    system = parts.prompt(f"{project}-system", default="as in the code")
    memory = Memory(
        [Experience(case_id="c", observation="my card fails", action="heron", trace_id="t", source="human")]
    )
    memory.save(tmp_path / "memory.jsonl")
    first = candidate(project, "first", memory=memory.memory_id, topology={"recalls": 1})
    serve(project, first, memory=tmp_path / "memory.jsonl")
    asked = [Asked("prompt", f"{project}-system"), Asked("examples", project)]
    known = look_at_mlflow(Settings(), asked, Known())
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{gone.getsockname()[1]}")
        assert system() == "as in the code"
        keep(Settings(), known)
        parts.read_from(ServedParts())
        assert system() == "first"
        assert parts.examples(project, "the card fails")[1]["content"] == "heron"
        (kept,) = (Settings().home / "cache").glob(f"parts-{content_hash(Settings().tracking_uri)}.json")
        kept.write_text(kept.read_text().replace("first", "changed"))
        parts.read_from(ServedParts())
        assert system() == "as in the code", "what is not whole is not used"


def _within(seconds, call):
    began = time.monotonic()
    answer = call()
    assert time.monotonic() - began < seconds, "a second, and what a machine at work takes on top"
    return answer


def test_a_part_that_two_projects_have_keeps_its_default_and_says_what_to_do(
    project, source, monkeypatch, caplog
):
    part = f"{project}-both"
    for name in (project, f"{project}-b"):
        made = candidate(name, name, predictors={f"{name}-p": Predictor(instructions=name)})
        serve(name, made.model_copy(update={"tools": {part: f"of {name}"}}))
    find = parts.tool_description(part, default="as in the code")
    assert (find(), find()) == ("as in the code", "as in the code")
    said = [record.getMessage() for record in caplog.records if part in record.getMessage()]
    assert len(said) == 1
    assert "set RATCHET_PROJECT to yours" in said[0]
    monkeypatch.setenv("RATCHET_PROJECT", project)
    parts.read_from(ServedParts())
    assert find() == f"of {project}"


READER = """
import sys

pickled, reached = [], set()

def watch(event, args):
    if event.startswith("pickle."):
        pickled.append(args)
    if event == "socket.connect" and isinstance(args[1], tuple):
        reached.add(args[1][:2])

sys.addaudithook(watch)
import time
began = time.monotonic()
import ratchet
import_s = time.process_time()
system = ratchet.prompt({part!r}, default="as in the code")
until = began + 60  # a machine at work may take longer than the second that a part waits
while system() == "as in the code" and time.monotonic() < until:
    time.sleep(0.1)
texts = [system(), ratchet.examples({part!r}, "the card fails")]
import json, os
changed = [n for n in os.environ if n.startswith(("MLFLOW_HTTP", "MLFLOW_TRACKING")) and n not in {before!r}]
print(json.dumps([texts, import_s, [str(p) for p in pickled], sorted(map(list, reached)), changed]))
"""
STRANGER = """
import sys

sys.modules["ratchet"] = None  # it is not there
import mlflow

for line in sys.stdin:
    print(mlflow.genai.load_prompt("prompts:/{part}@champion", cache_ttl_seconds=0).template, flush=True)
"""


def test_a_process_that_has_only_mlflow_s_address_reads_the_part_or_its_prompt(
    project, mlflow_server, monkeypatch, tmp_path
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    memory = Memory(
        [Experience(case_id="c", observation="my card fails", action="heron", trace_id="t", source="human")]
    )
    memory.save(tmp_path / "memory.jsonl")
    first = candidate(project, "first", memory=memory.memory_id, topology={"recalls": 1})
    serve(project, first, memory=tmp_path / "memory.jsonl")
    part = f"{project}-system"
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    alone = kept | {"MLFLOW_TRACKING_URI": mlflow_server, "RATCHET_PARTS_TTL_S": "0.1"}
    (tmp_path / "elsewhere").mkdir()
    told = {"env": alone, "cwd": tmp_path / "elsewhere", "text": True, "timeout": 120}
    code = READER.format(part=part, before=["MLFLOW_TRACKING_URI"])
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, **told).stdout
    texts, import_s, pickled, reached, changed = json.loads(said.splitlines()[-1])
    assert texts == [
        "first",
        [{"role": "user", "content": "my card fails"}, {"role": "assistant", "content": "heron"}],
    ]
    assert (pickled, changed) == ([], [])
    host, port = mlflow_server.removeprefix("http://").split(":")
    assert reached == [[host, int(port)]]
    assert import_s < 0.2, "seconds of the processor, the interpreter's start included"
    stranger = subprocess.Popen(
        [sys.executable, "-c", STRANGER.format(part=part)],
        env=alone,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with stranger:
        assert _asked(stranger) == "first"
        serve(project, candidate(project, "second"))
        assert _asked(stranger) == "second"
        roll_back(project, by="anna", reason="worse")
        assert _asked(stranger) == "first"
        stranger.stdin.close()


def _asked(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()
