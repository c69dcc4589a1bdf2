"""`/execute` on groups, as an RL trainer sends them, against the engine that does the work.

A group is one set of ten tests with 32 programs, new each time so that no cache answers. The engine's rate is what one
sandbox judges in this process, one program after the other; the service has one executor and gets group after group,
`--in-flight` of them at once. Both take turns, group by group, in one run. Beside that: an identical group sent again
(the cache), C++ with ten tests against C++ with one (compiled once, whatever the number), and trivial programs two at a
time: the engine with two sandboxes in two threads, `/execute` with two executors, and bubblewrap with `python3 -I -S`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from overhead import ROOT, Connection, machine, service

from sandbox.judge import judge
from sandbox.open import open_sandbox
from sandbox.sandbox import Sandbox
from sandbox.types import (
    AssertSuite,
    CheckSuite,
    Limits,
    Options,
    Program,
    PytestSuite,
    ScriptSuite,
    StdioCase,
    StdioSuite,
    Stop,
    Suite,
    UnittestSuite,
)

NUM_PROGRAMS, NUM_TESTS = 32, 10
ASSERTS = [f"assert total([{n}, {n + 1}], {n}) == {3 * n + 1}" for n in range(NUM_TESTS)]
CASES = [{"stdin": f"{n} {n + 1}\n", "stdout": f"{2 * n + 1}\n"} for n in range(NUM_TESTS)]
CPP = "#include <bits/stdc++.h>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b; }  // %s\n"


def wire(kind: str) -> dict[str, Any]:
    return {"kind": "assert", "asserts": ASSERTS} if kind == "assert" else {"kind": "stdio", "cases": CASES}


def suite(kind: str) -> Suite:
    if kind == "assert":
        return AssertSuite(tuple(ASSERTS))
    return StdioSuite(tuple(StdioCase(case["stdin"], case["stdout"]) for case in CASES))


def programs(kind: str, nonce: object) -> list[str]:
    body = {
        "assert": "def total(values, start):\n    return sum(values) + start  # {}\n",
        "stdio": "a, b = map(int, input().split())\nprint(a + b)  # {}\n",
    }[kind]
    return [body.format(f"{nonce} {number}") for number in range(NUM_PROGRAMS)]


class Client:
    """Groups to `/execute`, over as many kept connections as groups in flight."""

    def __init__(self, url: str, in_flight: int) -> None:
        self.connections = [Connection(url) for _ in range(in_flight)]
        self.pool = ThreadPoolExecutor(in_flight)

    def send(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer after answer, in the order of the bodies."""

        def share(at: int) -> list[dict[str, Any]]:
            mine = bodies[at :: len(self.connections)]
            return [self.connections[at].post("/execute", json.dumps(body).encode()) for body in mine]

        shares = list(self.pool.map(share, range(len(self.connections))))
        return [shares[at % len(shares)][at // len(shares)] for at in range(len(bodies))]

    def close(self) -> None:
        self.pool.shutdown()
        for connection in self.connections:
            connection.close()


def body(tests: dict[str, Any], sources: list[str], language: str = "python") -> dict[str, Any]:
    return {"items": [{"language": language, "programs": sources, "tests": tests}], "deadline_ms": 120_000}


def compare(kind: str, rounds: int, in_flight: int, sandbox: Sandbox, client: Client) -> Iterator[str]:
    """Programs a second by the engine and through the service."""
    engine, through, again = [], [], []
    for turn in range(-1, rounds):
        began = time.perf_counter()
        for source in programs(kind, f"engine {turn}"):
            report = judge(Program("python", source), suite(kind), Limits(), Stop(), sandbox)
            assert report.passed == NUM_TESTS, report
        middle = time.perf_counter()
        groups = [body(wire(kind), programs(kind, f"{time.time_ns()} {at}")) for at in range(in_flight)]
        for answer in client.send(groups):
            assert all(one["passed"] == NUM_TESTS for one in answer["results"][0]["programs"]), answer
        end = time.perf_counter()
        for answer in client.send(groups):
            assert all(one["cached"] for one in answer["results"][0]["programs"]), answer
        if turn >= 0:
            engine.append(NUM_PROGRAMS / (middle - began))
            through.append(in_flight * NUM_PROGRAMS / (end - middle))
            again.append(in_flight * NUM_PROGRAMS / (time.perf_counter() - end))
    ratios = [a / b for a, b in zip(through, engine, strict=True)]
    medians = " | ".join(f"{statistics.median(values):.0f}" for values in (engine, through, again))
    yield f"| {kind} | {medians} | {statistics.median(ratios):.2f} |"


def compiled(client: Client) -> Iterator[str]:
    """How long ten tests of a C++ program take, next to one test of another."""
    took: dict[int, list[float]] = {1: [], NUM_TESTS: []}
    for turn in range(5):
        for count, values in took.items():
            began = time.perf_counter()
            tests = {"kind": "stdio", "cases": CASES[:count]}
            (answer,) = client.send([body(tests, [CPP % f"{time.time_ns()} {turn}"], "cpp")])
            values.append(time.perf_counter() - began)
            (one,) = answer["results"][0]["programs"]
            assert (one["passed"], one["compile"]["ok"]) == (count, True), one
    for count, values in took.items():
        yield f"| C++, compiled once, tests: {count} | {1000 * statistics.median(values):.0f} ms |"


def control_runs(sandbox: Sandbox, rounds: int) -> Iterator[str]:
    """What the first program of a suite pays for the control run, by kind: then, later, and without the option."""
    body = "def total(values, start):\n    return sum(values) + start\n"
    lines = [f"    assert total([{n}, {n + 1}], {n}) == {3 * n + 1}\n" for n in range(NUM_TESTS)]

    def suite_of(kind: str, nonce: str) -> Suite:
        if kind == "assert":
            return AssertSuite(tuple(ASSERTS), f"nonce = {nonce!r}")
        if kind == "check":
            return CheckSuite(f"nonce = {nonce!r}\ndef check(total):\n{''.join(lines)}", "total")
        if kind == "pytest":
            tests = "".join(f"def test_{at}():\n{line}" for at, line in enumerate(lines))
            return PytestSuite(f"nonce = {nonce!r}\nfrom solution import total\n{tests}")
        if kind == "unittest":
            tests = "".join(f"    def test_{at}(self):\n    {line}" for at, line in enumerate(lines))
            return UnittestSuite(f"import unittest\nnonce = {nonce!r}\nclass Test(unittest.TestCase):\n{tests}")
        return ScriptSuite(f"nonce = {nonce!r}\n" + "".join(line.lstrip() for line in lines))

    for kind in ("assert", "check", "pytest", "unittest", "script"):
        took: dict[str, list[float]] = {"first": [], "again": [], "off": []}
        for turn in range(-1, rounds):
            tried = suite_of(kind, f"{time.time_ns()}"), suite_of(kind, f"{time.time_ns()} off")
            for name, one, options in (
                ("first", tried[0], Options()),
                ("again", tried[0], Options()),
                ("off", tried[1], Options(control=False)),
            ):
                began = time.perf_counter()
                report = judge(Program("python", body), one, Limits(), Stop(), sandbox, options)
                assert report.passed == report.total, report
                if turn >= 0:
                    took[name].append(1000 * (time.perf_counter() - began))
        yield f"| {kind} | " + " | ".join(f"{statistics.median(values):.1f}" for values in took.values()) + " |"


BUBBLEWRAP = shlex.split(
    "bwrap --unshare-all --die-with-parent --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib "
    "--symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp -- /usr/bin/python3 -I -S -c"
)
TRIVIAL_CASE = {"stdin": "2\n3\n", "stdout": "5\n"}


def trivial_program(nonce: object) -> str:
    return f"print(int(input()) + int(input()))  # {time.time_ns()} {nonce}\n"


def judge_trivial(source: str, sandbox: Sandbox) -> None:
    suite = StdioSuite((StdioCase(TRIVIAL_CASE["stdin"], TRIVIAL_CASE["stdout"]),))
    report = judge(Program("python", source), suite, Limits(), Stop(), sandbox)
    assert report.passed == 1, report


def bubblewrapped(source: str) -> None:
    done = subprocess.run([*BUBBLEWRAP, source], input=TRIVIAL_CASE["stdin"].encode(), capture_output=True, check=False)
    if done.stdout != TRIVIAL_CASE["stdout"].encode():
        raise SystemExit(f"bwrap: {done.stderr.decode()[-500:]}")


def trivial(rounds: int) -> Iterator[str]:
    """Trivial programs a second, two at a time, three ways in turn."""
    with (
        service(ROOT / "models" / "plaudit-mini", 2) as url,
        contextlib.closing(Client(url, 2)) as client,
        open_sandbox(accept="userns") as one,
        open_sandbox(accept="userns") as other,
        ThreadPoolExecutor(2) as threads,
    ):

        def judge_half(sandbox: Sandbox, sources: list[str]) -> None:
            for source in sources:
                judge_trivial(source, sandbox)

        def through(sources: list[str]) -> None:
            halves = sources[::2], sources[1::2]
            for answer in client.send([body({"kind": "stdio", "cases": [TRIVIAL_CASE]}, half) for half in halves]):
                assert all(one["passed"] == 1 for one in answer["results"][0]["programs"]), answer

        ways: dict[str, Callable[[list[str]], object]] = {
            "engine": lambda sources: list(threads.map(judge_half, (one, other), (sources[::2], sources[1::2]))),
            "/execute": through,
            "bubblewrap": lambda sources: list(threads.map(bubblewrapped, sources)),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(-2, rounds):
            for name, run in ways.items():
                sources = [trivial_program(f"{turn} {at}") for at in range(2 * NUM_PROGRAMS)]
                began = time.perf_counter()
                run(sources)
                if turn >= 0:
                    rates[name].append(len(sources) / (time.perf_counter() - began))
    medians = " | ".join(f"{statistics.median(values):.0f}" for values in rates.values())
    ratios = [
        statistics.median(a / b for a, b in zip(rates["/execute"], rates[name], strict=True))
        for name in ("engine", "bubblewrap")
    ]
    yield f"| {medians} | {ratios[0]:.2f} | {ratios[1]:.1f} |"


def print_trivial(rounds: int) -> None:
    print("\n| trivial, two at a time, programs/s: engine | /execute | bubblewrap | of engine | times bubblewrap |")
    print("|---:|---:|---:|---:|---:|")
    for line in trivial(rounds):
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--in-flight", type=int, default=2, help="groups sent at once")
    parser.add_argument("--trivial", action="store_true", help="only trivial programs, two at a time")
    flags = parser.parse_args()
    if flags.trivial:
        print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}")
        print_trivial(flags.rounds)
        sys.exit()
    with (
        service(ROOT / "models" / "plaudit-mini") as url,
        open_sandbox(accept="userns") as sandbox,
        contextlib.closing(Client(url, flags.in_flight)) as client,
    ):
        print(
            f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; groups of {NUM_PROGRAMS} programs × {NUM_TESTS} tests, "
            f"{flags.in_flight} in flight, one executor\n"
        )
        print("| kind | engine, programs/s | /execute, programs/s | again, from the cache | /execute of engine |")
        print("|---|---:|---:|---:|---:|")
        for kind in ("assert", "stdio"):
            for line in compare(kind, flags.rounds, flags.in_flight, sandbox, client):
                print(line, flush=True)
        print("\n| suite of ten tests, ms a program | with its control run | later | `control: false`, first |")
        print("|---|---:|---:|---:|")
        for line in control_runs(sandbox, flags.rounds):
            print(line, flush=True)
        print("\n| | median |\n|---|---:|")
        for line in compiled(client):
            print(line)
    print_trivial(flags.rounds)


if __name__ == "__main__":
    main()
