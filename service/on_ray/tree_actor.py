"""The actor around one process tree: starts it, says how it is, and has it drained.

- Its methods run one after the other on the main thread of Ray's worker process. The kernel ends the tree with the
  thread that started it, and that is the one that lives as long as the process.
- Two threads read what the tree prints: the ready line, and its last words, which are also logged by Ray.
- What the tree needs to know travels in its environment, and a broker's password through its standard input.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from typing import IO, Any

from service.on_ray.placement import Role
from service.settings import PREFIX

LAST_LINES = 5


class TreeActor:
    """One process tree of a deployment.

    Args:
        role: which tree.
        environ: the settings of its processes, as variables.
        password: of a broker.
    """

    def __init__(self, role: Role, environ: Mapping[str, str], password: str = "") -> None:
        import ray

        self._node_id: str = ray.get_runtime_context().get_node_id()
        self._address: str = ray.util.get_node_ip_address()
        self._redis_url = environ.get(f"{PREFIX}REDIS_URL", "")
        self._event: dict[str, str] = {}
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        own |= environ
        own.setdefault(f"{PREFIX}HOST", self._address)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "service.on_ray.tree", role, str(os.getpid()), self._address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=own,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(password.encode())
        self._process.stdin.close()
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, keep), daemon=True)
            for pipe, keep in ((self._process.stdout, self._read_event), (self._process.stderr, self._last.append))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[bytes], keep: Any) -> None:
        with pipe:
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip("\n")
                keep(line)
                print(line, file=sys.stderr, flush=True)

    def _read_event(self, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return
        if isinstance(event, dict) and event.get("event") == "ready":
            self._event = {name: str(value) for name, value in event.items()}
            for wildcard in ("0.0.0.0", "[::]"):
                if url := self._event.get("url"):
                    self._event["url"] = url.replace(f"//{wildcard}:", f"//{self._address}:")

    def state(self) -> dict[str, Any]:
        """The fields of a `TreeReport`."""
        exit_code = self._process.poll()
        if exit_code is not None:
            for reader in self._readers:
                reader.join(1.0)  # its last words
        phase = "ended" if exit_code is not None else "ready" if self._event else "starting"
        return {
            "phase": phase,
            "redis_url": self._redis_url,
            "event": self._event,
            "exit_code": exit_code,
            "detail": self._reason() if exit_code else "",
            "node_id": self._node_id,
            "host": socket.gethostname(),
            "pids": tuple(children_of(self._process.pid)) if exit_code is None else (),
        }

    def _reason(self) -> str:
        """The message that the tree ended with, else its last lines."""
        lines = list(self._last)
        messages = [line.removeprefix("plaudit: ") for line in lines if line.startswith("plaudit: ")]
        return messages[-1] if messages else " | ".join(lines)

    def drain(self) -> None:
        """Ask the tree to finish what it holds and to end. It does so by itself; `state` says when it has."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


def children_of(pid: int) -> list[int]:
    """The children of a process; empty if it has ended."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
