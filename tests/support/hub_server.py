"""As much of the Hugging Face hub as an upload needs, on loopback: it keeps repositories and the files of commits."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class HubServer:
    """A context manager. `repositories` by `models/ORG/NAME` have their files; `cards` what was sent to be checked."""

    def __init__(self, token: str = "secret") -> None:
        self.token = token
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.cards: list[dict[str, Any]] = []
        self.rejects_cards = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = hub.answer(self.path.partition("?")[0], body, self.headers.get("Authorization"))
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str, body: bytes, authorization: str | None) -> tuple[int, Any]:
        if path == "/api/validate-yaml":
            self.cards.append(json.loads(body))
            return (400, {"error": "license: unknown"}) if self.rejects_cards else (200, {"errors": [], "warnings": []})
        if authorization != f"Bearer {self.token}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
            self.repositories.setdefault(name, {})
            self.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return 200, {"url": f"{self.url}/{name}", "name": name, "id": name}
        kind, organization, name, action = path.removeprefix("/api/").split("/")[:4]
        files = self.repositories[f"{kind}/{organization}/{name}"]
        if action == "preupload":
            asked = json.loads(body)["files"]
            return 200, {
                "files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]
            }
        assert action == "commit", path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return 200, {
            "success": True,
            "commitOid": "0" * 40,
            "commitUrl": f"{self.url}/{organization}/{name}/commit/0",
            "hookOutput": "",
        }
