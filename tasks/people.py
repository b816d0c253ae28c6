"""Hand to people: pick what is worth their time, with known propensities, and queue it in MLflow.

Nothing waits here: what is not answered yet is picked up by the next run.
"""

from prefect import task

from agent.record import Record
from agent.trace import Trace
from evaluation.cases import case_text
from evaluation.label import Label
from evaluation.novelty import novelty
from evaluation.selection import SelectionSettings, select
from infra.dataset_store import read_dataset
from infra.project_state import read_state, update_state
from infra.review_queue import ReviewItem, ask_people, pending
from tasks.collect import Collection


class Asked(Record):
    """How far people are with this round's questions."""

    n_asked: int
    n_waiting: int

    @property
    def enough(self) -> bool:
        """Four in five are answered: the rest must not hold up everybody."""
        return self.n_waiting <= self.n_asked / 5


@task(name="ask people")
def ask_for_labels(name: str, collection: Collection, settings: SelectionSettings) -> Asked:
    """Queue this round's questions, once; later calls count what is still open."""
    if not read_state(name).asked:
        picks = select_traces(name, collection, settings)
        ask_people(name, picks)
        update_state(name, asked=tuple(pick.trace_id for pick in picks))
    asked = set(read_state(name).asked)
    waiting = {item.trace_id for item in pending(name)}
    return Asked(n_asked=len(asked), n_waiting=len(asked & waiting))


def select_traces(name: str, collection: Collection, settings: SelectionSettings) -> list[ReviewItem]:
    """What to ask about among the traces that nobody was asked about before."""
    traces, labels = read_dataset(collection.traces, Trace), read_dataset(collection.labels, Label)
    known = {label.trace_id for label in labels if label.source == "human"}
    known |= {item.trace_id for item in pending(name)}
    taught = [case_text(trace.case) for trace in traces if trace.trace_id in known]
    fresh = [trace for trace in traces if trace.trace_id not in known]
    picks = select(fresh, settings, salt=name, novelty=novelty(taught))
    return [ReviewItem(trace_id=p.trace_id, propensity=p.propensity, reason=p.reason) for p in picks]
