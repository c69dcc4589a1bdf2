"""Mixed load while everything breaks: 20 minutes of kills, freezes, wrong clocks, full memory, restarts and failovers.

Four tenants send scores, programs and rankings: in groups and singly, waited for and asynchronous, with and without
idempotency keys; some are cancelled, some callers hang up. Meanwhile two APIs, two executors, a scorer and two Redis
servers under Sentinel are killed, frozen, started with clocks that are minutes off, and filled, one fault after the
other. A history of every attempt is checked (`tests/support/history.py`): each ended in time; each answer is right, for
the right one is known beforehand; each failure was typed and its reason true; nothing followed `cancelled`; and what
was sent again under its key until it succeeded did succeed. Exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
from overhead import machine

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from service.scoring.reward_model import Calibration, RewardModel  # noqa: E402
from support.asks import Ask, Asks  # noqa: E402
from support.checkpoints import checkpoint  # noqa: E402
from support.history import Attempt, Fault, Request, violations  # noqa: E402
from support.sentinels import Sentinels  # noqa: E402
from support.stack import Process, Stack, wait_for  # noqa: E402

TENANTS = ("north", "south", "east", "west")
DEADLINE_MS, CALL_S = 20_000, 25.0
RECOVERY_S = 25.0  # a lease, a restart, and a deadline that began before
PERSIST_S = 120.0  # how long a caller goes on under its key
QUIET_S = 4.0  # between a fault and the next
CLOCK_S = 200.0


@dataclass
class Service:
    """The processes by place: one that was ended is started again at its place."""

    sentinels: Sentinels
    stack: Stack
    apis: list[tuple[Process, str]] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)

    def start(self) -> None:
        self.workers = [self.stack.start_executor(), self.stack.start_executor(), self.stack.start_scorer()]
        for worker in self.workers:
            worker.line()
        for _ in range(2):
            self.apis.append((self.stack.start_api(), self.stack.url))

    def restart_worker(self, place: int, clock_s: float = 0.0) -> None:
        started = self.stack.start_scorer() if place == 2 else self.stack.start_executor(clock_s=clock_s)
        self.workers[place] = started
        started.line()

    def restart_api(self, place: int) -> None:
        port = int(self.apis[place][1].rsplit(":", 1)[1])
        api = self.stack.start_api(port=port, wait=False)
        self.apis[place] = api, self.apis[place][1]


class Faults:
    """Breaks one thing at a time, mends it, and keeps the account. Its methods block; they run in a thread."""

    def __init__(self, service: Service, draw: random.Random, clock: Callable[[], float]) -> None:
        self.service = service
        self.draw = draw
        self.clock = clock
        self.done: list[Fault] = []
        self.recovered: dict[str, list[float]] = {}
        self.ways: list[tuple[str, str, Callable[[], None]]] = [
            ("worker", "worker killed", self.kill_worker),
            ("worker", "worker frozen", self.freeze_worker),
            ("worker", "worker ended by SIGTERM", self.end_worker),
            ("worker", "executor with a wrong clock", self.wrong_clock),
            ("api", "API killed", self.kill_api),
            ("api", "API drained", self.drain_api),
            ("api", "API frozen", self.freeze_api),
            ("redis", "Redis killed and restarted", self.restart_redis),
            ("redis", "Redis frozen", self.freeze_redis),
            ("redis", "failover", self.fail_over),
            ("memory", "Redis full", self.fill_redis),
        ]
        self.left: list[tuple[str, str, Callable[[], None]]] = []

    def next(self) -> None:
        """One fault; each way once before any comes again."""
        if not self.left:
            self.left = self.draw.sample(self.ways, len(self.ways))
        kind, name, way = self.left.pop()
        began = self.clock()
        way()
        self.done.append(Fault(kind, name, began, self.clock()))
        self.recovered.setdefault(name, []).append(self._recovery_s())

    def _recovery_s(self) -> float:
        """How long until both APIs are ready again."""
        began = self.clock()

        def ready() -> bool:
            try:
                urls = [url for _, url in self.service.apis]
                return all(httpx.get(f"{url}/ready", trust_env=False, timeout=2).status_code == 200 for url in urls)
            except httpx.TransportError:
                return False

        wait_for(ready, 90.0, "both APIs to be ready again")
        return self.clock() - began

    def kill_worker(self) -> None:
        place = self.draw.randrange(3)
        self.service.workers[place].kill()
        time.sleep(self.draw.uniform(0, 2))
        self.service.restart_worker(place)

    def end_worker(self) -> None:
        place = self.draw.randrange(3)
        self.service.workers[place].stop()
        self.service.restart_worker(place)

    def wrong_clock(self) -> None:
        place = self.draw.randrange(2)
        self.service.workers[place].stop()
        self.service.restart_worker(place, self.draw.choice((-CLOCK_S, CLOCK_S)))

    def freeze_worker(self) -> None:
        self._freeze(self.service.workers[self.draw.randrange(3)].pid, 8.0)

    def freeze_api(self) -> None:
        self._freeze(self.service.apis[self.draw.randrange(2)][0].pid, 6.0)

    def kill_api(self) -> None:
        place = self.draw.randrange(2)
        self.service.apis[place][0].kill()
        time.sleep(self.draw.uniform(0, 2))
        self.service.restart_api(place)

    def drain_api(self) -> None:
        place = self.draw.randrange(2)
        self.service.apis[place][0].stop()
        self.service.restart_api(place)

    def restart_redis(self) -> None:
        """Back before the sentinel minds."""
        name = self.service.sentinels.primary()
        self.service.sentinels.kill(name)
        time.sleep(0.3)
        self.service.sentinels.start_server(name)

    def freeze_redis(self) -> None:
        """For less than the sentinel's patience."""
        self._freeze(self.service.sentinels.processes[self.service.sentinels.primary()].pid, 1.5)

    def fail_over(self) -> None:
        sentinels = self.service.sentinels
        old = sentinels.primary()
        sentinels.kill(old)
        wait_for(lambda: sentinels.primary() != old, 30.0, "a new primary")
        sentinels.start_server(old, replica_of=sentinels.primary())
        time.sleep(2)

    def fill_redis(self) -> None:
        """No room for a new key, for five seconds."""
        with self.service.sentinels.client(self.service.sentinels.primary()) as client:
            client.config_set("maxmemory", max(1, client.info("memory")["used_memory"] - 100_000))
            time.sleep(5)
            client.config_set("maxmemory", 0)

    def _freeze(self, pid: int, most_s: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(self.draw.uniform(0.5, most_s))
        finally:
            os.kill(pid, signal.SIGCONT)


class WithApis(Protocol):
    """A service whose APIs `Load` calls."""

    apis: list[tuple[Process, str]]


class Load:
    """Callers of four tenants, who send one request after the other until `over`."""

    def __init__(self, service: WithApis, asks: Asks, draw: random.Random, clock: Callable[[], float]) -> None:
        self.service = service
        self.asks = asks
        self.draw = draw
        self.clock = clock
        self.over = asyncio.Event()
        self.requests: list[Request] = []
        self.counts: Counter[str] = Counter()

    async def caller(self, tenant: str) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)  # an API that is gone leaves no connection behind
        headers = {"Authorization": f"Bearer {tenant}", "X-Deadline-Ms": str(DEADLINE_MS)}
        ways: list[tuple[str, Callable[[httpx.AsyncClient, Ask, Request], Awaitable[None]]]] = [
            ("waited for", self.plain),
            ("until it succeeds", self.persistent),
            ("asynchronous", self.asynchronous),
            ("cancelled", self.cancelled),
            ("hung up", self.hung_up),
        ]
        async with httpx.AsyncClient(timeout=CALL_S, trust_env=False, limits=limits, headers=headers) as client:
            while not self.over.is_set():
                number = len(self.requests)
                make = self.draw.choice(
                    (self.asks.score, self.asks.execute, self.asks.rank, self.asks.slow, self.group)
                )
                manner, way = self.draw.choice(ways)
                ask = make(number)
                request = Request(f"{tenant} {manner} {ask.path} {number}")
                self.requests.append(request)
                self.counts[f"{make.__name__}, {manner}"] += 1
                await way(client, ask, request)

    def group(self, number: int) -> Ask:
        return self.asks.score(number, completions=12)

    def url(self) -> str:
        return self.draw.choice(self.service.apis)[1]

    async def plain(self, client: httpx.AsyncClient, ask: Ask, request: Request) -> None:
        await self.attempt(request, lambda: client.post(self.url() + ask.path, json=ask.body), ask)

    async def persistent(self, client: httpx.AsyncClient, ask: Ask, request: Request) -> None:
        """The same request under its key, at either API, until it is answered."""
        headers, until = {"Idempotency-Key": request.name}, self.clock() + PERSIST_S
        request.must_succeed = True
        while self.clock() < until:
            outcome = await self.attempt(
                request, lambda: client.post(self.url() + ask.path, json=ask.body, headers=headers), ask
            )
            if outcome == "right" or outcome.startswith("wrong"):
                return
            await asyncio.sleep(0.5)

    async def asynchronous(self, client: httpx.AsyncClient, ask: Ask, request: Request) -> None:
        """Accepted, and then asked about until it has ended."""
        status_path = await self.accepted(client, ask, request)
        request.accepted = bool(status_path)
        until = self.clock() + PERSIST_S
        while status_path and self.clock() < until:
            await self.attempt(request, lambda: client.get(self.url() + status_path, params={"wait_ms": 3000}), ask)
            if request.ended:
                return
            await asyncio.sleep(0.2)

    async def cancelled(self, client: httpx.AsyncClient, ask: Ask, request: Request) -> None:
        """Cancelled some moments later, and then asked about: twice the same, whatever it is."""
        status_path = await self.accepted(client, ask, request)
        if status_path:
            await asyncio.sleep(self.draw.uniform(0, 0.6))
            await self.attempt(request, lambda: client.delete(self.url() + status_path), ask)
            for pause_s in (0.2, 1.0):
                await asyncio.sleep(pause_s)
                await self.attempt(request, lambda: client.get(self.url() + status_path), ask)

    async def hung_up(self, client: httpx.AsyncClient, ask: Ask, request: Request) -> None:
        attempt = Attempt(self.clock())
        request.attempts.append(attempt)
        call = asyncio.create_task(client.post(self.url() + ask.path, json=ask.body))
        await asyncio.wait([call], timeout=self.draw.uniform(0, 0.3))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        attempt.outcome, attempt.ended = "left", self.clock()

    async def accepted(self, client: httpx.AsyncClient, ask: Ask, request: Request) -> str:
        """The path of an asynchronous request's status; empty if it was not accepted."""
        paths: list[str] = []

        async def post() -> httpx.Response:
            headers = {"Prefer": "respond-async"}
            response = await client.post(self.url() + ask.path, json=ask.body, headers=headers)
            if response.status_code == 202:
                paths.append(response.json()["status_url"])
            return response

        await self.attempt(request, post, ask)
        return httpx.URL(paths[0]).path if paths else ""

    async def attempt(self, request: Request, call: Callable[[], Awaitable[httpx.Response]], ask: Ask) -> str:
        attempt = Attempt(self.clock())
        request.attempts.append(attempt)
        try:
            response = await call()
            attempt.outcome = outcome_of(response, ask)
            request.ended = response.status_code == 404 or response.json().get("state", "running") != "running"
        except httpx.TransportError:
            attempt.outcome = "reset"
        attempt.ended = self.clock()
        return attempt.outcome


def outcome_of(response: httpx.Response, ask: Ask) -> str:
    """What an answer is: `right`, `running`, `cancelled`, `wrong: …` or the code of its failure."""
    body = response.json()
    if response.status_code == 404:
        return "lost"
    if response.status_code == 202:
        return "running"
    if response.status_code != 200:
        return str(body["code"]) if body.get("retryable") else f"wrong: {response.status_code} {body}"
    if "state" in body:
        if body["state"] in ("running", "cancelled"):
            return str(body["state"])
        if body["state"] == "failed":
            return str(body["error"]["code"])
        body = body["answer"]
    try:
        if ask.judge_answer(body) == "right":
            return "right"
    except AssertionError as error:
        return f"wrong: {str(error)[:300]}"
    return next(code for part in ask.statuses(body) if (code := failure_code(part)) is not None)


def failure_code(part: dict[str, Any]) -> str | None:
    """Why a completion or program has no value."""
    if part["status"] == "ok":
        return None
    errors = [part.get("error"), *(component.get("error") for component in part.get("components", {}).values())]
    codes = [error["code"] for error in errors if error]
    return str(codes[0]) if codes else str(part["status"])


async def run(service: Service, asks: Asks, seconds: float, seed: int, callers: int) -> tuple[Load, Faults]:
    draw, origin = random.Random(seed), time.monotonic()

    def clock() -> float:
        return time.monotonic() - origin

    load, faults = Load(service, asks, draw, clock), Faults(service, random.Random(seed + 1), clock)
    sending = [asyncio.create_task(load.caller(TENANTS[number % len(TENANTS)])) for number in range(callers)]
    await asyncio.sleep(QUIET_S)
    while clock() < seconds:
        await asyncio.to_thread(faults.next)
        print(f"{clock():7.1f} s  {faults.done[-1].name}, {len(load.requests)} requests so far", flush=True)
        await asyncio.sleep(QUIET_S)
    load.over.set()
    await asyncio.gather(*sending)
    return load, faults


def wait_until_empty(url: str) -> bool:
    """Whether every queue is empty once the last deadlines have passed."""
    until = time.monotonic() + DEADLINE_MS / 1000 + RECOVERY_S
    while time.monotonic() < until:
        info = httpx.get(f"{url}/info", headers={"Authorization": f"Bearer {TENANTS[0]}"}, trust_env=False).json()
        if all(queue["depth"] == 0 and queue["cost"] == 0 for queue in info["queues"].values()):
            return True
        time.sleep(0.5)
    return False


def table(rows: list[tuple[str, ...]]) -> str:
    head, *body = rows
    return "\n".join(["| " + " | ".join(row) + " |" for row in (head, tuple("---" for _ in head), *body)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--callers", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        model = checkpoint(folder, calibration=Calibration(a=2.0, b=-1.0))
        sentinels = ends.enter_context(Sentinels(append_only=True, down_after_ms=3000))
        stack = Stack(
            sentinels,  # type: ignore[arg-type] # in a broker's place
            model,
            scorers=0,
            executors=0,
            api_key=",".join(TENANTS),
            lease_s="3",
            heartbeat_s="0.5",
            drain_s="10",
            log_level="warning",
        )
        ends.callback(stack.close)
        service = Service(sentinels, stack)
        service.start()
        asks = Asks(RewardModel.load(str(model), dtype="float32", threads=1))
        load, faults = asyncio.run(run(service, asks, 60 * arguments.minutes, arguments.seed, arguments.callers))
        settled = wait_until_empty(service.apis[0][1])
    broken = violations(load.requests, faults.done, RECOVERY_S)
    broken += [] if settled else ["the queues are not empty after the last deadline"]
    outcomes = Counter(attempt.outcome.split(":")[0] for request in load.requests for attempt in request.attempts)
    print(f"\n{machine()}; {arguments.minutes:g} minutes, {arguments.callers} callers, seed {arguments.seed}\n")
    print(table([("outcome of an attempt", "count"), *((name, f"{n:,}") for name, n in outcomes.most_common())]))
    rows = [(name, f"{len(s)}", f"{max(s):.1f}") for name, s in sorted(faults.recovered.items())]
    print("\n" + table([("fault", "times", "both APIs ready again after at most, s"), *rows]))
    print(f"\n{len(load.requests):,} requests, {len(faults.done)} faults, {len(broken)} broken promises")
    print("\n".join(broken[:50]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
