"""Make room: remove what nobody needs any more. On a schedule; by hand `ratchet gc`, a dry run at first."""

from prefect import flow

from ratchet.agent.record import Record
from ratchet.infra.store.retention import Retention, remove, unneeded_files


class Freed(Record):
    """What was removed."""

    n_files: int
    n_bytes: int


@flow(name="gc", persist_result=False)
def gc(rules: Retention | None = None) -> Freed:
    """Reports, kept results and dataset versions that no version's lineage names; the newest always stay."""
    files = unneeded_files(rules or Retention())
    remove(files)
    return Freed(n_files=len(files), n_bytes=sum(one.n_bytes for one in files))
