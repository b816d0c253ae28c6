"""What the stages may do: `ratchet.toml` in the project's folder, and above it what is set for one run.

Settings are of two kinds. *What to do* is here: no secret, shown in Prefect's form, logged with the round. *Where
things are* (addresses, keys, folders) is `ratchet.infra.settings`: environment and `.env`, shown nowhere.
"""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field

from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.chat_endpoint import ChatProject
from ratchet.agent.optimize.budget import Budget
from ratchet.agent.record import Record, StageSettings
from ratchet.agent.settings_table import SETTINGS_FILE, checked, read_toml
from ratchet.evaluation.data.curate import CurateSettings
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.data.selection import SelectionSettings
from ratchet.evaluation.drift.watch_state import WatchSettings
from ratchet.evaluation.gate.approval import ApprovalSettings
from ratchet.evaluation.gate.ledger import Ledger
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.evaluation.judge.settings import JudgeSettings
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.settings import Workers
from ratchet.infra.traces.feedback import FeedbackNames

RecordT = TypeVar("RecordT", bound=Record)
_SEED: Final = """Decides every random choice: the split, whom people are asked about, training, search, drift. Set it
before the first run: another split leaves fewer cases that no proposer saw."""
Seed = Annotated[int, Field(ge=0, lt=2**32, description=_SEED)]


class ImproveSettings(StageSettings):
    """What each stage of `improve` may do."""

    seed: Seed = 0
    selection: SelectionSettings = SelectionSettings()
    curation: CurateSettings = CurateSettings()
    gate: GateSettings = GateSettings()
    raters: RaterSettings = RaterSettings()
    judge: JudgeSettings = JudgeSettings()
    budget: Budget = Budget()
    """What each proposer may spend on a candidate; its own budget in `project.py` holds beside this one."""
    feedback: FeedbackNames = FeedbackNames()
    proposers: tuple[str, ...] | None = None
    """Names of the project's proposers that make challengers, the last tested first; left out: all. Both in turn:
    `["prompts", "lora", "prompts"]` with `stacked`."""
    model: str | None = None
    """Try the champion on this LM, and nothing else; left out: what the proposers make."""
    model_at: str | None = None
    """Address of `model`'s endpoint; left out: `RATCHET_LM_API_BASE`."""
    stacked: bool = False
    """Let each proposer go on from what the one before made, instead of from the champion; each step is a version of
    its own, tested against the champion."""
    workers: Workers = "local"
    """Where the gate plays versions: in this process, or on the workers of a `ray` or `dask` cluster, at
    `RATCHET_WORKERS_ADDRESS` or begun here; the verdicts are the same."""
    approved_by: str | None = None
    """Name of the policy that approves what is proven; left out: a person does, by `ratchet approve`."""


class MonitorSettings(StageSettings):
    """What `monitor` may do."""

    seed: Seed = 0
    watch: WatchSettings = WatchSettings()
    raters: RaterSettings = RaterSettings()
    feedback: FeedbackNames = FeedbackNames()


class ProjectSettings(ImproveSettings, MonitorSettings):
    """All that `ratchet.toml` may hold."""

    agent: ChatProject | None = None
    """The agent, where it is a chat endpoint and no `project.py` says so."""
    approval: ApprovalSettings = ApprovalSettings()
    """Who may approve what; of the file alone, so that no form and no option of one run can change it."""


def read_settings(folder: Path, kind: type[RecordT], given: RecordT | Sequence[str] | None = None) -> RecordT:
    """Settings of one flow: what is `given` for this run, above the project's `ratchet.toml`, above the defaults.

    Args:
        folder: the project's.
        kind: `ImproveSettings`, `MonitorSettings`, or all: `ProjectSettings`.
        given: a record, of which only the fields count that were set; or `KEY=VALUE`s, as `--set` takes them.

    Raises:
        BadInput: an unknown key, or a value of the wrong type or out of its bound; names where it stands.
    """
    values = _set_in(given) if isinstance(given, Record) else checked(_assigned(given or ()), kind, "--set")
    whole = ProjectSettings.model_validate(_over(in_file(folder), values))
    return kind.model_validate({name: getattr(whole, name) for name in kind.model_fields})


def in_file(folder: Path) -> dict[str, Any]:
    """What the project's `ratchet.toml` sets, checked; nothing where there is none."""
    path = folder / SETTINGS_FILE
    return checked(read_toml(path), ProjectSettings, str(path))


def ledger_as_set(name: str, folder: Path | None) -> Ledger:
    """A project's error budget; before its first test as its folder, where that is known, sets it."""
    gate = (read_settings(folder, ProjectSettings) if folder else ProjectSettings()).gate
    return read_ledger(name, alpha=gate.alpha, spending=gate.spending)


def leaves(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its dotted key."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _assigned(sets: Sequence[str]) -> dict[str, Any]:
    """`gate.alpha=0.1` as the file would hold it; a value that is no TOML is text."""
    found: dict[str, Any] = {}
    for one in sets:
        key, equals, text = one.partition("=")
        if not equals or not key.strip():
            raise BadInput(f"--set {one}: give KEY=VALUE, such as --set gate.alpha=0.1")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        for name in reversed(key.strip().split(".")):
            value = {name: value}
        found = _over(found, value)
    return found


def _over(base: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, the second where both have a value, table by table."""
    return base | {
        name: _over(base[name], value)
        if isinstance(value, dict) and isinstance(base.get(name), dict)
        else value
        for name, value in above.items()
    }


def _set_in(record: Record) -> dict[str, Any]:
    return record.model_dump(exclude_unset=True)
