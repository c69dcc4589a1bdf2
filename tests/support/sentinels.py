"""A primary, a replica and one sentinel, on loopback, whose servers may be killed, frozen and started again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import redis

from support.stack import free_port, wait_for


class Sentinels:
    """A context manager. `append_only`: a server's data outlives it; `down_after_ms`: the sentinel's patience."""

    def __init__(self, *, append_only: bool = False, down_after_ms: int = 500) -> None:
        self.ports = {name: free_port() for name in ("a", "b", "sentinel")}
        self.folder = Path(tempfile.mkdtemp(prefix="plaudit-sentinel-"))
        self.append_only = append_only
        self.down_after_ms = down_after_ms
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"sentinel://127.0.0.1:{self.ports['sentinel']}/main"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The sentinel, as the `Stack`'s broker."""
        return self.processes["sentinel"]

    def start_server(self, name: str, replica_of: str | None = None) -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        options = ["--save", "", "--appendonly", "yes" if self.append_only else "no", "--dir", str(folder)]
        if replica_of is not None:
            options += ["--replicaof", "127.0.0.1", str(self.ports[replica_of])]
        self._start(name, *options)

    def _start(self, name: str, *options: str) -> None:
        program = shutil.which("redis-server") or "redis-server"
        command = [program, *options, "--port", str(self.ports[name]), "--bind", "127.0.0.1"]
        self.processes[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with self.client(name) as client:
            wait_for(lambda: _answers(client), what=name)

    def client(self, name: str) -> redis.Redis:
        return redis.Redis(port=self.ports[name], socket_timeout=2)

    def primary(self) -> str:
        """The server that the sentinel takes for the primary."""
        with self.client("sentinel") as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        return next(name for name, own_port in self.ports.items() if own_port == int(port))

    def kill(self, name: str) -> None:
        """SIGKILL, and gone."""
        self.processes[name].kill()
        self.processes[name].wait()

    def __enter__(self) -> Sentinels:
        self.start_server("a")
        self.start_server("b", replica_of="a")
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor main 127.0.0.1 {self.ports['a']} 1\n"
            f"sentinel down-after-milliseconds main {self.down_after_ms}\nsentinel failover-timeout main 3000\n"
        )
        self._start("sentinel", str(config), "--sentinel", "--dir", str(self.folder))
        with self.client("sentinel") as client:
            wait_for(lambda: client.execute_command("SENTINEL", "REPLICAS", "main"), what="the sentinel to see both")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False
