"""Measures on this host what `costs` has: a service of its own, a minute of work, and the CPU time of each part.

- It starts a broker and `plaudit up` with one executor and one scorer, and ends both.
- CPU times are those that the kernel has counted for the processes and all that they have started; what they use
  without any work is measured, too, and taken off.
- Work comes in bursts, as a trainer sends it: one request after the other costs a third more CPU time per program.
- How long an executor waits without using a CPU comes from the quickest of several runs. Where other work keeps the
  cores busy it cannot be told from waiting for a core, and counts as nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import redis

from plaudit.errors import HostLacks
from service.plan.costs import Costs, ProgramCost, QueueCost, ScoreCost
from service.plan.private_broker import private_broker
from service.queue.connections import connect
from service.queue.consumer import Consumer
from service.queue.heartbeat import Heartbeat
from service.queue.keys import EXECUTE_QUEUE, Keys
from service.queue.protocol import now_ms
from service.settings import Settings
from service.up.process import command, environ_of

FEW_TESTS, MANY_TESTS = 1, 21
GROUP = 8
ENOUGH_CPU_S, MAX_BURSTS = 4.0, 40  # the kernel counts CPU time in steps of 10 ms
QUIET_CORES = 0.2
NUM_FAKE_WORKERS, NUM_IDLE_WORKERS = 200, 16
IDLE_S = 3.0
ROLES = {"api": ("serve",), "execute": ("worker", "execute"), "score": ("worker", "score")}
KINDS = {
    "python-stdio": ("python", "print(int(input()) + 1)  # {salt}"),
    "python-assert": ("python", "def f(number):\n    return number + 1\n# {salt}"),
    "cpp-stdio": ("cpp", "#include <iostream>\nint main() {{ int a; std::cin >> a; std::cout << a + 1; }} // {salt}"),
}


def others_busy() -> Callable[[], float]:
    """Counts from now on; the function returns how many cores others than this process's tree kept busy since."""

    def other_s() -> float:
        return _busy_s() - tree_cpu_s([os.getpid()])

    began_s, began = time.monotonic(), other_s()
    return lambda: max(0.0, (other_s() - began) / max(1e-3, time.monotonic() - began_s))


def _busy_s() -> float:
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def host_name() -> str:
    """The CPU and the number of cores."""
    model = platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found[1] if found else model
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def tree_cpu_s(roots: list[int]) -> float:
    """CPU seconds so far of these processes and of all that they have started, ended ones included."""
    children: dict[int, list[int]] = {}
    seconds: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
            seconds[int(folder.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    total, left = 0.0, list(roots)
    while left:
        pid = left.pop()
        total += seconds.get(pid, 0.0)
        left += children.get(pid, [])
    return total


def _children_by_role(supervisor: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {role: [] for role in ROLES}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            for role, names in ROLES.items():
                if parent == supervisor and all(name in words for name in names):
                    found[role].append(int(folder.name))
    return found


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used between two moments. `cpu_s`: by role, without what is used when there is no work."""

    seconds: float
    cpu_s: dict[str, float]
    redis: dict[str, float]


class MeasuredService:
    """A running service and its counters."""

    def __init__(self, url: str, supervisor: int, client: redis.Redis, settings: Settings) -> None:
        self.http = httpx.Client(base_url=url, timeout=600, trust_env=False)
        self.pids = _children_by_role(supervisor)
        self.redis: Any = client
        self.settings = settings
        self.idle: dict[str, float] = {}  # CPU seconds per second without work, by role
        self.idle_redis: dict[str, float] = {}  # commands and bytes per second without work

    def _counts(self) -> tuple[dict[str, float], dict[str, float]]:
        cpu_s = {role: tree_cpu_s(pids) for role, pids in self.pids.items()}
        cpu, stats = self.redis.info("cpu"), self.redis.info("stats")
        commands = self.redis.info("commandstats")
        cpu_s["redis"] = cpu["used_cpu_user"] + cpu["used_cpu_sys"]
        cpu_s["client"] = time.process_time()
        return cpu_s, {
            "commands": sum(one["calls"] for one in commands.values()),
            "bytes_in": stats["total_net_input_bytes"],
            "bytes_out": stats["total_net_output_bytes"],
            "bytes_kept": self.redis.info("memory")["used_memory"],
        }

    def used(self, work: Callable[[], object]) -> Usage:
        """What this work uses."""
        cpu_before, redis_before = self._counts()
        began = time.monotonic()
        work()
        seconds = time.monotonic() - began
        cpu_after, redis_after = self._counts()
        cpu_s = {role: cpu_after[role] - cpu_before[role] - self.idle.get(role, 0.0) * seconds for role in cpu_after}
        counts = {
            name: redis_after[name] - redis_before[name] - self.idle_redis.get(name, 0.0) * seconds
            for name in redis_after
        }
        return Usage(seconds, cpu_s, counts)

    def rest(self, seconds: float = IDLE_S) -> Usage:
        return self.used(lambda: time.sleep(seconds))

    def execute(self, kind: str, num_requests: int, num_programs: int, num_tests: int) -> list[float]:
        """New programs, one request after the other; the work of each in ms. Raises HostLacks if one does not pass."""
        return [self._execute(kind, num_programs, num_tests) for _ in range(num_requests)]

    def burst(self, kind: str, num_requests: int, num_programs: int, num_tests: int, at_once: int = 64) -> list[float]:
        """The same, so many requests at once; the seconds until each was answered."""
        began = time.monotonic()

        def request(_: int) -> float:
            self._execute(kind, num_programs, num_tests)
            return time.monotonic() - began

        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(request, range(num_requests)))

    def _execute(self, kind: str, num_programs: int, num_tests: int) -> float:
        language, source = KINDS[kind]
        if kind.endswith("assert"):
            asserts = [f"assert f({number}) == {number + 1}" for number in range(num_tests)]
            tests: dict[str, Any] = {"kind": "assert", "asserts": asserts, "entry_point": "f"}
        else:
            cases = [{"stdin": f"{number}\n", "stdout": f"{number + 1}\n"} for number in range(num_tests)]
            tests = {"kind": "stdio", "cases": cases}
        salt = uuid.uuid4().hex
        programs = [source.format(salt=f"{salt} {number}") for number in range(num_programs)]
        item = {"language": language, "programs": programs, "tests": tests}
        answer = self._post("/execute", {"items": [item], "deadline_ms": 600_000})
        for program in answer["results"][0]["programs"]:
            if program["verdict"] != "passed":
                raise HostLacks(f"a {kind} program of the measurement ended as {program}")
        return float(answer["timing"]["compute_ms"])

    def score(self, num_requests: int, num_groups: int) -> None:
        for _ in range(num_requests):
            items = []
            for number in range(num_groups):
                salt = f"{time.time_ns()} {number}"
                prompt = f"Task {salt}: read numbers, add those that are even, and print the sum.\n" * 4
                texts = [f"total = 0  # {salt} {way}\n" + "total += int(input())\n" * 12 for way in range(GROUP)]
                items.append({"prompt": prompt, "completions": texts})
            self._post("/score", {"items": items})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        if answer.status_code != 200:
            raise HostLacks(f"{path} of the measurement answered {answer.status_code}: {answer.text[:500]}")
        document: dict[str, Any] = answer.json()
        return document

    def languages(self) -> set[str]:
        return {one["name"] for one in self.http.get("/info").json()["languages"]}

    def computed_tokens(self) -> float:
        found = re.search(r'^plaudit_score_tokens_total{kind="computed"} (\S+)', self.http.get("/metrics").text, re.M)
        return float(found[1]) if found else 0.0


def measure(settings: Settings, tell: Callable[[str], None]) -> Costs:
    """Measure. Takes about a minute on a quiet host.

    Args:
        settings: of the service: which model, on which device, at which isolation level.
        tell: called with what is done now.

    Raises:
        HostLacks: the service does not start here, or does not do the work.
    """
    others = others_busy()
    with open_service(settings, tell) as service:
        tell("warming up")
        for kind in KINDS:
            if KINDS[kind][0] in service.languages():
                service.execute(kind, 2, 1, FEW_TESTS)
        service.rest(1.0)
        tell("the service without work")
        rested = service.rest()
        service.idle = {role: cpu_s / rested.seconds for role, cpu_s in rested.cpu_s.items()}
        service.idle_redis = {
            name: rested.redis[name] / rested.seconds for name in ("commands", "bytes_in", "bytes_out")
        }
        programs = {}
        for kind, (language, _) in KINDS.items():
            if language in service.languages():
                tell(f"programs: {kind}")
                programs[kind] = _program_cost(service, kind)
        tell("the queue")
        queue = _queue_cost(service)
        score = None
        if settings.scorers:
            tell("scores")
            score = _score_cost(service)
        busy = others()
    return Costs(host_name(), f"{datetime.now(UTC):%Y-%m-%d}", round(busy, 2), programs, queue, score)


def _program_cost(service: MeasuredService, kind: str) -> ProgramCost:
    compiled = KINDS[kind][0] != "python"
    num_requests, singly = (2, 4) if compiled else (8, 80)

    def cpu_s(num_tests: int) -> float:
        """Of a program with so many tests: the median of bursts that use `ENOUGH_CPU_S` together."""
        bursts: list[float] = []
        while sum(bursts) < ENOUGH_CPU_S and len(bursts) < MAX_BURSTS:
            bursts.append(service.used(lambda: service.burst(kind, num_requests, GROUP, num_tests)).cpu_s["execute"])
        return statistics.median(bursts) / (num_requests * GROUP)

    few, many = cpu_s(FEW_TESTS), cpu_s(MANY_TESTS)
    test_ms = max(0.0, 1000 * (many - few) / (MANY_TESTS - FEW_TESTS))
    program_ms = max(0.0, 1000 * few - FEW_TESTS * test_ms)
    others = others_busy()

    def waited_ms(num_runs: int, num_tests: int) -> float:
        """Of one program alone, which uses more CPU time than one of a burst."""
        times_ms: list[float] = []
        used = service.used(lambda: times_ms.extend(service.execute(kind, num_runs, 1, num_tests)))
        return max(0.0, _quickest(times_ms) - 1000 * used.cpu_s["execute"] / num_runs)

    few_ms, many_ms = waited_ms(singly, FEW_TESTS), waited_ms(singly // 2, MANY_TESTS)
    test_wait_ms = max(0.0, (many_ms - few_ms) / (MANY_TESTS - FEW_TESTS))
    waits = (max(0.0, few_ms - FEW_TESTS * test_wait_ms), test_wait_ms)
    if others() > QUIET_CORES:
        waits = (0.0, 0.0)
    return ProgramCost(*(round(value, 3) for value in (program_ms, test_ms, *waits)))


def _quickest(times_ms: list[float]) -> float:
    """The mean of the quicker quarter."""
    return statistics.mean(sorted(times_ms)[: max(1, len(times_ms) // 4)])


def _queue_cost(service: MeasuredService) -> QueueCost:
    singly, grouped, size = 120, 12, 32
    one = service.used(lambda: service.burst("python-assert", singly, 1, FEW_TESTS))
    many = service.used(lambda: service.burst("python-assert", grouped, size, FEW_TESTS))

    def split(role: str) -> tuple[float, float]:
        """CPU ms per request and per program, from requests of one program and of several."""
        of_one, of_many = 1000 * one.cpu_s[role] / singly, 1000 * many.cpu_s[role] / grouped
        per_program = max(0.0, (of_many - of_one) / (size - 1))
        return max(0.0, of_one - per_program), per_program

    num = grouped * size
    values: dict[str, Any] = {"idle_cpu_ms": {}}
    for role in ("api", "redis", "client"):
        values[f"{role}_request_cpu_ms"], values[f"{role}_program_cpu_ms"] = split(role)
        values["idle_cpu_ms"][role] = round(1000 * service.idle[role], 2)
    for role in ("execute", "score"):
        values["idle_cpu_ms"][role] = round(1000 * service.idle[role], 2)
    values |= {name: max(0.0, many.redis[name] / num) for name in ("commands", "bytes_in", "bytes_out", "bytes_kept")}
    values["api_worker_cpu_ms"] = _announced_worker_ms(service)
    values["redis_worker_cpu_ms"] = _idle_worker_ms(service)
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
    return msgspec.convert(rounded, QueueCost)


def _announced_worker_ms(service: MeasuredService) -> float:
    """CPU ms that an API process uses per second and announced worker: with so many more of them, copies of one."""
    keys, client = Keys(service.settings.namespace), service.redis
    name = next(name for name in client.zrange(keys.workers, 0, -1) if name.startswith(b"execute-"))
    announcement = client.hget(keys.workers_info, name)
    copies = [f"execute-copy-{number}" for number in range(NUM_FAKE_WORKERS)]
    client.zadd(keys.workers, {copy: now_ms() + 60_000 for copy in copies})
    client.hset(keys.workers_info, mapping=dict.fromkeys(copies, announcement))
    try:
        used = service.rest()
    finally:
        client.zrem(keys.workers, *copies)
        client.hdel(keys.workers_info, *copies)
    return max(0.0, 1000 * used.cpu_s["api"] / used.seconds / NUM_FAKE_WORKERS)


def _idle_worker_ms(service: MeasuredService) -> float:
    """CPU ms that Redis uses per second and worker without work: of so many that wait for work in this process."""
    settings, over = service.settings, threading.Event()
    keys = Keys(settings.namespace)
    name = next(name for name in service.redis.zrange(keys.workers, 0, -1) if name.startswith(b"execute-"))
    info = json.loads(service.redis.hget(keys.workers_info, name))

    def wait_for_work(number: int) -> None:
        with connect(settings.redis_urls[0]) as client:
            consumer = Consumer(
                client,
                settings.namespace,
                f"execute-idle-{number}",
                [EXECUTE_QUEUE],
                lease_s=settings.lease_s,
                max_deliveries=settings.max_deliveries,
            )
            options: dict[str, Any] = {"stuck_after_s": 60.0, "on_cancelled": lambda lease: None}
            with Heartbeat(consumer, "execute", dict(info), every_s=settings.heartbeat_s, **options):
                while not over.is_set():
                    consumer.take(1, share=True)

    threads = [threading.Thread(target=wait_for_work, args=(number,)) for number in range(NUM_IDLE_WORKERS)]
    for thread in threads:
        thread.start()
    try:
        service.rest(1.0)
        used = service.rest()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return max(0.0, 1000 * used.cpu_s["redis"] / used.seconds / NUM_IDLE_WORKERS)


def _score_cost(service: MeasuredService) -> ScoreCost:
    service.score(1, 2)
    num_requests, num_groups = 3, 8
    before = service.computed_tokens()
    used = service.used(lambda: service.score(num_requests, num_groups))
    tokens = service.computed_tokens() - before
    model = service.http.get("/models").json()["models"][0]
    settings = service.settings
    on_cpu = settings.device == "cpu" or "cuda" not in model["engine"].lower()
    seconds = used.cpu_s["score"] / settings.torch_threads if on_cpu else used.seconds
    return ScoreCost(
        model["name"],
        f"CPU, {settings.torch_threads} threads" if on_cpu else settings.device,
        round(tokens / max(1e-3, seconds), 1),
        *(round(max(0.0, 1000 * used.cpu_s[role] / (num_requests * num_groups)), 3) for role in ("api", "redis")),
    )


@contextlib.contextmanager
def open_service(settings: Settings, tell: Callable[[str], None], executors: int = 1) -> Iterator[MeasuredService]:
    """A broker and a service with so many executors and at most one scorer, until the block ends. Raises HostLacks."""
    with contextlib.ExitStack() as ends:
        url = ends.enter_context(private_broker())
        changes = {"redis_url": url, "host": "127.0.0.1", "port": 0, "executors": executors, "apis": 1, "shards": 1}
        changes |= {"scorers": min(1, settings.scorers), "api_key": [], "admin_key": [], "log_level": "error"}
        own = settings.model_copy(update=changes)
        tell("starting a service")
        process = ends.enter_context(_child(command("up"), environ_of(own, os.environ)))
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise HostLacks("the service of the measurement did not start; its log is above")
        client = ends.enter_context(connect(url))
        service = MeasuredService(json.loads(line)["url"], process.pid, client, own)
        ends.callback(service.http.close)
        yield service


@contextlib.contextmanager
def _child(argv: tuple[str, ...], environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
