"""Hand to people: pick what is worth their time, with known propensities, and queue it in MLflow.

Nothing waits here: what is not answered yet is picked up by the next run. While an alarm stands, the picks go to
the region that drifted first; a round that was open when it came is widened by that region, once.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from prefect import task

from ratchet.agent.record import Record
from ratchet.evaluation.data.cases import split_salt
from ratchet.evaluation.data.conversations import earlier_calls
from ratchet.evaluation.data.novelty import novelty, some
from ratchet.evaluation.data.selection import SelectionSettings, select
from ratchet.infra.drift.watch_store import read_watch
from ratchet.infra.review.queue import ReviewItem, ask_people, asked_before, still_waiting
from ratchet.infra.review.rounds import ask_in_round, read_round
from ratchet.infra.store.collected import (
    LABELS,
    TRACES,
    collected_traces,
    columns_of,
    places_of,
    texts_of,
    unasked,
)
from ratchet.infra.store.dataset_store import DatasetVersion
from ratchet.tasks.collect import Collection


class LabelRequest(Record):
    """How far people are with this round's questions."""

    n_asked: int
    n_waiting: int

    @property
    def enough(self) -> bool:
        """Four in five are answered: the rest must not hold up everybody."""
        return self.n_waiting <= self.n_asked / 5

    @property
    def reason(self) -> str:
        """For whoever wonders why nothing new is proposed."""
        return f"{self.n_waiting} of {self.n_asked} questions wait for people: answer them, then run again"


@task(name="ask people")
def ask_for_labels(
    name: str, collection: Collection, settings: SelectionSettings, seed: int = 0, *, by_call: bool = False
) -> LabelRequest:
    """Queue this round's questions, once; later calls count what is still open.

    `by_call`: a trace is one call of an LM, and of a conversation people are asked about the last.
    """
    watch, current = read_watch(name), read_round(name)
    episode = watch.episodes.open.number if watch.episodes.open and watch.drifted else 0
    picks: list[ReviewItem] = []
    if not current.picks:
        picks = select_traces(name, collection, settings, watch.drifted, seed=seed, by_call=by_call)
    elif episode > current.episode:
        more = settings.model_copy(update={"gate_labels": 0, "train_labels": settings.train_labels // 2})
        picks = select_traces(
            name, collection, more, watch.drifted, only_drifted=True, seed=seed, by_call=by_call
        )
    if picks:
        current = ask_in_round(name, current, picks, episode=episode)
    drawn = [pick for pick in current.picks if pick.propensity is not None]
    ask_people(name, drawn)  # the old ones, too: a run killed before may have left some out of the queue
    asked = {pick.trace_id for pick in current.picks}
    return LabelRequest(n_asked=len(asked), n_waiting=len(still_waiting(name, asked)))


def select_traces(
    name: str,
    collection: Collection,
    settings: SelectionSettings,
    drifted: Mapping[str, str] | None = None,
    *,
    only_drifted: bool = False,
    seed: int = 0,
    by_call: bool = False,
) -> list[ReviewItem]:
    """What to ask about among the traces that nobody was asked about before."""
    traces = collection.traces
    known = asked_before(
        name
    )  # not who else was labelled: labels unasked for must not thin the gate's sample
    labels = columns_of(LABELS, collection.labels, "trace_id", "source")
    told = known | {one["trace_id"] for one in labels.to_pylist() if one["source"] == "human"}
    fresh, places = unasked(traces, known, gate_share=settings.gate_share, salt=split_salt(name, seed))
    if by_call:
        last = ~np.isin(fresh.trace_ids, np.array(sorted(_earlier(name, traces)), dtype="S32"))
        fresh, places = fresh.only(last), places[last]
    if only_drifted:
        region = np.isin(fresh.trace_ids, np.array(sorted(drifted or {}), dtype="S32"))
        fresh, places = fresh.only(region), places[region]
    new_to = novelty(texts_of(traces, some(places_of(traces, told), seed=seed)))
    picks = select(
        fresh,
        settings,
        novelty=lambda rows: new_to(texts_of(traces, places[rows])),
        drifted=drifted,
        seed=seed,
    )
    return [ReviewItem(trace_id=p.trace_id, propensity=p.propensity, reason=p.reason) for p in picks]


def _earlier(name: str, traces: DatasetVersion) -> set[str]:
    """Calls after which their conversation went on; only traces of sessions that have several are read."""
    stored = columns_of(TRACES, traces, "trace_id", "session_id").to_pylist()
    times = Counter(one["session_id"] for one in stored)
    several = [one["trace_id"] for one in stored if one["session_id"] and times[one["session_id"]] > 1]
    return earlier_calls(collected_traces(name, several))
