import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ratchet.infra.alerts import Alert, send_alert
from ratchet.infra.settings import Settings

ALERT = Alert(
    kind="drift",
    title="Requests changed",
    body="new [topic]",
    since=datetime(2026, 1, 5, tzinfo=UTC),
    link="http://m",
)


@pytest.fixture
def webhook(monkeypatch):
    """A real HTTP receiver: what it got, and the status it answers with."""
    got, status = [], [200]

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("RATCHET_ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/secret-key")
    yield got, status
    server.shutdown()
    thread.join()
    server.server_close()


def test_without_a_webhook_the_console_has_it_whole_and_stdout_nothing(capsys):
    send_alert(ALERT)
    out, err = capsys.readouterr()
    assert out == ""
    assert "WARNING · drift: Requests changed" in err
    assert "new [topic]" in err


def test_the_webhook_gets_the_record_and_a_text(webhook):
    got, _ = webhook
    send_alert(ALERT)
    assert got == [ALERT.model_dump(mode="json") | {"text": "Requests changed: new [topic]"}]


def test_a_refused_alert_is_kept_told_on_the_console_and_sent_with_the_next(webhook, capsys):
    got, status = webhook
    status[0] = 500
    send_alert(ALERT)
    assert "webhook answered 500; the alert is kept in" in capsys.readouterr().err
    status[0] = 200
    got.clear()
    send_alert(ALERT.model_copy(update={"title": "Second"}))
    assert "1 kept alerts sent, too" in capsys.readouterr().err
    assert [payload["title"] for payload in got] == ["Second", "Requests changed"]
    send_alert(ALERT)
    assert "kept" not in capsys.readouterr().err


def test_a_webhook_that_is_down_is_told_without_its_secret(monkeypatch, capsys):
    monkeypatch.setenv("RATCHET_ALERT_WEBHOOK", "http://127.0.0.1:9/secret-key")
    send_alert(ALERT)
    told = capsys.readouterr().err
    assert "did not answer (ConnectError)" in told
    assert "secret-key" not in told
    assert (Settings().home / "spool" / "alerts.jsonl").read_text() == ALERT.to_json() + "\n"
