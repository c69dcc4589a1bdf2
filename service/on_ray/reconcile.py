"""What the controller does next: which actors are started, drained and removed. A function of values.

- An actor that is gone is replaced at once. One whose tree ended by itself is replaced after a pause that doubles.
- An actor that was placed and says nothing for `silent_s`, none of whose workers is announced in the queue for so long,
  or whose API does not answer for so long, is removed and replaced.
- What still works on another queue than the current one (the broker was replaced) is removed and replaced.
- An actor that was never placed waits: Ray has no place for it yet, and an autoscaler of the cluster may make one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.on_ray.placement import Role

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
DRAIN_GRACE_S = 10.0  # beyond `drain_s`, for the tree's own end
Verb = Literal["start", "drain", "remove"]
Announced = Collection[tuple[str, int]]  # host and pid of each live worker


@dataclass(frozen=True, slots=True)
class TreeReport:
    """What an actor says of its process tree.

    Attributes:
        phase: `starting`, `ready` or `ended`.
        redis_url: the queue that it works on; of a broker, empty.
        event: the ready line: the URL of an API, the address of a broker.
        exit_code, detail: how it ended, with its last words.
        node_id, host, pids: where it runs, and its processes.
    """

    phase: Literal["starting", "ready", "ended"]
    redis_url: str = ""
    event: Mapping[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    detail: str = ""
    node_id: str = ""
    host: str = ""
    pids: tuple[int, ...] = ()


@dataclass(slots=True)
class Member:
    """An actor of the deployment, as the controller knows it. Times are monotonic seconds."""

    role: Role
    number: int
    began: float
    report: TreeReport | None = None
    answered: float = 0.0  # when it was last heard
    at_work: float = 0.0  # when a worker of it was last announced in the queue, or its API answered; or it became ready
    draining: float | None = None  # since when
    gone: bool = False  # Ray says that the actor, or its node, has ended

    @property
    def label(self) -> str:
        return f"{self.role}-{self.number}"

    @property
    def ready(self) -> bool:
        return self.report is not None and self.report.phase == "ready" and self.draining is None and not self.gone


@dataclass(frozen=True, slots=True)
class Action:
    """One step. `failed`: the tree ended by itself, so that its successor starts after a pause."""

    verb: Verb
    role: Role
    member: Member | None = None
    reason: str = ""
    failed: bool = False


@dataclass(slots=True)
class RestartPauses:
    """When an actor of each kind may be started again, after trees that ended by themselves."""

    failures: dict[Role, int] = field(default_factory=dict)
    until: dict[Role, float] = field(default_factory=dict)

    def failed(self, role: Role, now: float) -> None:
        count = self.failures[role] = self.failures.get(role, 0) + 1
        self.until[role] = now + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (count - 1))

    def succeeded(self, role: Role) -> None:
        self.failures.pop(role, None)

    def over(self, role: Role, now: float) -> bool:
        return now >= self.until.get(role, 0.0)


@dataclass(frozen=True, slots=True)
class Rules:
    """What `decide` goes by.

    Attributes:
        targets: how many actors of each kind there should be.
        redis_url: the current queue; None: there is none yet, so nothing but a broker is started.
        silent_s: how long an actor may be silent.
        drain_s: how long a drain may take.
    """

    targets: Mapping[Role, int]
    redis_url: str | None
    silent_s: float
    drain_s: float


def decide(members: Sequence[Member], rules: Rules, pauses: RestartPauses, now: float) -> list[Action]:
    """The next steps; removals first."""
    actions = [action for member in members if (action := _removal(member, rules, now)) is not None]
    removed = [action.member for action in actions]
    for role, target in rules.targets.items():
        here = [
            member
            for member in members
            if member.role == role and member.draining is None and not any(member is other for other in removed)
        ]
        if len(here) > target:
            surplus = sorted(here, key=_least_useful)[: len(here) - target]
            actions += [
                Action("remove" if member.report is None else "drain", role, member, "fewer are enough")
                for member in surplus
            ]
        elif (role == "broker" or rules.redis_url is not None) and pauses.over(role, now):
            actions += [Action("start", role)] * (target - len(here))
    return actions


def _removal(member: Member, rules: Rules, now: float) -> Action | None:
    report = member.report
    if member.gone:
        return Action("remove", member.role, member, "its actor or its node is gone")
    if report is None:
        return None
    if report.phase == "ended":
        if member.draining is not None:
            return Action("remove", member.role, member, "drained")
        reason = f"ended with exit code {report.exit_code}" + (f": {report.detail}" if report.detail else "")
        return Action("remove", member.role, member, reason, failed=True)
    if member.draining is not None:
        late = now - member.draining > rules.drain_s + DRAIN_GRACE_S
        return Action("remove", member.role, member, "did not drain in time") if late else None
    if now - member.answered > rules.silent_s:
        return Action("remove", member.role, member, f"silent for {rules.silent_s:g} s")
    if member.role != "broker" and rules.redis_url is not None and report.redis_url != rules.redis_url:
        return Action("remove", member.role, member, "the queue moved to another broker")
    if report.phase == "ready" and now - member.at_work > rules.silent_s:
        what = "its API did not answer" if member.role == "api" else "no worker of it was announced"
        return Action("remove", member.role, member, f"{what} for {rules.silent_s:g} s")
    return None


def _least_useful(member: Member) -> tuple[int, int]:
    """First those without a place, then those that still start, then the youngest."""
    stage = 0 if member.report is None else 1 if not member.ready else 2
    return stage, -member.number


def note_work(
    members: Sequence[Member], announced: Announced | None, answering: Callable[[Member], bool], now: float
) -> None:
    """Take in who is at work.

    Args:
        members: whose `at_work` is brought up to date.
        announced: the workers in the queue; None: the queue does not answer, and that is not a worker's fault.
        answering: whether the API of an actor answers.
        now: monotonic seconds.
    """
    for member in members:
        if member.report is None:
            continue
        if not member.ready or member.role == "broker":  # a broker that is slow keeps the queue; a new one would not
            seen = True
        elif member.role == "api":
            seen = answering(member)
        else:
            seen = announced is None or any((member.report.host, pid) in announced for pid in member.report.pids)
        if seen:
            member.at_work = now
