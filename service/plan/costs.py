"""What each part of the service needs for one piece of work, as it was measured on one host."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from plaudit.errors import UsageError

SHIPPED = "measured.json"


class ProgramCost(msgspec.Struct, frozen=True):
    """A trivial program of one kind, its tests, and the executor's own code around them.

    Attributes:
        program_cpu_ms: CPU time per program, with none of its tests.
        test_cpu_ms: CPU time per test.
        program_wait_ms, test_wait_ms: for how long the executor waits meanwhile without using a CPU.
    """

    program_cpu_ms: float
    test_cpu_ms: float
    program_wait_ms: float
    test_wait_ms: float

    def cpu_ms(self, num_tests: int, extra_test_ms: float = 0.0) -> float:
        """CPU time per program with so many tests, each of which takes so much longer than a trivial one."""
        return self.program_cpu_ms + num_tests * (self.test_cpu_ms + extra_test_ms)

    def wait_ms(self, num_tests: int) -> float:
        return self.program_wait_ms + num_tests * self.test_wait_ms


class ScoreCost(msgspec.Struct, frozen=True):
    """A model on its device.

    Attributes:
        model: its name.
        device: what it ran on.
        tokens_per_s: computed while the device was busy.
        api_group_cpu_ms, redis_group_cpu_ms: CPU time per group of completions.
    """

    model: str
    device: str
    tokens_per_s: float
    api_group_cpu_ms: float
    redis_group_cpu_ms: float


class QueueCost(msgspec.Struct, frozen=True):
    """What a program costs on its way, beside the executor, and what workers cost that have nothing to do.

    Attributes:
        api_request_cpu_ms, api_program_cpu_ms: of the API.
        redis_request_cpu_ms, redis_program_cpu_ms: of Redis.
        client_request_cpu_ms, client_program_cpu_ms: of the Python client that sends them.
        commands: of Redis per program, those in scripts included.
        bytes_in, bytes_out: between Redis and its clients, per program.
        bytes_kept: in Redis per finished program, while its result is cached.
        api_worker_cpu_ms: of an API process, per announced worker and second.
        redis_worker_cpu_ms: of Redis, per idle worker and second.
        idle_cpu_ms: per second of each process without work: `api`, `execute`, `score`, `redis`.
    """

    api_request_cpu_ms: float
    api_program_cpu_ms: float
    redis_request_cpu_ms: float
    redis_program_cpu_ms: float
    client_request_cpu_ms: float
    client_program_cpu_ms: float
    commands: float
    bytes_in: float
    bytes_out: float
    bytes_kept: float
    api_worker_cpu_ms: float
    redis_worker_cpu_ms: float
    idle_cpu_ms: dict[str, float]


class Costs(msgspec.Struct, frozen=True):
    """Everything that was measured in one go.

    Attributes:
        host: on which host, in words.
        date: when.
        cores_busy: by other work meanwhile.
        programs: by kind.
        score: None if no scorer was measured.
    """

    host: str
    date: str
    cores_busy: float
    programs: dict[str, ProgramCost]
    queue: QueueCost
    score: ScoreCost | None = None

    def program(self, kind: str) -> ProgramCost:
        """Raises UsageError for a kind that was not measured."""
        if kind not in self.programs:
            raise UsageError(f"--kind {kind} was not measured; these were: {', '.join(sorted(self.programs))}")
        return self.programs[kind]

    def as_json(self) -> str:
        document: Any = msgspec.to_builtins(self)
        return json.dumps(document, indent=2) + "\n"


def read_costs(path: Path | None) -> Costs:
    """Costs from a file that `plaudit plan --measure` wrote; None: those of the host that plaudit was measured on.

    Raises UsageError for a file that is not one.
    """
    if path is None:
        frame = resources.files("service.plan").joinpath(SHIPPED).read_bytes()
    else:
        try:
            frame = path.read_bytes()
        except OSError as error:
            raise UsageError(f"--costs {path}: {error.strerror}; `plaudit plan --measure` writes it") from None
    try:
        return msgspec.json.decode(frame, type=Costs)
    except msgspec.DecodeError as error:
        raise UsageError(f"--costs {path} is not what `plaudit plan --measure` writes: {error}") from None
