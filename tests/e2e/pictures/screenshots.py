"""Screenshots of what MLflow shows a person, taken by a headless Chromium.

Why the browser of the machine: Playwright's own download is one more thing that a set-up can fail at.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from playwright.sync_api import Error, sync_playwright
from playwright.sync_api import Page as Tab

from ratchet.agent.errors import BadInput, ServiceUnavailable

FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
"""Without the networking flags, Chromium looks for its maker's hosts at every start."""

_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT_S: Final = 120.0
_CLOSE_CHAT: Final = '[data-component-id="mlflow.assistant.chat_panel.close"]'
"""MLflow opens its chat beside the first page of a new profile; it hides a third of it."""


class Page(NamedTuple):
    """One page of MLflow, and texts that stand on it once it is complete."""

    name: str
    path: str
    shows: tuple[str, ...]
    clicks: tuple[str, ...] = ()
    """Texts to click before the picture is taken, all that show exactly this, or this with a count behind it."""
    then: tuple[str, ...] = ()
    """Texts that stand on it after the clicks."""


def compared(experiment_id: str, run_ids: list[str], shows: tuple[str, ...]) -> Page:
    """Versions side by side: what differs and what was found out."""
    where = f"#/compare-runs?runs={json.dumps(run_ids)}&experiments={json.dumps([experiment_id])}"
    clicks = ("Visualizations", "Show diff only", "Artifacts")
    return Page("versions_compared", where, shows, clicks)


def model(name: str) -> Page:
    """All versions of the agent, with their aliases."""
    return Page("model", f"#/models/{name}", (name, "champion"))


def trace(experiment_id: str, mlflow_trace_id: str, shows: tuple[str, ...]) -> Page:
    """One answer of the agent, opened, with its assessments."""
    where = f"#/experiments/{experiment_id}/traces?selectedEvaluationId={mlflow_trace_id}"
    return Page("trace_with_label", where, ("Assess",), clicks=("Assess",), then=shows)


def review_queue(experiment_id: str) -> Page:
    """Where people answer; MLflow opens its own, empty queue first."""
    where = f"#/experiments/{experiment_id}/review-queue"
    return Page("review_queue", where, ("To do",), clicks=("review",), then=("question",))


def drift_run(experiment_id: str, run_id: str, shows: tuple[str, ...]) -> Page:
    """The drift monitor's page: what it says now, and its evidence window by window."""
    return Page("drift", f"#/experiments/{experiment_id}/runs/{run_id}", shows, clicks=("Show more",))


def find_browser() -> str | None:
    """Path of an installed Chromium; None where there is none."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def browser_tab(width: int = 1400, height: int = 900) -> Iterator[Tab]:
    """A tab of a headless Chromium with an empty profile.

    Raises:
        BadInput: there is no Chromium.
    """
    path = find_browser()
    if path is None:
        raise BadInput("no Chromium on this machine: `apt-get install chromium`, or install it from its site")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=path,
            args=list(FLAGS),
            viewport={"width": width, "height": height},
            timeout=_TIMEOUT_S * 1000,
        )
        context.set_default_timeout(_TIMEOUT_S * 1000)
        try:
            yield context.pages[0] if context.pages else context.new_page()
        finally:
            context.close()


def open_page(tab: Tab, server: str, page: Page) -> str:
    """Open the page, wait for what it must show, click what it hides, and return its whole text.

    Raises:
        ServiceUnavailable: a text did not appear; names the first that is missing.
    """
    try:
        tab.goto("about:blank")  # only the fragment differs between pages, which would not load anew
        tab.goto(f"{server.rstrip('/')}/{page.path}", wait_until="commit")
        for text in page.shows:
            tab.get_by_text(text).first.wait_for(state="attached")
        for button in tab.locator(_CLOSE_CHAT).all():
            button.click()
        for text in page.clicks:
            wanted = tab.get_by_text(re.compile(rf"^{re.escape(text)}\s*\d*$"))
            wanted.first.wait_for(state="attached")
            for element in wanted.all():
                element.click()
        for text in page.then:
            tab.get_by_text(text).first.wait_for(state="attached")
        return tab.inner_text("body")
    except Error as error:
        raise ServiceUnavailable(f"{page.name} of {server} is not complete: {error.message}") from error


def take(tab: Tab, server: str, page: Page, folder: Path) -> Path:
    """A PNG of the page as a person sees it; returns its path."""
    open_page(tab, server, page)
    tab.get_by_text((page.then or page.shows)[0]).first.scroll_into_view_if_needed()
    tab.wait_for_timeout(1500)  # fades and late columns
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{page.name}.png"
    tab.screenshot(path=path)
    return path
