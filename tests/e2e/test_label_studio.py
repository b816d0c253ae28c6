"""A real Label Studio: a person answers in a browser, the server is killed and restarted, nothing is lost or doubled."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import pytest
from tests.e2e.pictures.screenshots import browser_tab

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.questions import Question, Reply
from ratchet.evaluation.gate.replies import people_wanted, settle_replies
from ratchet.infra.review.back_end import back_end
from ratchet.infra.review.label_studio import InLabelStudio
from ratchet.tasks.people import People

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

COMMAND = os.environ.get("LABEL_STUDIO") or shutil.which("label-studio")
HOW = "needs a Label Studio server, which does not install beside Ratchet: `make studio`, or name one in LABEL_STUDIO"
MAIL, PASSWORD = "ann@people.example", "correct horse 1"
RULES = RaterSettings(backend="label-studio")
IN_MARKUP = "<img src=http://elsewhere.example/p.png onerror=alert(1)>"


class Server:
    """A Label Studio over SQLite, and how to kill it."""

    def __init__(self, folder):
        self.folder, self.token = folder, secrets.token_hex(20)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [COMMAND, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(self.port)]
        command += ["--log-level", "ERROR", "--enable-legacy-api-token"]
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RATCHET"))
        }
        own |= {"LABEL_STUDIO_BASE_DATA_DIR": str(self.folder), "LABEL_STUDIO_USER_TOKEN": self.token}
        own |= {"LABEL_STUDIO_USERNAME": MAIL, "LABEL_STUDIO_PASSWORD": PASSWORD}
        own |= {"COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false"}
        own |= {"SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=own, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 400
        while time.monotonic() < until:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            try:
                if httpx.get(f"{self.address}/health", timeout=5).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.3)
        raise AssertionError(f"no answer: {(self.folder / 'server.log').read_text()[-2000:]}")

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=60)

    def call(self, method, path, token=None, **sent):
        headers = {"Authorization": f"Token {token or self.token}"}
        found = httpx.request(method, self.address + path, headers=headers, timeout=60, **sent)
        assert found.is_success, found.text
        return found.json()

    @contextmanager
    def account(self, mail):
        """Somebody of their own, logged in as a browser does."""
        with httpx.Client(base_url=self.address, follow_redirects=True, timeout=60) as client:
            form = client.get("/user/signup").text
            sent = {"email": mail, "password": PASSWORD, "allow_newsletters": "false"}
            sent["csrfmiddlewaretoken"] = re.search(
                r'name="csrfmiddlewaretoken" value="([^"]+)"', form
            ).group(1)
            client.headers["Referer"] = self.address
            assert client.post("/user/signup/", data=sent).is_success
            client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
            yield client

    def question_ids(self, page):
        asked = {"project": _home(page), "page": 1, "page_size": 5000, "fields": "all"}
        found = self.call("GET", "/api/tasks", params=asked)["tasks"]
        return Counter(one["data"]["question_id"] for one in found)

    def n_tasks(self, page):
        return self.call("GET", f"/api/projects/{_home(page)}")["task_number"]


def _home(page):
    return page.split("/projects/")[1].split("/")[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if COMMAND is None:
        pytest.skip(HOW)
    made = Server(tmp_path_factory.mktemp("label-studio"))
    made.start()
    yield made
    made.kill()


@pytest.fixture
def desk(server, monkeypatch):
    monkeypatch.setenv("RATCHET_LABEL_STUDIO_URL", f"{server.address}/")
    monkeypatch.setenv("RATCHET_LABEL_STUDIO_TOKEN", server.token)
    return back_end(RULES)


def question(n):
    said = [{"role": "user", "content": f"Which tool for request {n}? {IN_MARKUP}"}]
    return Question(
        case=Case(inputs={"messages": said}),
        trace_id=f"{n:032x}",
        answers=(f"left {n} {IN_MARKUP}", {"tool": f"right {n}"}),
        reason="the versions differ",
    )


def say(asked, rater, **said):
    return Reply(question_id=asked.question_id, rater=rater, created_at=datetime.now(UTC), **said)


class Person:
    """Somebody in a browser."""

    def __init__(self, tab, server):
        self.tab, self.server, self.hosts, self.dialogs = tab, server, Counter(), []
        tab.on("request", lambda request: self.hosts.update([request.url.split("/")[2].split(":")[0]]))
        tab.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        tab.goto(f"{server.address}/user/login/")
        tab.fill("input[name=email]", MAIL)
        tab.fill("input[name=password]", PASSWORD)
        tab.click("button[type=submit]")
        tab.wait_for_url(lambda url: "/user/login" not in url, wait_until="commit")

    def opens(self, page, shows):
        self.tab.goto(f"{page}?labeling=1")
        self.tab.frame_locator("iframe >> nth=1").get_by_text(shows).first.wait_for()

    def picks(self, name):
        self.tab.locator("label", has_text=name).first.click()

    def writes(self, text):
        self.tab.get_by_placeholder("Where none is").fill(text)
        self.tab.get_by_placeholder("Where none is").press("Shift+Enter")

    def sends(self):
        with self.tab.expect_response(lambda answer: "/annotations" in answer.url and answer.ok):
            self.tab.get_by_test_id("bottombar-submit-button").click()


def outcomes(project, asked):
    """What the gate's next run has of these."""
    settled = People(project, RULES).settled({one.question_id: one for one in asked})
    return [
        (settled[one.question_id].good, settled[one.question_id].better)
        if one.question_id in settled
        else None
        for one in asked
    ]


def test_answers_in_a_browser_survive_kill_and_restart_and_the_next_run_uses_exactly_these(
    project, server, desk
):
    asked = [question(n) for n in range(3)]
    for _ in range(2):
        desk.ask_comparisons(project, asked, RULES)
    assert desk.pending_comparisons(project) == asked
    page = InLabelStudio().labelling_page(project)
    with browser_tab() as tab:
        person = Person(tab, server)
        person.opens(page, "left 0 <img")
        person.picks("LEFT")
        person.sends()
        person.opens(page, "left 1 <img")
        person.writes("neither, but this")
        person.sends()
        server.kill()
        for ask in (
            lambda: desk.read_replies(project),
            lambda: desk.ask_comparisons(project, asked, RULES),
        ):
            with pytest.raises(ServiceUnavailable, match=r"did not answer .*; nothing was lost"):
                ask()
        server.start()
        desk.ask_comparisons(project, asked, RULES)
        assert desk.pending_comparisons(project) == asked[2:]
        person.opens(page, "left 2 <img")
        person.picks("RIGHT")
        person.sends()
        assert person.dialogs == []
        assert set(person.hosts) == {"127.0.0.1"}
    assert outcomes(project, asked) == [((0,), None), ((), "neither, but this"), ((1,), None)]
    assert {one.rater for one in desk.read_replies(project)} == {MAIL}
    assert server.question_ids(page) == {one.question_id: 1 for one in asked}
    assert desk.pending_comparisons(project) == []


def test_a_server_killed_while_it_is_asked_has_every_question_once_when_it_is_asked_again(
    project, server, desk
):
    asked = [question(n) for n in range(1500)]
    desk.ask_comparisons(project, asked[:1], RULES)
    page = InLabelStudio().labelling_page(project)
    ended = []

    def ask():
        try:
            desk.ask_comparisons(project, asked, RULES)
        except ServiceUnavailable as error:
            ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while server.n_tasks(page) < 100:
        assert asking.is_alive()
    server.kill()
    asking.join()
    assert len(ended) == 1
    server.start()
    for _ in range(2):
        desk.ask_comparisons(project, asked, RULES)
    assert server.question_ids(page) == {one.question_id: 1 for one in asked}
    assert desk.pending_comparisons(project) == asked


def test_skips_contradictions_and_corrections_come_back_as_said_and_a_third_is_asked(project, server, desk):
    rules = RULES.model_copy(update={"per_item": 2})
    asked = [question(n) for n in range(3)]
    desk.ask_comparisons(project, asked, rules)
    known = {one.question_id: one for one in asked}

    def goes_on():
        wanted = people_wanted(known, desk.read_replies(project), rules, datetime.now(UTC))
        return wanted[asked[0].question_id], desk.ask_more(project, wanted, rules)

    desk.reply(project, say(asked[0], "Ann", good=(0,), comment="sure"))
    desk.reply(project, say(asked[0], "bob", outcome="skip"))
    desk.reply(project, say(asked[0], "bob", good=(1,)))
    assert goes_on() == (1, 1)
    assert goes_on() == (1, 0)
    assert asked[0] in desk.pending_comparisons(project, "cleo")
    assert asked[0] not in desk.pending_comparisons(project, "ann")
    desk.reply(project, say(asked[0], "cleo", good=(1,)))
    assert goes_on() == (0, 0)
    desk.reply(project, say(asked[1], "ann", outcome="unclear"))
    desk.reply(project, say(asked[1], "bob"))
    read = [(r.rater, r.outcome, r.good, r.comment) for r in desk.read_replies(project)]
    assert read == [
        ("ann", "answered", (0,), "sure"),
        ("bob", "answered", (1,), ""),
        ("cleo", "answered", (1,), ""),
        ("ann", "unclear", (), ""),
        ("bob", "answered", (), ""),
    ]
    settled = settle_replies(known, desk.read_replies(project), rules, datetime.now(UTC))
    assert {one.good for one in settled.values()} == {(1,)}
    with pytest.raises(BadInput, match="answers 0 to 1"):
        desk.reply(project, say(asked[0], "ann", good=(7,)))
    with pytest.raises(BadInput, match="nobody was asked"):
        desk.reply(project, say(question(9), "ann"))


def test_a_skip_goes_to_the_next_account_and_who_logged_in_is_who_answered(project, server, desk):
    asked = question(0)
    desk.ask_comparisons(project, [asked], RULES)
    home = _home(InLabelStudio().labelling_page(project))
    with server.account("bob@people.example") as bob, server.account("cleo@people.example") as cleo:
        task = bob.get(f"/api/projects/{home}/next").json()["id"]
        skipped = {"result": [], "was_cancelled": True}
        assert bob.post(f"/api/tasks/{task}/annotations/", json=skipped).is_success
        assert bob.get(f"/api/projects/{home}/next").status_code == 404
        assert desk.pending_comparisons(project, "bob@people.example") == []
        assert desk.pending_comparisons(project, "cleo@people.example") == [asked]
        assert cleo.get(f"/api/projects/{home}/next").json()["id"] == task
        parts = ("which", "choices", {"choices": ["RIGHT"]}), ("rater", "textarea", {"text": ["ann"]})
        result = [{"from_name": a, "to_name": "answers", "type": b, "value": c} for a, b, c in parts]
        assert cleo.post(f"/api/tasks/{task}/annotations/", json={"result": result}).is_success
        read = [(one.rater, one.outcome, one.good) for one in desk.read_replies(project)]
        assert read == [("bob@people.example", "skip", ()), ("cleo@people.example", "answered", (1,))]
        assert desk.pending_comparisons(project) == []
        assert desk.ask_more(project, {asked.question_id: 1}, RULES) == 1
        assert server.call("GET", f"/api/projects/{home}/next")["id"] == task


def test_a_personal_token_does_and_a_wrong_one_is_refused_in_a_line(project, server, desk, monkeypatch):
    monkeypatch.setenv("RATCHET_LABEL_STUDIO_TOKEN", server.call("POST", "/api/token", json={})["token"])
    desk.ask_comparisons(project, [question(0)], RULES)
    assert len(desk.pending_comparisons(project)) == 1
    monkeypatch.setenv("RATCHET_LABEL_STUDIO_TOKEN", "f" * 40)
    with pytest.raises(BadInput, match=r"refuses the token \(status 401\)"):
        desk.pending_comparisons(project)
