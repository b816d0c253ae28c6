"""Columns made fit for a report: nothing that is empty, nested, mixed or endless reaches Evidently."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd

_MAX_ROWS: Final = 5_000
_MAX_CATEGORIES: Final = 30
_MAX_COLUMNS: Final = 40
_NUMERIC_SHARE: Final = 0.95
_OTHER: Final = "(other)"
_MISSING: Final = "(missing)"


@dataclass
class ReportColumns:
    """Both sides with the same columns of plain types, and what had to be left out, with the reason."""

    reference: pd.DataFrame
    current: pd.DataFrame
    texts: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def prepare_columns(
    reference: pd.DataFrame, current: pd.DataFrame, *, text_column: str | None
) -> ReportColumns:
    """Sort the columns by what they hold, and bring both sides to the same plain types."""
    sides = (_sample(reference), _sample(current))
    columns = ReportColumns(pd.DataFrame(index=sides[0].index), pd.DataFrame(index=sides[1].index))
    names = list(dict.fromkeys([*map(str, reference.columns), *map(str, current.columns)]))
    for name in names:
        pair = [side[name] if name in side else pd.Series(pd.NA, index=side.index) for side in sides]
        reason = _unfit(pair)
        if (
            reason is None
            and name != text_column
            and len(columns.categories + columns.numbers) >= _MAX_COLUMNS
        ):
            reason = f"more than {_MAX_COLUMNS} columns"
        if reason is not None:
            columns.left_out.append(f"{name} ({reason})")
            continue
        _place(columns, name, pair, is_text=name == text_column)
    return columns


def _sample(side: pd.DataFrame) -> pd.DataFrame:
    plain = side.rename(columns=str)
    plain = plain.loc[:, ~plain.columns.duplicated()]
    kept = plain.sample(_MAX_ROWS, random_state=0) if len(plain) > _MAX_ROWS else plain
    return kept.reset_index(drop=True)


def _unfit(pair: list[pd.Series]) -> str | None:
    present = [values.dropna() for values in pair]
    for side, values in zip(("reference", "current"), present, strict=True):
        if values.empty:
            return f"empty in {side}"
    for values in present:
        if values.map(lambda value: isinstance(value, list | tuple | dict | set | np.ndarray)).any():
            return "holds arrays or objects"
        if pd.api.types.is_datetime64_any_dtype(values):
            return "holds times"
    return None


def _place(columns: ReportColumns, name: str, pair: list[pd.Series], *, is_text: bool) -> None:
    sides = (columns.reference, columns.current)
    if is_text:
        columns.texts.append(name)
        for side, values in zip(sides, pair, strict=True):
            side[name] = values.astype(object).where(values.notna(), "").map(str)
        return
    numbers = [found for found in map(_numbers, pair) if found is not None]
    if len(numbers) == len(pair):
        columns.numbers.append(name)
        for side, found in zip(sides, numbers, strict=True):
            side[name] = found
        return
    columns.categories.append(name)
    both = pd.concat([_labels(values) for values in pair])
    frequent = set(both.value_counts().index[:_MAX_CATEGORIES])
    for side, values in zip(sides, pair, strict=True):
        labels = _labels(values)
        side[name] = labels.where(labels.isin(frequent), _OTHER)


def _numbers(values: pd.Series) -> pd.Series | None:
    """The values as numbers, missing where one is not; None for a column that is not numeric."""
    if pd.api.types.is_bool_dtype(values):
        return None
    known = values.dropna()
    found = pd.to_numeric(known, errors="coerce")
    if known.map(lambda value: isinstance(value, bool)).any() or found.notna().mean() < _NUMERIC_SHARE:
        return None
    whole = pd.to_numeric(values, errors="coerce").astype("float64")
    return whole.where(np.isfinite(whole))


def _labels(values: pd.Series) -> pd.Series:
    return values.astype(object).where(values.notna(), _MISSING).map(str)
