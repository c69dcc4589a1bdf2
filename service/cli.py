"""The commands that `plaudit-server` adds to the command line `plaudit`: up, serve, worker and check.

`plaudit.cli` has the client's commands and calls `add_commands`. Answers `--help` without loading anything heavy:
torch, FastAPI and Redis are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from plaudit import cli
from plaudit.errors import HostLacks, UsageError
from service.settings import Settings, load, parse_named

EPILOG = """\
Every flag is also PLAUDIT_<NAME> in the environment (lists separated by commas); flags win. `plaudit check` shows the
settings in force, those without a flag too. Logs go to stderr.
Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 this host lacks something named in the message."""

ADDRESS = ("host", "port")
KEYS = ("api_key", "admin_key", "accept_no_auth")
BROKER = ("redis_url", "redis_wait_s", "namespace")
SCORING = (
    "model",
    "engine",
    "vllm_url",
    "vllm_python",
    "vllm_args",
    "vllm_api_key",
    "vllm_start_s",
    "dtype",
    "device",
    "deterministic",
    "max_batch_tokens",
    "max_prompt_cache_bytes",
    "torch_threads",
)
EXECUTING = ("executors", "isolation_accept")
TELLING = ("log_level", "log_payloads")
HELP = {
    "host": "address to listen on",
    "port": "port to listen on; 0 picks a free one",
    "scorers": "scoring processes",
    "dtype": "arithmetic of the models",
    "max_batch_tokens": "tokens computed in one batch, at most",
    "torch_threads": "CPU threads of a scoring process",
    "log_level": "least level that is logged",
    "drain_s": "seconds to finish work after SIGTERM",
    "metrics_port": "a worker's own /metrics; 0: off",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The whole command line, the client's commands too; returns the exit code. Child processes are started by it."""
    return cli.run(argv, add_commands)


# --- what may be said ------------------------------------------------------------------------------------------------


def add_commands(commands: cli.Subparsers) -> None:
    """Register the server's commands."""

    def command(
        place: cli.Subparsers, name: str, function: Callable[[argparse.Namespace], int], text: str, *settings: str
    ) -> argparse.ArgumentParser:
        added = cli.add_command(place, name, function, text, EPILOG)
        for setting in settings:
            _add_setting(added, setting)
        return added

    command(
        commands,
        "up",
        _up,
        "start everything on this host: broker, API, scorers and executors",
        *ADDRESS,
        *BROKER,
        *KEYS,
        "scorers",
        *EXECUTING,
        *SCORING,
        "state_dir",
        "drain_s",
        *TELLING,
    )
    command(commands, "serve", _serve, "start the API alone, on a Redis", *ADDRESS, *BROKER, *KEYS, "drain_s", *TELLING)
    worker = commands.add_parser("worker", help="start workers of one kind, on a Redis")
    kinds = worker.add_subparsers(title="kinds", metavar="KIND", required=True)
    command(
        kinds,
        "score",
        _worker_score,
        "start scoring workers",
        *BROKER,
        "scorers",
        *SCORING,
        "metrics_port",
        "drain_s",
        *TELLING,
    )
    command(
        kinds,
        "execute",
        _worker_execute,
        "start executing workers",
        *BROKER,
        *EXECUTING,
        "metrics_port",
        "drain_s",
        *TELLING,
    )
    check = command(
        commands,
        "check",
        _check,
        "tell what this host, installation and configuration can do",
        *ADDRESS,
        *BROKER,
        *KEYS,
        "scorers",
        *EXECUTING,
        *SCORING,
        "state_dir",
    )
    check.add_argument("--json", action="store_true", default=False, help="one JSON document instead of text")


def _add_setting(one: argparse.ArgumentParser, name: str) -> None:
    """A setting as a flag. Values stay text here: `Settings` knows the types and says what is wrong with them."""
    field = Settings.model_fields[name]
    default = field.get_default(call_default_factory=True)
    text = HELP.get(name) or field.description or ""
    if default not in (None, "", [], {}, False):
        text += f" (default: {default})"
    options: dict[str, Any] = {"dest": f"setting_{name}", "help": text.replace("%", "%%")}
    if isinstance(default, bool):
        options |= {"action": argparse.BooleanOptionalAction} if default else {"action": "store_true"}
    elif isinstance(default, dict):
        options |= {"action": "extend", "nargs": "+", "metavar": f"NAME={'URL' if name.endswith('url') else 'PATH'}"}
    elif isinstance(default, list):
        options |= {"action": "extend", "nargs": "+", "metavar": "KEY"}
    else:
        options |= {"metavar": _metavar(name)}
    one.add_argument(f"--{name.replace('_', '-')}", **options)


def _metavar(name: str) -> str:
    known = {
        "redis_url": "URL",
        "host": "ADDRESS",
        "state_dir": "FOLDER",
        "isolation_accept": "LEVEL",
        "dtype": "TYPE",
        "log_level": "LEVEL",
        "namespace": "NAME",
        "drain_s": "SECONDS",
        "redis_wait_s": "SECONDS",
        "port": "PORT",
        "engine": "ENGINE",
        "vllm_python": "PATH",
        "vllm_args": "ARGS",
        "vllm_api_key": "KEY",
        "vllm_start_s": "SECONDS",
        "device": "DEVICE",
    }
    return known.get(name, "N")


def _settings(flags: argparse.Namespace) -> Settings:
    """Flags over environment over defaults. Raises UsageError."""
    said = {name.removeprefix("setting_"): value for name, value in vars(flags).items() if name.startswith("setting_")}
    for name in {"model", "vllm_url"} & said.keys():
        said[name] = parse_named(name, said[name])
    environ = {name: value for name, value in os.environ.items() if name not in cli.CLIENT_VARIABLES}
    return load(said, environ)


# --- what is done ----------------------------------------------------------------------------------------------------


def _up(flags: argparse.Namespace) -> int:
    from service.up.launcher import up

    settings = _service(flags)
    _refuse_open_door(settings)
    settings.refuse_open_none()
    return up(settings)


def _serve(flags: argparse.Namespace) -> int:
    settings = _service(flags, needs_redis=True)
    _refuse_open_door(settings)
    settings.refuse_open_none()
    with _extra("api"):
        from service.api.server import serve

    return serve(settings)


def _worker_score(flags: argparse.Namespace) -> int:
    settings = _service(flags, needs_redis=True)
    if settings.scorers != 1:
        return _several(settings, "score", settings.scorers)
    with _extra("scorer"):
        from service.worker.loop import run_score

        return run_score(settings)


def _worker_execute(flags: argparse.Namespace) -> int:
    from service.up.launcher import num_executors

    settings = _service(flags, needs_redis=True)
    settings.refuse_open_none()
    if num_executors(settings) != 1:
        return _several(settings, "execute", num_executors(settings))
    with _extra("executor"):
        from service.worker.loop import run_execute

        return run_execute(settings)


def _several(settings: Settings, kind: Any, count: int) -> int:
    from service.up.launcher import workers

    if count == 0:
        raise UsageError(f"no {kind} workers asked for, so there is nothing to start")
    return workers(settings, kind, count)


def _service(flags: argparse.Namespace, *, needs_redis: bool = False) -> Settings:
    """The settings of a service command, with logging set up by them."""
    from service import logs

    settings = _settings(flags)
    if needs_redis and settings.redis_url is None:
        raise UsageError("--redis-url is missing (or PLAUDIT_REDIS_URL); `plaudit up` brings its own broker")
    logs.configure(settings.log_level)
    if settings.redis_url is not None:
        from service.queue.connections import checked

        checked(settings.redis_url)
    return settings


@contextlib.contextmanager
def _extra(name: str) -> Iterator[None]:
    """An import that fails because an extra is not installed is something this host lacks."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("service", "sandbox", "training"):
            raise
        raise HostLacks(f"the package {error.name!r} is not installed; pip install 'plaudit-server[{name}]'") from error


def _refuse_open_door(settings: Settings) -> None:
    """Beyond loopback only with keys, or by a setting that says so. Raises UsageError."""
    import ipaddress
    import socket

    if settings.api_key or settings.admin_key or settings.accept_no_auth:
        return
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(settings.host, None)}
    except OSError as error:
        raise UsageError(f"--host {settings.host}: {error.strerror}") from error
    if not all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses):
        raise UsageError(
            f"--host {settings.host} is open to other machines and no --api-key is set; set one, or say "
            "--accept-no-auth if something in front of plaudit asks for keys"
        )


def _check(flags: argparse.Namespace) -> int:
    from service.check import run

    return run(_settings(flags), as_json=flags.json)


if __name__ == "__main__":
    sys.exit(main())
