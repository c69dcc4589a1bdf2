"""Sandboxes that are killed, live side by side, or meet a host without walls."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox import jail_config
from sandbox.capabilities import HostCapabilities
from sandbox.errors import IsolationUnavailable, SandboxError
from sandbox.jail_job import JailJob
from sandbox.judge import judge
from sandbox.limits import run_limits
from sandbox.open import open_sandbox
from sandbox.owners import state_directory, sweep
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Program, StdioCase, StdioSuite, Stop

ROOT = Path(__file__).resolve().parents[2]
SPIN = """
from sandbox.judge import judge
from sandbox.types import *
from sandbox.open import open_sandbox
with open_sandbox() as sandbox:
    print(sandbox.name, sandbox.jail_config.uid, flush=True)
    program = Program("python", "import os\\nos.fork()\\nwhile True: pass")
    judge(program, StdioSuite((StdioCase("", ""),)), Limits(60), Stop(), sandbox)
"""


def processes_of(uid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == uid:
                found.append(int(path.name))
        except FileNotFoundError:
            continue
    return found


def until(condition: object, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_nothing_survives_a_killed_owner_and_the_next_one_cleans_up(sandbox: Sandbox) -> None:
    owner = subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert owner.stdout is not None
    name, uid = owner.stdout.readline().split()
    assert until(lambda: len(processes_of(int(uid))) == 2)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    assert until(lambda: processes_of(int(uid)) == [])
    assert (state_directory() / name).is_dir()
    assert sandbox.jail_config.cgroups is not None
    groups = [tree.base for tree in sandbox.jail_config.cgroups.trees]
    assert [path for base in groups for path in base.glob(f"{name}-*")] != []
    assert sweep() >= 1
    assert not (state_directory() / name).exists()
    assert [path for base in groups for path in base.glob(f"{name}-*")] == []
    assert sandbox.home.is_dir()


def test_two_sandboxes_share_no_uid_and_no_name() -> None:
    code = """
from sandbox.open import open_sandbox
with open_sandbox() as sandbox:
    print(sandbox.name, sandbox.jail_config.uid, flush=True)
    input()
"""
    pair = [subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, cwd=ROOT) for _ in range(2)]
    lines = []
    for owner in pair:
        assert owner.stdout is not None
        lines.append(owner.stdout.readline().split())
    for owner in pair:
        owner.communicate("\n", timeout=20)
    (name_a, uid_a), (name_b, uid_b) = lines
    assert name_a != name_b
    assert abs(int(uid_a) - int(uid_b)) >= 2
    assert not (state_directory() / name_a).exists()


def test_a_host_without_walls_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    probed = HostCapabilities.probe()
    assert probed.level not in ("strong", "userns")
    assert any("bubblewrap" in lack for lack in probed.missing)
    assert "--cap-add SYS_ADMIN" in probed.advice
    for accept in ("strong", "userns"):
        with pytest.raises(IsolationUnavailable, match="bubblewrap"):
            open_sandbox(accept=accept)  # type: ignore[arg-type]


def test_a_wall_that_does_not_hold_is_found_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test runs through the real path: a sandbox whose filter lets everything through does not open."""
    import pyseccomp

    def open_filter(**wanted: bool) -> bytes:
        import tempfile

        filters = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        with tempfile.TemporaryFile() as file:
            filters.export_bpf(file)
            return os.pread(file.fileno(), 1 << 16, 0)

    monkeypatch.setattr(jail_config, "build_filter", open_filter)
    with pytest.raises(IsolationUnavailable, match="a vsock"):
        open_sandbox()


def test_sandboxes_of_one_process_do_not_disturb_each_other(sandbox: Sandbox) -> None:
    program, suite = Program("python", "print(1)"), StdioSuite((StdioCase("", "1"),))
    with open_sandbox() as second:
        assert second.name != sandbox.name
        assert judge(program, suite, Limits(), Stop(), second).passed == 1
    assert judge(program, suite, Limits(), Stop(), sandbox).passed == 1


def test_a_forked_child_cannot_close_its_parents_sandbox(sandbox: Sandbox) -> None:
    pid = os.fork()
    if pid == 0:
        sandbox.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert sandbox.home.is_dir()
    assert not sandbox.closed


def test_a_broken_instrument_is_an_exception_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    program, suite = Program("python", "print(1)"), StdioSuite((StdioCase("", "1"),))
    with open_sandbox() as sandbox:
        from dataclasses import replace

        good = sandbox.jail_config
        for broken in (replace(good, bwrap="/nowhere/bwrap"), replace(good, harness=Path("/nowhere"))):
            sandbox.discard()
            sandbox.jail_config = broken
            with pytest.raises(SandboxError):
                judge(program, suite, Limits(), Stop(), sandbox)
        sandbox.jail_config = good
        assert judge(program, suite, Limits(), Stop(), sandbox).passed == 1
    with pytest.raises(SandboxError, match="closed"):
        judge(program, suite, Limits(), Stop(), sandbox)


def jails_of(name: str) -> list[int]:
    """Processes whose command line names this owner's harness: its bubblewraps."""
    mark = os.fsencode(state_directory() / name / "harness")
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "cmdline").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_a_jail_that_is_closed_while_it_is_being_made_leaves_no_process(sandbox: Sandbox) -> None:
    job = JailJob(role="exec", argv=("/bin/sleep", "60"), limits=run_limits(Limits()), fds={})
    for number in range(30):
        handle = sandbox.start(job)
        time.sleep(number / 2000)
        handle.close()
    sandbox.discard()
    sandbox.collect(0)
    assert until(lambda: jails_of(sandbox.name) == [])


def test_owners_killed_while_they_make_jails_leave_nothing_after_a_sweep() -> None:
    code = SPIN.replace("while True: pass", "pass").replace(
        "    judge(program", "    while True: judge(program"
    )  # a jail is being made nearly all the time
    names = []
    for number in range(6):
        owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert owner.stdout is not None
        names.append(owner.stdout.readline().split()[0])
        time.sleep(0.05 + number * 0.007)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    time.sleep(0.2)
    sweep()
    assert until(lambda: [pid for name in names for pid in jails_of(name)] == [])
