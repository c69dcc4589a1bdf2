"""A history of requests under faults, and what in it breaks a promise.

Promises: every request ends; an answer is right, or says itself that it is none; the reason that a failure gives is
true (something of that kind was broken then); after `cancelled` nothing else is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

LONGEST_S = 30.0  # of one attempt: its deadline, and what an answer may take behind it

# What must have been broken for a failure to be true, by its code; `*`: anything.
TRUE_OF: dict[str, frozenset[str]] = {
    "reset": frozenset({"api"}),
    "shutting_down": frozenset({"api"}),
    "broker_unavailable": frozenset({"redis", "memory"}),
    "job_lost": frozenset({"redis"}),
    "lost": frozenset({"redis"}),  # a request that was accepted is unknown
    "testset_lost": frozenset({"redis"}),
    "infra_error": frozenset({"redis", "api"}),
    "overloaded": frozenset({"memory", "redis"}),
    "answer_refused": frozenset({"memory", "redis"}),
    "poisoned": frozenset({"worker", "redis"}),
    "no_worker": frozenset({"worker", "redis"}),
    "deadline": frozenset({"*"}),
    "deadline_unreachable": frozenset({"*"}),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What was broken, from when until when, seconds. `kind`: `api`, `worker`, `redis` or `memory`."""

    kind: str
    name: str
    began: float
    ended: float


@dataclass(slots=True)
class Attempt:
    """One call. `outcome`: `right`, `running`, `cancelled`, `left` (hung up), `wrong: why`, or a code of failure."""

    began: float
    ended: float = float("nan")
    outcome: str = "unfinished"


@dataclass(slots=True)
class Request:
    """All attempts of one request, in order.

    Attributes:
        must_succeed: its caller went on until it was answered.
        ended: the service has said how it ended, so that its caller asks no more.
        accepted: its caller was told that it will be done, and asked until it ended or for longer than its deadline.
    """

    name: str
    attempts: list[Attempt] = field(default_factory=list)
    must_succeed: bool = False
    ended: bool = False
    accepted: bool = False


def violations(
    requests: Iterable[Request], faults: Sequence[Fault], recovery_s: float, *, may_lose: bool = True
) -> list[str]:
    """What breaks a promise, a line each.

    Args:
        requests: whose attempts have ended.
        faults: that were made meanwhile.
        recovery_s: for how long after a fault its consequences are true.
        may_lose: whether a Redis may lose a request that was accepted, as replicas do that are not waited for.
    """
    broken = [f"{request.name}: {why}" for request in requests for why in _violations(request, faults, recovery_s)]
    if not may_lose:
        broken += [f"{each.name}: lost" for each in requests if any(one.outcome == "lost" for one in each.attempts)]
    return broken


def _violations(request: Request, faults: Sequence[Fault], recovery_s: float) -> Iterable[str]:
    cancelled = False
    for attempt in request.attempts:
        outcome = attempt.outcome
        if outcome == "unfinished":
            yield f"no end of the attempt begun at {attempt.began:.1f} s"
        elif attempt.ended - attempt.began > LONGEST_S:
            yield f"{outcome} after {attempt.ended - attempt.began:.1f} s"
        if cancelled and outcome in ("right", "running"):
            yield f"{outcome} after it was told cancelled"
        cancelled = cancelled or outcome == "cancelled"
        if outcome.startswith("wrong"):
            yield outcome
        elif outcome not in ("right", "cancelled", "left", "running", "unfinished"):
            kinds = TRUE_OF.get(outcome)
            if kinds is None:
                yield f"a failure of no known kind: {outcome}"
            elif not any(
                ("*" in kinds or fault.kind in kinds)
                and fault.began <= attempt.ended
                and attempt.began <= fault.ended + recovery_s
                for fault in faults
            ):
                yield f"{outcome} at {attempt.ended:.1f} s, and nothing of that kind was broken"
    if request.accepted and not request.ended:
        yield "accepted, and it never ended"
    if request.must_succeed and (not request.attempts or request.attempts[-1].outcome != "right"):
        yield "no right answer in the end"
