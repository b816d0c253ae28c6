"""`ratchet export VERSION --to merged DIR`: a version's weights for whoever loads models, its prompts beside them.

Why the prompts stand beside them: weights are proven under these prompts, and under others they are another agent.
"""

import json
from pathlib import Path
from shutil import copytree
from typing import Annotated, Any, Final

import typer

from ratchet.agent.candidate import IN_CODE, Candidate
from ratchet.agent.errors import BadInput
from ratchet.agent.lm.adapter_files import check_adapter
from ratchet.agent.lm.base_models import base_of
from ratchet.agent.part_values import prompt_text
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name
from ratchet.flows.commands.terminal import console, emit_json
from ratchet.flows.commands.which_project import called, which_project, which_version
from ratchet.infra.registry.registry import fetch_files, version_history
from ratchet.infra.registry.version import Version

FORMS: Final = ("adapter", "merged", "gguf")
_MB: Final = 1e6
_BESIDE: Final = "ratchet.json"


def export(
    version: Annotated[str, typer.Argument(help="Number, candidate id, or the beginning of one.")],
    to: Annotated[
        tuple[str, Path],
        typer.Option(metavar="FORM PATH", help="adapter DIR, merged DIR (safetensors) or gguf FILE."),
    ],
    base: Annotated[
        str, typer.Option(help="Folder or hub name of the base, if it is not here by its own name.")
    ] = "",
    role: Annotated[str, typer.Option(help="Of a team whose adapter.")] = "",
    precision: Annotated[str, typer.Option(help="Of a GGUF's matrices: f16 or f32.")] = "f16",
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """A version's weights as adapter, merged model or GGUF.

    What is merged is read back and compared; the version's prompts and chat template are written beside it.
    """
    form, place = to
    _check(form, place, precision)
    chosen = which_project(project, name)
    found = which_version(version_history(chosen), version)
    adapter = _adapter(found, fetch_files(chosen, found.candidate_id), role)
    told = _written(found, adapter, form, place, base, precision)
    beside = place.with_name(f"{place.name}.json") if form == "gguf" else place / _BESIDE
    template = told.pop("chat_template", None)
    beside.write_text(
        json.dumps(_beside(chosen, found, adapter, template), indent=2, ensure_ascii=False) + "\n"
    )
    told |= {"form": form, "path": str(place), "beside": str(beside)}
    if as_json:
        emit_json({"project": chosen, "version": found.number, "candidate_id": found.candidate_id, **told})
    else:
        _say(found, told)


def _check(form: str, place: Path, precision: str) -> None:
    """Before anything is fetched."""
    if form not in FORMS:
        raise BadInput(f"--to {form}: give one of {', '.join(FORMS)}, then where to, as in --to merged out/")
    if precision not in ("f16", "f32"):
        raise BadInput(f"--precision {precision}: give f16 or f32")
    if place.exists() and (form == "gguf" or not place.is_dir() or any(place.iterdir())):
        raise BadInput(
            f"{place} is there already: give a new {'file' if form == 'gguf' else 'or empty folder'}"
        )
    (place.parent if form == "gguf" else place).mkdir(parents=True, exist_ok=True)


def _adapter(version: Version, files: dict[str, Path], role: str) -> Path:
    label = f"adapter.{role}" if role else "adapter"
    if label in files:
        return files[label]
    theirs = [name.partition(".")[2] for name in files if name.startswith("adapter.")]
    if theirs:
        raise BadInput(f"{called(version)} is a team: give --role, one of {', '.join(theirs)}")
    base = version.candidate.base_model
    asked = "the LM that its code asks" if base == IN_CODE else base
    raise BadInput(
        f"{called(version)} has no adapter, it runs on {asked} as it is: there are no weights of its own to export"
    )


def _written(
    version: Version, adapter: Path, form: str, place: Path, base: str, precision: str
) -> dict[str, Any]:
    """Do it; what is to be told of it."""
    from ratchet.agent.lm.gguf_export import write_gguf
    from ratchet.agent.lm.merged import agreement, merge, save_merged

    manifest = check_adapter(adapter)
    name, folder = base_of(base or (manifest.base_model if manifest else version.candidate.base_model))
    told: dict[str, Any] = {"base_model": name, "adapter": version.candidate.adapter or adapter.name}
    if form == "adapter":
        copytree(adapter, place, dirs_exist_ok=True)
        return told | {"bytes": _size(place)}
    merged = merge(folder, adapter)
    if form == "gguf":
        found = write_gguf(
            merged, place, name=version.candidate_id, precision="f32" if precision == "f32" else "f16"
        )
    else:
        save_merged(merged, place)
        found = agreement(merged, _loaded(place))
    told |= {"nats": found.nats, "same_text": found.same_tokens, "bytes": _size(place)}
    return told | {"chat_template": merged.tokenizer.chat_template}


def _loaded(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def _size(place: Path) -> int:
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


def _beside(project: str, version: Version, adapter: Path, template: Any) -> dict[str, Any]:
    """What the weights were proven with."""
    candidate: Candidate = version.candidate
    return {
        "project": project,
        "version": version.number,
        "candidate_id": version.candidate_id,
        "base_model": candidate.base_model,
        "adapter": candidate.adapter or adapter.name,
        "data_digest": candidate.origin.data_digest,
        "verdict": version.reason,
        "prompts": {name: prompt_text(one) for name, one in candidate.predictors.items()},
        "chat_template": template,
    }


def _say(version: Version, told: dict[str, Any]) -> None:
    console.print(
        f"[bold]{called(version)}[/]  {told['base_model']}, adapter {told['adapter']}", soft_wrap=True
    )
    console.print(
        f"[green]✓[/] {told['form']}: {told['path']} ({told['bytes'] / _MB:,.1f} MB)", soft_wrap=True
    )
    if "nats" in told:
        text = "writes the same" if told["same_text"] else "[yellow]does not write the same[/]"
        console.print(f"[green]✓[/] read back: within {told['nats']:.2g} nats of the version, {text}")
    console.print(f"  prompts and chat template: {told['beside']}", soft_wrap=True)
