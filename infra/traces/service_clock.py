"""The clock that arrivals are counted by: MLflow's, wherever it can be asked, and not that of whoever writes.

Why: a writer whose clock is two hours ahead would otherwise move the watermark past what all others write.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from ratchet.infra.mlflow_client import Connection
from ratchet.infra.traces.rows import database_now

OFF_S: Final = 60.0
"""Clocks that differ by less are taken for equal: an answer may take as long."""


def here() -> datetime:
    """This machine's clock."""
    return datetime.now(UTC)


def there(connection: Connection) -> datetime:
    """The clock of MLflow's server, or of its PostgreSQL; ours for a file, and where it tells none."""
    uri = connection.settings.tracking_uri
    if not connection.is_server:
        return database_now(uri) if uri.startswith("postgresql") else here()
    answer = http_request(  # type: ignore[no-untyped-call]
        host_creds=get_default_host_creds(uri),  # type: ignore[no-untyped-call]
        endpoint="/health",
        method="GET",
    )
    date = answer.headers.get("Date")
    return parsedate_to_datetime(date) if date else here()


def ahead_s(own: datetime, theirs: datetime) -> int:
    """Seconds by which our clock is ahead of theirs; 0 where they agree within a minute."""
    off = (own - theirs).total_seconds()
    return 0 if abs(off) < OFF_S else round(off)
