"""Experience: what worked before, recalled as examples when a similar request comes.

Decision: only steps of winning trajectories are kept (outcome or a person's correction, never an unaudited judge),
as an immutable snapshot whose id is the hash of its entries, so that a memory is gated like any other change.
Source: Sarukkai et al., Self-Generated In-Context Examples (2025). Decisions on their own are recalled exactly, by
character n-grams; steps of trajectories as `ratchet.agent.memory.library` recalls them, which also says how the
millions of steps are kept that a snapshot is chosen from.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.agent.candidate import Demo
from ratchet.agent.errors import BadInput
from ratchet.agent.memory.delexicalization import template, templates
from ratchet.agent.memory.library import Library
from ratchet.agent.memory.ranking import Embed, Query, RecallSettings
from ratchet.agent.memory.similarity import CharacterIndex
from ratchet.agent.memory.steps import Experience, Recalled
from ratchet.agent.record import Record, content_hash

NEIGHBOURS = 10
"""Entries that vote on an option."""


class _Header(Record):
    """First line of a snapshot that does not recall by default."""

    recall: RecallSettings


class Memory:
    """An immutable snapshot of experience."""

    def __init__(
        self,
        experiences: Iterable[Experience],
        *,
        settings: RecallSettings | None = None,
        embed: Embed | None = None,
    ) -> None:
        """Index the experiences; of several with one case and action, a person's is kept, whatever their order.

        Args:
            experiences: decisions on their own, and steps of trajectories, which are kept each at its place.
            settings: how to recall; part of the snapshot's identity. None = the default.
            embed: the embedding that the settings name.

        Raises:
            BadInput: the settings name an embedding and none is given: the agent would not be the one gated.
        """
        self.settings = settings
        if (named := settings and settings.embedding) and embed is None:
            raise BadInput(
                f"the memory recalls by embedding {named!r}, which is not given: pass `embed`, or configure it"
            )
        self._embed = embed if named else None
        without_session = (
            e.model_copy(update={"session_id": None}) if e.session_id else e for e in experiences
        )
        by_preference = sorted(without_session, key=lambda e: (e.source != "human", e.to_json()))
        unique = {entry_key(e): e for e in reversed(by_preference)}
        self.experiences = tuple(sorted(unique.values(), key=entry_key))
        self._by_step = settings is not None or any(e.index is not None for e in self.experiences)
        texts = [] if self._by_step else [e.observation for e in self.experiences]
        self._by_letters = CharacterIndex(texts)

    @property
    def memory_id(self) -> str:
        """Hash of what is remembered; the trace of a decision on its own is provenance, not content."""
        content: list[Any] = [_content(e) for e in self.experiences]
        if self.settings is None:
            return content_hash(content)
        return content_hash({"recall": self.settings.model_dump(mode="json"), "experiences": content})

    def recall(self, query: Query, *, k: int) -> list[Recalled]:
        """The `k` experiences most similar to what is at hand, most similar first.

        Those without any similarity are left out. Of a memory of decisions on their own the observation alone counts.
        """
        if self._by_step:
            return self._library.recall(query, k=k, settings=self.settings, now=self._newest)
        similarity = self._by_letters.similarity([query.observation])[:, 0]
        order = np.lexsort((np.arange(len(similarity)), -similarity))
        found: list[Recalled] = []
        for i in order:
            if len(found) >= k or similarity[i] <= 0:
                break
            if self.experiences[i].case_id != query.exclude_case:
                found.append(
                    Recalled(experience=self.experiences[i], similarity=min(float(similarity[i]), 1.0))
                )
        return found

    def only(self, keep: Callable[[Experience], bool]) -> "Memory":
        """A memory of those of its steps that are kept, which recalls in the same way."""
        return Memory(filter(keep, self.experiences), settings=self.settings, embed=self._embed)

    @cached_property
    def known_options(self) -> frozenset[str]:
        """Every option that any of its steps took or was offered."""
        return frozenset(name for step in self.experiences for name in (step.action, *step.options))

    @cached_property
    def _newest(self) -> datetime | None:
        """When its last step was taken: age is counted from there, since what a snapshot recalls must not drift."""
        return max((e.recorded_at for e in self.experiences if e.recorded_at is not None), default=None)

    def vote(self, recalled: Sequence[Recalled], options: Sequence[str], goal: str = "") -> np.ndarray:
        """Share of squared similarity that the neighbours give to each option, [n_options] in [0, 1].

        An experience votes for its action where that is among the options; a step of a trajectory, which came from
        another world with other names, else for the options of the same form
        (`ratchet.agent.memory.delexicalization`), in equal parts.
        """
        votes = np.zeros(len(options))
        known = np.array(templates(options, goal))
        for item in recalled[:NEIGHBOURS]:
            step = item.experience
            same = np.array(options) == step.action
            if not same.any() and goal and step.index is not None:
                same = known == template(step.action, step.goal or step.observation)
            if same.any():
                votes += item.similarity**2 * same / same.sum()
        share: np.ndarray = votes / (votes.sum() + 0.1)
        return share

    @cached_property
    def _library(self) -> Library:
        """The steps in an index of their own, in memory; made when first asked."""
        embedding = None if self.settings is None else self.settings.embedding
        library = Library(embed=self._embed, embedding=embedding)
        library.add(self.experiences)
        return library

    def save(self, path: Path) -> None:
        """One experience a line; before them, where it is not the default, how to recall."""
        lines = [] if self.settings is None else [_Header(recall=self.settings).to_json()]
        lines += [e.to_json() for e in self.experiences]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    @classmethod
    def load(cls, path: Path, *, embeddings: Callable[[str], Embed | None] = lambda _: None) -> "Memory":
        """Read a snapshot back.

        Args:
            path: where it was saved.
            embeddings: gives the embedding of a name, for a snapshot that recalls by one.

        Raises:
            CorruptRecord: a line does not parse; names the line.
            BadInput: it recalls by an embedding and none is given.
        """
        settings, found = read_snapshot(path)
        named = settings and settings.embedding
        return cls(found, settings=settings, embed=embeddings(named) if named else None)


def read_snapshot(path: Path) -> tuple[RecallSettings | None, list[Experience]]:
    """How a saved snapshot recalls, and what it holds; no index is made and no embedding needed.

    Raises:
        CorruptRecord: a line does not parse; names the line.
    """
    # only \n ends a record: splitlines would also break at U+2028 and the like inside a text
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n") if path.stat().st_size else []
    settings, first = None, 1
    if lines and lines[0].startswith(b'{"recall":'):
        settings, first = _Header.from_json(lines[0], where=f"{path.name}:1").recall, 2
    return settings, [
        Experience.from_json(line, where=f"{path.name}:{n}")
        for n, line in enumerate(lines[first - 1 :], first)
    ]


def as_demos(recalled: Sequence[Recalled]) -> list[Demo]:
    """Recalled steps as worked examples, most similar last: nearest to the request in the prompt."""
    return [
        Demo(inputs=r.experience.observation, output=r.experience.said, case_id=r.experience.case_id)
        for r in reversed(recalled)
    ]


def entry_key(step: Experience) -> tuple[str, str, str, int, str]:
    """What makes two entries the same: case and action, or the place in one trajectory."""
    if step.index is None:
        return step.case_id, step.action, "", 0, ""
    return step.case_id, "", step.trajectory, step.index, step.role


def _content(step: Experience) -> Any:
    provenance = {"trace_id", "supersedes"} if step.index is None else {"supersedes"}
    return step.model_dump(mode="json", exclude=provenance)
