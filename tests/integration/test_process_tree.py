"""`plaudit up` is one process tree: it ends in order, mends itself, and leaves nothing behind, however it is ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from service.up.procfs import start_time
from support.broker import Broker
from support.checkpoints import checkpoint

TREE = """
import json, os, sys
from pathlib import Path
from service.up.process import Child
from service.up import supervisor
from service.up.supervisor import Supervisor
plan = json.loads(sys.argv[1])
supervisor.STEADY_S = plan.get("steady_s", supervisor.STEADY_S)
children = [Child(c["name"], tuple(c["argv"]), dict(os.environ), c.get("stage", 0), c.get("announces", False),
                  c.get("announces", False)) for c in plan["children"]]
announce = lambda event: print(json.dumps({"event": "ready", "pid": os.getpid()}), flush=True)
sys.exit(Supervisor(children, drain_s=plan.get("drain_s", 20), folders=[Path(plan["folder"])], on_ready=announce).run())
"""
# A stand-in child: says when it is up, and when SIGTERM came; `linger` is how long it drains (None: for ever).
CHILD = """
import json, os, signal, sys, time
name, notes, linger, announces = json.loads(sys.argv[1])
def note(what):
    with open(notes, "a") as file:
        file.write(json.dumps([what, name, os.getpid()]) + "\\n")
def leave(*_):
    note("asked")
    if linger is None:
        return
    time.sleep(linger)
    note("left")
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, lambda *_: note("interrupted"))
note("up")
if announces:
    print('{"event": "ready"}', flush=True)
    print("not for scripts", flush=True)
while True:
    time.sleep(1)
"""


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
    return value


class Tree:
    """A supervisor over stand-in children, and what the children noted."""

    def __init__(self, tmp_path: Path) -> None:
        self.notes_file = tmp_path / "notes"
        self.folder = tmp_path / "run"
        self.folder.mkdir()
        self.plan: dict[str, Any] = {"children": [], "folder": str(self.folder)}
        self.process: subprocess.Popen[str] | None = None

    def child(self, name: str, stage: int = 0, *, linger: float | None = 0.0, announces: bool = False) -> None:
        told = json.dumps([name, str(self.notes_file), linger, announces])
        argv = [sys.executable, "-I", "-S", "-c", CHILD, told]
        self.plan["children"].append({"name": name, "argv": argv, "stage": stage, "announces": announces})

    def command(self, name: str, shell: str, *, announces: bool = False) -> None:
        self.plan["children"].append({"name": name, "argv": ["/bin/sh", "-c", shell], "announces": announces})

    def start(self) -> int:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TREE, json.dumps(self.plan)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self.process.pid

    def notes(self, what: str) -> list[tuple[str, int]]:
        with contextlib.suppress(FileNotFoundError):
            rows = [json.loads(line) for line in self.notes_file.read_text().splitlines()]
            return [(name, pid) for word, name, pid in rows if word == what]
        return []

    def up(self, *names: str) -> dict[str, int]:
        """Wait until these children are up; answers their pids."""
        return wait_for(lambda: (found := dict(self.notes("up"))).keys() >= set(names) and found)

    def end(self, seconds: float = 15.0) -> tuple[int, str]:
        assert self.process is not None
        output, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, output


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    one = Tree(tmp_path)
    yield one
    if one.process is not None:
        one.process.kill()
        wait_for(lambda: not one.folder.exists())  # the reaper is through
        one.process.communicate(timeout=10)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def argv_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def reaper_of(pid: int) -> int | None:
    return next((child for child in children_of(pid) if "service.up.reaper" in argv_of(child)), None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains_the_api_first_then_the_workers_then_the_broker(tree: Tree, number: signal.Signals) -> None:
    tree.child("broker", 0)
    tree.child("worker", 1, linger=0.3)
    tree.child("api", 2, linger=0.3)
    pid = tree.start()
    tree.up("api", "worker", "broker")
    os.kill(pid, number)
    assert tree.end() == (0, "")
    rows = [tuple(json.loads(line)[:2]) for line in tree.notes_file.read_text().splitlines()]
    ends = [row for row in rows if row[0] != "up"]
    assert ends == [(what, name) for name in ("api", "worker", "broker") for what in ("asked", "left")]
    assert not tree.folder.exists()


def test_ctrl_c_at_a_terminal_reaches_the_supervisor_alone(tree: Tree) -> None:
    tree.child("worker")
    pid = tree.start()
    tree.up("worker")
    os.killpg(pid, signal.SIGINT)
    assert tree.end()[0] == 0
    assert tree.notes("asked") != []
    assert tree.notes("interrupted") == []


def test_nothing_is_left_after_sigkill_of_the_parent(tree: Tree) -> None:
    tree.child("polite")
    tree.child("deaf", linger=None)
    tree.command("group", "sleep 1000 & exec sleep 1001")
    pid = tree.start()
    pids = [*tree.up("polite", "deaf").values()]
    wait_for(lambda: len(children_of(pid)) == 4)
    reaper = reaper_of(pid)
    everyone = {*pids, *children_of(pid), *(grand for child in children_of(pid) for grand in children_of(child))}
    assert len(everyone) == 5
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(map(start_time, everyone - {reaper})))
    wait_for(lambda: not tree.folder.exists())
    wait_for(lambda: start_time(reaper or 0) is None)


def test_nothing_is_left_when_the_reaper_had_been_killed_before(tree: Tree) -> None:
    tree.child("deaf", linger=None)
    pid = tree.start()
    child = tree.up("deaf")["deaf"]
    first = reaper_of(pid)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: (now := reaper_of(pid)) is not None and now != first)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: start_time(child) is None)
    wait_for(lambda: not tree.folder.exists())


def test_the_reaper_spares_a_process_that_has_come_into_a_dead_childs_pid(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], process_group=0) as stranger:
        told = f"child {stranger.pid} 1\nfolder {tmp_path}\n"
        subprocess.run(
            [sys.executable, "-P", "-m", "service.up.reaper", "0.1"], input=told, text=True, check=True, timeout=20
        )
        assert not tmp_path.exists()
        assert stranger.poll() is None
        stranger.kill()


def test_a_dead_child_is_started_again_and_what_it_left_in_its_group_is_not(tree: Tree, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    tree.command("worker", f"sleep 1000 & echo $$ $! >> {pids}; wait")
    tree.start()
    wait_for(pids.exists)
    leader, orphan = map(int, wait_for(lambda: pids.read_text().split()))
    os.kill(leader, signal.SIGKILL)
    wait_for(lambda: len(pids.read_text().split()) == 4)
    wait_for(lambda: start_time(orphan) is None)


@pytest.mark.parametrize("code", [2, 3])
def test_a_child_that_cannot_run_here_ends_the_tree_with_its_exit_code(tree: Tree, code: int) -> None:
    tree.child("worker")
    tree.command("scorer", f"echo 'no such model' >&2; exit {code}")
    tree.start()
    assert tree.end()[0] == code
    assert not tree.folder.exists()


@pytest.mark.parametrize("code", [2, 3])
def test_a_child_that_was_never_ready_ends_the_tree_however_long_it_ran(tree: Tree, code: int) -> None:
    tree.plan["steady_s"] = 0.2
    tree.command("scorer", f"sleep 1; echo 'checkpoint refused' >&2; exit {code}", announces=True)
    tree.start()
    assert tree.process is not None
    _, logs = tree.process.communicate(timeout=20)
    assert tree.process.returncode == code
    assert logs.count("checkpoint refused") == 1


def test_a_child_that_was_ready_is_started_again_whatever_its_code(tree: Tree, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    ready = json.dumps({"event": "ready"})
    tree.command("scorer", f"echo x >> {starts}; echo '{ready}'; exit 3", announces=True)
    pid = tree.start()
    wait_for(lambda: starts.exists() and len(starts.read_text().split()) >= 3)
    os.kill(pid, signal.SIGTERM)
    assert tree.end()[0] == 0


def test_a_child_that_crashes_before_it_is_ready_ends_the_tree_in_the_end(tree: Tree) -> None:
    tree.plan["steady_s"] = 0.0
    tree.command("scorer", "exit 1", announces=True)
    tree.start()
    assert tree.end()[0] == 1


def test_a_checkpoint_refused_after_long_ends_the_tree(tree: Tree, tmp_path: Path) -> None:
    """A real scorer, which is refused long after the time at which a child counts as steady."""
    folder = checkpoint(tmp_path / "refused", golden="golden.jsonl")
    row = {"prompt": "add", "completion": "a + b", "tokens": 1, "score": 99.0}
    (folder / "golden.jsonl").write_text(json.dumps(row) + "\n")
    tree.plan["steady_s"] = 0.2
    with Broker() as broker:
        argv = [sys.executable, "-P", "-m", "service.cli", "worker", "score", "--redis-url", broker.url]
        argv += ["--scorers", "1", "--model", f"default={folder}"]
        tree.plan["children"].append({"name": "scorer-1", "argv": argv, "announces": True})
        tree.start()
        assert tree.process is not None
        _, logs = tree.process.communicate(timeout=90)
    assert tree.process.returncode in (2, 3), logs
    assert "golden" in logs
    assert "restarting it" not in logs


def test_a_child_that_never_gets_steady_ends_the_tree(tree: Tree) -> None:
    tree.command("scorer", "exit 1")
    tree.start()
    assert tree.end()[0] == 1


def test_the_tree_is_announced_once_however_often_the_api_starts(tree: Tree) -> None:
    tree.child("api", announces=True)
    pid = tree.start()
    first = tree.up("api")["api"]
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(tree.notes("up")) == 2)
    time.sleep(0.2)
    os.kill(pid, signal.SIGTERM)
    code, output = tree.end()
    assert (0, {"event": "ready", "pid": pid}) == (code, json.loads(output))


def test_a_second_signal_is_faster(tree: Tree) -> None:
    tree.child("slow", linger=30.0)
    pid = tree.start()
    tree.up("slow")
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: tree.notes("asked"))
    os.kill(pid, signal.SIGTERM)
    assert tree.end(seconds=5)[0] == 0


def test_a_child_that_does_not_drain_in_time_is_killed(tree: Tree) -> None:
    tree.plan["drain_s"] = 0.5
    tree.child("deaf", linger=None)
    pid = tree.start()
    tree.up("deaf")
    os.kill(pid, signal.SIGTERM)
    assert tree.end(seconds=5)[0] == 0


def test_all_stages_share_one_time_to_drain(tree: Tree) -> None:
    tree.plan["drain_s"] = 3.0
    for stage, name in enumerate(("broker", "worker", "api")):
        tree.child(name, stage, linger=None)
    pid = tree.start()
    tree.up("broker", "worker", "api")
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    assert tree.end()[0] == 0
    assert 7.0 <= time.monotonic() - began < 3 * 3.0  # 3 s for the first, and 2 s for each of the others


# --- the real thing, without workers ---------------------------------------------------------------------------------


class Service:
    """`plaudit up` without workers: the embedded broker and the API."""

    def __init__(self, state: Path, *flags: str, **environ: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [
            sys.executable,
            "-P",
            "-m",
            "service.cli",
            "up",
            "--scorers",
            "0",
            "--executors",
            "0",
            "--port",
            str(self.port),
            "--state-dir",
            str(state),
            "--drain-s",
            "5",
            *flags,
        ]
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ}
        )

    def healthy(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health").status_code == 200
        return False

    def broker(self) -> int | None:
        return next((pid for pid in children_of(self.process.pid) if "unixsocket" in argv_of(pid)), None)

    def connect(self) -> redis.Redis:
        pid = wait_for(self.broker)
        return redis.Redis(unix_socket_path=wait_for(argv_of(pid).partition("unixsocket:")[2].split)[0])

    def end(self) -> tuple[int, str, str]:
        self.process.terminate()
        output, logs = self.process.communicate(timeout=20)
        return self.process.returncode, output, logs


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    one = Service(tmp_path / "state", PLAUDIT_API_KEY="sesame-7")
    try:
        wait_for(one.healthy, 20)
        yield one
    finally:
        one.end()


def test_a_killed_broker_comes_back_on_its_socket_with_its_data(service: Service) -> None:
    with service.connect() as client:
        client.set("kept", "yes")
        wait_for(lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0)
        time.sleep(1.2)  # appendfsync everysec
        first = service.broker()
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: (now := service.broker()) not in (None, first) and "unixsocket:" in argv_of(now))

        def read_again() -> object:
            with contextlib.suppress(redis.RedisError):
                return client.get("kept")
            return None

        assert wait_for(read_again) == b"yes"


def test_a_killed_api_comes_back_on_its_port(service: Service) -> None:
    api = next(pid for pid in children_of(service.process.pid) if "serve" in argv_of(pid))
    os.kill(api, signal.SIGKILL)
    wait_for(lambda: start_time(api) is None)
    wait_for(service.healthy)


def listening(pid: int, port: int) -> bool:
    """Whether a process has a socket of its own that listens on this port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    with contextlib.suppress(FileNotFoundError):
        return any(os.readlink(link) in inodes for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_several_apis_share_one_port_and_each_is_restarted_alone(tmp_path: Path) -> None:
    service = Service(tmp_path / "state", "--apis", "2")
    try:

        def apis() -> set[int]:
            pids = {pid for pid in children_of(service.process.pid) if "serve" in argv_of(pid)}
            return {pid for pid in pids if listening(pid, service.port)}

        first, second = wait_for(lambda: len(found := apis()) == 2 and found, 60)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: not listening(first, service.port))
        assert all(service.healthy() for _ in range(20))  # by the other one
        both = wait_for(lambda: len(found := apis()) == 2 and found, 60)
        assert second in both
        assert first not in both
        assert all(service.healthy() for _ in range(20))
        third = Service(tmp_path / "other", "--apis", "2", "--port", str(service.port))
        _, logs = third.process.communicate(timeout=30)
        assert (third.process.returncode, "cannot listen on" in logs) == (2, True)
    finally:
        assert service.end()[0] == 0


def test_keys_are_in_no_command_line_and_the_children_got_them(service: Service) -> None:
    assert all("sesame-7" not in argv_of(pid) for pid in children_of(service.process.pid))
    assert httpx.get(f"{service.url}/info").status_code == 401
    assert httpx.get(f"{service.url}/info", headers={"Authorization": "Bearer sesame-7"}).status_code == 200


def test_sigterm_exits_zero_and_a_state_folder_outlives_the_tree(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for value in (None, b"yes"):
        service = Service(state)
        try:
            wait_for(service.healthy, 20)
            with service.connect() as client:
                assert client.get("kept") == value
                client.set("kept", "yes")
        finally:
            code, output, logs = service.end()
        assert (code, output) == (0, ""), logs
    assert (state / "appendonlydir").is_dir()


def test_two_trees_do_not_share_a_state_folder(tmp_path: Path, service: Service) -> None:
    second = Service(tmp_path / "state")
    _, logs = second.process.communicate(timeout=30)
    assert second.process.returncode == 2
    assert "another plaudit uses it" in logs


def test_several_workers_are_one_tree_of_single_ones(tmp_path: Path) -> None:
    with Broker() as broker:
        argv = [sys.executable, "-P", "-m", "service.cli", "worker", "score", "--redis-url", broker.url]
        argv += ["--scorers", "2", "--model", f"default={checkpoint(tmp_path / 'tiny')}"]
        workers = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        with broker.client() as client:
            wait_for(lambda: client.zcard("plaudit:workers") == 2, 60)
            assert len(children_of(workers.pid)) == 3  # and the reaper
            workers.terminate()
            workers.communicate(timeout=30)
            assert (workers.returncode, client.zcard("plaudit:workers")) == (0, 0)


def test_a_taken_port_is_said_at_once(service: Service) -> None:
    argv = [sys.executable, "-P", "-m", "service.cli", "up", "--port", str(service.port)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {service.port}" in done.stderr
