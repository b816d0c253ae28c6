"""Requests go to the host that was configured, or recorded with the candidate, and nowhere else."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

HERE = Path(__file__).parent
ADDRESS = "http://models.example/v1"


class LoggingProxy(BaseHTTPRequestHandler):
    """Notes every host that somebody asks for; for http it answers itself, as an LM that reads the request."""

    def do_POST(self):
        self.server.asked.append(urlsplit(self.path).hostname or self.headers["Host"])
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = str(body["messages"][-1]["content"]).rpartition("Request:")[2]
        message = {"role": "assistant", "content": "right" if "right" in request else "left"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "usage": usage}
        sent = json.dumps(answer | {"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def do_CONNECT(self):
        self.server.asked.append(self.path)
        self.send_error(502)

    do_GET = do_CONNECT

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy():
    server = ThreadingHTTPServer(("127.0.0.1", 0), LoggingProxy)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def play(proxy):
    """Run a part of `ask_everywhere` behind the proxy, with a vendor's key lying about, and other settings."""

    def run(part, folder, **settings):
        through = f"http://127.0.0.1:{proxy.server_port}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
        ours = {name: value for name, value in os.environ.items() if not name.startswith("LITELLM_")}
        ours |= dict.fromkeys(names, through) | {"NO_PROXY": "", "no_proxy": ""}
        ours |= {"OPENAI_API_KEY": "sk-vendor", "PYTHONPATH": str(HERE.parents[1])} | settings
        command = [sys.executable, str(HERE / "ask_everywhere.py"), part, str(folder)]
        return subprocess.run(
            command, env=ours, cwd=folder, capture_output=True, text=True, check=False, timeout=150
        )

    return run


@pytest.mark.slow
def test_whoever_asks_an_lm_asks_the_configured_host_and_later_the_recorded_one(make_project, play, proxy):
    ours = make_project()
    ours.ask("1: go left", "2: go right", "3: go up")
    made = play("everybody", ours.folder, SCRIPTED_MODEL="openai/scripted", RATCHET_LM_API_BASE=ADDRESS)
    assert set(proxy.asked) == {"models.example"}, made.stderr[-2000:]
    assert made.returncode == 0, made.stderr[-3000:]
    proxy.asked.clear()
    shell = play("loaded", ours.folder)
    assert set(proxy.asked) == {"models.example"}, shell.stderr[-2000:]
    assert shell.returncode == 0, shell.stderr[-3000:]


@pytest.mark.slow
def test_an_endpoint_without_an_address_is_refused_before_anything_is_asked_or_registered(
    make_project, play, proxy
):
    ours = make_project()
    ours.ask("1: go left")
    refused = play("everybody", ours.folder, SCRIPTED_MODEL="openai/scripted")
    assert (
        refused.stderr.strip()
        .splitlines()[-1]
        .startswith("ratchet.agent.errors.BadInput: LM openai/scripted has no address")
    )
    assert "RATCHET_LM_API_BASE" in refused.stderr
    assert proxy.asked == []
