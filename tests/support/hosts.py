"""Several hosts on one: network namespaces on a wire of our own, with Redis servers, sentinels and the service on them.

A host here is a network namespace. Files, CPUs and the wall clock are shared; what goes between two hosts goes over the
wire (`wire.py`), which can be cut, one direction too, and be slow or lossy. A host's own clock is changed for plaudit's
processes by `wrong_clock.py`, and for Redis by `wrong_clock.c`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import redis

from support.stack import Process, Stack, wait_for

WIRE = Path(__file__).with_name("wire.py")
HERE = "client"  # the namespace in which the tests run
DOWN_AFTER_MS = 1500
REDIS_PORT, COPY_PORT, SENTINEL_PORT = 6379, 6380, 26379


def missing() -> str:
    """What this host lacks for network namespaces; "" if nothing."""
    if os.geteuid() != 0:
        return "root"
    for program in ("ip", "nsenter", "redis-server", "gcc"):
        if shutil.which(program) is None:
            return f"the program {program}"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        return "network namespaces"
    return ""


def wrong_clock(folder: Path, off_s: float) -> dict[str, str]:
    """The environment of a program written in C whose wall clock is to be off. Builds a library in the folder."""
    library = folder / "wrong_clock.so"
    if not library.exists():
        compiler = shutil.which("gcc") or "gcc"
        source = Path(__file__).with_name("wrong_clock.c")
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_OFF_S": str(int(off_s))}


class Network:
    """Named hosts on one wire. A context manager; leaving it removes every namespace.

    The host `client` is this process's own namespace.
    """

    def __init__(self, *names: str) -> None:
        self.tag = f"p{os.getpid() % 100_000}"
        self.subnet = f"10.213.{os.getpid() % 250 + 1}"  # another network of this host may be there at the same time
        self.names = [HERE, *names]
        self._wire: subprocess.Popen[bytes] | None = None

    def address(self, name: str) -> str:
        return f"{self.subnet}.{self.names.index(name) + 1}"

    def namespace(self, name: str) -> str:
        return "-" if name == HERE else f"{self.tag}-{name}"

    def enter(self, name: str) -> list[str]:
        """The words before a command that is to run on a host."""
        return [] if name == HERE else ["nsenter", f"--net=/run/netns/{self.namespace(name)}"]

    def set(self, source: str, to: str, **link: Any) -> None:
        """Change one direction: `delay_s`, `loss`, `cut`."""
        assert self._wire is not None
        assert self._wire.stdin is not None
        order = {"from": self.namespace(source), "to": self.namespace(to), **link}
        self._wire.stdin.write(json.dumps(order).encode() + b"\n")
        self._wire.stdin.flush()
        self._told()

    def _told(self) -> int:
        assert self._wire is not None
        assert self._wire.stdout is not None
        ready, _, _ = select.select([self._wire.stdout], [], [], 20)
        line = self._wire.stdout.readline() if ready else b""
        assert line, "the wire does not answer"
        return int(line)

    def both(self, one: str, other: str, **link: Any) -> None:
        self.set(one, other, **link)
        self.set(other, one, **link)

    def everywhere(self, **link: Any) -> None:
        for source in self.names:
            for to in self.names:
                if source != to:
                    self.set(source, to, **link)

    @contextlib.contextmanager
    def cut(self, *pairs: tuple[str, str]) -> Iterator[None]:
        """What the first of each pair sends to the second is lost meanwhile."""
        for source, to in pairs:
            self.set(source, to, cut=True)
        try:
            yield
        finally:
            for source, to in pairs:
                self.set(source, to, cut=False)

    def isolate(self, name: str) -> None:
        """Cut a host off from all others, for good."""
        for other in self.names:
            if other != name:
                self.both(name, other, cut=True)

    def __enter__(self) -> Network:
        try:
            for name in self.names[1:]:
                subprocess.run(["ip", "netns", "add", self.namespace(name)], check=True)
            command = [sys.executable, str(WIRE), f"{self.tag}w", self.subnet, *map(self.namespace, self.names)]
            self._wire = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._told()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        if self._wire is not None:
            assert self._wire.stdin is not None
            assert self._wire.stdout is not None
            self._wire.stdin.close()
            self._wire.wait(20)
            self._wire.stdout.close()
        for name in self.names[1:]:
            subprocess.run(["ip", "netns", "del", self.namespace(name)], capture_output=True)

    def __exit__(self, *_: object) -> None:
        self.close()


class RedisHosts:
    """Redis servers on hosts, and sentinels that watch the replicated ones. It is a `Stack`'s broker.

    Args:
        network: with these hosts.
        alone: hosts whose Redis is a shard that no sentinel watches.
        copies: hosts with a second Redis, a replica of one of these.
        primary: host of a replicated shard; "" for none.
        replica: host of its replica.
        sentinels: hosts with a sentinel; more than half of them must agree.
        clocks_s: how far the clock of a host's Redis is off.
    """

    def __init__(
        self,
        network: Network,
        *,
        alone: tuple[str, ...] = (),
        copies: Mapping[str, str] | None = None,
        primary: str = "",
        replica: str = "",
        sentinels: tuple[str, ...] = (),
        clocks_s: Mapping[str, float] | None = None,
    ) -> None:
        self.network = network
        self.alone = alone
        self.copies = dict(copies or {})
        self.first_primary, self.replica, self.sentinels = primary, replica, sentinels
        self.clocks_s = dict(clocks_s or {})
        self.folder = Path(tempfile.mkdtemp(prefix="plaudit-hosts-"))
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.watchers: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def urls(self) -> list[str]:
        urls = [f"redis://{self.network.address(name)}:{REDIS_PORT}#{name}" for name in self.alone]
        if self.first_primary:
            hosts = ",".join(f"{self.network.address(name)}:{SENTINEL_PORT}" for name in self.sentinels)
            urls.append(f"sentinel://{hosts}/main#replicated")
        return urls

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def process(self) -> object:
        """A `Stack` starts its broker again if this is None, which here is never right."""
        return self

    def client(self, name: str, port: int = REDIS_PORT) -> redis.Redis:
        """A client that runs on the host itself is not to be had: this one goes over the wire."""
        return redis.Redis(self.network.address(name), port, socket_timeout=2, socket_connect_timeout=2)

    def start_server(self, name: str, replica_of: str = "", port: int = REDIS_PORT) -> None:
        folder = self.folder / f"{name}-{port}"
        folder.mkdir(exist_ok=True)
        options = ["--port", str(port), "--protected-mode", "no", "--save", "", "--dir", str(folder)]
        options += ["--appendonly", "yes", "--appendfsync", "everysec", "--repl-diskless-sync-delay", "0"]
        options += ["--repl-timeout", "5", "--repl-ping-replica-period", "1"]
        if replica_of:
            options += ["--replicaof", self.network.address(replica_of), str(REDIS_PORT)]
        environ = dict(os.environ)
        if off_s := self.clocks_s.get(name):
            environ |= wrong_clock(self.folder, off_s)
        with (folder / "log").open("ab") as log:
            command = [*self.network.enter(name), "redis-server", *options]
            started = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        self.servers[name if port == REDIS_PORT else f"{name}-{port}"] = started
        with self.client(name, port) as client:
            wait_for(lambda: _answers(client), 20, f"Redis on {name}")

    def start_sentinel(self, name: str) -> None:
        folder = self.folder / f"sentinel-{name}"
        folder.mkdir()
        quorum = len(self.sentinels) // 2 + 1
        (folder / "conf").write_text(
            f"port {SENTINEL_PORT}\nprotected-mode no\nsentinel announce-ip {self.network.address(name)}\n"
            f"sentinel monitor main {self.network.address(self.first_primary)} {REDIS_PORT} {quorum}\n"
            f"sentinel down-after-milliseconds main {DOWN_AFTER_MS}\nsentinel failover-timeout main 6000\n"
        )
        with (folder / "log").open("ab") as log:
            command = [*self.network.enter(name), "redis-server", str(folder / "conf"), "--sentinel"]
            self.watchers[name] = subprocess.Popen([*command, "--dir", str(folder)], stdout=log, stderr=log)
        with self.client(name, SENTINEL_PORT) as client:
            wait_for(lambda: _answers(client), 20, f"the sentinel on {name}")

    def primary(self, asked: str = "") -> str:
        """The host that a sentinel takes for the primary's."""
        with self.client(asked or self.sentinels[-1], SENTINEL_PORT) as client:
            told: Any = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        address = told[0].decode()
        return next(name for name in self.network.names if self.network.address(name) == address)

    def kill(self, name: str) -> None:
        """The Redis of a host, by SIGKILL."""
        self.servers[name].kill()
        self.servers[name].wait()

    def replicas_in_step(self, name: str = "") -> int:
        """How many replicas follow the primary, or another host's Redis."""
        with self.client(name or self.primary()) as client:
            info: dict[str, Any] = client.info("replication")  # type: ignore[assignment]
        states = [value["state"] for name, value in info.items() if re.fullmatch(r"slave\d+", name)]
        return states.count("online")

    def __enter__(self) -> RedisHosts:
        try:
            for name in self.alone:
                self.start_server(name)
            for name, original in self.copies.items():
                self.start_server(name, original, COPY_PORT)
            if self.first_primary:
                self.start_server(self.first_primary)
                self.start_server(self.replica, replica_of=self.first_primary)
                for name in self.sentinels:
                    self.start_sentinel(name)
                wait_for(self._all_seen, 30, "the sentinels to see each other and the replica")
        except BaseException:
            self.close()
            raise
        return self

    def _all_seen(self) -> bool:
        for name in self.sentinels:
            with self.client(name, SENTINEL_PORT) as client:
                others: Any = client.execute_command("SENTINEL", "SENTINELS", "main")
                replicas: Any = client.execute_command("SENTINEL", "REPLICAS", "main")
            if len(others) != len(self.sentinels) - 1 or not replicas:
                return False
        return self.replicas_in_step() == 1 and all(map(self.replicas_in_step, self.copies.values()))

    def close(self) -> None:
        for process in (*self.servers.values(), *self.watchers.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        self.close()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False


class HostStack(Stack):
    """A `Stack` whose processes are on hosts of a network. Start them one by one; `apis` has the URLs by host."""

    def __init__(self, network: Network, brokers: RedisHosts, model: Path, **settings: str) -> None:
        super().__init__(brokers, model, scorers=0, executors=0, **settings)  # type: ignore[arg-type]
        self.network = network
        self.redis_urls = brokers.urls
        self.apis: dict[str, str] = {}
        self._host = HERE

    def _start(self, name: str, argv: list[str], clock_s: float = 0.0) -> Process:
        log = self.folder / f"{name}-{self._host}-{len(self.processes)}.log"
        argv = [*argv, "--redis-url", *self.redis_urls]
        process = HostProcess(self.network.enter(self._host), argv, log, self.environ, clock_s)
        self.processes.append(process)
        return process

    @contextlib.contextmanager
    def on(self, host: str) -> Iterator[HostStack]:
        """What is started inside is started on this host."""
        before, self._host = self._host, host
        try:
            yield self
        finally:
            self._host = before

    def start_api_on(self, host: str, *flags: str, clock_s: float = 0.0) -> Process:
        """Start an API on a host and wait until it answers."""
        with self.on(host):
            address = self.network.address(host)
            process = self._start("api", ["serve", "--host", address, "--port", "8000", *flags], clock_s)
        self.apis[host] = self.url = f"http://{address}:8000"
        wait_for(self._answers, 90, f"the API on {host}")
        return process

    def __enter__(self) -> HostStack:
        return self


class HostProcess(Process):
    """One `plaudit` process on a host."""

    forked = False  # it enters the host first

    def __init__(self, enter: list[str], argv: list[str], log: Path, environ: dict[str, str], clock_s: float) -> None:
        self._enter = enter
        super().__init__(argv, log, environ, clock_s)

    def _command(self, argv: list[str]) -> list[str]:
        return [*self._enter, *argv]
