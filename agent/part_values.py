"""What a candidate says of its parts, put into words in one place: what the gate plays, what a process that serves
reads and what MLflow's prompt registry shows is one text.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.agent.candidate import Candidate, Demo, Predictor, share_label
from ratchet.agent.errors import BadInput

if TYPE_CHECKING:  # indexes take a while to import, and a process that serves may have no memory
    from ratchet.agent.memory.ranking import Embed
    from ratchet.agent.memory.snapshot import Memory
    from ratchet.agent.memory.steps import Recalled

WHOLE = ""
"""Name of the experience that all prompts of an agent share."""


def prompt_text(predictor: Predictor) -> str:
    """Instructions and worked examples as one text: as an LM, a person and MLflow's registry read it."""
    demos = [
        f"### Example {n}\n{demo.inputs}\n→ {demo.output}" for n, demo in enumerate(predictor.demos, start=1)
    ]
    return "\n\n".join(part for part in (predictor.instructions, *demos) if part)


class PartValues:
    """What one candidate says of its parts."""

    def __init__(
        self,
        candidate: Candidate,
        memories: "Mapping[str, Memory] | None" = None,
        *,
        exclude_case: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        """Get ready to be asked.

        Args:
            candidate: the version.
            memories: its experience by prompt; `WHOLE` is what all prompts share.
            exclude_case: id of the case at hand, whose own answer is not recalled.
            notes: what was concluded from failed attempts at this case, oldest first.
        """
        self.candidate, self.memories, self.notes = candidate, memories or {}, notes
        self._exclude = exclude_case

    def prompt(self, name: str, *, in_words: Callable[[Demo], bool] = lambda _: True) -> str | None:
        """The prompt's text; None where the candidate knows no such prompt.

        Args:
            name: the prompt.
            in_words: which of its examples the text tells; a module shows the others in its own form.
        """
        predictor = self.candidate.predictors.get(name)
        if predictor is None:
            return None
        told = predictor.model_copy(update={"demos": tuple(d for d in predictor.demos if in_words(d))})
        return with_notes(prompt_text(told), self.notes)

    def noted(self, notes: Sequence[str]) -> "PartValues":
        """The same, read by an attempt that is told these notes."""
        return PartValues(self.candidate, self.memories, exclude_case=self._exclude, notes=notes)

    def tool_description(self, name: str) -> str | None:
        """What is said of the tool."""
        said = self.candidate.tools.get(name)
        return said if isinstance(said, str) or said is None else said.description

    def model(self, name: str) -> str | None:
        """The LM to ask."""
        return self.candidate.models.get(name)

    def recalled(self, name: str, request: str) -> "list[Recalled]":
        """Own successes at requests like this one, most similar first; of the prompt's own share, if it has one."""
        memory = self.memories.get(name) or self.memories.get(WHOLE)
        if memory is None or not self.candidate.topology.recalls:
            return []
        from ratchet.agent.memory.ranking import Query

        query = Query(observation=request, exclude_case=self._exclude)
        return memory.recall(query, k=self.candidate.topology.recalls)


def load_memories(
    candidate: Candidate, files: Mapping[str, Path], embeddings: "Callable[[str], Embed | None]"
) -> "dict[str, Memory]":
    """A candidate's experience by prompt, and by `WHOLE` what all of its prompts share.

    Raises:
        BadInput: a file that the candidate names is not among `files`.
        CorruptRecord: as `Memory.load` does.
    """
    named = {name: share_label(name) for name in candidate.memories}
    named |= {WHOLE: "memory"} if candidate.memory else {}
    if missing := [label for label in named.values() if label not in files]:
        raise BadInput(
            f"candidate {candidate.candidate_id} names {missing[0]} and none was given: "
            "pass the file that was registered with it"
        )
    if not named:
        return {}
    from ratchet.agent.memory.snapshot import Memory

    return {name: Memory.load(files[label], embeddings=embeddings) for name, label in named.items()}


def with_notes(text: str, notes: Sequence[str]) -> str:
    """A prompt with what earlier attempts at the same case taught, as data on lines of their own."""
    if not notes:
        return text
    listed = "\n".join(f"- {' '.join(note.split())}" for note in notes)
    return f"{text}\n\nNotes from earlier attempts at this request:\n{listed}"
