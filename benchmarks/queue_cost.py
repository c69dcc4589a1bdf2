"""What a trivial program costs on its way through the queue: Redis commands by name, and CPU of each process.

Groups of programs, new each time so that no cache answers, go one after the other over one kept connection. Commands
are those of INFO commandstats, with those inside scripts; CPU is what the kernel accounts to each process, so neither
depends much on how busy the machine is. What the sandbox's own code takes per program is measured in this process and
taken off the worker's figure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import redis
from overhead import ROOT, Connection, machine, service

from sandbox.judge import judge
from sandbox.open import open_sandbox
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Program, StdioCase, StdioSuite, Stop

TESTS = {"kind": "stdio", "cases": [{"stdin": "2\n3\n", "stdout": "5\n"}]}
ROLES = {"API": "serve", "worker": "execute"}  # a word of their command lines


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """The URL of a Redis of its own."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is not installed")
    with tempfile.TemporaryDirectory(prefix="plaudit-cost-") as folder:
        socket = f"{folder}/redis.sock"
        argv = [binary, "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", "", "--loglevel", "warning"]
        with subprocess.Popen([*argv, "--appendonly", "yes", "--appendfsync", "everysec"]) as process:
            try:
                while not Path(socket).exists():
                    time.sleep(0.05)
                yield f"unix://{socket}"
            finally:
                process.terminate()
                process.wait(30)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pids_of(url: str) -> dict[str, list[int]]:
    """The processes of the service that uses this Redis, by role."""
    found: dict[str, list[int]] = {role: [] for role in ROLES}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            environ = (folder / "environ").read_bytes().decode(errors="replace")
            if url not in " ".join(words) and url not in environ:
                continue
            for role, word in ROLES.items():
                if word in words:
                    found[role].append(int(folder.name))
    return found


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counts so far: commands by name, and CPU seconds by role."""

    commands: dict[str, int]
    cpu_s: dict[str, float]

    @classmethod
    def take(cls, client: redis.Redis, pids: dict[str, list[int]]) -> Snapshot:
        stats: dict[str, dict[str, int]] = client.info("commandstats")
        commands = {name.removeprefix("cmdstat_"): values["calls"] for name, values in stats.items()}
        usage: dict[str, float] = client.info("cpu")
        seconds = {role: sum(map(cpu_s, numbers)) for role, numbers in pids.items()}
        seconds["Redis"] = usage["used_cpu_user_main_thread"] + usage["used_cpu_sys_main_thread"]
        return cls({name: calls for name, calls in commands.items() if name != "info"}, seconds)


def source(at: int) -> str:
    return f"print(int(input()) + int(input()))  # {time.time_ns()} {at}\n"


def send(connection: Connection, num_programs: int) -> None:
    programs = [source(at) for at in range(num_programs)]
    body = {"items": [{"language": "python", "programs": programs, "tests": TESTS}], "deadline_ms": 120_000}
    answer = connection.post("/execute", json.dumps(body).encode())
    assert all(program["verdict"] == "passed" for program in answer["results"][0]["programs"]), answer


def judge_cpu_ms(sandbox: Sandbox, num_programs: int) -> float:
    """CPU milliseconds per program of the sandbox's code in the process that calls it."""
    suite = StdioSuite((StdioCase("2\n3\n", "5\n"),))
    for at in range(-20, num_programs):
        if at == 0:
            began = time.process_time()
        report = judge(Program("python", source(at)), suite, Limits(), Stop(None), sandbox)
        assert report.passed == 1, report
    return 1000 * (time.process_time() - began) / num_programs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=60)
    parser.add_argument("--group", type=int, default=32, help="programs per group")
    parser.add_argument("--executors", type=int, default=1)
    flags = parser.parse_args()
    model = ROOT / "models" / "plaudit-mini"
    with open_sandbox(accept="userns") as sandbox:
        sandbox_ms = judge_cpu_ms(sandbox, 300)
    with (
        broker() as url,
        service(model, flags.executors, "--redis-url", url) as api,
        contextlib.closing(Connection(api)) as connection,
        contextlib.closing(redis.Redis.from_url(url)) as client,
    ):
        for _ in range(5):
            send(connection, flags.group)
        pids = pids_of(url)
        assert all(pids.values()), pids
        before, began = Snapshot.take(client, pids), time.monotonic()
        for _ in range(flags.groups):
            send(connection, flags.group)
        after, took_s = Snapshot.take(client, pids), time.monotonic() - began
        time.sleep(3.0)
        idle = Snapshot.take(client, pids)
    count = flags.groups * flags.group
    background = sum(idle.commands.values()) - sum(after.commands.values())
    commands = {name: calls - before.commands.get(name, 0) for name, calls in after.commands.items()}
    cpu_ms = {role: 1000 * (after.cpu_s[role] - before.cpu_s[role]) / count for role in after.cpu_s}
    total = sum(cpu_ms.values()) - sandbox_ms
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {flags.groups} groups of {flags.group} trivial stdio programs, "
        f"{flags.executors} executors, {count / took_s:.0f} programs/s\n"
    )
    print("| per program | |\n|---|---:|")
    print(f"| Redis commands, with those in scripts | {sum(commands.values()) / count:.1f} |")
    print(f"| of them what an idle service sends in the same time | {background / 3.0 * took_s / count:.1f} |")
    print(f"| Redis CPU, ms | {cpu_ms['Redis']:.3f} |")
    print(f"| API CPU, ms | {cpu_ms['API']:.2f} |")
    print(f"| worker CPU, ms, with the sandbox's own code | {cpu_ms['worker']:.2f} |")
    print(f"| the sandbox's own code in process, CPU ms | {sandbox_ms:.2f} |")
    print(f"| API + Redis + worker - sandbox, CPU ms | {total:.2f} |")
    ranked = sorted(commands.items(), key=lambda pair: -pair[1])
    parts = [f"{re.sub('[|].*', '', name)} {calls / count:.2f}" for name, calls in ranked if calls >= 0.05 * count]
    print(f"\nCommands per program: {', '.join(parts)}.")


if __name__ == "__main__":
    main()
