"""Start the demo over: its home is renamed, never deleted, since it holds a person's experiments too."""

from datetime import UTC, datetime

from ratchet.flows.commands.terminal import console
from ratchet.infra.settings import Settings


def forget() -> None:
    """Put the present home aside; the next run begins with an empty one."""
    home = Settings().home
    if home.exists():
        aside = home.with_name(f"{home.name}-{datetime.now(UTC):%Y%m%dT%H%M%S}")
        home.rename(aside)
        console.print(
            f"  the earlier demo is kept in {aside}; MLflow finds its files when it has its name back"
        )
