"""Make room: remove what nobody needs any more. On a schedule; by hand `ratchet gc`, a dry run at first."""

from prefect import flow

from agent.record import Record
from infra.retention import Retention, remove, superfluous


class Freed(Record):
    """What was removed."""

    n_files: int
    n_bytes: int


@flow(name="gc", persist_result=False)
def gc(rules: Retention | None = None) -> Freed:
    """Reports, kept results and dataset versions that no version's lineage names; the newest always stay."""
    files = superfluous(rules or Retention())
    remove(files)
    return Freed(n_files=len(files), n_bytes=sum(one.n_bytes for one in files))
