"""What a person sees of the finished demo in MLflow: a real server, a real Chromium."""

import os
import socket
import subprocess
import sys
import time

import httpx
import pytest
from tests.e2e.pictures.screenshots import browser_tab, find_browser, model, open_page, review_queue, take
from tests.e2e.pictures.take import pages, unlike

from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.registry import version_history

pytestmark = [pytest.mark.story, pytest.mark.browser, pytest.mark.slow, pytest.mark.server]
if find_browser() is None and not os.environ.get("CI"):
    pytestmark.append(pytest.mark.skip(reason="no Chromium on this machine; CI has one and does not skip"))


@pytest.fixture(scope="module")
def mlflow_pages(demo):
    """Address of an MLflow server on the demo's home; one worker, no jobs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{demo.home}/mlflow.db"]
    command += ["--artifacts-destination", str(demo.home / "artifacts")]
    log = demo.home.parent / "server.log"
    with log.open("wb") as sink:
        server = subprocess.Popen(command, cwd=demo.home.parent, stdout=sink, stderr=sink)
    try:
        until = time.monotonic() + 240
        while True:
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until, log.read_text()[-2000:]
            try:
                if httpx.get(f"{url}/health", timeout=2).is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.3)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def tab():
    with browser_tab(1300, 1250) as opened:
        yield opened


def page_named(name):
    return next(page for page in pages("demo") if page.name == name)


def test_the_models_page_shows_the_versions_and_which_one_is_champion(demo_home, mlflow_pages, tab):
    text = open_page(tab, mlflow_pages, model("demo"))
    assert "champion" in text
    assert all(f"Version {version.number}" in text for version in version_history("demo"))


def test_two_versions_compared_differ_and_show_their_verdicts_sentences(demo_home, mlflow_pages, tab):
    text = open_page(tab, mlflow_pages, page_named("versions_compared"))
    pair = unlike([version for version in version_history("demo") if version.verdict is not None])
    for version in pair:
        assert version.candidate_id in text
        assert version.candidate.origin.proposer in text
        assert version.reason in text
    assert "accuracy_low" in text


def test_a_trace_shows_the_label_that_a_person_gave_it(demo_home, mlflow_pages, tab):
    text = open_page(tab, mlflow_pages, page_named("trace_with_label"))
    assert "expected" in text
    assert "stand-in" in text


def test_the_review_page_shows_the_projects_queue(demo_home, mlflow_pages, tab):
    text = open_page(tab, mlflow_pages, review_queue(connect("demo").experiment_id))
    assert "review" in text


def test_the_pictures_of_the_readme_can_be_taken_again(demo_home, mlflow_pages, tab, tmp_path):
    for page in pages("demo")[:2]:
        path = take(tab, mlflow_pages, page, tmp_path)
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 20_000
