"""The controller of a deployment: a detached actor, named after it, that keeps the other actors as they should be.

- One thread looks at the cluster, the actors and the queue every `check_s`, decides (`reconcile`) and acts. What it
  meets is logged, and the next look comes anyway. Ray calls the methods from other threads; they read what it wrote.
- Nothing here is kept anywhere else: a controller that Ray starts again, on whichever node, finds its actors by their
  names (`NAME/ROLE-NUMBER`) and asks them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args
from urllib.parse import quote

import httpx
import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from plaudit.errors import EXIT_HOST, EXIT_USAGE
from plaudit.ray_address import NAMESPACE
from service import logs, metrics
from service.on_ray.options import DeploymentOptions
from service.on_ray.placement import ClusterNode, Placement, Role, placements, read_nodes
from service.on_ray.queue_reader import QueueReader, QueueView
from service.on_ray.reconcile import (
    DRAIN_GRACE_S,
    Action,
    Member,
    RestartPauses,
    Rules,
    TreeReport,
    decide,
    note_work,
)
from service.on_ray.scaling import ExecutorScaling
from service.on_ray.tree_actor import TreeActor
from service.settings import PREFIX, Settings, load

log = logging.getLogger("plaudit.ray")

ANSWER_S = 0.5  # how long a look waits for the actors' answers; later ones are read at the next look
DRAIN_ORDER: tuple[tuple[Role, ...], ...] = (("api",), ("scorer", "executor"), ("broker",))
MAX_EVENTS = 50
HEALTH_S = 1.0
FATAL_FAILURES = 2  # of a kind of which none was ever ready, by what its node lacks: others may have other nodes


@dataclass(slots=True)
class Handled:
    """A member, its actor's handle, and the answer that is on its way."""

    member: Member
    actor: Any
    asked: Any = None


@dataclass(slots=True)
class DeploymentState:
    """What `status` tells. Written by the controller's thread as a whole."""

    phase: str = "starting"
    url: str | None = None
    problems: list[str] = field(default_factory=list)
    fatal: str | None = None
    fatal_code: int = 0
    members: list[dict[str, Any]] = field(default_factory=list)
    executors: dict[str, int] = field(default_factory=dict)
    queue: dict[str, float] | None = None
    isolation: list[str] = field(default_factory=list)


class Controller:
    """See the module.

    Args:
        options: fields of `DeploymentOptions`.
        environ: the settings of all processes, as variables.
        api_key: the key that programs of the cluster get; empty: none is asked.
        password: of an embedded broker.
        runtime_env: of the actors, as Ray takes it.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        environ: Mapping[str, str],
        api_key: str,
        password: str,
        runtime_env: Mapping[str, Any] | None,
    ) -> None:
        self.options = DeploymentOptions.model_validate(options)
        self.settings: Settings = load(environ=environ)
        logs.configure(self.settings.log_level, self.settings.log_format)
        self._environ = dict(environ)
        self._api_key, self._password, self._runtime_env = api_key, password, runtime_env
        self._redis_url = self.settings.redis_url
        self._reader: QueueReader | None = None
        self._scaling = ExecutorScaling(self.options)
        self._pauses = RestartPauses()
        self._events: list[str] = []
        self._failures: dict[Role, tuple[str, int]] = {}
        self._was_ready: set[Role] = set()
        self._draining = threading.Event()
        self._stopped = False
        self._nodes: list[ClusterNode] = []
        self._numbers: dict[Role, int] = {}  # of the youngest actor of each kind: names are not used twice
        self._handled = self._find()
        self._state = DeploymentState()
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)
        self._thread.start()

    # --- called by Ray -----------------------------------------------------------------------------------------------

    def address(self) -> dict[str, str | None] | None:
        """Where the API listens, and a key for it; None while there is none."""
        url = self._state.url
        return None if url is None else {"url": url, "api_key": self._api_key or None}

    def status(self) -> dict[str, Any]:
        """Everything that `plaudit ray status` shows."""
        state = self._state
        return {
            "name": self.options.name,
            "phase": state.phase,
            "url": state.url,
            "problems": state.problems,
            "fatal": state.fatal,
            "fatal_code": state.fatal_code,
            "executors": state.executors,
            "queue": state.queue,
            "isolation": state.isolation,
            "actors": state.members,
            "events": list(self._events),
        }

    def drain(self) -> None:
        """Begin the orderly end; `status` says when it is reached."""
        self._draining.set()

    # --- the loop ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped:
            began = time.monotonic()
            try:
                self._step(began)
            except Exception:  # a background loop outlives what it meets
                metrics.loop_failures.labels("ray").inc()
                log.exception("a look at the deployment failed; the next one follows")
            time.sleep(max(0.05, self.options.check_s - (time.monotonic() - began)))

    def _step(self, now: float) -> None:
        self._nodes = read_nodes(ray.nodes())
        self._hear(now)
        self._follow_broker()
        view = QueueView() if self._reader is None else self._reader.read()
        members = [handled.member for handled in self._handled]
        note_work(members, view.announced, _api_answers, now)
        wanted = placements(self.options, self.settings, self._nodes)
        if self._draining.is_set():
            self._drain_step(now)
        else:
            targets = self._targets(view, now)
            rules = Rules(targets, self._redis_url, self.options.silent_s, self.settings.drain_s)
            for action in decide(members, rules, self._pauses, now):
                self._act(action, wanted, now)
        self._state = self._describe(view, wanted)

    def _hear(self, now: float) -> None:
        """Ask every actor how it is, and read the answers that have come."""
        for handled in self._handled:
            if handled.asked is None and not handled.member.gone:
                handled.asked = handled.actor.state.remote()
        asked = [handled.asked for handled in self._handled if handled.asked is not None]
        answered = set(ray.wait(asked, num_returns=len(asked), timeout=ANSWER_S)[0]) if asked else set()
        for handled in self._handled:
            if handled.asked not in answered:
                continue
            member, answer, handled.asked = handled.member, handled.asked, None
            try:
                member.report = TreeReport(**ray.get(answer))
            except ActorUnavailableError as error:  # the network, or a node that may come back
                log.warning("%s cannot be reached: %s", member.label, error)
                continue
            except RayActorError as error:
                log.warning("%s is gone: %s", member.label, str(error).splitlines()[0])
                member.gone = True
                continue
            except RayError as error:  # what `state` itself raised
                log.error("%s does not say how it is: %s", member.label, error)
                continue
            member.answered = now
            if member.ready:
                self._pauses.succeeded(member.role)
                self._failures.pop(member.role, None)
                self._was_ready.add(member.role)

    def _follow_broker(self) -> None:
        """Take the address of the embedded broker, and connect to the queue."""
        if self.settings.redis_url is None:
            ready = [handled.member for handled in self._handled if handled.member.role == "broker"]
            events = [member.report.event for member in ready if member.ready and member.report is not None]
            url = None
            if events:
                url = f"redis://:{quote(self._password)}@{events[0]['host']}:{events[0]['port']}"
            if url != self._redis_url:
                self._redis_url = url
                self._close_reader()
        if self._redis_url is not None and self._reader is None:
            self._reader = QueueReader(self.settings.model_copy(update={"redis_url": self._redis_url}))

    def _close_reader(self) -> None:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reader.close()

    def _targets(self, view: QueueView, now: float) -> dict[Role, int]:
        executors = [handled.member for handled in self._handled if handled.member.role == "executor"]
        here = [member for member in executors if member.draining is None and not member.gone]
        starting = sum(not member.ready for member in here)
        return {
            "broker": int(self.settings.redis_url is None),
            "api": 1,
            "scorer": self.settings.scorers,
            "executor": self._scaling.target(view.demand, len(here), starting, now),
        }

    # --- steps -------------------------------------------------------------------------------------------------------

    def _act(self, action: Action, wanted: Mapping[Role, Placement], now: float) -> None:
        member = action.member
        if action.verb == "start":
            self._start(action.role, wanted[action.role], now)
            return
        assert member is not None
        handled = next(handled for handled in self._handled if handled.member is member)
        if action.failed:
            self._pauses.failed(member.role, now)
            code = (member.report.exit_code if member.report is not None else None) or 0
            self._failures[member.role] = action.reason, code
        self._note(f"{member.label}: {action.verb}, {action.reason}")
        if action.verb == "drain":
            member.draining = now
            handled.actor.drain.remote()
        else:
            ray.kill(handled.actor)
            self._handled.remove(handled)

    def _start(self, role: Role, placement: Placement, now: float) -> None:
        number = self._numbers[role] = self._numbers.get(role, 0) + 1
        environ = dict(self._environ)
        if role != "broker":
            assert self._redis_url is not None
            environ[f"{PREFIX}REDIS_URL"] = self._redis_url
        if role == "executor":
            environ[f"{PREFIX}EXECUTORS"] = str(self.options.actor_cpus)
        member = Member(role, number, now)
        actor = (
            ray.remote(TreeActor)
            .options(
                name=f"{self.options.name}/{member.label}",
                namespace=NAMESPACE,
                lifetime="detached",
                max_restarts=0,
                runtime_env=None if self._runtime_env is None else dict(self._runtime_env),
                **placement.options(self._nodes),
            )
            .remote(role, environ, self._password if role == "broker" else "")
        )
        self._handled.append(Handled(member, actor))
        self._note(f"{member.label}: start")

    def _drain_step(self, now: float) -> None:
        """The API first, then the workers, then the broker; each when the ones before have ended."""
        for handled in list(self._handled):
            member, report = handled.member, handled.member.report
            late = member.draining is not None and now - member.draining > self.settings.drain_s + DRAIN_GRACE_S
            if member.gone or report is None or report.phase == "ended" or late:
                ray.kill(handled.actor)
                self._handled.remove(handled)
        for roles in DRAIN_ORDER:
            stage = [handled for handled in self._handled if handled.member.role in roles]
            for handled in stage:
                if handled.member.draining is None:
                    handled.member.draining = now
                    handled.actor.drain.remote()
            if stage:
                return
        self._close_reader()
        self._stopped = True

    def _find(self) -> list[Handled]:
        """The actors of this deployment that a controller before this one has started."""
        found, now = [], time.monotonic()
        for named in ray.util.list_named_actors(all_namespaces=True):
            name, _, label = named["name"].rpartition("/")
            role, _, number = label.rpartition("-")
            if (named["namespace"], name) != (NAMESPACE, self.options.name) or role not in get_args(Role):
                continue
            try:
                actor = ray.get_actor(named["name"], namespace=NAMESPACE)
            except ValueError:  # it has ended meanwhile
                continue
            member = Member(cast(Role, role), int(number), now, answered=now, at_work=now)
            self._numbers[member.role] = max(self._numbers.get(member.role, 0), member.number)
            found.append(Handled(member, actor))
        return found

    def _note(self, text: str) -> None:
        log.info("%s", text)
        self._events.append(text)
        del self._events[:-MAX_EVENTS]

    # --- what it looks like ------------------------------------------------------------------------------------------

    def _describe(self, view: QueueView, wanted: Mapping[Role, Placement]) -> DeploymentState:
        members = [handled.member for handled in self._handled]
        apis = [member for member in members if member.role == "api" and member.ready]
        url = apis[0].report.event.get("url") if apis and apis[0].report is not None else None
        problems = [f"{role}: {reason}" for role, (reason, _) in self._failures.items()]
        for role in get_args(Role):
            waiting = sum(member.role == role and member.report is None for member in members)
            if waiting:
                lack = wanted[role].missing(self._nodes) or f"waits for a node with {wanted[role]} to spare"
                problems.append(f"{role}: {waiting} not placed: {lack}")
        fatal = [
            failure
            for role, failure in self._failures.items()
            if failure[1] in (EXIT_USAGE, EXIT_HOST)
            and role not in self._was_ready
            and self._pauses.failures.get(role, 0) >= FATAL_FAILURES
        ]
        executors = [member for member in members if member.role == "executor"]
        phase = "stopped" if self._stopped else "draining" if self._draining.is_set() else "starting"
        if phase == "starting" and url is not None:
            phase = "ready"
        return DeploymentState(
            phase=phase,
            url=None if self._draining.is_set() else url,
            problems=problems,
            fatal=fatal[0][0] if fatal else None,
            fatal_code=fatal[0][1] if fatal else 0,
            members=[_shown(member) for member in members],
            executors={
                "ready": self.options.actor_cpus * sum(member.ready for member in executors),
                "actors": len(executors),
                "min": self.options.min_executors,
                "max": self.options.max_executors,
            },
            queue=None if view.demand is None else {"depth": view.demand.depth, "oldest_s": view.demand.oldest_s},
            isolation=sorted(view.isolation),
        )


def _api_answers(member: Member) -> bool:
    """Whether its process lives; what it can do is another question. The certificate is not this one's to judge."""
    assert member.report is not None
    url = member.report.event.get("url", "")
    try:
        return httpx.get(f"{url}/health", timeout=HEALTH_S, verify=False, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _shown(member: Member) -> dict[str, Any]:
    report = member.report
    phase = "waiting for a place" if report is None else "draining" if member.draining is not None else report.phase
    return {
        "actor": member.label,
        "phase": phase,
        "node": "" if report is None else report.node_id,
        "host": "" if report is None else report.host,
        "pids": [] if report is None else list(report.pids),
    }
