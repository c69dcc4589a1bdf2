"""What traces and trails cost: per span while tracing is off and on, per request and program of the API's bookkeeping.

Prints a table. One process, no service: what is timed here is all that a request or a job pays.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from plaudit.grading import Verdict
from plaudit.schemas import ExecuteItem, ProgramResult
from sandbox.types import Report
from service import tracing
from service.api.dispatch import trail
from service.api.dispatch.trail import Trail
from service.api.handlers import slow_samples
from service.jobs import Executed, Job, Reply

TURNS = 20_000


def microseconds(call: Callable[[], None], turns: int = TURNS) -> float:
    """CPU time per call, the best of five."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(turns // 5):
            call()
        best = min(best, (time.process_time() - began) / (turns // 5))
    return 1e6 * best


def one_span() -> None:
    with tracing.span("execute", parent="") as span:
        span.set(verdict="passed")


def no_traceparent() -> None:
    assert tracing.current() == ""


def one_request() -> None:
    here = Trail("0" * 32, time.monotonic(), route="/execute")
    trail.begin(here)
    here.stage("read")
    here.submitted(8)
    here.stage("last_result", again=True)


def eight_programs(floor_ms: float) -> Callable[[], None]:
    text = "def add(a, b):\n    return a + b\n"
    item = ExecuteItem.model_validate(
        {
            "language": "python",
            "programs": [text] * 8,
            "tests": {"kind": "assert", "asserts": ["assert add(1, 2) == 3"]},
        }
    )
    jobs = [Job(str(n), "execute", "execute", "normal", b"", 1.0, 0) for n in range(8)]
    body = Executed(Report(Verdict.PASSED, 1, 1, (), "split", "strong"))
    replies = {job.id: Reply(job.id, body, 1.0, 2.0, "execute-a") for job in jobs}
    result = ProgramResult(status="ok", verdict=Verdict.PASSED, trainable=True)

    def call() -> None:
        trail.begin(Trail("0" * 32, time.monotonic(), {"program": floor_ms, "suite": floor_ms}))
        slow_samples.executed(item, 0, ("0" * 64, 1), jobs, replies, [result] * 8)

    return call


def main() -> None:
    rows = [
        ("a span, tracing off", microseconds(one_span)),
        ("`traceparent` of jobs, tracing off", microseconds(no_traceparent)),
        ("trail of a request", microseconds(one_request)),
        ("8 programs, none slow enough to be kept", microseconds(eight_programs(1e9))),
        ("8 programs, all among the slowest", microseconds(eight_programs(0.0), 2000)),
    ]
    try:
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    except ImportError:
        print("the extra `otel` is not installed: no figure with tracing on")
    else:
        tracing.configure("benchmark", {}, InMemorySpanExporter())
        rows.append(("a span, tracing on", microseconds(one_span, 2000)))
        tracing.shut_down()
    print("| what | µs |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value:.2f} |")


if __name__ == "__main__":
    main()
