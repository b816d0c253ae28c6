"""Label Studio that is not configured, or not there: one line that says what to do, and no host is asked."""

import socket
from datetime import UTC, datetime

import pytest

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.questions import Question
from ratchet.infra.review.back_end import back_end
from ratchet.infra.review.label_studio_page import PAGE, task_of

ASKED = Question(
    case=Case(inputs={"request": "<b>which?</b>", "tools": ["a", "b"]}),
    trace_id="0" * 32,
    answers=("</div><script>x</script>", ""),
)


@pytest.mark.parametrize("settings", [{}, {"URL": "labels.example"}, {"URL": "http://127.0.0.1:9"}])
def test_without_address_and_token_nothing_is_asked_and_a_line_says_what_to_set(
    project, monkeypatch, settings
):
    def nobody(*_):
        raise AssertionError("a host was looked up")

    for name, value in settings.items():
        monkeypatch.setenv(f"RATCHET_LABEL_STUDIO_{name}", value)
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    desk = back_end(RaterSettings(backend="label-studio"))
    for call in (
        lambda: desk.ask_comparisons(project, [ASKED]),
        lambda: desk.read_replies(project),
        lambda: desk.pending_comparisons(project),
    ):
        with pytest.raises(BadInput, match="set RATCHET_LABEL_STUDIO_URL"):
            call()


def test_a_server_that_is_not_there_is_said_to_be_so_and_the_call_may_be_repeated(project, monkeypatch):
    monkeypatch.setenv("RATCHET_LABEL_STUDIO_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RATCHET_LABEL_STUDIO_TOKEN", "x")
    with pytest.raises(ServiceUnavailable, match=r"Label Studio at http://127\.0\.0\.1:9 did not answer"):
        back_end(RaterSettings(backend="label-studio")).ask_comparisons(project, [ASKED])


def test_nothing_that_a_trace_holds_is_markup_on_the_page_and_no_version_is_named():
    task = task_of(ASKED)["data"]
    assert "<script" not in task["answers"]
    assert "&lt;script&gt;" in task["answers"]
    assert "(an empty text)" in task["answers"]
    assert "&lt;b&gt;which?&lt;/b&gt;" in task["conversation"]
    assert all(f'value="${name}"' in PAGE for name in ("reason", "conversation", "answers", "choices"))
    assert "candidate" not in str(task)
    assert datetime.now(UTC).isoformat()[:4] not in str(task)
