"""What jails without namespaces rest on: names, folders, and what may be read around what may not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from plaudit.errors import NoWorker, UsageError
from sandbox import capabilities
from sandbox.inside import reaper
from sandbox.no_namespace import JobFolder, around, is_known_user, unreachable
from sandbox.procfs_meter import ProcfsMeter
from sandbox.seccomp import build_filter
from service.api.dispatch.fleet import Fleet
from service.api.dispatch.shard_monitor import ShardMonitor
from service.queue.producer import Worker
from service.settings import Settings


@pytest.mark.parametrize(
    ("text", "placed"),
    [
        ("/tmp/main.py", "/run/w/main.py"),
        ("/tmp", "/run/w"),
        ("-I/tmp", "-I/run/w"),
        ("-cp /tmp/main.jar:/tmp", "-cp /run/w/main.jar:/run/w"),
        ("/var/tmp/x", "/var/tmp/x"),
        ("/tmpfiles", "/tmpfiles"),
        ("main.py", "main.py"),
    ],
)
def test_tmp_becomes_the_folder_and_nothing_else_does(text: str, placed: str) -> None:
    assert JobFolder(Path("/run/w")).place(text) == placed


def test_a_folder_is_emptied_however_deep_and_whatever_its_modes(tmp_path: Path) -> None:
    (tmp_path / "beside").write_text("stays")
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").touch()
    (place / "link").symlink_to(tmp_path)
    os.mkfifo(place / "pipe")
    (place / "closed" / "inner").mkdir(parents=True)
    (place / "closed" / "inner").chmod(0)
    (place / "closed").chmod(0)
    here = os.getcwd()
    os.chdir(place)
    try:
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    assert reaper.remove_below(str(place))
    assert list(place.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path != place] == ["beside"]


def test_too_much_in_a_folder_is_seen(tmp_path: Path) -> None:
    def overflows(most_bytes: int, most_files: int) -> bool:
        return JobFolder(tmp_path).overflows(most_bytes, most_files)

    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"x" * 100_000)
    assert not overflows(1 << 20, 3)
    assert overflows(1 << 20, 2)
    assert overflows(90_000, 3)
    folder = JobFolder(tmp_path)
    assert folder.overflows(1, 1)
    assert not folder.overflows(1, 1)  # not so soon again


def test_what_lies_around_a_hidden_folder_is_readable_and_its_names_can_be_listed(tmp_path: Path) -> None:
    (tmp_path / "site" / "ours").mkdir(parents=True)
    (tmp_path / "site" / "numpy").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "link").symlink_to("site/ours")
    readable, listable = around([str(tmp_path)], [str(tmp_path / "site" / "ours")])
    assert sorted(readable) == [str(tmp_path / "lib"), str(tmp_path / "site" / "numpy")]
    assert listable == (str(tmp_path),)
    assert around([str(tmp_path)], []) == ((str(tmp_path),), ())


def test_a_folder_that_others_cannot_pass_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed" / "lib").mkdir(parents=True)
    (tmp_path / "closed").chmod(stat.S_IRWXU)
    assert str(tmp_path / "closed") in unreachable([str(tmp_path / "closed" / "lib")])
    assert unreachable(["/usr/bin"]) == []


def test_users_are_known_by_their_uid() -> None:
    assert is_known_user(0)
    assert not is_known_user(23_456)


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A process with a child of another thread, which has a child of its own."""
    code = """
import os, threading, time
def start():
    if os.fork() == 0:
        os.fork()
        time.sleep(60)
    print("ready", flush=True)
    time.sleep(60)
threading.Thread(target=start, daemon=True).start()
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    reaper.kill_below(process.pid)
    process.kill()
    process.wait()
    process.stdout.close()


def test_descendants_are_found_whichever_thread_has_forked_them(parent: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 5
    while len(list(reaper.descendants(parent.pid))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sorted(ProcfsMeter(parent.pid, 1 << 30).pids()) == sorted(reaper.descendants(parent.pid))
    reaper.kill_below(parent.pid)
    assert reaper.processes_of(23_456) == []


def test_the_filter_of_a_bare_jail_knows_no_sockets_but_pairs() -> None:
    assert build_filter(pairs_only=True) != build_filter()
    assert len(build_filter(pairs_only=True)) // 8 < 400


def test_every_lack_says_what_would_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "capabilities", frozenset)
    lacks = capabilities.capability_lacks(capabilities.FOR_NAMESPACES)
    assert [lack.split(",")[0] for lack in lacks] == [f"CAP_{name}" for name in capabilities.FOR_NAMESPACES]
    assert all(f"--cap-add {name}" in lack for name, lack in zip(capabilities.FOR_NAMESPACES, lacks, strict=True))


@pytest.mark.parametrize(
    ("said", "flag"),
    [
        ("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", "--cap-add NET_ADMIN"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "systempaths=unconfined"),
        ("bwrap: pivot_root: Operation not permitted", "seccomp=unconfined"),
        ("bwrap: No permissions to create new namespace", "--cap-add SYS_ADMIN"),
        ("bwrap: Failed to make / slave: Permission denied", "apparmor=unconfined"),
    ],
)
def test_what_bubblewrap_says_becomes_a_flag(
    said: str, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bwrap"
    script.write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(capabilities, "capabilities", lambda: frozenset(capabilities.CAPABILITIES))
    [lack] = capabilities.namespace_lacks()
    assert said in lack
    assert flag in lack


@pytest.mark.parametrize(
    ("host", "redis_url", "refused"),
    [
        ("127.0.0.1", None, False),
        ("localhost", "unix:///run/redis.sock", False),
        ("::1", "redis://127.0.0.1:6379", False),
        ("0.0.0.0", None, True),
        ("10.0.0.1", None, True),
        ("127.0.0.1", "redis://:pw@queue:6379", True),
    ],
)
def test_none_is_for_this_machine_only(host: str, redis_url: str | None, refused: bool) -> None:
    settings = Settings(host=host, redis_url=redis_url, isolation_accept="none", model={})
    if refused:
        with pytest.raises(UsageError, match="for this machine only"):
            settings.require_loopback_without_isolation()
    else:
        settings.require_loopback_without_isolation()
    Settings(host=host, redis_url=redis_url, isolation_accept="landlock", model={}).require_loopback_without_isolation()


@pytest.mark.parametrize(
    ("host", "level", "refused"),
    [("127.0.0.1", "none", False), ("0.0.0.0", "none", True), ("0.0.0.0", "landlock", False)],
)
def test_an_open_api_takes_no_verdict_from_executors_without_walls(host: str, level: str, refused: bool) -> None:
    monitor = ShardMonitor(Mock(), Settings())
    fleet = Fleet([monitor], Settings(host=host))
    monitor.broker = True
    monitor.workers = [Worker("w", "execute", {"isolation": level})]
    if refused:
        with pytest.raises(NoWorker, match="loopback only"):
            fleet.require_executors()
    else:
        fleet.require_executors()
