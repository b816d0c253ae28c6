"""LoRA adapters behind a server that loads them while it runs: vLLM's API, and whoever speaks it, over plain HTTP.

Decision: what is loaded is looked up and not believed: a server may answer 200 and forget, or serve its base
(`probe.py`).
"""

from collections.abc import Mapping
from typing import Any, Final

import httpx

from ratchet.agent.errors import BadInput, ServiceUnavailable, named
from ratchet.agent.lm.upstream import Upstream
from ratchet.agent.record import Record

_TIMEOUT_S: Final = 120.0
"""A large adapter is read from a shared disk while the server is asked."""
_HOW: Final = (
    "start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and "
    "`vllm serve BASE --enable-lora --max-lora-rank RANK`"
)


class ServedModel(Record):
    """What a server lists."""

    root: str = ""
    """Of an adapter the folder that it was loaded from."""
    parent: str = ""
    """Of an adapter the model that it changes."""


class LoraServer:
    """A server with dynamic LoRA. Safe for use from several threads."""

    def __init__(self, address: str, *, api_key: str | None = None, timeout: float = _TIMEOUT_S) -> None:
        """Get ready to ask.

        Args:
            address: such as `http://localhost:8000/v1`.
            api_key: sent to it, kept nowhere.
            timeout: seconds until an answer is given up.
        """
        self.address = address.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = timeout
        self._upstream = Upstream(self.address, api_key=api_key, timeout=timeout)

    def served(self) -> dict[str, ServedModel]:
        """What it lists at `/v1/models`, by id.

        Raises:
            ServiceUnavailable: it did not answer, or with something else.
        """
        response = self._asked("GET", "models")
        if not response.is_success:
            raise self._failed("models", response)
        try:
            return {str(one["id"]): _listed(one) for one in response.json()["data"]}
        except (ValueError, LookupError, TypeError) as error:
            raise ServiceUnavailable(
                f"{self.address}/models: no list of models: {response.text[:80]}"
            ) from error

    def load(self, name: str, path: str) -> ServedModel:
        """Have it serve the adapter in this folder; one that has the name already is that very adapter.

        Args:
            name: `adapter_name` of its content.
            path: the folder as the server sees it.

        Raises:
            BadInput: it refuses, or says yes and does not list it.
            ServiceUnavailable: it did not answer, or failed.
        """
        if (known := self.served().get(name)) is not None:
            return known
        response = self._asked("POST", "load_lora_adapter", {"lora_name": name, "lora_path": path})
        if (known := self.served().get(name)) is not None:  # also where another process was first: 400
            return known
        if response.is_success:
            raise BadInput(
                f"{self.address} says that adapter {name} is loaded and does not list it: {_HOW}, and let no proxy "
                "stand between that answers for several servers"
            )
        raise self._failed("load_lora_adapter", response, f"adapter {name} at {path}")

    def unload(self, name: str) -> None:
        """Have it serve the adapter no longer; one that it does not know is no error."""
        response = self._asked("POST", "unload_lora_adapter", {"lora_name": name})
        if not response.is_success and response.status_code != httpx.codes.NOT_FOUND:
            raise self._failed("unload_lora_adapter", response, f"adapter {name}")

    def ask(self, model: str, messages: list[dict[str, str]], *, max_tokens: int) -> str:
        """What this model says at temperature 0.

        Raises:
            UpstreamError: it did not answer, or refused.
            LMFailure: what it answered is no chat completion.
        """
        body = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0.0}
        answer = self._upstream.ask(body)
        return str(answer["choices"][0]["message"].get("content") or "")

    def _asked(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            return httpx.request(
                method, f"{self.address}/{path}", json=body, headers=self._headers, timeout=self._timeout
            )
        except httpx.TransportError as error:
            raise ServiceUnavailable(f"{self.address}/{path}: {named(error)}") from error

    def _failed(self, path: str, response: httpx.Response, what: str = "") -> BadInput | ServiceUnavailable:
        """400 and 404 are ours to mend, all else is the server's."""
        said = f"{self.address}/{path}: {response.status_code} {_message(response)}"
        if what:
            said = f"{what} is not served: {said}"
        if response.status_code >= 500 or response.status_code in (408, 429):
            return ServiceUnavailable(said)
        if response.status_code == httpx.codes.NOT_FOUND and "error" not in _object(response):
            return BadInput(f"{said}: it loads no adapters while it runs: {_HOW}")
        return BadInput(
            f"{said}: the folder must be readable there (RATCHET_LORA_FOLDER), and the adapter trained for the model "
            f"that it serves; {_HOW}"
        )


def _listed(one: Mapping[str, Any]) -> ServedModel:
    return ServedModel(root=str(one.get("root") or ""), parent=str(one.get("parent") or ""))


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _message(response: httpx.Response) -> str:
    """`{"error": {"message": …}}`, or as older servers say it `{"message": …}`; on one line."""
    found = _object(response)
    error = found.get("error")
    told = error.get("message") if isinstance(error, dict) else found.get("message")
    return " ".join(str(told or response.text).split())[:200]
