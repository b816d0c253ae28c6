"""How a Label Studio server is reached, by address and token of the environment; and one place that says what broke.

Why plain HTTP and no library: six calls; Label Studio's own package asks for another NumPy than ours.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import httpx

from ratchet.agent.errors import BadInput, ServiceUnavailable, named
from ratchet.evaluation.data.raters import rater_name
from ratchet.infra.review.label_studio_page import RATER
from ratchet.infra.settings import Settings

_TIMEOUT_S: Final = 60
_PAGE_SIZE: Final = 200


class LabelStudio:
    """One server, as one account; for the time of one call of ours."""

    def __init__(self, address: str, client: httpx.Client) -> None:
        self.address, self._client = address, client
        self._names: dict[int, str] = {}
        self._own_id = 0

    @staticmethod
    @contextmanager
    def configured(timeout_s: float = _TIMEOUT_S) -> Iterator["LabelStudio"]:
        """The one that the environment names; each call of it may take `timeout_s`.

        Raises:
            BadInput: it names none, or no token, or the token is refused.
            ServiceUnavailable: it does not answer.
        """
        settings = Settings()
        address, token = settings.label_studio_url.rstrip("/"), settings.label_studio_token
        if not address.startswith(("http://", "https://")) or token is None:
            raise BadInput(
                f"people answer in Label Studio (raters.backend), whose address is {address!r}: set "
                "RATCHET_LABEL_STUDIO_URL (http…) and RATCHET_LABEL_STUDIO_TOKEN, or raters.backend = 'mlflow'"
            )
        with httpx.Client(base_url=address, timeout=timeout_s) as client:
            server = LabelStudio(address, client)
            server._log_in(token.get_secret_value())
            yield server

    def _log_in(self, token: str) -> None:
        """A personal access token is changed for one that holds minutes; an older kind is sent as it is."""
        if token.count(".") == 2:
            access = self.post("/api/token/refresh", {"refresh": token})["access"]
            self._client.headers["Authorization"] = f"Bearer {access}"
        else:
            self._client.headers["Authorization"] = f"Token {token}"
        self._own_id = int(self.get("/api/current-user/whoami")["id"])

    def rater_of(self, annotation: Mapping[str, Any]) -> str:
        """Who logged in to write it; of what our own account wrote, whom it names."""
        by = annotation["completed_by"]
        if by == self._own_id:
            for one in annotation["result"] or ():
                told = (one.get("value") or {}).get("text") or ()
                if one.get("from_name") == RATER and told:
                    return rater_name(told if isinstance(told, str) else str(told[0]))
        if not self._names:
            users = self.get("/api/users")
            self._names = {one["id"]: one.get("email") or f"user {one['id']}" for one in users}
        return rater_name(self._names.get(by, f"user {by}"))

    def get(self, path: str, **asked: Any) -> Any:
        """What stands there."""
        return self._answer("GET", path, params=asked)

    def post(self, path: str, content: Any) -> Any:
        """Write something new."""
        return self._answer("POST", path, json=content)

    def patch(self, path: str, content: Any) -> Any:
        """Change what is there."""
        return self._answer("PATCH", path, json=content)

    def delete(self, path: str) -> None:
        """Take it away."""
        self._answer("DELETE", path)

    def pages(self, path: str, key: str = "results", **asked: Any) -> Iterator[dict[str, Any]]:
        """All of a list, page by page to the last."""
        page, seen = 1, 0
        while True:
            found = self.get(path, page=page, page_size=_PAGE_SIZE, **asked)
            yield from found[key]
            seen += len(found[key])
            if not found[key] or seen >= int(found.get("total", found.get("count", 0))):
                return
            page += 1

    def _answer(self, method: str, path: str, **sent: Any) -> Any:
        try:
            answer = self._client.request(method, path, **sent)
        except httpx.TransportError as error:
            raise self._unavailable(path, named(error)) from error
        if answer.status_code in (401, 403):
            raise BadInput(
                f"Label Studio at {self.address} refuses the token (status {answer.status_code}): set "
                "RATCHET_LABEL_STUDIO_TOKEN to one of an account that may make projects"
            )
        if answer.status_code >= 500 or answer.status_code == 429:
            raise self._unavailable(path, f"status {answer.status_code}")
        if not answer.is_success:
            raise BadInput(
                f"Label Studio at {self.address} refused {method} {path}, status {answer.status_code}: "
                f"{answer.text[:200]}; see that it is version 1.23 or newer"
            )
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise self._unavailable(path, "what it said is no JSON") from error

    def _unavailable(self, path: str, why: str) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"Label Studio at {self.address} did not answer {path}: {why}; nothing was lost: see that it runs, then "
            "repeat"
        )
