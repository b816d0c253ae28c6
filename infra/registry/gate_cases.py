"""Cases that a gate used up, and tests that are under way: in MLflow, so that every home sees the same.

Why not a file of one home: a case that chose a champion must never judge again, whoever runs the next gate and
whatever was deleted on this machine; and a test that was killed goes on wherever the next run happens.
"""

from typing import Final

from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry.event_log import LedgerEvent, append, in_portions, now, read_log
from ratchet.infra.registry.run_documents import keep, read_kept
from ratchet.infra.registry.version import find_version
from ratchet.infra.store.project_state import read_state, update_state

_OPEN_TEST: Final = "open_test"


def spent_cases(project: str) -> frozenset[str]:
    """Cases that can never judge again, from all homes on this MLflow; `close_ledger_test` spends them."""
    with mlflow_errors("reading the spent cases"):
        connection = connect(project)
        spent = frozenset(case_id for event in read_log(connection).events for case_id in event.cases)
        return _carried_over(connection, spent)


def _carried_over(connection: Connection, spent: frozenset[str]) -> frozenset[str]:
    """What an older version kept in this home's file goes into MLflow, once."""
    kept = frozenset(read_state(connection.project).spent_gate_cases)
    if kept:
        because = "kept in one home's state.json by an older version"
        for portion in in_portions(sorted(kept - spent)):
            append(
                connection, LedgerEvent(kind="spend", at=now(), candidate="", cases=portion, reason=because)
            )
        update_state(connection.project, spent_gate_cases=())
    return spent | kept


def read_open_test(project: str, candidate_id: str) -> str | None:
    """What `write_open_test` stored last; None if nothing was.

    Raises:
        CorruptRecord: it is not what was stored.
    """
    with mlflow_errors(f"reading the open test of {candidate_id}"):
        connection = connect(project)
        found = find_version(connection, candidate_id)
        digest = found.facts.get(_OPEN_TEST)
        return read_kept(connection, found.run_id, _OPEN_TEST, digest) if digest else None


def write_open_test(project: str, candidate_id: str, text: str) -> None:
    """Store how a test goes (JSON: order of its cases, settings) with the challenger; empty text forgets it.

    The text is an artifact named by its hash, and one tag points to it: a kill leaves the old one or the new one.
    """
    with mlflow_errors(f"writing the open test of {candidate_id}"):
        connection = connect(project)
        found = find_version(connection, candidate_id)
        digest = keep(connection, found.run_id, _OPEN_TEST, text) if text else ""
        connection.client.set_tag(found.run_id, _OPEN_TEST, digest)
