"""A Ray cluster of several node processes on this machine, whose nodes may be killed with all that runs on them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from plaudit.ray_address import NAMESPACE
from service.up.broker import find_server
from support.stack import free_port

OBJECT_STORE_BYTES = 80 * 1024 * 1024


def descendants(pid: int) -> list[int]:
    """All processes below one, by /proc; those that left their parents are not among them."""
    found: list[int] = []
    for folder in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = [int(word) for word in (folder / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


class LocalRay:
    """A context manager: a head without CPUs, and the nodes that are added. This process is connected to it.

    Temporary files of all nodes are in one folder, which is removed at the end: who is killed removes nothing.
    """

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="pr-")  # short: Ray's sockets are deep below it
        self.temporary = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = self.folder
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        ray.init(address=self.cluster.address, namespace=NAMESPACE, log_to_driver=False)

    def add_node(self, **options: Any) -> Any:
        """A node with so many CPUs, resources and labels (`num_cpus`, `resources`, `labels`)."""
        return self.cluster.add_node(wait=True, object_store_memory=OBJECT_STORE_BYTES, **options)

    def processes(self, node: Any) -> list[int]:
        """The raylet of a node and everything below it."""
        [raylet] = node.all_processes["raylet"]
        pid = raylet.process.pid
        return [pid, *descendants(pid)]

    def kill_node(self, node: Any) -> int:
        """SIGKILL to everything on a node at once, as if its power went. Answers how many processes that were."""
        pids = self.processes(node)
        for pid in pids:  # nobody below may take the end of its parent as a signal to act
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    def __enter__(self) -> LocalRay:
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()
        self.cluster.shutdown()
        del os.environ["TMPDIR"]
        if self.temporary is not None:
            os.environ["TMPDIR"] = self.temporary
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer:
    """A context manager: a Redis on loopback that is not part of the cluster."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> RedisServer:
        program = shutil.which("redis-server") or find_server()
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self.process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
