"""What a person reads of a conversation: nothing that a user wrote is markup, and nothing of it is lost."""

import pytest

from ratchet.agent.case import Case
from ratchet.infra.traces.markdown import (
    CUT,
    answer_markdown,
    as_markdown,
    as_written,
    chat_messages_of,
    cut,
    request_markdown,
    side_by_side,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("![x](http://e.example/p.png)", r"\![x]\(http://e.example/p.png)"),
        ("[a](javascript:alert(1)) [b][c] [c]: http://e.example", r"[a]\(javascript:alert(1)) [b]\[c] [c]\: http://e.example"),
        ("<img src=x> a < b", r"\<img src=x> a < b"),
        ("&lt;b&gt; fish & chips", r"\&lt;b\&gt; fish & chips"),
        ("- one\n- **two**", "- one\n- **two**"),
        ("```\n![x](u)\n```\n![x](u)", "```\n![x](u)\n```\n\\![x]\\(u)"),
        ("```py\nopen", "```py\nopen\n```"),
        ("- a\n  ```\n![x](u)", "- a\n  ```\n\\![x]\\(u)"),
        ("<div>\n```\n\n![x](u)", "\\<div>\n```\n\n![x](u)\n```"),
        ("```a`b\n![x](u)", "```a`b\n\\![x]\\(u)"),
        ("````\n```\n![x](u)\n````\n<b>", "````\n```\n![x](u)\n````\n\\<b>"),
    ],
)  # fmt: skip
def test_what_would_fetch_link_or_run_is_shown_as_it_was_written(text, shown):
    assert as_markdown(text) == shown
    assert as_written(shown).startswith(text)


def test_two_answers_stand_in_a_table_a_row_a_paragraph():
    table = side_by_side(("LEFT", "RIGHT"), ["a|b\nc\n\n- d\n- e", "f"])
    assert table.splitlines() == [
        "| LEFT | RIGHT |", "|---|---|", r"| a\|b c | f |", "| - d |  |", "| - e |  |",
    ]  # fmt: skip


@pytest.mark.parametrize("answers", [["```\nx\n```", "y"], ["| a |\n|---|", "y"], ["a", "b", "c"]])
def test_answers_with_blocks_and_more_than_two_stand_one_below_another(answers):
    names = ("LEFT", "RIGHT") if len(answers) == 2 else ("A", "B", "C")
    shown = side_by_side(names, answers)
    assert shown == "\n\n---\n\n".join(f"#### {n}\n\n{a}" for n, a in zip(names, answers, strict=True))


def test_calls_of_tools_options_and_other_inputs_are_no_json():
    call = {"tool_calls": [{"name": "find`it", "arguments": {"n": 1}}, {"name": "end", "arguments": {}}]}
    assert answer_markdown(call) == '`` find`it `` with `{"n": 1}`\n\n`end`'
    inputs = {"request": "Hi", "tools": [{"name": "a", "description": "does\na"}, {"name": "b"}], "n": 3}
    assert request_markdown(inputs) == "Hi\n\n**tools**\n\n- `a`: does a\n- `b`\n\n**n:** 3"
    assert answer_markdown({"a": 1}) == '```json\n{\n  "a": 1\n}\n```'


def test_a_chat_keeps_its_messages_and_what_is_none_is_shown_as_data():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "<b>"},
    ]
    assert chat_messages_of(Case(inputs={"messages": messages})) == [
        {"role": "user", "content": "see\n[image_url]"},
        {"role": "assistant", "content": '`f` with `{"x": 1}`'},
        {"role": "tool", "content": r"\<b>"},
    ]
    (odd,) = chat_messages_of(Case(inputs={"messages": [{"who": "me"}]}))
    assert odd["content"].startswith("**messages**\n\n```json")
    (seen,) = chat_messages_of(Case(inputs={"task": 3}), "You are in a *room*.")
    assert seen["content"] == "You are in a *room*.\n\n**task:** 3"


def test_what_is_cut_says_so_and_closes_its_code():
    assert cut("short", 1000) == "short"
    shown = cut("```\n" + "x" * 2000, 1000)
    assert (len(shown) <= 1000, shown.endswith(f"\n``` {CUT}")) == (True, True)
