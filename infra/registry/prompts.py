"""The prompts of a project's versions in MLflow's prompt registry, for people and for readers without Ratchet.

Decision: one pointer decides who serves, the model's `champion`. A model version names its prompts by immutable
number; the alias `champion` of each prompt follows that pointer, for agents that only call `load_prompt`. Several
aliases cannot move together, so a kill in between, or a person, can leave a prompt behind: `prompts_behind` sees it,
and `follow_champion`, which every move and every run ends or begins with, mends it.

Whose a prompt is: its tag `ratchet.project` says so. One without the tag is adopted: its versions and other aliases
stay as they are, ours are added. Where `champion` stands already on a version that is not ours, it is refused.
"""

import json
import logging
import re
from collections import defaultdict
from typing import Final

from mlflow.entities.model_registry import PromptVersion
from mlflow.exceptions import MlflowException

from ratchet.agent.candidate import Candidate, Predictor, plain_name
from ratchet.agent.errors import BadInput
from ratchet.agent.part_values import prompt_text
from ratchet.infra.mlflow_client import Connection, all_pages, connect, mlflow_errors
from ratchet.infra.registry.alias_moves import current_aliases
from ratchet.infra.registry.alias_names import CHAMPION
from ratchet.infra.registry.version import CANDIDATE, Listing, numbered

PROMPTS: Final = "ratchet.prompts"
"""Tag of a model version: its prompts, as JSON {prompt: version}."""
OWNER: Final = "ratchet.project"
"""Tag of a prompt: the project whose part it is."""
_PART: Final = "ratchet.part."
"""Prefix of the tags of a project's model that name its parts; the value says of what kinds."""
_PROMPT: Final = "prompt."
"""Prefix of the run's tags that name its prompts."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_MISSING: Final = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"}
"""What MLflow says, by its kind of store, of an alias or a prompt that is not there."""
_PAGE: Final = 100
logger = logging.getLogger(__name__)


def page_of(project: str, candidate: Candidate, predictor: str) -> str:
    """The name in the prompt registry: of a callable's part its own, else `<project>-<predictor>`.

    Raises:
        BadInput: the part's name cannot be a prompt's.
    """
    if candidate.kind != "callable":
        return f"{project}-{re.sub(r'[^A-Za-z0-9_.-]', '-', predictor)}"
    if not _NAME.fullmatch(predictor) or predictor == project:
        why = "is the project's own name" if predictor == project else "has characters that MLflow refuses"
        raise BadInput(
            f"prompt part {predictor!r} {why}: name it by letters, digits, `-`, `_` and `.`, such as "
            f"{project + '-system'!r}"
        )
    return predictor


def page_text(predictor: Predictor) -> str:
    """The prompt as it is served; MLflow keeps no empty one."""
    return prompt_text(predictor) or "(no instructions)"


def claim_prompts(connection: Connection, candidate: Candidate) -> None:
    """See that the candidate's prompts are the project's own or free, and adopt those that are nobody's.

    Call it before anything is written.

    Raises:
        BadInput: a prompt is another project's, or serves somebody already.
    """
    for predictor in candidate.predictors:
        page = page_of(connection.project, candidate, predictor)
        prompt = connection.client.get_prompt(page)
        if prompt is None:
            _require_no_model(connection, page)
            continue
        owner = prompt.tags.get(OWNER)
        if owner and owner != connection.project:
            raise BadInput(f"prompt {page!r} is a part of project {owner!r}: give the part another name")
        if owner is None and _is_theirs(_pointed(connection, page)):
            raise BadInput(
                f"prompt {page!r} is in use in MLflow, and its alias `{CHAMPION}` is not Ratchet's: give the part "
                "another name, or remove that alias, and the prompt is adopted with all its versions"
            )
        if owner is None:
            connection.client.set_prompt_tag(page, OWNER, connection.project)


def _require_no_model(connection: Connection, page: str) -> None:
    try:
        connection.client.get_registered_model(page)
    except MlflowException as error:
        if error.error_code in _MISSING:
            return
        raise
    raise BadInput(
        f"{page!r} is a registered model in MLflow: a prompt cannot have its name, rename the part"
    )


def _is_theirs(pointed: PromptVersion | None) -> bool:
    return pointed is not None and CANDIDATE not in pointed.tags


def write_prompts(connection: Connection, candidate: Candidate, run_id: str) -> dict[str, int]:
    """Link the run to a prompt for each predictor, and return them; a text that is there is no new version."""
    client = connection.client
    written = client.get_run(run_id).data.tags
    for part, predictor in candidate.predictors.items():
        if f"{_PROMPT}{(name := plain_name(part))}" in written:
            continue
        page, text = page_of(connection.project, candidate, part), page_text(predictor)
        prompt = next((one for one in _versions(connection, page) if one.template == text), None)
        if prompt is None:
            prompt = _register(connection, candidate, page, text, run_id)
        client.link_prompt_version_to_run(run_id, prompt)
        written[f"{_PROMPT}{name}"] = f"{prompt.name}/{prompt.version}"
        client.set_tag(run_id, f"{_PROMPT}{name}", written[f"{_PROMPT}{name}"])
    return _named(written)


def prompts_of(found: Listing) -> dict[str, int]:
    """The prompts that a version consists of: name in the prompt registry to version."""
    return _named(found.facts)


def _named(tags: dict[str, str]) -> dict[str, int]:
    named = [value.rpartition("/") for name, value in tags.items() if name.startswith(_PROMPT)]
    return {page: int(number) for page, _, number in named}


def _versions(connection: Connection, page: str) -> list[PromptVersion]:
    """All versions of a prompt; none where it has no page yet."""
    try:
        return all_pages(connection.client.search_prompt_versions, page, max_results=_PAGE)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return []


def _register(
    connection: Connection, candidate: Candidate, page: str, text: str, run_id: str
) -> PromptVersion:
    client = connection.client
    for first in (True, False):
        try:
            prompt: PromptVersion = client.register_prompt(
                page,
                text,
                commit_message=candidate.origin.note or f"by {candidate.origin.proposer}",
                tags={CANDIDATE: candidate.candidate_id, "run_id": run_id},
            )
        except MlflowException as error:  # another home made the page between MLflow's look and its write
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or not first:
                raise
        else:
            client.set_prompt_tag(page, OWNER, connection.project)
            return prompt
    raise AssertionError("the second attempt returns or raises")


def forget_prompts(connection: Connection, run_id: str) -> None:
    """Delete those prompts of a run that came to nothing which another run made as well."""
    for page, number in _named(connection.client.get_run(run_id).data.tags).items():
        prompts = _versions(connection, page)
        ours = next((one for one in prompts if int(one.version) == number), None)
        if ours is None or ours.tags.get("run_id") != run_id:
            continue
        if any(one.template == ours.template for one in prompts if one is not ours):
            connection.client.delete_prompt_version(page, str(number))


def follow_champion(connection: Connection) -> dict[str, int]:
    """Point `champion` of each prompt to what the serving version names; returns those that were behind."""
    behind = _behind(connection)
    for page, number in behind.items():
        try:
            connection.client.set_prompt_alias(page, CHAMPION, number)
        except MlflowException as error:
            if error.error_code not in _MISSING:
                raise
            logger.warning(
                "prompt %s has no version %s any more, somebody deleted it in MLflow: who reads it by `load_prompt` "
                "does not see what serves",
                page,
                number,
            )
    return behind


def prompts_behind(project: str) -> dict[str, int]:
    """Prompts whose alias `champion` is not what the serving version names, with the version that it names."""
    with mlflow_errors("comparing prompts with the champion"):
        return _behind(connect(project))


def _behind(connection: Connection) -> dict[str, int]:
    serving = current_aliases(connection).get(CHAMPION)
    named = prompts_of(numbered(connection, serving)) if serving is not None else {}
    pointed = {page: _pointed(connection, page) for page in named}
    return {
        page: number
        for page, number in named.items()
        if (at := pointed[page]) is None or at.version != number
    }


def _pointed(connection: Connection, page: str) -> PromptVersion | None:
    try:
        pointed: PromptVersion = connection.client.get_prompt_version_by_alias(page, CHAMPION)
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        return None
    return pointed


def part_tags(candidate: Candidate) -> dict[str, str]:
    """The parts of a callable as tags of its model, by which a process that serves finds it."""
    if candidate.kind != "callable":
        return {}
    kinds: dict[str, list[str]] = defaultdict(list)
    for kind, names in (
        ("prompt", candidate.predictors),
        ("tool", candidate.tools),
        ("model", candidate.models),
    ):
        for name in names:
            kinds[name].append(kind)
    return {part_tag(name): " ".join(of) for name, of in kinds.items()}


def part_tag(part: str) -> str:
    """The tag's name of a part, whatever characters the part's has."""
    return _PART + plain_name(part)


def as_tag(prompts: dict[str, int]) -> dict[str, str]:
    """The tag of a model version that names its prompts."""
    return {PROMPTS: json.dumps(prompts)} if prompts else {}
