"""Costs that are round numbers, of no host."""

from __future__ import annotations

from service.plan.costs import Costs, ProgramCost, QueueCost, ScoreCost

COSTS = Costs(
    host="a host",
    date="2026-01-01",
    cores_busy=0.0,
    programs={"python-stdio": ProgramCost(5.0, 1.0, 10.0, 0.0)},
    queue=QueueCost(
        api_request_cpu_ms=4.0,
        api_program_cpu_ms=0.5,
        redis_request_cpu_ms=0.8,
        redis_program_cpu_ms=0.2,
        client_request_cpu_ms=1.0,
        client_program_cpu_ms=0.1,
        commands=20.0,
        bytes_in=1000.0,
        bytes_out=500.0,
        bytes_kept=900.0,
        api_worker_cpu_ms=0.2,
        redis_worker_cpu_ms=0.1,
        idle_cpu_ms={},
    ),
    score=ScoreCost("default", "CPU", 10_000.0, 1.0, 0.5),
)
