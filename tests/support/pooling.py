"""A small server that speaks vLLM's wire schema for reward models, over Hugging Face's forward of a checkpoint.

It is not vLLM. It answers `/health`, `/version`, `/v1/models` and `/pooling` as vLLM 0.32 was seen to (the sigmoid that
is applied unless `use_activation` is false, the errors for what is too long or out of vocabulary), and it can be told
to misbehave. `tests/integration/test_vllm.py` asks a real vLLM server the same.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification


class PoolingServer:
    """On a port of its own of this machine while the context is open. `asked`: the bodies of `/pooling`, in order.

    `broken`: an HTTP status with which every `/pooling` is answered, or a function of a right answer that makes a wrong
    one. `key`: the bearer token that is asked for.
    """

    def __init__(self, folder: Path, *, port: int = 0, max_model_len: int = 256, key: str | None = None) -> None:
        self.name = str(folder)
        self.load(folder)
        self.max_model_len = max_model_len
        self.key = key
        self.broken: Any = None
        self.asked: list[Any] = []
        self.connections: list[socket.socket] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say(*outer.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if outer.key and self.headers.get("authorization") != f"Bearer {outer.key}":
                    self._say(401, {"error": "Unauthorized"})
                    return
                self._say(*outer.post(self.path, body))

            def setup(self) -> None:
                super().setup()
                outer.connections.append(self.connection)

            def _say(self, status: int, body: Any) -> None:
                raw = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def load(self, folder: Path) -> None:
        """Other weights under the same name, from now on."""
        self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def hang_up(self) -> None:
        """Close every connection, as a server that ends does."""
        for one in self.connections:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/health":
            return 200, None
        if path == "/version":
            return 200, {"version": "0.0-test"}
        card = {
            "id": self.name,
            "object": "model",
            "root": self.name,
            "parent": None,
            "max_model_len": self.max_model_len,
        }
        return (200, {"object": "list", "data": [card]}) if path == "/v1/models" else (404, {"detail": "Not Found"})

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        if path != "/pooling":
            return 404, {"detail": "Not Found"}
        self.asked.append(body)
        if isinstance(self.broken, int):
            return self.broken, {"error": {"message": "broken on purpose", "code": self.broken}}
        if body["model"] != self.name:
            return self._error(404, f"The model `{body['model']}` does not exist.")
        for ids in body["input"]:
            if len(ids) > self.max_model_len:
                return self._error(400, f"This model's maximum context length is {self.max_model_len} tokens.")
            if not all(0 <= one < self.model.config.vocab_size for one in ids):
                return self._error(400, f"Token id {max(ids)} is out of vocabulary")
        answer = self._pooled(body)
        return 200, self.broken(answer) if self.broken else answer

    def _error(self, status: int, message: str) -> tuple[int, Any]:
        return status, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}

    @torch.inference_mode()
    def _pooled(self, body: Any) -> Any:
        logits = [self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0] for ids in body["input"]]
        if body.get("use_activation") is not False:
            logits = [one.sigmoid() for one in logits]
        data = [{"index": at, "object": "pooling", "data": one.tolist()} for at, one in enumerate(logits)]
        tokens = sum(map(len, body["input"]))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
        return {"id": "pooling-0", "object": "list", "created": 0, "model": self.name, "data": data, "usage": usage}

    def __enter__(self) -> PoolingServer:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.hang_up()
        self.server.server_close()
