"""Simple queries that a schema admits, the likeliest first: options for an agent too small to write SQL.

Nothing but the schema and the question goes in, so the gold query is among them only where it is that simple.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ratchet.agent.case import Case
from ratchet.agent.environments.sql import quoted
from ratchet.agent.memory.similarity import option_similarity, words_of


def simple_queries(case: Case, tables: Mapping[str, Sequence[str]], *, most: int = 10) -> list[str]:
    """At most `most` queries over one table each, by the similarity of what they ask to the question."""
    question = str(case.inputs["question"])
    found = dict(_all(tables))
    if not found:
        return []
    queries, meanings = list(found), list(found.values())
    score = option_similarity(question, meanings)
    order = np.lexsort((np.arange(len(score)), -score))
    return [queries[i] for i in order[:most]]


def _all(tables: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Queries, and what each asks for in words."""
    for table, columns in tables.items():
        t, words = _name(table), words_of(table)
        yield f"SELECT count(*) FROM {t}", f"how many {words} are there, total number of {words}"
        for column in columns:
            c, meant = _name(column), f"{words_of(column)} {words}"
            yield f"SELECT {c} FROM {t}", f"what are the {meant}, list all {meant}"
            yield f"SELECT DISTINCT {c} FROM {t}", f"distinct different {meant}"
            yield f"SELECT count(DISTINCT {c}) FROM {t}", f"how many different distinct {meant}"
            yield f"SELECT avg({c}) FROM {t}", f"average mean {meant}"
            yield f"SELECT max({c}) FROM {t}", f"maximum highest largest {meant}"
            yield f"SELECT min({c}) FROM {t}", f"minimum lowest smallest {meant}"
            yield (
                f"SELECT {c}, count(*) FROM {t} GROUP BY {c}",
                f"number of {words} for each {words_of(column)}",
            )
            yield from _pairs(t, words, column, columns)


def _pairs(t: str, words: str, column: str, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    c, meant = _name(column), words_of(column)
    for other in columns:
        if other == column:
            continue
        o, by = _name(other), words_of(other)
        yield f"SELECT {c}, {o} FROM {t}", f"{meant} and {by} of {words}"
        yield f"SELECT {c} FROM {t} ORDER BY {o}", f"{meant} of {words} ordered sorted by ascending {by}"
        yield (
            f"SELECT {c} FROM {t} ORDER BY {o} DESC LIMIT 1",
            f"{meant} of the {words} with the highest most {by}",
        )
        yield (
            f"SELECT {c} FROM {t} ORDER BY {o} LIMIT 1",
            f"{meant} of the {words} with the lowest least {by}",
        )


def _name(name: str) -> str:
    return name if name.isidentifier() else quoted(name)
