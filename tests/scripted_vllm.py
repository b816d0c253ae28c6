"""A scripted server with vLLM's API for adapters, over real HTTP: its answers are made of the name of the folder's one tensor.

As vLLM does: 200 with plain text, errors as JSON; 400 for a name that is loaded already, 404 for a folder that is not
there and for a model that it does not know.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

BASE = "tiny/base"


def says(weights: str, prompt: str) -> str:
    """What these weights make of a prompt."""
    return hashlib.sha256(f"{weights} {prompt}".encode()).hexdigest()[:12]


class ScriptedVLLM(ThreadingHTTPServer):
    """One server; what it holds is lost by `restart`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Callable[[str, str], str] = says) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.loaded: dict[str, str] = {}
        self.serves_base = False
        """It answers 200 under an adapter's name, and calculates with the base's weights."""
        self.forgets_at_once = False
        """It answers 200 to a load, and does not list it."""
        self.weights = BASE
        """Of the base."""
        self.calls: list[str] = []
        """Method, path, and of an answer the model."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def restart(self) -> None:
        self.loaded.clear()

    def loads(self) -> int:
        return self.calls.count("/v1/load_lora_adapter")

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.calls.append(path if "model" not in body else f"{path} {body['model']}")
        name = body.get("lora_name") or body.get("model")
        if path == "/v1/models":
            base = {"id": BASE, "object": "model", "root": BASE, "parent": None}
            theirs = [{"id": n, "object": "model", "root": p, "parent": BASE} for n, p in self.loaded.items()]
            return 200, {"object": "list", "data": [base, *theirs]}
        if path == "/v1/load_lora_adapter":
            return self._load(name, Path(body["lora_path"]))
        if path == "/v1/unload_lora_adapter":
            known = self.loaded.pop(name, None)
            return (
                (200, f"LoRA adapter '{name}' removed") if known else _error(404, f"{name} cannot be found")
            )
        if name not in (BASE, *self.loaded):
            return _error(404, f"The model `{name}` does not exist.")
        return 200, self._chat(name, body["messages"])

    def _load(self, name: str, path: Path) -> tuple[int, Any]:
        if name in self.loaded:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if not (path / "adapter_config.json").exists():
            return _error(404, f"Loading lora {name} failed: No adapter found for {path}")
        if "another-base" in (path / "adapter_config.json").read_text():
            return _error(400, "ValueError: is expecting other modules")
        if not self.forgets_at_once:
            self.loaded[name] = str(path)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _chat(self, name: str, messages: list[dict[str, str]]) -> dict[str, Any]:
        weights = self.weights
        if name in self.loaded and not self.serves_base:
            with safe_open(
                Path(self.loaded[name]) / "adapter_model.safetensors", framework="numpy"
            ) as tensors:
                (weights,) = tensors.keys()
        message = {"role": "assistant", "content": self.script(weights, json.dumps(messages))}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": name,
            "choices": [choice],
            "usage": usage,
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(*self.server.answer(self.path, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(*self.server.answer(self.path, body))

    def _send(self, status: int, said: Any) -> None:
        sent = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def _error(status: int, message: str) -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": "Error", "param": None, "code": status}}


@contextmanager
def scripted_vllm(script: Callable[[str, str], str] = says) -> Iterator[ScriptedVLLM]:
    """The server, for as long as the block takes."""
    server = ScriptedVLLM(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def adapter_folder(folder: Path, weights: str = "adapter", config: str = "{}") -> Path:
    """An adapter as that server reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(config)
    save_file({weights: np.zeros(8)}, folder / "adapter_model.safetensors")
    return folder
