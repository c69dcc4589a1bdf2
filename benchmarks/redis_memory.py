"""The client's `rank` with idempotency keys, as fast as this machine serves it, against a broker of 64 MB.

Each request has a new prompt and 16 new completions of 2 kB, and every call of the client sends an idempotency key. The
model is a random one of one layer, so that requests, not tokens, are what the machine is busy with. Every half minute:
the requests so far, how many were rejected (by the API's own count) or failed, and what Redis uses. Exits with 1 if a
request failed or was rejected for lack of memory, or if the memory of the last third of the time grew by more than a
tenth of the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import redis
from shapes import write_random  # before `overhead`, whose imports take this folder off the path

# isort: split
import httpx
from overhead import machine, service

from plaudit import Client
from plaudit.errors import PlauditError
from service.up.broker import argv, find_server, ping

COMPLETIONS, BYTES, CLIENTS, EVERY_S = 16, 2000, 4, 30.0
MIB = 2**20


@contextlib.contextmanager
def broker(folder: Path, max_mb: int) -> Iterator[Path]:
    """The broker of `plaudit up`, with another limit; its socket."""
    socket = folder / "s"
    command = [*argv(find_server(), socket, folder), "--maxmemory", f"{max_mb}mb"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while ping(socket) is not None:
                if process.poll() is not None:
                    raise SystemExit("the broker did not start")
                time.sleep(0.05)
            yield socket
        finally:
            process.terminate()
            process.wait(30)


class Load:
    """Clients that rank one group after the other until `over`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.over = threading.Event()
        self.answered = 0
        self.failures: list[str] = []

    def run(self, seed: int) -> None:
        draw = random.Random(seed)
        with Client(self.url) as client:
            while not self.over.is_set():
                words = (str(draw.randrange(1000, 8192)) for _ in range((COMPLETIONS + 1) * BYTES // 5))
                text = " ".join(words)
                parts = [text[at * BYTES : (at + 1) * BYTES] for at in range(COMPLETIONS + 1)]
                try:
                    client.rank([{"prompt": parts[0][:100], "completions": parts[1:]}])
                    self.answered += 1
                except PlauditError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")


def rejected(url: str) -> Counter[str]:
    """Rejected requests by reason, as the API counts them."""
    lines = httpx.get(f"{url}/metrics", trust_env=False).text.splitlines()
    found = re.findall(r'^plaudit_rejected_total\{.*?reason="(\w+)".*?\} (\S+)$', "\n".join(lines), re.MULTILINE)
    return Counter({reason: int(float(count)) for reason, count in found})


def measure(url: str, client: redis.Redis, minutes: float) -> tuple[list[str], bool]:
    """The rows of the table, and whether nothing was rejected and the memory became flat."""

    def used() -> int:
        return int(client.info("memory")["used_memory"])

    load, begin, before = Load(url), time.monotonic(), used()
    threads = [threading.Thread(target=load.run, args=(seed,), daemon=True) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    rows, series, last, bytes_last = [], [before], 0, before
    while (passed := time.monotonic() - begin) < 60 * minutes:
        time.sleep(min(EVERY_S, max(0.1, 60 * minutes - passed)))
        bytes_now, answered = used(), load.answered
        per_request = (bytes_now - bytes_last) / max(1, answered - last)
        total = rejected(url).total()
        rows.append(
            f"| {time.monotonic() - begin:.0f} s | {answered} | {(answered - last) / EVERY_S:.1f} | {total} | "
            f"{len(load.failures)} | {bytes_now / MIB:.1f} MiB | {per_request:.0f} |"
        )
        print(rows[-1], flush=True)
        series.append(bytes_now)
        last, bytes_last = answered, bytes_now
    load.over.set()
    for thread in threads:
        thread.join(60)
    for failure in load.failures[:3]:
        print(failure)
    reasons = rejected(url)
    print(f"\nRejected: {dict(reasons) or 'nothing'}.")
    limit = int(client.info("memory")["maxmemory"])
    flat = series[-1] - series[len(series) * 2 // 3] < limit / 10
    return rows, flat and not load.failures and not reasons["memory"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--max-mb", type=int, default=64, help="the broker's maxmemory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "broker").mkdir()
        model = write_random(folder / "model", 1, 128)
        with broker(folder / "broker", given.max_mb) as socket, redis.Redis.from_url(f"unix://{socket}") as client:
            print("| time | answered | per second | rejected | failed | Redis uses | bytes per request |")
            print("|--:|--:|--:|--:|--:|--:|--:|")
            with service(model, 1, "--redis-url", f"unix://{socket}") as url:
                _, good = measure(url, client, given.minutes)
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {machine()}; {CLIENTS} clients, {given.minutes:g} minutes")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
