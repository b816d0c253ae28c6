"""Alerts to people: always on the console, and to a webhook where one is set.

An alert that did not arrive is the one thing that must not be silent: the console says what became of it, and what
could not be sent is kept and sent with the next.
"""

from datetime import datetime
from typing import Any, Final, Literal

import httpx
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from ratchet.agent.record import Record
from ratchet.infra.settings import Settings
from ratchet.infra.traces.spool import drain_spool, spool_lines

_ATTEMPTS: Final = 3
_TIMEOUT_S: Final = 10.0
_COLOUR: Final = {"info": "cyan", "warning": "yellow", "critical": "red"}


class Alert(Record):
    """What happened, since when, and where to look."""

    kind: str
    """`drift`, `regression`, `rollback`…: what a receiver routes by."""
    severity: Literal["info", "warning", "critical"] = "warning"
    title: str
    body: str
    since: datetime | None = None
    link: str | None = None
    key: str | None = None
    """The same each time one alert is sent, so that a receiver can drop a repeat."""


def send_alert(alert: Alert) -> None:
    """Show the alert, POST it if `RATCHET_ALERT_WEBHOOK` is set, and with it those that are still kept.

    A webhook that refuses or does not answer is told on the console, never raised: the caller's own work, such as
    finding the drift, is done.
    """
    _show(alert)
    settings = Settings()
    if settings.alert_webhook is not None:
        _post(alert, settings, settings.alert_webhook.get_secret_value())


def _show(alert: Alert) -> None:
    colour = _COLOUR[alert.severity]
    lines = [escape(alert.body)]
    if alert.since is not None:
        lines.append(f"[dim]since {alert.since:%Y-%m-%d %H:%M %Z}[/]")
    if alert.link is not None:
        lines.append(f"[dim]{escape(alert.link)}[/]")
    title = f"{alert.severity.upper()} · {alert.kind}: {alert.title}"
    Console(stderr=True).print(
        Panel("\n".join(lines), title=f"[bold]{escape(title)}[/]", border_style=colour)
    )


def _post(alert: Alert, settings: Settings, url: str) -> None:
    path, told = settings.home / "spool" / "alerts.jsonl", Console(stderr=True, soft_wrap=True)
    transport = httpx.HTTPTransport(retries=_ATTEMPTS - 1)  # connection errors only: a refusal is an answer
    with httpx.Client(transport=transport, timeout=_TIMEOUT_S) as client:
        failure = _attempt(client, url, _payload(alert))
        if failure is not None:
            spool_lines(path, [alert.to_json()])
            kept = escape(str(path))
            told.print(f"[yellow]![/] {failure}; the alert is kept in {kept} and sent with the next")
        elif late := drain_spool(path, lambda lines: _send_late(client, url, lines)):
            told.print(f"[green]✓[/] {late} kept alerts sent, too")


def _attempt(client: httpx.Client, url: str, payload: dict[str, Any]) -> str | None:
    """None = accepted; else why not, without the URL, which is a secret."""
    try:
        answer = client.post(url, json=payload)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"webhook did not answer ({type(error).__name__})"
    return None if answer.is_success else f"webhook answered {answer.status_code}"


def _send_late(client: httpx.Client, url: str, lines: list[str]) -> list[str]:
    """Send kept alerts; returns those that still failed."""
    return [line for line in lines if _attempt(client, url, _payload(Alert.from_json(line)))]


def _payload(alert: Alert) -> dict[str, Any]:
    """The record, and the one field that chat services show."""
    return alert.model_dump(mode="json") | {"text": f"{alert.title}: {alert.body}"}
