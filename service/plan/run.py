"""`plaudit plan`: what to start for a load, what it costs, and what will be held up next."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plaudit.errors import EXIT_OK, UsageError
from service.plan.capacity import CapacityPlan, Workload, plan
from service.plan.costs import Costs, read_costs
from service.plan.private_broker import private_broker
from service.settings import Settings

RANGES = {  # flag: least and most
    "rollouts": (1, 10_000_000),
    "group": (1, 1024),
    "tests": (1, 1000),
    "extra_test_ms": (0, 600_000),
    "passing": (0, 1),
    "prompt_tokens": (0, 10_000_000),
    "completion_tokens": (0, 10_000_000),
    "step_s": (0.1, 86_400),
    "cache_s": (0, 86_400),
    "max_utilisation": (0.05, 0.95),
}
PARTS = {"executors": "executor", "apis": "API process", "shards": "Redis", "scorers": "scorer"}
MAX_SIMULATED = 100_000  # rollouts: a simulation takes some milliseconds of this host for each


def run(flags: argparse.Namespace, settings: Settings) -> int:
    """Measure, or plan; prints and returns the exit code.

    Raises:
        UsageError: a flag is out of its range, or the costs do not have what is asked for.
        HostLacks: the service cannot be measured here, or there is no Redis to simulate with.
    """
    path = Path(flags.costs) if flags.costs else None
    if flags.measure:
        return _measure(settings, path)
    workload = _workload(flags)
    costs = read_costs(path)
    answer = plan(workload, costs, max_utilisation=flags.max_utilisation)
    document = answer.as_document() | {"costs": {"host": costs.host, "date": costs.date}}
    document |= _price(answer, flags)
    if flags.simulate:
        document["simulation"] = _simulate(answer, costs)
    print(json.dumps(document, indent=2) if flags.json else as_text(answer, costs, document))
    return EXIT_OK


def _measure(settings: Settings, path: Path | None) -> int:
    from service.plan.measure import QUIET_CORES, measure

    costs = measure(settings, lambda text: print(f"measuring: {text}", file=sys.stderr, flush=True))
    if path is None:
        print(costs.as_json(), end="")
    else:
        path.write_text(costs.as_json())
        print(f"the costs of this host are in {path}; plan with --costs {path}")
    if costs.cores_busy > QUIET_CORES:
        print(
            f"other work kept {costs.cores_busy:.1f} cores busy meanwhile: all looks dearer than it is, and what "
            "executors wait for could not be told. Measure again on a quiet host",
            file=sys.stderr,
        )
    return EXIT_OK


def _workload(flags: argparse.Namespace) -> Workload:
    """Raises UsageError, which names the flag and its range."""
    if flags.rollouts is None:
        raise UsageError("--rollouts is missing: how many programs a training step has (or --measure this host)")
    for name, (least, most) in RANGES.items():
        value = getattr(flags, name)
        if not least <= value <= most:
            raise UsageError(f"--{name.replace('_', '-')} {value}: it is from {least:g} to {most:g}")
    names = [name for name in RANGES if name != "max_utilisation"]
    return Workload(kind=flags.kind, **{name: getattr(flags, name) for name in names})


def _price(answer: CapacityPlan, flags: argparse.Namespace) -> dict[str, Any]:
    """What the processes cost while a step lasts, if there are prices."""
    hours = answer.workload.step_s / 3600
    price = 0.0
    if flags.core_hour is None and flags.device_hour is None:
        return {}
    if flags.core_hour is not None:
        price += answer.cores * flags.core_hour * hours
    if flags.device_hour is not None:
        price += answer.count("scorers") * flags.device_hour * hours
    return {"price_per_step": price, "price_per_1000_rollouts": 1000 * price / answer.workload.rollouts}


def _simulate(answer: CapacityPlan, costs: Costs) -> dict[str, Any]:
    from service.plan.simulator import simulate

    if answer.workload.rollouts > MAX_SIMULATED:
        raise UsageError(f"--simulate takes at most {MAX_SIMULATED} --rollouts, not {answer.workload.rollouts}")
    with private_broker() as url:
        return asdict(simulate(answer, costs, url))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lines of columns, the first to the left and the others to the right."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def as_text(answer: CapacityPlan, costs: Costs, document: dict[str, Any]) -> str:
    """The plan for a reader."""
    workload = answer.workload
    head = f"{workload.rollouts:,} rollouts per step in groups of {workload.group}, {workload.tests} tests each"
    lines = [
        f"{head} ({workload.kind}, {workload.extra_test_ms:g} ms of their own per test), within {workload.step_s:g} s.",
        f"Costs as measured on {costs.host}, {costs.date}. All that follows is computed from them.",
        "",
        table(
            ("start", "count", "busy", "rollouts at which it is too busy"),
            [
                (
                    PARTS[part.name],
                    part.count,
                    f"{100 * part.utilisation:.0f} %",
                    _number(part.rollouts_at(answer.max_utilisation, workload.rollouts)),
                )
                for part in answer.parts
            ],
        ),
        "",
    ]
    rows = [
        ("CPU cores, all processes", f"{answer.cores:,}"),
        ("CPU time per step", f"{answer.cpu_s:,.1f} s"),
        ("device time per step", f"{answer.device_s:,.1f} s"),
        ("memory of all Redis together", f"{answer.redis_bytes / 2**20:,.0f} MiB"),
        ("commands of Redis", f"{answer.commands_per_s:,.0f} per s"),
        ("to and from Redis", f"{answer.bytes_per_s / 1e6:,.2f} MB per s"),
    ]
    if "price_per_step" in document:
        rows.append(("price of a step", f"{document['price_per_step']:,.4f}"))
        rows.append(("price of 1,000 rollouts", f"{document['price_per_1000_rollouts']:,.4f}"))
    lines += [table(("it takes", ""), rows), ""]
    part, rollouts = answer.next_bottleneck
    lines.append(f"Next bottleneck: {PARTS[part.name]}, at {_number(rollouts)} rollouts per step.")
    bounds = answer.bounds
    lines += ["", "Settings that the burst of a step needs, if it is sent at once:"]
    lines += [f"  {name} {value:,}".replace(",", "") for name, value in bounds.items()] or ["  the defaults do"]
    if told := document.get("simulation"):
        busy = ", ".join(f"{PARTS[name]} {100 * share:.0f} %" for name, share in told["busy"].items())
        lines += [
            "",
            f"Simulated, all at once: the last answer after {told['makespan_s']:.1f} s, half of the requests within "
            f"{told['p50_s']:.1f} s, 99 % within {told['p99_s']:.1f} s.",
            f"Busy meanwhile: {busy}.",
        ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return "any" if math.isinf(value) else f"{math.floor(value):,}"
