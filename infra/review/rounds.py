"""Which questions people are asked now: a round of them, in MLflow, so that two homes do not ask twice as many.

Why the picks are in the log before they are in the queue: the first home at its place in the log decides what is
asked in a round, and the other asks nothing of its own; what a kill kept out of the queue is queued by the next run.
"""

from collections.abc import Sequence
from typing import Final

from ratchet.agent.record import Record
from ratchet.evaluation.data.selection import AT_RANDOM
from ratchet.infra.home_id import home_id
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry.event_log import LedgerEvent, Log, append, now, read_log
from ratchet.infra.review.queue import ReviewItem
from ratchet.infra.store.project_state import read_state, update_state

_PORTION: Final = 200
_LONGEST_REASON: Final = 200


class Round(Record):
    """What people were asked since the last decision."""

    number: int = 1
    picks: tuple[ReviewItem, ...] = ()
    episode: int = 0
    """Newest incident of drift whose region people were asked about, in this round or before."""


def read_round(project: str) -> Round:
    """The round that is open, the same for every home."""
    with mlflow_errors("reading the round of questions"):
        connection = connect(project)
        return _carried_over(connection, _replay(read_log(connection)))


def ask_in_round(project: str, seen: Round, picks: Sequence[ReviewItem], *, episode: int = 0) -> Round:
    """Make these the round's questions, or widen it by an incident's; where another home was first, its picks count.

    Args:
        project: Whose people.
        seen: The round for which the picks were made.
        picks: What to ask; none = nothing is written.
        episode: Incident of drift whose region they come from; 0 = none.
    """
    with mlflow_errors("opening a round of questions"):
        connection = connect(project)
        _append(connection, seen, picks, episode)
        return _replay(read_log(connection))


def random_picks(project: str) -> set[str]:
    """Traces that people were ever asked about because they were drawn at random on the training side."""
    with mlflow_errors("reading what people were asked at random"):
        events = read_log(connect(project)).events
    return {
        pick.trace_id
        for event in events
        if event.kind == "ask"
        for pick in event.picks
        if pick.reason.startswith(AT_RANDOM)
    }


def end_round(project: str) -> None:
    """The round's questions have served: the next run may ask anew. Nothing is written where none were asked."""
    current = read_round(project)
    with mlflow_errors("ending a round of questions"):
        if current.picks:
            append(connect(project), LedgerEvent(kind="round", at=now(), round=current.number))


def _append(connection: Connection, seen: Round, picks: Sequence[ReviewItem], episode: int) -> None:
    short = [pick.model_copy(update={"reason": pick.reason[:_LONGEST_REASON]}) for pick in picks]
    for start in range(0, len(short), _PORTION):
        event = LedgerEvent(
            kind="ask",
            at=now(),
            round=seen.number,
            episode=max(episode, seen.episode),
            home=home_id(connection.settings.home),
            picks=tuple(short[start : start + _PORTION]),
        )
        append(connection, event)


def _replay(log: Log) -> Round:
    current, writer = Round(), ""
    for event in log.events:
        if event.round != current.number:
            continue
        if event.kind == "round":
            current, writer = Round(number=current.number + 1, episode=current.episode), ""
        elif event.kind == "ask" and (not writer or event.home == writer or event.episode > current.episode):
            writer = event.home
            picks = {pick.trace_id: pick for pick in (*event.picks, *current.picks)}
            newest = max(event.episode, current.episode)
            current = Round(number=current.number, picks=tuple(picks.values()), episode=newest)
    return current


def _carried_over(connection: Connection, current: Round) -> Round:
    """What an older version kept in this home's file goes into MLflow, once."""
    state = read_state(connection.project)
    if not state.asked and not state.asked_about_episode:
        return current
    if not current.picks:
        why = "asked by an older version"  # they are in the queue; the propensity that counts is in the log of picks
        asked = [ReviewItem(trace_id=one, propensity=None, reason=why) for one in state.asked]
        _append(connection, current, asked, state.asked_about_episode)
    update_state(connection.project, asked=(), asked_about_episode=0)
    return _replay(read_log(connection))
