"""How many jobs Redis admits and ends with 1, 2 and 4 Redis processes.

Groups of 32 jobs are placed by their content as the API places them, admitted by the API's queue, leased and ended by
a worker's consumer of their shard; no program runs. Each number of shards is measured in several rounds in turn
(1 2 4, 4 2 1, ...), and every round has new groups. On a machine with few cores the rate by the clock is bounded by the
cores, which the Redis processes share with this script. So the table has what each Redis used of the CPU (INFO cpu):
jobs per CPU second of the busiest shard is the rate that this many shards reach where each has a core.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
from overhead import machine

from plaudit.grading import Verdict
from sandbox.types import Limits, Report
from service.api.dispatch.shards import Shards
from service.jobs import Executed, ExecuteTask, Job, content_hash, encode
from service.queue.connections import connect, connect_async
from service.queue.consumer import Consumer, FinishedJob
from service.queue.keys import EXECUTE_QUEUE
from service.queue.producer import Bound, Queue
from service.queue.protocol import now_ms
from service.up.broker import argv, find_server, ping

COUNTS = (1, 2, 4)
GROUP = 32
BOUND = Bound(2**31, float("inf"))
PASSED = Executed(Report(Verdict.PASSED, 1, 1, (), "bytes", "strong"), "toolchain")


@dataclass
class Round:
    """What one round took. `cpu_s`: of each Redis."""

    num_jobs: int
    wall_s: float
    cpu_s: list[float]


@contextlib.contextmanager
def brokers(count: int) -> Iterator[list[str]]:
    """So many brokers of `plaudit up`; their URLs."""
    with contextlib.ExitStack() as stack:
        urls = []
        for _ in range(count):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            process = subprocess.Popen(argv(find_server(), folder / "s", folder), stdout=subprocess.DEVNULL)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            while ping(folder / "s") is not None:
                if process.poll() is not None:
                    raise SystemExit("a broker did not start")
                time.sleep(0.05)
            urls.append(f"unix://{folder / 's'}")
        yield urls


def cpu_s(client: redis.Redis) -> float:
    """What a Redis has used of the CPU, in seconds."""
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def group_of(shards: Shards) -> tuple[int, list[Job]]:
    """A new group: its shard and its jobs."""
    suite = content_hash("suite", uuid.uuid4().hex)
    shard, deadline_ms = shards.place("suite", suite), now_ms() + 600_000
    jobs = []
    for number in range(GROUP):
        task = encode(ExecuteTask("python", f"print({number})  # {suite}", suite, Limits(), toolchain="toolchain"))
        frame = (suite, b'{"kind": "stdio", "suite": {"cases": []}}')
        jobs.append(
            Job(
                content_hash("execute", task),
                "execute",
                EXECUTE_QUEUE,
                "normal",
                task,
                5.0,
                deadline_ms,
                frame,
                shard=shard,
            )
        )
    return shard, jobs


async def measure(urls: list[str], num_groups: int) -> Round:
    """One round on fresh brokers."""
    clients = [connect_async(url, max_connections=4) for url in urls]
    queues = [Queue(client, "plaudit", uuid.uuid4().hex) for client in clients]
    shards = Shards({str(number): queue for number, queue in enumerate(queues)})
    workers = [connect(url) for url in urls]
    consumers = [
        Consumer(worker, "plaudit", f"worker-{number}", [EXECUTE_QUEUE], lease_s=60.0, max_deliveries=3)
        for number, worker in enumerate(workers)
    ]
    for consumer in consumers:
        consumer.ensure_groups()
    before, began = [cpu_s(worker) for worker in workers], time.perf_counter()
    for _ in range(num_groups):
        shard, jobs = group_of(shards)
        await queues[shard].submit({uuid.uuid4().hex[:16]: job for job in jobs}, BOUND)
        leases = consumers[shard].take(GROUP, 0.0)
        if len(leases) != GROUP:
            raise SystemExit(f"{len(leases)} of {GROUP} jobs were leased")
        consumers[shard].finish_all([FinishedJob(lease, PASSED, 3_600_000, 1.0, now_ms()) for lease in leases])
        replies = await queues[shard].replies(1.0)
        if len(replies) != GROUP:
            raise SystemExit(f"{len(replies)} of {GROUP} jobs were answered")
    wall_s = time.perf_counter() - began
    used = [cpu_s(worker) - start for worker, start in zip(workers, before, strict=True)]
    for client in clients:
        await client.aclose()
    for worker in workers:
        worker.close()
    return Round(num_groups * GROUP, wall_s, used)


def row(count: int, rounds: list[Round]) -> str:
    """A line of the table: sums over the rounds."""
    num_jobs = sum(each.num_jobs for each in rounds)
    busiest_s = sum(max(each.cpu_s) for each in rounds)
    total_s = sum(sum(each.cpu_s) for each in rounds)
    shares = ", ".join(f"{1000 * used / rounds[-1].num_jobs:.3f}" for used in rounds[-1].cpu_s)
    return (
        f"| {count} | {num_jobs} | {num_jobs / sum(each.wall_s for each in rounds):.0f} | "
        f"{1000 * total_s / num_jobs:.3f} ms | {shares} | {num_jobs / busiest_s:.0f} |"
    )


def print_table(rounds: dict[int, list[Round]]) -> None:
    print(
        "| shards | jobs | jobs per second by the clock | Redis CPU per job | of it each shard's, last round, ms | "
        "jobs per CPU second of the busiest shard |"
    )
    print("|--:|--:|--:|--:|:--|--:|")
    for count, of_count in rounds.items():
        print(row(count, of_count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=300, help="groups per round")
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    rounds: dict[int, list[Round]] = {count: [] for count in COUNTS}
    for number in range(given.rounds):
        for count in COUNTS if number % 2 == 0 else COUNTS[::-1]:
            with brokers(count) as urls:
                rounds[count].append(asyncio.run(measure(urls, given.groups)))
    print_table(rounds)
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {machine()}; {given.rounds} rounds of {given.groups} groups of {GROUP}")


if __name__ == "__main__":
    main()
