"""Adapters of a version on the server where its LM is asked: loaded there, and proven to answer, before traffic.

Why both each time: a server that was started again has forgotten its adapters, and one that lists an adapter may
serve its base. Names are made of the adapters' content (`adapter_name`), so to load one again changes nothing.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ratchet.agent.candidate import Candidate
from ratchet.agent.errors import BadInput
from ratchet.agent.lm.adapter_files import check_adapter
from ratchet.agent.lm.adapter_name import PREFIXES, adapter_name
from ratchet.agent.lm.dynamic_lora import LoraServer
from ratchet.agent.lm.endpoint import VENDOR, checked_address
from ratchet.agent.lm.probe import (
    TOKENS,
    Messages,
    Probe,
    base_has_changed,
    make_probe,
    probe_messages,
    who_answers,
)
from ratchet.agent.record import folder_hash
from ratchet.infra.settings import Settings

_made: dict[tuple[str, str], Probe] = {}
"""Of this process, by address and adapter: what a proposer tries is registered nowhere yet."""


def adapters_behind(candidate: Candidate, files: Mapping[str, Path]) -> dict[str, Path]:
    """By their names on the server the folders of the version's adapters; none where no server has them."""
    asked = (candidate.base_model, *candidate.models.values())
    by_name = candidate.kind == "chat" or adapter_name(candidate.adapter or "") in asked
    if not by_name and not any(model.startswith(PREFIXES) for model in asked):
        return {}
    owners = {f"adapter.{role.name}": role.adapter for role in candidate.topology.roles}
    owners["adapter"] = candidate.adapter
    return {
        adapter_name(digest): files[label] for label, digest in owners.items() if digest and label in files
    }


class AdapterServer:
    """The server of one version's adapters."""

    def __init__(
        self,
        candidate: Candidate,
        files: Mapping[str, Path],
        settings: Settings,
        *,
        upstream: str | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            candidate: the version.
            files: its files by name.
            settings: where an endpoint's LM is asked, and which folder its server sees.
            upstream: of a chat endpoint its address, which counts alone.
        """
        self.candidate, self.adapters = candidate, adapters_behind(candidate, files)
        self._settings, self._upstream = settings, upstream

    def prove(self, probes: Mapping[str, Probe]) -> dict[str, Probe]:
        """Load each adapter and see that it answers; by these probes, or by new ones where there are none.

        Returns:
            What is to be kept: by name the probe of each.

        Raises:
            BadInput: the server refuses an adapter, or another model answers under its name.
            ServiceUnavailable: it does not answer.
        """
        return {name: self._proven(name, folder, probes.get(name)) for name, folder in self.adapters.items()}

    def _proven(self, name: str, folder: Path, known: Probe | None) -> Probe:
        check_adapter(folder)
        server = self._server()
        path = path_there(folder, name, self._settings.lora_folder)
        known = known or _made.get((server.address, name))
        probe, why = self._look(server, name, path, known)
        if why:  # it may have kept an older load of it
            server.unload(name)
            probe, why = self._look(server, name, path, known)
        if why:
            raise BadInput(f"{why}; no traffic is moved to it, and no case is played on it")
        _made[server.address, name] = probe
        return probe

    def _look(self, server: LoraServer, name: str, path: str, known: Probe | None) -> tuple[Probe, str]:
        """The probe that holds now, and what speaks against the adapter."""
        base = server.load(name, path).parent or _plain(self.candidate.base_model)

        def ask(model: str, messages: Messages) -> str:
            return server.ask(model, messages, max_tokens=TOKENS)

        if known is not None and known.telling:
            who = who_answers(known, ask)
            if who == "adapter":
                return known, ""
            if who == "base" or not base_has_changed(known, base, ask):
                answers = f"as its base {base}" if who == "base" else "neither as the adapter nor as its base"
                return known, (
                    f"{server.address} answers {answers} where adapter {name} was asked, on the "
                    f"{len(known.telling)} prompts that tell"
                )
        probe = make_probe(name, base, probe_messages(self.candidate), ask)
        why = (
            f"no probe prompt tells adapter {name} from its base {base} at {server.address}: {probe.n_asked} were "
            "asked and answered alike, so the server serves the base, or the adapter changes nothing"
        )
        return probe, "" if probe.telling else why

    def _server(self) -> LoraServer:
        settings, model = self._settings, self.candidate.base_model
        address = self._upstream or settings.lm_api_base or self.candidate.api_base
        if (checked := checked_address(model, address)) == VENDOR:
            raise BadInput(
                f"candidate {self.candidate.candidate_id} names an adapter, and its LM {model} is at its vendor, who "
                "loads none of ours: set RATCHET_LM_API_BASE to a server with dynamic LoRA, such as vLLM"
            )
        key = settings.lm_api_key.get_secret_value() if settings.lm_api_key is not None else None
        return LoraServer(checked, api_key=key, timeout=settings.lm_timeout_s)


def path_there(folder: Path, name: str, shared: str) -> str:
    """Where the server reads the adapter; it is copied to the shared folder first, where there is one.

    Args:
        folder: the adapter's, on this machine.
        name: its name on the server, and its folder's in the shared one.
        shared: `RATCHET_LORA_FOLDER`: `OURS` or `OURS:THEIRS`; empty: the server sees this machine's paths.
    """
    if not shared:
        return str(folder.resolve())
    ours, _, theirs = shared.partition(":")
    place = Path(ours).expanduser().resolve() / name
    if not place.exists() or folder_hash(place) != folder_hash(folder):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
                whole = Path(shutil.copytree(folder, Path(scratch) / name))
                whole.parent.chmod(0o755)  # the server may be another user
                shutil.rmtree(place, ignore_errors=True)
                whole.replace(place)
        except OSError as error:
            raise BadInput(
                f"adapter {name} cannot be copied to {place}: {error.strerror}; set RATCHET_LORA_FOLDER to a folder "
                "that this process may write and the LM's server may read"
            ) from error
    return f"{theirs.rstrip('/')}/{name}" if theirs else str(place)


def _plain(model: str) -> str:
    """The model as its server lists it."""
    prefix = next((one for one in PREFIXES if model.startswith(one)), "")
    return model.removeprefix(prefix)
