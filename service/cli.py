"""The commands that `plaudit-server` adds to the command line `plaudit`: up, serve, worker, ray, check, plan and vm.

`plaudit.cli` has the client's commands and calls `add_commands`. Answers `--help` without loading anything heavy:
torch, FastAPI and Redis are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from plaudit import cli
from plaudit.errors import HostLacks, UsageError
from service.on_ray import commands as on_ray
from service.settings import Settings, load, metadata

EPILOG = """\
Every flag is also PLAUDIT_<NAME> in the environment (lists separated by commas); flags win. `plaudit check` shows all
settings in force, including those without a flag. Logs go to stderr.
Exit codes: 0 success, 1 failure, 2 wrong usage, 3 this host lacks what the message names."""

EXAMPLES = {
    "up": """
  plaudit up                                    everything, on 127.0.0.1:8000
  plaudit up --model default=runs/mini/checkpoint --executors 8
  plaudit up --host 0.0.0.0 --api-key KEY --state-dir /var/lib/plaudit""",
    "serve": """
  plaudit serve --redis-url redis://host:6379 --api-key KEY""",
    "score": """
  plaudit worker score --redis-url redis://host:6379 --model default=FOLDER""",
    "execute": """
  plaudit worker execute --redis-url redis://host:6379 --executors 8""",
    "check": """
  plaudit check                                 what `plaudit up` would lack here
  plaudit check --json --model default=FOLDER""",
    "plan": """
  plaudit plan --measure                        what this host can do, in some minutes
  plaudit plan --rollouts 5120 --tests 20       what to start for that""",
    "build": """
  plaudit vm build /var/lib/plaudit/vm          an image with Python
  plaudit vm build FOLDER --languages python cpp""",
}

# Groups of settings that a command takes as flags; service/settings.py says which setting is in which group.
SERVER = ("address", "broker", "keys")
HOST = (*SERVER, "processes", "scoring", "executing", "state")
PROCESS = ("drain", "logging")


def main(argv: Sequence[str] | None = None) -> int:
    """The whole command line, the client's commands too; returns the exit code. Child processes are started by it."""
    return cli.run(argv, add_commands)


# --- commands and flags ----------------------------------------------------------------------------------------------


def add_commands(commands: cli.Subparsers) -> None:
    """Register the server's commands."""

    def command(
        place: cli.Subparsers,
        name: str,
        function: Callable[[argparse.Namespace], int],
        text: str,
        *groups: str,
        epilog: str = EPILOG,
    ) -> argparse.ArgumentParser:
        added = cli.add_command(place, name, function, text, epilog, EXAMPLES[name] if epilog is EPILOG else "")
        for group in groups:
            _add_settings(added, group)
        return added

    command(
        commands,
        "up",
        _up,
        "start everything on this host: broker, API, scorers and executors",
        *HOST,
        *PROCESS,
    )
    command(commands, "serve", _serve, "start the API alone, on a Redis", *SERVER, *PROCESS)
    worker = commands.add_parser("worker", help="start workers of one kind, on a Redis")
    kinds = worker.add_subparsers(title="kinds", metavar="KIND", required=True)
    worker_groups = ("shard", "metrics", *PROCESS)
    command(kinds, "score", _worker_score, "start scoring workers", "broker", "scoring", *worker_groups)
    command(kinds, "execute", _worker_execute, "start executing workers", "broker", "executing", *worker_groups)
    on_ray.register(commands, command, _service)
    check = command(commands, "check", _check, "show what this host, installation and configuration can do", *HOST)
    check.add_argument("--json", action="store_true", default=False, help="one JSON document instead of text")
    machine = commands.add_parser("vm", help="virtual machines for executors")
    actions = machine.add_subparsers(title="actions", metavar="ACTION", required=True)
    build = cli.add_command(
        actions, "build", _vm_build, "build the image of a virtual machine (docs/sandbox.md)", "", EXAMPLES["build"]
    )
    build.add_argument("folder", metavar="FOLDER", type=Path, help="where to; an image that is there is replaced")
    build.add_argument(
        "--languages", nargs="+", default=["python"], metavar="NAME", help="whose toolchains it gets (default: python)"
    )
    build.add_argument("--suite", default="bookworm", metavar="NAME", help="release of Debian (default: bookworm)")
    build.add_argument(
        "--sources", default=None, metavar="URL|FILE", help="mirror, or file of apt sources (default: this host's)"
    )
    build.add_argument(
        "--extras",
        action="store_true",
        default=False,
        help="copy this host's /usr/local/lib/plaudit: what `make toolchains` made",
    )
    plan = command(
        commands,
        "plan",
        _plan,
        "say what to start for a load, what it costs, and what will be held up next; or measure this host's costs",
        "scoring",
        "executing",
    )
    _add_plan_flags(plan)


def _add_settings(parser: argparse.ArgumentParser, group: str) -> None:
    """The settings of a group as flags. Values stay text here: `Settings` checks them and describes what is wrong."""
    flags = parser.add_argument_group(group)
    for name, field in Settings.model_fields.items():
        meta, default = metadata(name), field.get_default(call_default_factory=True)
        if meta["group"] != group:
            continue
        text = field.description or ""
        if default not in (None, "", [], {}, False):
            text += f" (default: {default})"
        options: dict[str, Any] = {"dest": f"setting_{name}", "help": text.replace("%", "%%")}
        if isinstance(default, bool):
            options |= {"action": "store_true"}
        elif isinstance(default, dict | list) or meta["repeatable"]:
            options |= {"action": "extend", "nargs": "+", "metavar": meta["metavar"]}
        else:
            options |= {"metavar": meta["metavar"]}
        flags.add_argument(f"--{name.replace('_', '-')}", **options)


def _add_plan_flags(parser: argparse.ArgumentParser) -> None:
    """The workload of `plaudit plan`; `service.plan.capacity.Workload` says what each number is."""
    load = parser.add_argument_group("load")
    load.add_argument(
        "--rollouts", type=int, default=None, metavar="COUNT", help="programs per training step; needed to plan"
    )
    load.add_argument("--group", type=int, default=8, metavar="COUNT", help="rollouts per prompt (default: 8)")
    load.add_argument("--tests", type=int, default=20, metavar="COUNT", help="tests per program (default: 20)")
    load.add_argument(
        "--kind",
        default="python-stdio",
        metavar="KIND",
        help="kind of program that was measured (default: python-stdio)",
    )
    load.add_argument(
        "--extra-test-ms",
        type=float,
        default=10.0,
        metavar="MS",
        help="CPU time of a program's own work per test, beyond an empty one's (default: 10)",
    )
    load.add_argument(
        "--passing",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of programs that run all their tests (default: 1)",
    )
    load.add_argument("--prompt-tokens", type=int, default=0, metavar="COUNT", help="tokens of a prompt (default: 0)")
    load.add_argument(
        "--completion-tokens", type=int, default=0, metavar="COUNT", help="tokens of a rollout; 0: nothing is scored"
    )
    load.add_argument(
        "--step-s", type=float, default=60.0, metavar="SECONDS", help="time for the rewards of a step (default: 60)"
    )
    load.add_argument(
        "--cache-s", type=float, default=3600.0, metavar="SECONDS", help="how long results are cached (default: 3600)"
    )
    load.add_argument(
        "--max-utilisation", type=float, default=0.7, metavar="SHARE", help="how busy a part may be (default: 0.7)"
    )
    costs = parser.add_argument_group("costs")
    costs.add_argument("--measure", action="store_true", default=False, help="measure this host: a minute or two")
    costs.add_argument(
        "--costs",
        default=None,
        metavar="FILE",
        help="costs that were measured, or are to be; default: those that plaudit comes with",
    )
    costs.add_argument(
        "--core-hour", type=float, default=None, metavar="PRICE", help="of one CPU core, in any currency"
    )
    costs.add_argument("--device-hour", type=float, default=None, metavar="PRICE", help="of one device of a scorer")
    answer = parser.add_argument_group("answer")
    answer.add_argument("--simulate", action="store_true", default=False, help="simulate a step of it, too")
    answer.add_argument("--json", action="store_true", default=False, help="one JSON document instead of text")


def _settings(flags: argparse.Namespace) -> Settings:
    """Flags over environment over defaults. Raises UsageError."""
    given = {name.removeprefix("setting_"): value for name, value in vars(flags).items() if name.startswith("setting_")}
    environ = {name: value for name, value in os.environ.items() if name not in cli.CLIENT_VARIABLES}
    return load(given, environ)


# --- what each command does ------------------------------------------------------------------------------------------


def _up(flags: argparse.Namespace) -> int:
    from service.up.launcher import up

    settings = _service(flags)
    _require_keys_beyond_loopback(settings)
    settings.require_loopback_without_isolation()
    return up(settings)


def _serve(flags: argparse.Namespace) -> int:
    settings = _service(flags, needs_redis=True)
    _require_keys_beyond_loopback(settings)
    settings.require_loopback_without_isolation()
    with _extra("api"):
        from service.api.server import serve

    return serve(settings)


def _worker_score(flags: argparse.Namespace) -> int:
    settings = _service(flags, needs_redis=True)
    if settings.scorers != 1:
        return _start_workers(settings, "score", settings.scorers)
    with _extra("scorer"):
        from service.worker.main import run_score

        return run_score(settings)


def _worker_execute(flags: argparse.Namespace) -> int:
    from service.up.launcher import num_executors

    settings = _service(flags, needs_redis=True)
    settings.require_loopback_without_isolation()
    if num_executors(settings) != 1:
        return _start_workers(settings, "execute", num_executors(settings))
    with _extra("executor"):
        from service.worker.main import run_execute

        return run_execute(settings)


def _start_workers(settings: Settings, kind: Any, count: int) -> int:
    from service.up.launcher import workers

    if count == 0:
        raise UsageError(f"the number of {kind} workers is 0, so there is nothing to start")
    return workers(settings, kind, count)


def _service(flags: argparse.Namespace, *, needs_redis: bool = False) -> Settings:
    """The settings of a service command; sets up logging by them. Raises UsageError."""
    from service import logs

    settings = _settings(flags)
    if needs_redis and settings.redis_url is None:
        raise UsageError("--redis-url is missing (or PLAUDIT_REDIS_URL); only `plaudit up` starts a broker of its own")
    logs.configure(settings.log_level, settings.log_format)
    if settings.redis_url is not None:
        from service.queue.connections import checked
        from service.queue.shards import served_shards

        for url in settings.redis_urls:
            checked(url)
        served_shards(settings)
    return settings


@contextlib.contextmanager
def _extra(name: str) -> Iterator[None]:
    """Turns an import that fails because an extra is not installed into HostLacks."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("service", "sandbox", "training"):
            raise
        raise HostLacks(f"the package {error.name!r} is not installed; pip install 'plaudit-server[{name}]'") from error


def _require_keys_beyond_loopback(settings: Settings) -> None:
    """Reject an address beyond loopback without keys, unless a setting accepts it. Raises UsageError."""
    import ipaddress
    import socket

    if settings.api_key or settings.admin_key or settings.accept_no_auth or settings.uds is not None:
        return
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(settings.host, None)}
    except OSError as error:
        raise UsageError(f"--host {settings.host}: {error.strerror}") from error
    if not all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses):
        raise UsageError(
            f"--host {settings.host} is open to other machines and no --api-key is set; set one, or pass "
            "--accept-no-auth if a proxy in front of plaudit checks keys"
        )


def _vm_build(flags: argparse.Namespace) -> int:
    from plaudit.languages import UnsupportedLanguage
    from sandbox.errors import SandboxError
    from sandbox.vm.build import build_image

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        build_image(
            flags.folder.resolve(),
            flags.languages,
            suite=flags.suite,
            sources=flags.sources,
            extras=flags.extras,
            say=say,
        )
    except UnsupportedLanguage as error:
        raise UsageError(f"--languages: {error}") from error
    except SandboxError as error:
        raise HostLacks(str(error)) from error
    return 0


def _plan(flags: argparse.Namespace) -> int:
    from service.plan.run import run

    return run(flags, _settings(flags))


def _check(flags: argparse.Namespace) -> int:
    from service.check import run

    return run(_settings(flags), as_json=flags.json)


if __name__ == "__main__":
    sys.exit(main())
