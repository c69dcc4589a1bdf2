"""The command line `plaudit`: the flags of each command, and the one function that each command calls.

`--help` loads nothing heavy: torch, FastAPI and Redis are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, TextIO

from plaudit.errors import EXIT_FAILED, EXIT_OK, HostLacks, PlauditError, UsageError, exit_code
from service.settings import PREFIX, Settings, load, metadata

DESCRIPTION = "A reward service for code models: scores from a reward model, verdicts from a sandbox."
EPILOG = """\
Every flag is also PLAUDIT_<NAME> in the environment (lists separated by commas); flags win. `plaudit check` shows all
settings in force, including those without a flag. Logs go to stderr.
Exit codes: 0 success, 1 failure, 2 wrong usage, 3 this host lacks what the message names."""

# Groups of settings that a command takes as flags; service/settings.py says which setting is in which group.
SERVER = ("address", "broker", "keys")
HOST = (*SERVER, "scoring", "executing", "state")
PROCESS = ("drain", "logging")

# Flags of the commands that talk to a running service. They are the caller's, not the service's, settings.
CLIENT_FLAGS: dict[str, dict[str, Any]] = {
    "url": {"default": "http://127.0.0.1:8000", "help": "the service (default: %(default)s)"},
    "api_key": {"metavar": "KEY", "help": "key to call it with"},
    "out": {"metavar": "FILE", "default": "-", "help": "where results go; '-': standard output (default)"},
    "batch": {"type": int, "default": 8, "metavar": "N", "help": "items a request (default: %(default)s)"},
    "concurrency": {"type": int, "default": 8, "metavar": "N", "help": "requests in flight (default: %(default)s)"},
    "deadline_ms": {"type": int, "default": 600_000, "metavar": "MS", "help": "of a request (default: %(default)s)"},
    "use_model": {"default": "default", "metavar": "NAME", "help": "served model to score with (default: %(default)s)"},
    "on_overflow": {
        "choices": ["error", "truncate_left"],
        "default": "error",
        "help": "what is too long is refused, or loses its beginning (default: %(default)s)",
    },
    "calibrated": {"action": "store_true", "help": "add pass_probability, where the checkpoint has a calibration"},
    "spec": {"metavar": "FILE", "help": "JSON of the reward's terms; default: tests first, then the model"},
    "replay": {"metavar": "ID|FILE", "help": "instead of a file of items: judge a request once more, and compare"},
    "early_stop": {"action": "store_true", "help": "stop running a group once a completion passes everything"},
}
ALWAYS = ("url", "api_key", "out", "batch", "concurrency", "deadline_ms")
CLIENT_COMMANDS = {
    "score": ("score completions with the reward model", (*ALWAYS, "use_model", "on_overflow", "calibrated")),
    "execute": ("run programs against their tests", (*ALWAYS, "replay")),
    "rank": ("order completions by reward", (*ALWAYS, "spec", "early_stop")),
}
CLIENT_VARIABLES = {f"{PREFIX}{name.upper()}" for name in CLIENT_FLAGS} - {f"{PREFIX}API_KEY"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; answers its exit code."""
    flags = parser(os.environ).parse_args(argv)
    try:
        return int(flags.run(flags))
    except PlauditError as error:
        print(f"plaudit: {error.detail}", *getattr(error, "__notes__", ()), sep="\n  ", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("plaudit: interrupted", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:  # nobody reads our output any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


# --- commands and flags ----------------------------------------------------------------------------------------------


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The whole grammar; client commands take their defaults from `environ`."""
    top = argparse.ArgumentParser(
        "plaudit", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"plaudit {version('plaudit')}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(place: Any, name: str, run: Any, text: str, *groups: str) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = place.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
        )
        one.set_defaults(run=run)
        for group in groups:
            _add_settings(one, group)
        return one

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
    worker_groups = ("metrics", *PROCESS)
    command(kinds, "score", _worker_score, "start scoring workers", "broker", "scoring", *worker_groups)
    command(kinds, "execute", _worker_execute, "start executing workers", "broker", "executing", *worker_groups)
    for name, (text, flags) in CLIENT_COMMANDS.items():
        one = command(commands, name, _send, f"{text}: JSONL in, JSONL out in the same order")
        one.add_argument(
            "file",
            metavar="FILE.jsonl",
            nargs="?" if name == "execute" else None,
            default=None,
            help="one item a line, as in the API's requests; '-': stdin",
        )
        one.set_defaults(command=name)
        for flag in flags:
            _add_client_flag(one, flag, environ)
    activate = command(commands, "activate", _activate, "swap a served model's checkpoint, between two batches")
    activate.add_argument("name", metavar="NAME", help="the served model")
    activate.add_argument(
        "checkpoint",
        metavar="REVISION|PATH",
        help="digest known to the service, or folder or hub id as its workers see it",
    )
    for flag in ("url", "api_key"):
        _add_client_flag(activate, flag, environ)
    check = command(commands, "check", _check, "show what this host, installation and configuration can do", *HOST)
    check.add_argument("--json", action="store_true", default=False, help="one JSON document instead of text")
    return top


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
        elif isinstance(default, dict | list):
            options |= {"action": "extend", "nargs": "+", "metavar": meta["metavar"]}
        else:
            options |= {"metavar": meta["metavar"]}
        flags.add_argument(f"--{name.replace('_', '-')}", **options)


def _add_client_flag(one: argparse.ArgumentParser, name: str, environ: Mapping[str, str]) -> None:
    options = dict(CLIENT_FLAGS[name])
    variable = environ.get(f"{PREFIX}{name.upper()}")
    if options.get("action") == "store_true":
        options["default"] = variable is not None and variable.lower() in ("1", "true", "yes", "on")
    else:
        options["default"] = variable or options.get("default")
    if name == "api_key" and variable:
        options["default"] = variable.split(",")[0].strip()
    one.add_argument(f"--{name.replace('_', '-')}", **options)


def _settings(flags: argparse.Namespace) -> Settings:
    """Flags over environment over defaults. Raises UsageError."""
    given = {name.removeprefix("setting_"): value for name, value in vars(flags).items() if name.startswith("setting_")}
    environ = {name: value for name, value in os.environ.items() if name not in CLIENT_VARIABLES}
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
    logs.configure(settings.log_level)
    if settings.redis_url is not None:
        from service.queue.connections import checked

        checked(settings.redis_url)
    return settings


@contextlib.contextmanager
def _extra(name: str) -> Iterator[None]:
    """Turns an import that fails because an extra is not installed into HostLacks."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("service", "sandbox", "training"):
            raise
        raise HostLacks(f"the package {error.name!r} is not installed; pip install 'plaudit[{name}]'") from error


def _require_keys_beyond_loopback(settings: Settings) -> None:
    """Reject an address beyond loopback without keys, unless a setting accepts it. Raises UsageError."""
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
            f"--host {settings.host} is open to other machines and no --api-key is set; set one, or pass "
            "--accept-no-auth if a proxy in front of plaudit checks keys"
        )


def _send(flags: argparse.Namespace) -> int:
    import asyncio

    from plaudit import bulk, replay
    from plaudit.client import AsyncClient
    from plaudit.schemas import ExecuteItem, RewardItem, RewardSpec, ScoreItem

    if flags.batch < 1 or flags.concurrency < 1 or flags.deadline_ms < 1:
        raise UsageError("--batch, --concurrency and --deadline-ms take whole numbers from 1")
    options: dict[str, Any] = {"deadline_ms": flags.deadline_ms}
    if flags.command == "score":
        options |= {"model": flags.use_model, "on_overflow": flags.on_overflow, "calibrated": flags.calibrated}
    elif flags.command == "rank":
        options["early_stop"] = flags.early_stop
        if flags.spec:
            options["spec"] = _read_spec(flags.spec, RewardSpec)
    again = getattr(flags, "replay", None)
    if (again is None) == (flags.file is None):
        raise UsageError("give either FILE.jsonl or --replay ID|FILE")
    in_file = None if again is None else replay.kept(again)
    kinds: dict[str, type[bulk.Item]] = {"score": ScoreItem, "execute": ExecuteItem, "rank": RewardItem}

    async def send() -> int:
        async with AsyncClient(flags.url, flags.api_key) as client:
            if again is not None:
                with _open_out(flags.out) as sink:
                    told = in_file or await client.replay(again)
                    return await replay.again(client, told, sink, flags.deadline_ms)
            ask = getattr(client, flags.command)

            async def call(items: Sequence[Any]) -> Any:
                return (await ask(items, **options)).results

            with _open_in(flags.file) as source, _open_out(flags.out) as sink:
                size = os.fstat(source.fileno()).st_size if flags.file != "-" else None
                tally = await bulk.run(
                    call,
                    kinds[flags.command],
                    source,
                    sink,
                    batch=flags.batch,
                    concurrency=flags.concurrency,
                    progress=bulk.Progress(size),
                )
        return tally.exit_code

    return asyncio.run(send())


def _activate(flags: argparse.Namespace) -> int:
    from plaudit.client import Client

    known, target = flags.checkpoint.startswith("sha256:"), flags.checkpoint
    if not known and os.path.isdir(target):
        target = os.path.abspath(target)  # the workers' working directory is another one
    with Client(flags.url, flags.api_key) as client:
        answer = client.activate(flags.name, target) if known else client.activate(flags.name, path=target)
    print(answer.model_dump_json())
    return EXIT_OK


def _read_spec(path: str, kind: Any) -> Any:
    from pydantic import ValidationError

    try:
        with open(path, "rb") as file:
            return kind.model_validate_json(file.read())
    except OSError as error:
        raise UsageError(f"--spec {path}: {error.strerror}") from error
    except ValidationError as error:
        raise UsageError(f"--spec {path}: {error}") from error


@contextlib.contextmanager
def _open_in(path: str) -> Iterator[Any]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - opened here, closed below: only the opening is our caller's mistake
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    with file:
        yield file


@contextlib.contextmanager
def _open_out(path: str) -> Iterator[TextIO]:
    if path == "-":
        yield sys.stdout
        return
    try:
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - as above
    except OSError as error:
        raise UsageError(f"--out {path}: {error.strerror}") from error
    with file:
        yield file


def _check(flags: argparse.Namespace) -> int:
    from service.check import run

    return run(_settings(flags), as_json=flags.json)


if __name__ == "__main__":
    sys.exit(main())
