"""Entry points of the worker processes: one scores, one executes."""

from __future__ import annotations

import resource

from plaudit.errors import HostLacks, UsageError
from service import descriptors, tracing
from service.queue.connections import greet_shards
from service.settings import Settings
from service.worker.loop import StopSignal, retry, run, worker_name


def run_score(settings: Settings) -> int:
    """A scoring worker until SIGTERM; returns the exit code.

    Raises:
        HostLacks: Redis, the checkpoint or the device is missing, or the scores differ from the golden set.
        UsageError: the settings or the checkpoint are invalid.
    """
    from service.queue.sharded_registry import open_registry
    from service.worker.model_manager import ModelManager, register_models
    from service.worker.score import ScoreRunner

    _greet(settings)
    tracing.configure("scorer")
    stop = StopSignal()
    stop.install()
    name = worker_name("score")
    registry = open_registry(settings, name)
    active = register_models(settings, registry, lambda call: retry(call, stop), stop)
    if not stop.asked:
        run(ScoreRunner(ModelManager.open(settings, active, registry)), settings, stop, name)
    tracing.shut_down()
    return 0


def run_execute(settings: Settings) -> int:
    """An executing worker until SIGTERM; returns the exit code.

    Raises:
        HostLacks: Redis is missing, or this host cannot give the isolation that is asked for.
        UsageError: the settings are invalid.
    """
    from sandbox.errors import IsolationUnavailable
    from sandbox.open import open_sandbox
    from sandbox.vm.vm_sandbox import open_vm_sandbox
    from service.worker.execute import ExecuteRunner

    _greet(settings)
    tracing.configure("executor")
    stop = StopSignal()
    stop.install()
    try:
        vm = settings.vm_config()
        with open_sandbox(accept=settings.isolation_accept) if vm is None else open_vm_sandbox(vm) as sandbox:
            if settings.executor_memory_mb is not None:
                limit_memory(settings.executor_memory_mb)
            run(ExecuteRunner(settings, sandbox), settings, stop)
    except IsolationUnavailable as error:
        raise HostLacks(str(error)) from error
    tracing.shut_down()
    return 0


def _greet(settings: Settings) -> None:
    """Wait for Redis."""
    if settings.redis_url is None:
        raise UsageError("a worker needs --redis-url")
    descriptors.raise_limit()
    greet_shards(settings)


def limit_memory(mb: int) -> None:
    """Limit this process's data to `mb` MiB; an allocation beyond it raises MemoryError.

    Only the soft limit is set. Jailed programs start from the hard one and have limits of their own.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
