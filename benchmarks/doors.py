"""What hostile and large bodies cost the API: how long they stop everybody else, and how much memory they take.

Starts a Redis and an API without workers, sends one body after another, and asks `/health` all the while from another
process. Per body: its size, the answer, how long that took, the longest wait of a `/health`, and the API's largest
memory above what it had before, over the body's size. What is let in ends as 503 `no_worker`.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

MB = 1_000_000
PROBE = """
import http.client, sys, time
worst = 0.0
print("ready", flush=True)
while True:
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=120)
    connection.request("GET", "/health")
    connection.getresponse().read()
    connection.close()
    worst = max(worst, time.perf_counter() - began)
    print(worst, flush=True)
    time.sleep(0.01)
"""


def filled(part: bytes, size: int, before: bytes, after: bytes) -> bytes:
    """A JSON body of about this size: many of `part` in a list."""
    return before + b",".join([part] * (size // (len(part) + 1))) + after


def scores(text: bytes) -> bytes:
    return b'{"items":[{"prompt":"p","completions":["' + text + b'"]}]}'


def rewards(term: bytes, texts: list[bytes]) -> bytes:
    spec = b'{"terms":[{"name":"t","type":"%b"}]}' % term
    completions = b",".join(b'"%b"' % text for text in texts)
    return b'{"spec":%b,"items":[{"prompt":"p","completions":[%b]}]}' % (spec, completions)


def executes(programs: list[bytes]) -> bytes:
    tests = b'{"kind":"assert","asserts":["assert f() == 1"]}'
    listed = b",".join(b'"%b"' % program for program in programs)
    item = b'{"language":"python","extract":"last_fence","programs":[%b],"tests":%b}' % (listed, tests)
    return b'{"items":[%b]}' % item


BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a small request, for comparison": ("/score", lambda: scores(b"c")),
    "0.3 MB of empty lists": ("/score", lambda: filled(b"[]", 300_000, b'{"items":[', b"]}")),
    "3 MB of empty lists": ("/score", lambda: filled(b"[]", 3 * MB, b'{"items":[', b"]}")),
    "60 MB of empty lists": ("/score", lambda: filled(b"[]", 60 * MB, b'{"items":[', b"]}")),
    "2 MB of numbers as programs": (
        "/execute",
        lambda: filled(b"1", 2 * MB, b'{"items":[{"language":"python","programs":[', b"]}]}"),
    ),
    "60 MB of numbers as programs": (
        "/execute",
        lambda: filled(b"1", 60 * MB, b'{"items":[{"language":"python","programs":[', b"]}]}"),
    ),
    "8 MB of unknown fields": (
        "/score",
        lambda: b'{"items":[{' + b",".join(b'"f%d":1' % number for number in range(800_000)) + b"}]}",
    ),
    "1.6 MB of closing tokens, format": ("/reward", lambda: rewards(b"format", [b"</s>" * 400_000])),
    "3.8 MB of closing tokens, last_fence": ("/execute", lambda: executes([b"</s>" * 60_000] * 16)),
    "16 MB, consensus": ("/reward", lambda: rewards(b"consensus", [b"a b c d " * 125_000] * 16)),
    "16 MB in one completion": ("/score", lambda: scores(b"word " * 3_200_000)),
    "60 MB of completions": (
        "/score",
        lambda: filled(b'"' + b"word " * 20_000 + b'"', 60 * MB, b'{"items":[{"prompt":"p","completions":[', b"]}]}"),
    ),
    "30 MB of escapes": ("/score", lambda: scores(rb"\n" * 15_000_000)),
    "12 MB of emoji among letters": ("/score", lambda: scores(("a" * 1000 + "😀").encode() * 12_000)),
}


@contextmanager
def api(folder: Path) -> Iterator[tuple[int, int]]:
    """A Redis and an API without workers: the API's port and pid."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    redis = ["redis-server", "--port", "0", "--unixsocket", f"{folder}/s", "--dir", str(folder), "--save", ""]
    serve = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--redis-url", f"unix://{folder}/s"]
    with (folder / "log").open("wb") as log:
        processes = [subprocess.Popen(redis, stdout=log), subprocess.Popen(serve, stdout=log, stderr=log)]
        try:
            until = time.monotonic() + 60
            while True:
                try:
                    answer("GET", port, "/health", b"")
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.1)
            yield port, processes[1].pid
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def answer(method: str, port: int, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request(method, path, body, {"Content-Type": "application/json"} | headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, str(json.loads(text).get("code", ""))


def memory(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))


def measured(name: str, path: str, body: bytes, sent: bytes, **headers: str) -> str:
    """One body against an API of its own, as a row."""
    with tempfile.TemporaryDirectory(prefix="doors-", dir="/tmp") as folder, api(Path(folder)) as (port, pid):
        answer("POST", port, "/score", b'{"items":[{"prompt":"p","completions":["c"]}]}')
        before = memory(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the largest memory is counted from here
        probe = subprocess.Popen([sys.executable, "-c", PROBE, str(port)], stdout=subprocess.PIPE, text=True)
        assert probe.stdout is not None
        assert probe.stdout.readline() == "ready\n"
        waits: list[float] = []
        reader = threading.Thread(target=lambda: waits.extend(float(line) for line in probe.stdout or ()))
        reader.start()
        began = time.perf_counter()
        status, code = answer("POST", port, path, sent, **headers)
        took_s = time.perf_counter() - began
        time.sleep(0.3)
        probe.terminate()
        probe.wait()
        reader.join()
        growth = memory(pid, "VmHWM") - before
    blocked_ms = max(waits) * 1000
    figures = f"{took_s:.2f} | {blocked_ms:.0f} | {growth / MB:.0f} | {growth / len(body):.1f}"
    return f"| {name} | {len(body) / MB:.1f} | {status} `{code}` | {figures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="bodies whose name contains this")
    options = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, load average {load}\n")
    print("| body | MB | answer | seconds | longest wait of /health, ms | memory, MB | memory / size |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for name, (path, make) in BODIES.items():
        if options.only in name:
            body = make()
            print(measured(name, path, body, body), flush=True)
    name = "60 kB of gzip that expands to 60 MB"
    if options.only in name:
        body = scores(b" " * 60 * MB)
        print(measured(name, "/score", body, gzip.compress(body), **{"Content-Encoding": "gzip"}), flush=True)


if __name__ == "__main__":
    main()
