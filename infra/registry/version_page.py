"""What a person sees of one candidate in MLflow: a run, a model, prompts, and what was found out.

Why parameters are flattened and worded: MLflow's comparison view shows two versions side by side by exactly
these, so what differs between two candidates must be a row of its own there.
"""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import copy2, copytree
from typing import Any, Final

import mlflow.pyfunc
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag

from ratchet.agent.candidate import Candidate, plain_name, share_label
from ratchet.evaluation.data.intervals import Interval
from ratchet.evaluation.gate.verdict import SAID
from ratchet.infra.home_id import home_id
from ratchet.infra.mlflow_client import Connection
from ratchet.infra.registry.prompts import as_tag, forget_prompts, page_text
from ratchet.infra.registry.version import CANDIDATE, Evaluation, Listing
from ratchet.infra.settings import DISTRIBUTION
from ratchet.infra.store.dataset_store import DatasetVersion

FILES: Final = "agent/files"
_SERVED: Final = Path(__file__).with_name("served_agent.py")
_HOME: Final = "ratchet_home"
_LONGEST_PARAMETER: Final = 6000
_ACCURACY: Final = "accuracy"


def write_run(
    connection: Connection,
    candidate: Candidate,
    *,
    tags: dict[str, str],
    seen_case_ids: Sequence[str],
    cost: Mapping[str, float],
    dataset: DatasetVersion | None,
    documents: Mapping[str, str],
) -> str:
    """The candidate's run; one that a crash in this home left half written is completed. Returns its id.

    Another home's is left alone: it may be at work on it, and its proposer may have seen other cases.
    """
    client, home = connection.client, home_id(connection.settings.home)
    ours = f"tags.candidate_id = '{candidate.candidate_id}' and tags.{_HOME} = '{home}'"
    left = client.search_runs([connection.experiment_id], ours, max_results=1)
    run = (
        left[0]
        if left
        else client.create_run(
            connection.experiment_id, run_name=f"{candidate.origin.proposer} {candidate.candidate_id[:8]}"
        )
    )
    run_id = str(run.info.run_id)
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(f"cost_{name}", value, now, 0) for name, value in cost.items()],
        params=[Param(name, _shortened(value)) for name, value in parameters(candidate).items()],
        tags=[RunTag(name, value) for name, value in (tags | {_HOME: home}).items()],
    )
    with tempfile.TemporaryDirectory() as folder:
        _write_documents(Path(folder), candidate, seen_case_ids, documents)
        client.log_artifacts(run_id, folder)
    if dataset is not None:
        _log_dataset(connection, run_id, dataset)
    return run_id


def parameters(candidate: Candidate) -> dict[str, str]:
    """The whole candidate, one readable value a row."""
    rows: dict[str, Any] = {
        "base_model": candidate.base_model,
        **({"api_base": candidate.api_base} if candidate.api_base else {}),
        "adapter": candidate.adapter or "none",
        "memory": candidate.memory or "none",
        "parent": candidate.parent or "none",
        "proposer": candidate.origin.proposer,
        "data_digest": candidate.origin.data_digest or "none",
        "tools.n_overridden": len(candidate.tools),
    }
    for name, predictor in ((plain_name(part), one) for part, one in candidate.predictors.items()):
        rows[f"{name}.instructions"] = predictor.instructions
        rows[f"{name}.n_demos"] = len(predictor.demos)
    rows |= {
        f"tool.{plain_name(name)}": said if isinstance(said, str) else said.to_json()
        for name, said in candidate.tools.items()
    }
    rows |= {f"model.{plain_name(name)}": model for name, model in candidate.models.items()}
    rows |= {share_label(name): digest for name, digest in candidate.memories.items()}
    topology = candidate.topology.model_dump(mode="json", exclude={"roles"})
    rows |= {f"topology.{name}": value for name, value in topology.items()}
    rows |= {f"role.{role.name}": role.to_json() for role in candidate.topology.roles}
    rows |= {f"proposer.{name}": value for name, value in candidate.origin.parameters.items()}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in rows.items()}


def _shortened(value: str) -> str:
    return value if len(value) <= _LONGEST_PARAMETER else value[: _LONGEST_PARAMETER - 1] + "…"


def _write_documents(
    folder: Path, candidate: Candidate, seen_case_ids: Sequence[str], documents: Mapping[str, str]
) -> None:
    (folder / "candidate.json").write_text(candidate.model_dump_json(indent=2))
    (folder / "seen_case_ids.json").write_text(json.dumps(sorted(set(seen_case_ids))))
    for name, text in documents.items():
        (folder / name).write_text(text)
    for name, predictor in ((plain_name(part), one) for part, one in candidate.predictors.items()):
        (folder / f"prompt_{name}.md").write_text(page_text(predictor))
        demos = [demo.model_dump(mode="json") for demo in predictor.demos]
        (folder / f"demos_{name}.json").write_text(json.dumps(demos, indent=2, ensure_ascii=False))
    if candidate.tools:
        tools = candidate.model_dump(mode="json", include={"tools"}, exclude_none=True)["tools"]
        (folder / "tools.json").write_text(json.dumps(tools, indent=2, ensure_ascii=False))


def _log_dataset(connection: Connection, run_id: str, version: DatasetVersion) -> None:
    """As input of the run, and the file beside it: a colleague's MLflow does not see this machine's disk."""
    dataset = Dataset(
        name=version.name,
        digest=version.digest,
        source_type="local",
        source=json.dumps({"uri": version.uri}),
        profile=json.dumps({"num_rows": version.n_rows}),
    )
    used = DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
    connection.client.log_inputs(run_id, datasets=[used])
    connection.client.log_artifact(run_id, version.uri, "datasets")


def forget_run(connection: Connection, run_id: str) -> None:
    """Delete a run that came to nothing, with those of its prompts that another run made as well."""
    forget_prompts(connection, run_id)
    connection.client.delete_run(run_id)


def write_model(connection: Connection, candidate: Candidate, run_id: str, files: Mapping[str, Path]) -> str:
    """The deployable model (code, manifest, adapter, memory); no pickle in it. Returns its id."""
    client = connection.client
    with tempfile.TemporaryDirectory() as scratch:
        agent = Path(scratch) / "agent"
        agent.mkdir()
        (agent / "candidate.json").write_text(candidate.to_json())
        for name, path in files.items():
            _copy(path, agent / "files" / name)
        saved = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            str(saved),
            python_model=str(_SERVED),
            artifacts={"agent": str(agent)},
            signature=False,  # an agent takes any JSON; without this MLflow warns that it cannot tell
            pip_requirements=[],  # MLflow adds itself; a name that nobody holds on an index is a stranger's to take
            metadata={"code": f"{DISTRIBUTION}: installed from its own checkout, beside this model"},
        )
        model = client.create_logged_model(
            connection.experiment_id,
            name=f"{connection.project}-{candidate.candidate_id[:8]}",
            source_run_id=run_id,
            tags={"candidate_id": candidate.candidate_id},
            params={name: _shortened(value)[:250] for name, value in parameters(candidate).items()},
        )
        client.log_model_artifacts(model.model_id, str(saved))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    return str(model.model_id)


def _copy(source: Path, target: Path) -> None:
    """A folder as `files/name/`, a file as `files/name/its-name`."""
    if source.is_dir():
        copytree(source, target)
        return
    target.mkdir(parents=True)
    copy2(source, target / source.name)


def write_scores(
    connection: Connection,
    run_id: str,
    model_id: str,
    scores: Mapping[str, Interval],
    pictures: Mapping[str, Path],
) -> None:
    """Each score with its bounds as metrics, pictures as images."""
    now = int(time.time() * 1000)
    values = {
        f"{name}{suffix}": value
        for name, score in scores.items()
        for suffix, value in (("", score.mean), ("_low", score.low), ("_high", score.high), ("_n", score.n))
    }
    metrics = [Metric(name, float(value), now, 0, model_id=model_id) for name, value in values.items()]
    connection.client.log_batch(run_id, metrics=metrics)
    for name, picture in pictures.items():
        with tempfile.TemporaryDirectory() as folder:
            copy2(picture, Path(folder) / f"{name}{picture.suffix}")
            connection.client.log_artifacts(run_id, folder, "pictures")


def write_worth(connection: Connection, run_id: str, per_point: Mapping[str, float]) -> None:
    """What a hundredth of the gain took, as metrics beside `cost_calls` and the others."""
    now = int(time.time() * 1000)
    metrics = [Metric(f"cost_{unit}_per_point", value, now, 0) for unit, value in per_point.items()]
    if metrics:
        connection.client.log_batch(run_id, metrics=metrics)


def how_made(
    candidate: Candidate, n_seen: int, cost: Mapping[str, float], prompts: dict[str, int]
) -> dict[str, str]:
    """The version's first tags, for a person; `show_evaluation` adds three, and six is all that a page shows."""
    spent = [f"{value:,.3g} {name.replace('_', ' ')}" for name, value in cost.items() if value]
    made = [candidate.origin.proposer, *([f"{n_seen} cases"] if n_seen else []), *spent]
    return {CANDIDATE: candidate.candidate_id, "how_made": ", ".join(made), **as_tag(prompts)}


def show_evaluation(connection: Connection, found: Listing, now: Evaluation, said: Sequence[str]) -> None:
    """What was found out: tags and description; the verdict on its run, too, as MLflow compares runs."""
    verdict = now.verdict
    tags = {}
    if _ACCURACY in now.scores:
        tags[_ACCURACY] = str(now.scores[_ACCURACY])
    if verdict is not None:
        tags["verdict"] = SAID[verdict.decision]
        if verdict.gain is not None:
            tags["gain"] = f"{verdict.gain:+.3f} [{verdict.ci[0]:+.3f}, {verdict.ci[1]:+.3f}]"
        for name, value in (("verdict", SAID[verdict.decision]), ("reason", verdict.reason)):
            connection.client.set_tag(found.run_id, name, value)
    for name, value in tags.items():
        connection.client.set_model_version_tag(connection.project, str(found.number), name, value)
    connection.client.update_model_version(
        connection.project, str(found.number), "\n\n".join(part for part in said if part)
    )
