"""What the queue path adds: HTTP → API → Redis → worker → back, over the worker's own code called in this process.

Both ways do the same work on the same input, new each time so that no cache answers, one call after the other
(A B, B A, A B, ...) in one run on one machine. The way through the service is measured by a client on a kept
connection; broker, API and workers are real processes that this script starts and ends.

The sandbox's own time varies more from run to run than the path costs, so the table also has the median of the paired
differences, and what the service itself accounts for: the client's total less the answer's `compute_ms`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.judge import judge
from sandbox.open import open_sandbox
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Program, StdioCase, StdioSuite, Stop
from service.scoring.reward_model import RewardModel
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "Write a program that prints the sum of two numbers.\n"
WARM_UP = 10


class Connection:
    """One kept connection to the service."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.http = http.client.HTTPConnection(host, int(port), timeout=60)

    def post(self, path: str, body: bytes) -> dict[str, Any]:
        self.http.request("POST", path, body, {"Content-Type": "application/json"})
        response = self.http.getresponse()
        text = response.read()
        if response.status != 200:
            raise SystemExit(f"{path} answered {response.status}: {text.decode()[:500]}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def close(self) -> None:
        self.http.close()


@contextlib.contextmanager
def service(model: Path, executors: int = 1, *flags: str) -> Iterator[str]:
    """`plaudit up` with a scorer and so many executors, and further flags, from its ready line to its end."""
    argv = [
        sys.executable,
        "-P",
        "-m",
        "service.cli",
        "up",
        "--port",
        "0",
        "--scorers",
        "1",
        "--executors",
        str(executors),
        "--model",
        f"default={model}",
        "--isolation-accept",
        "userns",
        "--log-level",
        "warning",
        *flags,
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through every `finally`, or the service would stay
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environ, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit("the service did not start; its log is above")
            yield json.loads(line)["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@dataclass
class Pairs:
    """Milliseconds of the n-th call in process, through the service, and by the service's own account."""

    name: str
    direct: list[float] = field(default_factory=list)
    through: list[float] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)

    @property
    def added(self) -> list[float]:
        return [through - direct for through, direct in zip(self.through, self.direct, strict=True)]

    @property
    def outside(self) -> list[float]:
        return [through - compute for through, compute in zip(self.through, self.compute, strict=True)]

    def measure(
        self, count: int, direct: Callable[[int], dict[str, Any] | None], through: Callable[[int], dict[str, Any]]
    ) -> None:
        for at in range(-WARM_UP, count):
            order: tuple[str, ...] = ("direct", "through") if at % 2 else ("through", "direct")
            for way in order:
                began = time.perf_counter()
                answer = direct(at) if way == "direct" else through(at)
                elapsed = 1000 * (time.perf_counter() - began)
                if at < 0:
                    continue
                if answer is None:
                    self.direct.append(elapsed)
                else:
                    self.through.append(elapsed)
                    self.queue.append(answer["timing"]["queue_ms"])
                    self.compute.append(answer["timing"]["compute_ms"])

    def rows(self) -> list[tuple[str, str, float, float]]:
        return [
            (self.name, "in process", *_p50_p99(self.direct)),
            (self.name, "through the service", *_p50_p99(self.through)),
            (self.name, "paired difference", *_p50_p99(self.added)),
            (self.name, "total - compute_ms", *_p50_p99(self.outside)),
            (self.name, "queue_ms", *_p50_p99(self.queue)),
        ]


def _p50_p99(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), statistics.quantiles(values, n=100)[98]


def score_pairs(count: int, model: RewardModel, connection: Connection) -> Pairs:
    """`/score` of one short completion against encode and score of the same text."""
    nonce = time.time_ns()

    def text(at: int) -> str:
        return f"print(int(input()) + int(input()))  # {nonce + at}\n"

    def direct(at: int) -> None:
        encoded = model.encode_group(PROMPT, [text(at)], "error")
        model.score(encoded)  # type: ignore[arg-type]

    def through(at: int) -> dict[str, Any]:
        body = json.dumps({"items": [{"prompt": PROMPT, "completions": [text(at)]}]}).encode()
        answer = connection.post("/score", body)
        assert answer["results"][0]["completions"][0]["status"] == "ok", answer
        return answer

    pairs = Pairs("/score")
    pairs.measure(count, direct, through)
    return pairs


def execute_pairs(count: int, sandbox: Sandbox, connection: Connection) -> Pairs:
    """`/execute` of one program with one stdio case against the judge on the same program."""
    nonce = time.time_ns()
    suite = StdioSuite((StdioCase("2\n3\n", "5\n"),))
    tests = {"kind": "stdio", "cases": [{"stdin": "2\n3\n", "stdout": "5\n"}]}

    def source(at: int) -> str:
        return f"print(int(input()) + int(input()))  # {nonce + at}\n"

    def direct(at: int) -> None:
        report = judge(Program("python", source(at)), suite, Limits(), Stop(None), sandbox)
        assert report.passed == 1, report

    def through(at: int) -> dict[str, Any]:
        body = json.dumps({"items": [{"language": "python", "programs": [source(at)], "tests": tests}]}).encode()
        answer = connection.post("/execute", body)
        assert answer["results"][0]["programs"][0]["verdict"] == "passed", answer
        return answer

    pairs = Pairs("/execute")
    pairs.measure(count, direct, through)
    return pairs


def table(measured: list[Pairs]) -> str:
    lines = ["| endpoint | what | p50 ms | p99 ms |", "|---|---|---:|---:|"]
    for pairs in measured:
        lines += [f"| {name} | {what} | {p50:.2f} | {p99:.2f} |" for name, what, p50, p99 in pairs.rows()]
        ratio = statistics.median(pairs.through) / statistics.median(pairs.direct)
        lines.append(f"| {pairs.name} | ratio of the medians | {ratio:.2f} | |")
    return "\n".join(lines)


def machine() -> str:
    """CPU and cores, and how busy the machine was with others."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, shared machine, load average {load} at the end"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ROOT / "models" / "plaudit-mini"
    parser.add_argument("--model", type=Path, default=default, help="checkpoint folder (default: the one that ships)")
    parser.add_argument("--score-pairs", type=int, default=500)
    parser.add_argument("--execute-pairs", type=int, default=200)
    flags = parser.parse_args()

    kept = Settings().max_prompt_cache_bytes  # the prompt is the same every time, so both ways have it from before
    model = RewardModel.load(str(flags.model), dtype="float32", threads=1, max_prompt_bytes=kept)
    measured = []
    with service(flags.model) as url, contextlib.closing(Connection(url)) as connection:
        if flags.score_pairs:
            measured.append(score_pairs(flags.score_pairs, model, connection))
        if flags.execute_pairs:
            with open_sandbox(accept="userns") as sandbox:
                measured.append(execute_pairs(flags.execute_pairs, sandbox, connection))
    pairs = ", ".join(f"{len(one.direct)} pairs of {one.name}" for one in measured)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {pairs}; model {flags.model.name}\n")
    print(table(measured))


if __name__ == "__main__":
    main()
