"""What a trail remembers of judged programs, suites and scored prompts: verdicts counted, slow work described.

Of a text only its digest and its size are kept. Whoever sent it finds the text by the request's replay.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from plaudit.schemas import ExecuteItem, ProgramResult, ScoreItem, ScoreResult
from service import slowness
from service.api.dispatch import trail
from service.api.dispatch.trail import MAX_NAME, SlowRecord, Trail
from service.jobs import Executed, Job, Reply, Scored
from service.queue.protocol import now_ms

MAX_FLAGS = 8  # of one program that are counted


def executed(
    item: ExecuteItem,
    index: int,
    suite: tuple[str, int],
    jobs: Sequence[Job | ProgramResult],
    replies: Mapping[str, Reply],
    programs: Sequence[ProgramResult],
) -> None:
    """Take in an item that has been judged.

    Args:
        item: as the request has it.
        index: of the item in its request.
        suite: its digest, and how many tests it has.
        jobs: per program.
        replies: by job.
        programs: the results.
    """
    here = trail.current()
    for program in programs:
        _count_program(here.counts, program)
    worked = {
        job.id: position
        for position, job in enumerate(jobs)
        if isinstance(job, Job) and isinstance(replies[job.id].body, Executed) and replies[job.id].worker != "cache"
    }
    if not worked:
        return
    about = {
        "item": (item.id or str(index))[:MAX_NAME],
        "language": item.language[:MAX_NAME],
        "tests": item.tests.kind,
        "num_tests": suite[1],
    }
    compute_ms = 0.0
    for job_id, position in worked.items():
        reply = replies[job_id]
        compute_ms += reply.compute_ms
        if here.wants("program", reply.queue_ms + reply.compute_ms):
            result = programs[position]
            parts = slowness.with_queue(reply.parts, reply.queue_ms, reply.compute_ms)
            verdict = "" if result.verdict is None else str(result.verdict)
            what = {"index": position, "verdict": verdict, "slowest_test": _slowest_test([result])}
            here.remember("program", _sample(here, parts, **about, **what, **_identity(item.programs[position])))
    num = len(worked)
    if here.wants("suite", compute_ms / num):
        totals: dict[str, float] = defaultdict(float)
        for job_id in worked:
            for part, ms in slowness.with_queue(replies[job_id].parts, 0.0, replies[job_id].compute_ms).items():
                totals[part] += ms / num
        means = {part: round(ms, 1) for part, ms in totals.items()}
        slowest = _slowest_test([programs[position] for position in worked.values()])
        what = {"num_programs": num, "slowest_test": slowest, "digest": suite[0][:16]}
        here.remember("suite", _sample(here, means, **about, **what))


def scored(item: ScoreItem, index: int, model: str, reply: Reply | None, result: ScoreResult) -> None:
    """Take in a group that has been scored; `reply`: of its job, None where all of it was cached."""
    here = trail.current()
    values = [score.score for score in result.completions if score.score is not None]
    here.counts["scores"] += len(values)
    here.counts[f"score_n:{model}"] += len(values)
    here.counts[f"score_sum:{model}"] += sum(values)
    here.counts[f"score_squares:{model}"] += sum(value * value for value in values)
    if reply is None or not isinstance(reply.body, Scored) or reply.worker == "cache":
        return
    if not here.wants("prompt", reply.queue_ms + reply.compute_ms):
        return
    parts = slowness.with_queue(reply.parts, reply.queue_ms, reply.compute_ms)
    what = {
        "item": (item.id or str(index))[:MAX_NAME],
        "model": model[:MAX_NAME],
        "tokens": sum(reply.body.tokens),
        "num_programs": len(result.completions),
    }
    text = item.prompt if isinstance(item.prompt, str) else repr(item.prompt)
    here.remember("prompt", _sample(here, parts, **what, **_identity(text)))


def _count_program(counts: dict[str, float], program: ProgramResult) -> None:
    counts["programs"] += 1
    if program.verdict is not None:
        counts[f"verdict:{program.verdict}"] += 1
    for flag in program.flags[:MAX_FLAGS]:
        counts[f"flag:{flag.partition(':')[0]}"] += 1


def _sample(to: Trail, parts: Mapping[str, float], **what: Any) -> SlowRecord:
    total_ms = round(sum(parts.values()), 1)
    return SlowRecord(
        to.request_id,
        to.route,
        now_ms(),
        total_ms,
        slowness.why(parts),
        dict(parts),
        trace_id=to.trace_id,
        **what,
    )


def _identity(text: str) -> dict[str, Any]:
    data = text.encode("utf-8", "surrogatepass")
    return {"digest": hashlib.sha256(data).hexdigest()[:16], "num_bytes": len(data)}


def _slowest_test(programs: Sequence[ProgramResult]) -> str:
    """The number (or name) of the test that took longest, and how long; empty where none was timed."""
    slowest, label = 0.0, ""
    for program in programs:
        for number, test in enumerate(program.tests or ()):
            if test.wall_ms > slowest:
                slowest = test.wall_ms
                label = f"{(test.name or str(number))[:MAX_NAME]}: {test.wall_ms:.0f} ms"
    return label
