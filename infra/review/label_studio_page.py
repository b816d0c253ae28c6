"""What a person sees of a question in Label Studio: the conversation, the answers side by side, and what to say.

Why both are pieces of HTML that we escape: there may be two answers or eight, and a page has a fixed number of parts.
Nothing of theirs is markup, so a page that a person opens asks no host that a trace names.
"""

import json
from html import escape
from typing import Any, Final

from ratchet.agent.case import Case
from ratchet.agent.record import Json
from ratchet.evaluation.gate.questions import Question
from ratchet.infra.traces.chat_parts import ChatMessage, to_message

WHICH: Final = "which"
BETTER: Final = "better"
COMMENT: Final = "comment"
RATER: Final = "rater"
"""Name under which `ratchet label` answers with the token's account; not on the page."""
NEITHER: Final = "none of them"
UNCLEAR: Final = "rubric unclear"

PAGE: Final = f"""<View>
  <Header value="$reason" size="5"/>
  <HyperText name="conversation" value="$conversation"/>
  <HyperText name="answers" value="$answers"/>
  <Header value="Which of them is right? All that are; skip, and somebody else says." size="5"/>
  <Choices name="{WHICH}" toName="answers" value="$choices" choice="multiple" showInline="true"/>
  <TextArea name="{BETTER}" toName="answers" rows="3" maxSubmissions="1" editable="true"
            placeholder="Where none is: the right answer, in your words"/>
  <TextArea name="{COMMENT}" toName="answers" rows="1" maxSubmissions="1" editable="true"
            placeholder="Anything that the next person should know (optional)"/>
  <View style="display: none"><TextArea name="{RATER}" toName="answers" maxSubmissions="1"/></View>
</View>"""
_COLUMN: Final = "flex: 1; min-width: 16em; padding: 0.5em; border: 1px solid #ccc"


def task_of(question: Question) -> dict[str, Any]:
    """The question as a task to import; which version gave which answer is nowhere in it."""
    return {
        "data": {
            "question_id": question.question_id,
            "reason": question.reason or "Which answer is right?",
            "conversation": "".join(_block(name, text) for name, text in _spoken(question.case)),
            "answers": _side_by_side(question),
            "choices": [{"value": name} for name in (*question.names, NEITHER, UNCLEAR)],
            "question": question.to_json(),
        }
    }


def _spoken(case: Case) -> list[tuple[str, Json]]:
    """Who said what; of a case that is no conversation, its inputs by name."""
    given = case.inputs.get("messages")
    if isinstance(given, list) and given:
        try:
            return [(one.role, _words(one)) for one in map(to_message, given)]
        except ValueError:  # no messages of a chat, whatever their name: shown as the data that they are
            pass
    return list(case.inputs.items())


def _words(message: ChatMessage) -> str:
    calls = (f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in message.calls)
    answers = (answer.text for answer in message.answers if answer.text != message.text)
    return "\n".join(filter(None, (message.text, *calls, *answers)))


def _side_by_side(question: Question) -> str:
    columns = (_block(*one, style=_COLUMN) for one in zip(question.names, question.answers, strict=True))
    return f'<div style="display: flex; flex-wrap: wrap; gap: 0.5em">{"".join(columns)}</div>'


def _block(name: str, said: Json, style: str = "padding: 0.3em 0.5em") -> str:
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, indent=2)
    told = escape(text) or "(an empty text)"
    return f'<div style="{style}"><b>{escape(name)}</b><div style="white-space: pre-wrap">{told}</div></div>'
