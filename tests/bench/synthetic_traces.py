"""Traces by the million: requests recombined from words, written straight into the store as a collect would."""

import hashlib
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.record import content_hash
from ratchet.agent.trace import Attempt, Step, Trace, Usage
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.drift.watch_state import WatchSettings, WatchState
from ratchet.evaluation.drift.watching import RECENT, look
from ratchet.infra.drift.watch_store import change_watch, watch_lock
from ratchet.infra.store.collected import TRACES, ids_since, keep_labels, keep_traces, newest_traces, served
from ratchet.infra.store.dataset_files import write_text
from ratchet.infra.store.dataset_log import Manifest, log_folder
from ratchet.infra.store.dataset_partition import RECORD_COLUMN, write_partition
from ratchet.infra.store.project_state import update_state
from ratchet.infra.traces.write import Watermark

VERBS = ("cancel", "move", "find", "refund", "explain", "book", "change", "confirm", "repeat", "price")
THINGS = ("flight", "hotel", "invoice", "order", "booking", "seat", "bag", "card", "account", "address")
WHENS = (
    "today",
    "tomorrow",
    "on Monday",
    "next week",
    "as soon as you can",
    "before noon",
    "at last",
    "again",
)
START = datetime(2026, 1, 5, tzinfo=UTC)
SEEN = 400
"""Traces that the watch really looks at, its reference among them."""
_AT_ONCE = 20_000

PROJECT = '''"""Synthetic: the environment scores what it is asked."""

from ratchet.agent.environment import Observation, Option, Outcome
from ratchet.agent.project import Project


class World:
    def reset(self, case):
        return Observation(text=str(case.inputs["request"]), options=(Option(name="a"), Option(name="b")))

    def step(self, action):
        return Observation(text="done"), True

    def outcome(self):
        return Outcome(score=1.0)


project = Project(name="__NAME__", instructions="Pick.", environment=World, traffic=list, scores_itself=False)
'''


def write_project(folder: Path, name: str) -> None:
    """A project whose traces these are."""
    (folder / "project.py").write_text(PROJECT.replace("__NAME__", name))


def id_of(i: int) -> str:
    """As scattered as real ones."""
    return hashlib.md5(str(i).encode(), usedforsecurity=False).hexdigest()


def request(i: int, rng: random.Random) -> str:
    """Some forty to eighty characters."""
    return (
        f"please {rng.choice(VERBS)} my {rng.choice(THINGS)} {rng.choice(WHENS)}, "
        f"and {rng.choice(VERBS)} the {rng.choice(THINGS)} number {i}"
    )


def trace(i: int, rng: random.Random) -> Trace:
    """One trace of a single step."""
    asked = request(i, rng)
    step = Step(observation=asked, action=Action(name=rng.choice("ab")), confidence=round(rng.random(), 3))
    return Trace(
        trace_id=id_of(i),
        case=Case(inputs={"request": asked}, slice="chat"),
        candidate_id="c0ffee",
        session_id=f"s{i // 3}",
        started_at=START + timedelta(seconds=i),
        latency_s=0.25,
        usage=Usage(input_tokens=100, output_tokens=5, lm_calls=1),
        attempts=(Attempt(steps=(step,), outcome=Outcome(score=float(rng.random() < 0.7))),),
    )


def new_traces(first: int, n: int) -> list[Trace]:
    """Those that come after the stored ones."""
    rng = random.Random(first)
    return [trace(i, rng) for i in range(first, first + n)]


def fill_store(name: str, n: int) -> None:
    """Store `n` traces, and say that MLflow was read up to them."""
    folder = log_folder(TRACES, name)
    folder.mkdir(parents=True, exist_ok=True)
    first = keep_traces(name, new_traces(0, min(SEEN, n)))
    parts = Manifest.from_json(Path(first.uri).read_text()).partitions
    tables = _tables(first.n_rows, n)
    manifest = Manifest(partitions=(*parts, *(write_partition(TRACES, folder, table) for table in tables)))
    path = folder / f"{manifest.n_rows:012d}-{manifest.digest}.json"
    write_text(manifest.to_json(), path, TRACES.name, n)
    served(name, [])  # makes the index
    mark = Watermark(received_ms=int(datetime.now(UTC).timestamp() * 1000), labelled_ms=0)
    update_state(name, watermark=mark, traces=newest_traces(name), labels=keep_labels(name, []))


def see_all(name: str) -> None:
    """Let the watch have its reference from the first traces, and have counted all the others."""
    version = newest_traces(name)
    everything = ids_since(version, 0)
    state = look(
        WatchState(),
        {trace.trace_id: trace for trace in new_traces(0, min(SEEN, len(everything)))},
        (),
        WatchSettings(),
        datetime.now(UTC),
    )
    counted = state.model_copy(update={"recent": tuple(everything[-RECENT:]), "n_counted": len(everything)})
    with watch_lock(name):
        change_watch(name, lambda _: counted)


def _tables(first: int, n: int) -> Iterator[pa.Table]:
    """As `table_of` makes them, by the text of one trace with other values put in: a hundred times as fast."""
    whole = trace(0, random.Random(0))
    for start in range(first, n, _AT_ONCE):
        rng = random.Random(start)
        rows = [_values(whole, i, rng) for i in range(start, min(start + _AT_ONCE, n))]
        columns = list(zip(*rows, strict=True))
        schema = [pa.field(RECORD_COLUMN, pa.string()), *TRACES.columns]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        yield pa.table(arrays, names=[field.name for field in schema])


def _values(whole: Trace, i: int, rng: random.Random) -> tuple[object, ...]:
    asked, action = request(i, rng), rng.choice("ab")
    confidence, score = round(rng.random(), 3), float(rng.random() < 0.7)
    at = START + timedelta(seconds=i)
    ids = id_of(i), content_hash({"request": asked}), f"s{i // 3}", "c0ffee"
    stamp = at.isoformat().replace("+00:00", "Z")
    record = (
        f'{{"schema_version":1,"trace_id":"{ids[0]}","case":{{"inputs":{{"request":{json.dumps(asked)}}},'
        f'"expected":null,"slice":"chat","seen_at":null}},"candidate_id":"c0ffee","memory_id":null,'
        f'"session_id":"{ids[2]}","started_at":"{stamp}","latency_s":0.25,"usage":{{"input_tokens":100,'
        f'"output_tokens":5,"lm_calls":1,"cost_usd":0.0}},"attempts":[{{"steps":[{{"actor":"agent","observation":'
        f'{json.dumps(asked)},"thought":null,"parts":[],"action":{{"name":"{action}","arguments":null}},'
        f'"result":null,"confidence":{confidence}}}],"outcome":{{"score":{score},"feedback":"","details":{{}}}},'
        f'"reflection":null,"recalled":[]}}],"error":null,"stopped":null}}'
    )
    return record, *ids, int(at.timestamp() * 1e6), asked, confidence, score, None, True


def some_labels(name: str, n: int) -> None:
    """People's answers to `n` of the stored traces, kept as a collect keeps them."""
    said = [
        Label(trace_id=id_of(i), expected="a", source="human", rater="anna", created_at=START)
        for i in range(n)
    ]
    update_state(name, labels=keep_labels(name, said))
