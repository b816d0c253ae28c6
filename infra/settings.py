"""Where things are: one record read from the environment and `.env`, built by adapters when they act.

Why never at import and never a flow parameter: flow parameters are shown in a UI, and a secret must not be.
"""

import os
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ratchet.agent.errors import BadInput

Workers = Literal["local", "ray", "dask"]
"""Where versions are played: in this process, or on a cluster's workers."""
DISTRIBUTION: Final = "ratchet-loop"  # `ratchet`, our command's name, is somebody else's package
_ENVIRONMENT: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else the first LM call waits for a download
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # else two lines about a connection pool stand before every answer
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # jobs on: ten processes and 3.9 GB
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "50",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default, 7 with backoff, keeps a person waiting for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOG_UV_FILES": "false",  # else a model carries the uv.lock of the folder that it was made in
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "true",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",  # our own bars show progress; libraries draw theirs across them
}


class Settings(BaseSettings):
    """Where state lies and which services answer. `RATCHET_<FIELD>` in the environment or in `.env`."""

    model_config = SettingsConfigDict(
        env_prefix="RATCHET_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    home: Path = Path(".ratchet")
    """All local state; made absolute."""
    tracking_uri: str = Field(
        default_factory=lambda settings: f"sqlite:///{settings['home']}/mlflow.db",
        validation_alias=AliasChoices("RATCHET_TRACKING_URI", "MLFLOW_TRACKING_URI"),
    )
    """Where MLflow is: a database or an http(s) server; by default a SQLite file below `home`."""
    lm: str = "smollm2-135m-instruct"
    """The embedded LM, or any LiteLLM model string."""
    lm_api_base: str | None = None
    """Where an endpoint's LM is asked; `vendor` = the vendor's own host. Unset, a candidate's recorded address is."""
    lm_api_key: SecretStr | None = None
    reflection_lm: str | None = None
    """LM that writes instructions and tool descriptions; unset, the agent's own where that can write."""
    reflection_api_base: str | None = None
    """Where it is asked; `vendor` = the vendor's own host. Unset, `lm_api_base`."""
    reflection_api_key: SecretStr | None = None
    """Unset, `lm_api_key`."""
    lm_timeout_s: float = Field(default=120, gt=0)
    """Seconds until an endpoint's answer is given up; the trace then carries the error."""
    lm_concurrency: int = Field(default=8, ge=1, le=100)
    """Calls to an endpoint, or of an agent in Python, that may be under way at the same time."""
    lora_folder: str = ""
    """Folder that the LM's server reads adapters from, as docker's -v writes it: `OURS` or `OURS:THEIRS`, such as
    `/srv/lora:/adapters`. Adapters are copied there. Unset, the server sees this machine's paths."""
    agent_timeout_s: float = Field(default=600, gt=0)
    """Seconds until a call of an agent in Python is given up, where the project's limits do not say less."""
    workers_address: str = ""
    """Where the cluster is on whose workers versions are played: `ray://host:10001`, `tcp://host:8786`; unset, one on
    this machine is begun for the run."""
    serve_keys: SecretStr | None = None
    """Who may ask `ratchet serve`: keys, separated by commas; without any, only this machine."""
    serve_max_body: int = Field(default=8 << 20, ge=1024)
    """Bytes of a request to `ratchet serve`; a larger one is refused."""
    embedding: str = "auto"
    """What drift reads texts by, and experience is recalled by beside its words: `minilm`, a sentence-transformers
    name or folder, or a URL (…/v1). `hashing` = drift by n-grams, recall by words alone; `auto` = the same, but
    drift by MiniLM where it is installed."""
    embedding_model: str = ""
    """Name of the model at the URL."""
    project: str = ""
    """Whose parts a process that serves reads; unset, that project's which has a part of the name."""
    parts_ttl_s: float = Field(default=15, ge=0)
    """Seconds for which a process that serves takes what it knows of its parts for new."""
    label_studio_url: str = ""
    """Address of the Label Studio server where people answer, if `raters.backend` says so."""
    label_studio_token: SecretStr | None = None
    """Token of its account as which Ratchet asks and reads: personal (Account & Settings) or of the older kind."""
    preview_chars: int = Field(default=1_000, ge=300, le=100_000)
    """Characters of a trace that MLflow's Review page shows, where its database is no file of this process: what fits
    PostgreSQL's columns as MLflow makes them. More only behind a server on SQLite, or once they were widened."""
    alert_webhook: SecretStr | None = None
    """URL that alerts are POSTed to as JSON; secret because such URLs hold their own key."""

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().resolve()

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0])
            name = name if name.isupper() else f"RATCHET_{name.upper()}"
            raise BadInput(
                f"{name} is {first['input']!r}: {first['msg']}; correct it in the environment or in `.env`"
            ) from error

    def made_home(self) -> Path:
        """`home`, made where absent, for this user alone: it holds what people asked, answered and labelled."""
        self.home.parent.mkdir(parents=True, exist_ok=True)
        self.home.mkdir(mode=0o700, exist_ok=True)
        return self.home

    @property
    def keys(self) -> tuple[str, ...]:
        """Those of `serve_keys`, one by one."""
        text = self.serve_keys.get_secret_value() if self.serve_keys else ""
        return tuple(key.strip() for key in text.split(",") if key.strip())

    @property
    def endpoint(self) -> dict[str, Any]:
        """What an LM endpoint needs beside its model's name."""
        key = self.lm_api_key and self.lm_api_key.get_secret_value()
        given = {"api_base": self.lm_api_base, "api_key": key, "timeout": self.lm_timeout_s}
        given["concurrency"] = self.lm_concurrency
        return {name: value for name, value in given.items() if value}

    @property
    def reflection_endpoint(self) -> dict[str, Any]:
        """What the endpoint of the LM that writes for proposers needs beside its name."""
        key = self.reflection_api_key and self.reflection_api_key.get_secret_value()
        own = {"api_base": self.reflection_api_base, "api_key": key}
        return self.endpoint | {name: value for name, value in own.items() if value}


def prepare_environment() -> None:
    """Set what MLflow, LiteLLM and Prefect read from the process environment; a person's own value stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
