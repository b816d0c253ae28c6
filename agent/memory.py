"""Experience: what worked before, recalled as examples when a similar request comes.

Decision: only steps of winning trajectories are kept (outcome or a person's correction, never an unaudited
judge), as an immutable snapshot whose id is the hash of its entries, so that a memory is gated like any other
change. Source: Sarukkai et al., Self-Generated In-Context Examples (2025). Recall here is exact and lexical.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agent.candidate import Demo
from agent.record import Record, content_hash

NEIGHBOURS = 10
"""Entries that vote on an option."""


class Experience(Record):
    """One step that led to success."""

    observation: str
    action: str
    options: tuple[str, ...] = ()
    trace_id: str
    case_id: str
    source: Literal["own", "human"]
    """`own`: the agent did this and succeeded; `human`: a person corrected it to this."""


class Recalled(Record):
    """An experience with how similar its observation is, in [0, 1]."""

    experience: Experience
    similarity: float


class Memory:
    """An immutable snapshot of experience with exact lexical recall."""

    def __init__(self, experiences: Iterable[Experience]) -> None:
        """Index the experiences; of several with one case and action, a person's is kept, whatever their order."""
        by_preference = sorted(experiences, key=lambda e: (e.source != "human", e.to_json()))
        unique = {(e.case_id, e.action): e for e in reversed(by_preference)}
        self.experiences = tuple(sorted(unique.values(), key=lambda e: (e.case_id, e.action)))
        self._vectorizer, self._vectors = _index([e.observation for e in self.experiences])

    @property
    def memory_id(self) -> str:
        """Hash of what is remembered; the traces that it came from are provenance, not content."""
        return content_hash([e.model_dump(mode="json", exclude={"trace_id"}) for e in self.experiences])

    def recall(self, observation: str, *, k: int, exclude_case: str | None = None) -> list[Recalled]:
        """The `k` experiences with the most similar observations, most similar first.

        Args:
            observation: what the agent sees now.
            k: how many at most; those without any similarity are left out.
            exclude_case: the case at hand: its own answer must not be shown to it.
        """
        if self._vectors is None or k <= 0:
            return []
        similarity = (self._vectors @ self._vectorizer.transform([observation]).T).toarray().ravel()
        order = np.lexsort((np.arange(len(similarity)), -similarity))
        found = (
            Recalled(experience=self.experiences[i], similarity=min(float(similarity[i]), 1.0)) for i in order
        )
        return [r for r in found if r.similarity > 0 and r.experience.case_id != exclude_case][:k]

    def vote(self, recalled: Sequence[Recalled], options: Sequence[str]) -> np.ndarray:
        """Share of squared similarity that the neighbours give to each option, [n_options] in [0, 1].

        An experience votes only where its action is among the options.
        """
        votes = np.zeros(len(options))
        place = {name: index for index, name in enumerate(options)}
        for item in recalled[:NEIGHBOURS]:
            if item.experience.action in place:
                votes[place[item.experience.action]] += item.similarity**2
        share: np.ndarray = votes / (votes.sum() + 0.1)
        return share

    def save(self, path: Path) -> None:
        """One experience a line."""
        path.write_text("".join(e.to_json() + "\n" for e in self.experiences), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Memory":
        """Read a snapshot back.

        Raises:
            CorruptRecord: a line does not parse; names the line.
        """
        # only \n ends a record: splitlines would also break at U+2028 and the like inside a text
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n") if path.stat().st_size else []
        return cls(Experience.from_json(line, where=f"{path.name}:{n}") for n, line in enumerate(lines, 1))


def as_demos(recalled: Sequence[Recalled]) -> list[Demo]:
    """Recalled steps as worked examples, most similar last: nearest to the request in the prompt."""
    return [
        Demo(inputs=r.experience.observation, output=r.experience.action, case_id=r.experience.case_id)
        for r in reversed(recalled)
    ]


def _index(texts: list[str]) -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    if not any(text.strip() for text in texts):  # scikit-learn refuses a vocabulary of nothing
        return vectorizer, None
    return vectorizer, vectorizer.fit_transform(texts)
