"""`support/pooling.py` where a vLLM server is started as a child: its arguments, its Unix socket, a process group."""

from __future__ import annotations

import itertools
import socket
import socketserver
from pathlib import Path
from typing import Any

from support.pooling import PoolingServer


def main(argv: list[str]) -> int:
    """Serve until killed. Takes the arguments that vLLM's server takes here, and fails where one is missing."""
    said: dict[str, Any] = dict(itertools.pairwise(argv))
    assert said["-m"] == "vllm.entrypoints.openai.api_server"
    assert said["--runner"] == "pooling"
    one = PoolingServer(Path(said["--model"]), max_model_len=int(said["--max-model-len"]))

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, _ = super().get_request()
            return connection, ("unix", 0)

    handler: Any = one.server.RequestHandlerClass
    one.server.server_close()
    with Server(said["--uds"], handler) as server:
        server.serve_forever()
    return 0
