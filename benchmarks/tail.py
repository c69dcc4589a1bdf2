"""Short requests while a long prompt is in the stream: what each of them waits.

`plaudit up` serves a random model of 17 million parameters that takes 8,192 tokens. Four clients send one short
completion after the other, each text new; every few seconds another client sends one under a prompt of 4,000 tokens.
A short request may come while the long batch runs, and then waits for it; it must not wait for more than that. The
target: the p99 of the short requests is at most twice the long batch's own time, which its answer says (`compute_ms`).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers
from shapes import SHAPES, write_random  # before `overhead`, whose imports take this folder off the path

# isort: split
from overhead import Connection, machine, service

LONG, SHORT, CLIENTS, PAUSE_S = 4000, 60, 4, 4.0
LIMIT = 8192


def words(draw: random.Random, count: int) -> str:
    """So many tokens, and a blank behind them."""
    return "".join(f"{draw.randrange(4096)} " for _ in range(count))


def ask(connection: Connection, prompt: str, completion: str) -> tuple[float, float]:
    """Milliseconds that the client waited, and that the worker computed."""
    body = json.dumps({"items": [{"prompt": prompt, "completions": [completion]}]}).encode()
    began = time.perf_counter()
    answer = connection.post("/score", body)
    waited = 1000 * (time.perf_counter() - began)
    (one,) = answer["results"][0]["completions"]
    assert one["tokens"] == len(prompt.split()) + len(completion.split()), answer
    return waited, answer["timing"]["compute_ms"]


def measure(url: str, rounds: int) -> tuple[list[float], list[float]]:
    """Short requests' waits, and the long batches' times."""
    short: list[float] = []
    over = threading.Event()

    def client(seed: int) -> None:
        draw = random.Random(seed)
        with closing(Connection(url)) as connection:
            while not over.is_set():
                short.append(ask(connection, words(draw, SHORT), words(draw, SHORT))[0])

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(CLIENTS)]
    for one in clients:
        one.start()
    long: list[float] = []
    draw = random.Random(99)
    with closing(Connection(url)) as connection:
        for _ in range(rounds):
            time.sleep(PAUSE_S)
            long.append(ask(connection, words(draw, LONG), words(draw, SHORT))[1])
    over.set()
    for one in clients:
        one.join()
    return short, long


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12, help="long prompts")
    flags = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, service(write_random(Path(folder), *SHAPES["17M"], LIMIT)) as url:
        short, long = measure(url, flags.rounds)
    p50, p99 = statistics.median(short), statistics.quantiles(short, n=100)[98]
    batch = statistics.median(long)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {len(short)} short requests of {2 * SHORT} tokens, {len(long)} "
        f"long ones of {LONG + SHORT}\n"
    )
    print("| short p50 | short p99 | short at most | the long batch | p99 ÷ long batch |\n|--:|--:|--:|--:|--:|")
    print(f"| {p50:.0f} ms | {p99:.0f} ms | {max(short):.0f} ms | {batch:.0f} ms | **{p99 / batch:.2f}** (at most 2) |")


if __name__ == "__main__":
    main()
