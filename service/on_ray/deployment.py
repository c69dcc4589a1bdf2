"""Start, look at and end a deployment, from a process that is part of the Ray cluster or can reach it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from plaudit.errors import EXIT_HOST, HostLacks, NotFound, Unreachable, UsageError
from plaudit.ray_address import NAMESPACE
from service.on_ray.options import DeploymentOptions
from service.queue.connections import checked
from service.queue.shards import addresses
from service.settings import Settings
from service.up.process import environ_of

POLL_S = 0.5
KNOCK_S = 5.0
ANSWER_S = 15.0
KEEP_TRYING_S = 60.0  # while the controller is started on another node


def up(
    options: DeploymentOptions | None = None,
    settings: Settings | None = None,
    *,
    runtime_env: Mapping[str, Any] | None = None,
    ray_address: str = "auto",
    wait_s: float = 600.0,
) -> dict[str, Any]:
    """Start a deployment and wait until it answers requests.

    Without a key in `settings` one is made, which programs of the cluster get by the deployment's name. Without
    `redis_url` a broker is started beside the API; it is gone if its node is gone.

    Args:
        options: Name, numbers and places; None: the defaults.
        settings: Of the processes; None: the defaults.
        runtime_env: Ray's description of the actors' environment, where plaudit-server is installed.
        ray_address: Of the cluster, where this process is not connected to one yet.
        wait_s: How long to wait, in seconds.

    Returns:
        What `status` returns.

    Raises:
        UsageError: An option or a setting that cannot be, or a deployment of this name that runs already.
        HostLacks: No Ray, or the message with which the first process of its kind ended on its node.
        Unreachable: Not ready in time; the message says what it waits for. It goes on starting.

    Example:
        >>> from service import on_ray
        >>> on_ray.up(on_ray.DeploymentOptions(max_executors=64))["url"]
    """
    options, settings = options or DeploymentOptions(), settings or Settings()
    _check(settings)
    ray = connect(ray_address)
    from service.on_ray.controller import Controller
    from service.on_ray.placement import Placement, read_nodes

    front = Placement(resources=options.front_asks, labels=options.front_labels)
    nodes = read_nodes(ray.nodes())
    keys = [*settings.api_key, *settings.admin_key]
    api_key = keys[0] if keys else "" if settings.accept_no_auth else secrets.token_urlsafe(24)
    if api_key and not keys:
        settings = settings.model_copy(update={"api_key": [api_key]})
    if "port" not in settings.model_fields_set:
        settings = settings.model_copy(update={"port": 0})  # nodes are shared; programs find the port by the name
    environ = environ_of(settings, {})
    try:
        controller = (
            ray.remote(Controller)
            .options(
                name=options.name,
                namespace=NAMESPACE,
                lifetime="detached",
                max_restarts=-1,
                max_concurrency=16,
                runtime_env=None if runtime_env is None else dict(runtime_env),
                **front.options(nodes),
            )
            .remote(options.model_dump(), environ, api_key, secrets.token_urlsafe(24), runtime_env)
        )
    except ValueError as error:
        if "already taken" not in str(error):
            raise
        raise UsageError(
            f"--name {options.name}: this cluster has a deployment of that name; `plaudit ray down` ends it"
        ) from None
    lack = front.missing(nodes)
    until, state = time.monotonic() + wait_s, dict[str, Any]()
    while time.monotonic() < until:
        try:
            state = dict(ray.get(controller.status.remote(), timeout=min(ANSWER_S, wait_s)))
            if state["phase"] == "ready":
                return state
            if state["fatal"] is not None:
                down(options.name, ray_address=ray_address)
                kind = HostLacks if state["fatal_code"] == EXIT_HOST else UsageError
                raise kind(f"the deployment cannot start: {state['fatal']}")
        except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnavailableError):
            pass  # it is not placed yet, or Ray starts it again
        except ray.exceptions.RayActorError as error:
            last = [line for line in str(error).splitlines() if line.strip()][-1]
            raise HostLacks(
                f"the controller cannot run on its node: {last}. Install plaudit-server[ray] and the extras of the "
                "processes in the environment of every node, or describe one by --runtime-env"
            ) from error
        time.sleep(POLL_S)
    silent = "its controller has not begun: Ray prepares its environment, or has no place for it"
    waits_for = "; ".join(state.get("problems", ())) or lack or ("its processes are starting" if state else silent)
    raise Unreachable(
        f"ray://{options.name} is not ready after {wait_s:g} s: {waits_for}. It goes on starting; `plaudit ray status` "
        "shows it, `plaudit ray down` ends it"
    )


def status(name: str = "plaudit", *, ray_address: str = "auto", key: bool = False) -> dict[str, Any]:
    """What a deployment is doing.

    Args:
        name: Of the deployment.
        ray_address: Of the cluster, where this process is not connected to one yet.
        key: Whether to add `api_key`, for callers outside the cluster.

    Returns:
        `phase` (starting, ready, draining, stopped), `url`, `executors`, `queue`, `actors`, `problems`, `events`.

    Raises:
        NotFound: No deployment of that name.
        Unreachable: Its controller does not answer.

    Example:
        >>> on_ray.status()["phase"]
    """
    ray = connect(ray_address)
    state: dict[str, Any] = _ask(ray, name, "status")
    if key:
        state["api_key"] = (_ask(ray, name, "address") or {}).get("api_key")
    return state


def down(name: str = "plaudit", *, ray_address: str = "auto", wait_s: float = 120.0) -> None:
    """End a deployment: what was accepted is finished, within the settings' `drain_s`, then every actor ends.

    Args:
        name: Of the deployment.
        ray_address: Of the cluster, where this process is not connected to one yet.
        wait_s: How long the drain may take, in seconds; then the actors are ended as they are.

    Raises:
        NotFound: No deployment of that name.

    Example:
        >>> on_ray.down()
    """
    ray = connect(ray_address)
    until = time.monotonic() + wait_s
    try:
        _ask(ray, name, "drain")
        while time.monotonic() < until and _ask(ray, name, "status")["phase"] != "stopped":
            time.sleep(POLL_S)
    except Unreachable as error:
        logging.getLogger("plaudit.ray").warning("%s; its actors are ended without a drain", error.detail)
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
    for named in ray.util.list_named_actors(all_namespaces=True):
        if named["namespace"] == NAMESPACE and named["name"].startswith(f"{name}/"):
            with contextlib.suppress(ValueError):
                ray.kill(ray.get_actor(named["name"], namespace=NAMESPACE), no_restart=True)


def connect(address: str) -> Any:
    """Ray's module, connected to a cluster.

    Raises:
        HostLacks: Ray is not installed, or no cluster answers at the address.
    """
    if find_spec("ray") is None:
        raise HostLacks("the package 'ray' is not installed; pip install 'plaudit-server[ray]'")
    import ray

    if not ray.is_initialized():
        _knock(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        try:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise HostLacks(f"--ray-address {address}: no Ray cluster answers: {error}") from error
    return ray


def _knock(address: str) -> None:
    """Raises HostLacks at once where nothing listens at HOST:PORT; Ray itself tries for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
    except OSError as error:
        raise HostLacks(f"--ray-address {address}: no Ray cluster answers: {error}") from error


def _ask(ray: Any, name: str, method: str) -> Any:
    """An answer of the controller, also while Ray starts it again on another node."""
    until = time.monotonic() + KEEP_TRYING_S
    while True:
        try:
            controller = ray.get_actor(name, namespace=NAMESPACE)
            return ray.get(getattr(controller, method).remote(), timeout=ANSWER_S)
        except ValueError:
            raise NotFound(f"this Ray cluster has no deployment {name!r}; `plaudit ray up` starts one") from None
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError) as error:
            if time.monotonic() > until:
                raise Unreachable(f"the controller of {name!r} does not answer ({type(error).__name__})") from error
            time.sleep(POLL_S)


def _check(settings: Settings) -> None:
    """Raises UsageError for settings that mean nothing on a cluster."""
    if settings.uds is not None:
        raise UsageError(f"--uds {settings.uds}: the API of a deployment is reached over the network, not by a socket")
    if settings.isolation_accept == "none":
        raise UsageError(
            "--isolation-accept none runs programs without isolation and is for one machine only; the nodes of a "
            "cluster need landlock or better (docs/ray.md)"
        )
    if settings.redis_url is None and settings.shards != 1:
        raise UsageError(f"--shards {settings.shards}: a deployment starts one broker; give several by --redis-url")
    for url in settings.redis_urls:
        checked(url)
        if url.startswith("unix:"):
            raise UsageError(
                "--redis-url unix://: other nodes cannot reach a socket; give redis://, rediss:// or sentinel://"
            )
    addresses(settings.redis_urls)
    if settings.executors is not None:
        raise UsageError(f"--executors {settings.executors}: a deployment takes --min-executors and --max-executors")
