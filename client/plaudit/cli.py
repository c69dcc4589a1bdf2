"""The command line `plaudit`.

- The client's commands are here: score, execute, rank, activate. They talk to a running service.
- `plaudit-server`, where it is installed, adds up, serve, worker, ray, plan, vm and check (`service.cli.add_commands`).
  Where it is not, check looks at the client and the service that it reaches, and the others exit with 3 and name the
  distribution.
- `--help` imports nothing heavy: a command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import IO, Any

from plaudit.errors import (
    EXIT_FAILED,
    EXIT_HOST,
    EXIT_OK,
    NotFound,
    PlauditError,
    Unauthorized,
    Unreachable,
    UsageError,
    exit_code,
)

PREFIX = "PLAUDIT_"
SERVER = "plaudit-server"
SERVER_COMMANDS = ("up", "serve", "worker", "ray", "plan", "vm")

DESCRIPTION = "A reward service for code models: scores from a reward model, verdicts from a sandbox."
EPILOG = """\
Every flag is also PLAUDIT_<NAME> in the environment (lists separated by commas); flags win. Logs go to stderr.
Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 this host lacks something named in the message."""
EXAMPLES = {
    "score": """
  plaudit score completions.jsonl --out scores.jsonl
  echo '{"prompt": "Write add.", "completions": ["def add(a, b): return a + b"]}' | plaudit score -""",
    "execute": """
  plaudit execute programs.jsonl --out verdicts.jsonl
  plaudit execute programs.jsonl --out verdicts.jsonl --resume    goes on where an interrupted run stopped
  plaudit execute --replay REQUEST_ID                             judges a request once more, and compares""",
    "rank": """
  plaudit rank examples/problems.jsonl --out ranked.jsonl
  plaudit rank problems.jsonl --spec spec.json
  where spec.json is, for the model alone: {"terms": [{"name": "rm", "type": "score"}]}""",
    "activate": """
  plaudit activate default runs/mini/checkpoint --api-key ADMIN_KEY""",
    "check": """
  plaudit check --url http://host:8000 --api-key KEY""",
}

# Flags of the commands that talk to a running service. They are the caller's, not the service's, settings.
CLIENT_FLAGS: dict[str, dict[str, Any]] = {
    "url": {"default": "http://127.0.0.1:8000", "help": "the service (default: %(default)s)"},
    "api_key": {"metavar": "KEY", "help": "key to call it with"},
    "out": {"metavar": "FILE", "default": "-", "help": "where results go; '-': standard output (default)"},
    "batch": {"type": int, "default": 8, "metavar": "N", "help": "items per request (default: %(default)s)"},
    "concurrency": {"type": int, "default": 8, "metavar": "N", "help": "requests in flight (default: %(default)s)"},
    "deadline_ms": {"type": int, "default": 600_000, "metavar": "MS", "help": "of a request (default: %(default)s)"},
    "use_model": {"default": "default", "metavar": "NAME", "help": "served model to score with (default: %(default)s)"},
    "on_overflow": {
        "choices": ["error", "truncate_left"],
        "default": "error",
        "help": "reject a text that is too long, or cut its beginning (default: %(default)s)",
    },
    "calibrated": {"action": "store_true", "help": "add pass_probability, where the checkpoint has a calibration"},
    "spec": {
        "metavar": "FILE",
        "help": "JSON of the reward's terms; default: auto (tests, the prompt's examples, agreement, the model)",
    },
    "replay": {"metavar": "ID|FILE", "help": "instead of a file of items: judge a request once more, and compare"},
    "resume": {
        "action": "store_true",
        "help": "keep the lines of --out FILE, and go on with the item after them",
    },
    "early_stop": {"action": "store_true", "help": "stop running a group once a completion passes everything"},
}
ALWAYS = ("url", "api_key", "out", "resume", "batch", "concurrency", "deadline_ms")
BULK_COMMANDS = {
    "score": ("score completions with the reward model", (*ALWAYS, "use_model", "on_overflow", "calibrated")),
    "execute": ("run programs against their tests", (*ALWAYS, "replay")),
    "rank": ("order completions by reward", (*ALWAYS, "spec", "early_stop")),
}
CLIENT_COMMANDS = (*BULK_COMMANDS, "activate")
CLIENT_VARIABLES = {f"{PREFIX}{name.upper()}" for name in CLIENT_FLAGS} - {f"{PREFIX}API_KEY"}

Subparsers = Any  # what `add_subparsers` returns has no public name
AddCommands = Callable[[Subparsers], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. The server's commands are there where `plaudit-server` is installed."""
    words = sys.argv[1:] if argv is None else argv
    command = next((word for word in words if not word.startswith("-")), None)
    if command in CLIENT_COMMANDS:
        return run(words)
    try:
        distribution(SERVER)
    except PackageNotFoundError:
        if command not in SERVER_COMMANDS:
            return run(words)
        print(
            f"plaudit: `plaudit {command}` is a command of the distribution {SERVER!r}, which is not installed here; "
            f"pip install '{SERVER}[api,scorer,executor]'",
            file=sys.stderr,
        )
        return EXIT_HOST
    return run(words, importlib.import_module("service.cli").add_commands)


def run(argv: Sequence[str] | None, add_server_commands: AddCommands | None = None) -> int:
    """Parse `argv`, run its command and return the exit code: errors go to standard error, without a traceback."""
    flags = parser(os.environ, add_server_commands).parse_args(argv)
    try:
        code = int(flags.run(flags))
        sys.stdout.flush()  # a closed pipe is met here, not at the interpreter's end
        return code
    except PlauditError as error:
        notes = [*getattr(error, "__notes__", ()), *_hints(error, flags)]
        print(f"plaudit: {error.detail}", *notes, sep="\n  ", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        written = getattr(flags, "out", "-")
        how = "" if written == "-" else f"; {written} has what is done, and the same command with --resume goes on"
        print(f"plaudit: interrupted{how}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:  # the reader of standard output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _hints(error: PlauditError, flags: argparse.Namespace) -> Iterator[str]:
    """What to do about an error, where the flags can mend it."""
    url = getattr(flags, "url", None)
    if url is None:
        return
    if isinstance(error, Unreachable):
        yield f"--url is {url}; `plaudit up` (in a clone: `make up`) starts a service there"
    elif isinstance(error, Unauthorized):
        yield "--api-key or PLAUDIT_API_KEY gives the key"
    elif isinstance(error, NotFound) and url.rstrip("/").rpartition("/")[2] in (*BULK_COMMANDS, "reward"):
        yield f"--url takes where the service is, without an endpoint: {url.rstrip('/').rpartition('/')[0]}"


# --- the grammar -----------------------------------------------------------------------------------------------------


def parser(environ: Mapping[str, str], add_server_commands: AddCommands | None = None) -> argparse.ArgumentParser:
    """The whole grammar; client commands take their defaults from `environ`."""
    top = argparse.ArgumentParser(
        "plaudit", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"plaudit {version('plaudit')}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    if add_server_commands is not None:
        add_server_commands(commands)
    for name, (text, flags) in BULK_COMMANDS.items():
        command = add_command(commands, name, _send, f"{text}: JSONL in, JSONL out in the same order")
        command.add_argument(
            "file",
            metavar="FILE.jsonl",
            nargs="?" if name == "execute" else None,
            default=None,
            help="one item per line, as in the API's requests; '-': stdin",
        )
        command.set_defaults(command=name)
        for flag in flags:
            _add_client_flag(command, flag, environ)
    activate = add_command(commands, "activate", _activate, "swap a served model's checkpoint, between two batches")
    activate.add_argument("name", metavar="NAME", help="the served model")
    activate.add_argument(
        "checkpoint",
        metavar="REVISION|PATH",
        help="digest known to the service, or folder or hub id as its workers see it",
    )
    for flag in ("url", "api_key"):
        _add_client_flag(activate, flag, environ)
    if add_server_commands is None:
        check = add_command(commands, "check", _check, "show what is installed, and whether a service answers")
        check.add_argument("--json", action="store_true", default=False, help="one JSON document instead of text")
        for flag in ("url", "api_key"):
            _add_client_flag(check, flag, environ)
    return top


def add_command(
    commands: Subparsers,
    name: str,
    function: Callable[[argparse.Namespace], int],
    text: str,
    epilog: str = EPILOG,
    examples: str | None = None,
) -> argparse.ArgumentParser:
    """A command of that name: `function` takes the parsed flags and returns the exit code."""
    shown = EXAMPLES[name] if examples is None else examples
    epilog = f"Examples:{shown}\n\n{epilog}" if shown else epilog
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    command.set_defaults(run=function)
    return command


def _add_client_flag(command: argparse.ArgumentParser, name: str, environ: Mapping[str, str]) -> None:
    options = dict(CLIENT_FLAGS[name])
    variable = environ.get(f"{PREFIX}{name.upper()}")
    if options.get("action") == "store_true":
        options["default"] = variable is not None and variable.lower() in ("1", "true", "yes", "on")
    else:
        options["default"] = variable or options.get("default")
    if name == "api_key" and variable:
        options["default"] = variable.split(",")[0].strip()
    command.add_argument(f"--{name.replace('_', '-')}", **options)


# --- the commands ----------------------------------------------------------------------------------------------------


def _send(flags: argparse.Namespace) -> int:
    import asyncio

    from plaudit import bulk, replay
    from plaudit.async_client import AsyncClient
    from plaudit.schemas import ExecuteItem, RewardItem, RewardSpec, ScoreItem

    if flags.batch < 1 or flags.concurrency < 1 or flags.deadline_ms < 1:
        raise UsageError("--batch, --concurrency and --deadline-ms take whole numbers from 1")
    if flags.resume and flags.out == "-":
        raise UsageError("--resume needs --out FILE, which has what is done")
    options: dict[str, Any] = {"deadline_ms": flags.deadline_ms}
    if flags.command == "score":
        options |= {"model": flags.use_model, "on_overflow": flags.on_overflow, "calibrated": flags.calibrated}
    elif flags.command == "rank":
        options["early_stop"] = flags.early_stop
        if flags.spec:
            options["spec"] = _read_spec(flags.spec, RewardSpec)
    source = getattr(flags, "replay", None)
    if (source is None) == (flags.file is None):
        raise UsageError("give either FILE.jsonl or --replay ID|FILE")
    given = str(flags.file or source)
    if given != "-" and os.path.exists(given) and os.path.exists(flags.out) and os.path.samefile(given, flags.out):
        raise UsageError(f"--out {flags.out} is the file that is read; name another one")
    kept_replay = None if source is None else replay.read_file(source)
    kinds: dict[str, type[bulk.Item]] = {"score": ScoreItem, "execute": ExecuteItem, "rank": RewardItem}

    async def send() -> int:
        async with AsyncClient(flags.url, flags.api_key) as client:
            if source is not None:
                with _open_out(flags.out) as sink:
                    answer = kept_replay or await client.replay(source)
                    return await replay.run_again(client, answer, sink, flags.deadline_ms)
            method = getattr(client, flags.command)

            async def call(items: Sequence[Any]) -> Any:
                return (await method(items, **options)).results

            done = bulk.Answered.of(flags.out) if flags.resume else None
            with _open_in(flags.file) as lines, _open_out(flags.out, "a" if flags.resume else "w") as sink:
                size = os.fstat(lines.fileno()).st_size if flags.file != "-" else None
                tally = await bulk.run(
                    call,
                    kinds[flags.command],
                    lines,
                    sink,
                    batch=flags.batch,
                    concurrency=flags.concurrency,
                    progress=bulk.ProgressBar(size),
                    done=done,
                )
        return tally.exit_code

    return asyncio.run(send())


def _check(flags: argparse.Namespace) -> int:
    from plaudit import client_check

    return client_check.run(flags.url, flags.api_key, as_json=flags.json)


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

    from plaudit.field_errors import sentence

    try:
        with open(path, "rb") as file:
            return kind.model_validate_json(file.read())
    except OSError as error:
        raise UsageError(f"--spec {path}: {error.strerror}") from error
    except ValidationError as error:
        raise UsageError(f"--spec {path}: {sentence(error.errors())}") from error


@contextlib.contextmanager
def _open_in(path: str) -> Iterator[Any]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - opened here, closed below: only a failed opening is a usage error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    with file:
        yield file


@contextlib.contextmanager
def _open_out(path: str, mode: str = "w") -> Iterator[IO[str]]:
    if path == "-":
        yield sys.stdout
        return
    try:
        file: IO[str] = open(path, mode, encoding="utf-8")  # noqa: SIM115 - as above
    except OSError as error:
        raise UsageError(f"--out {path}: {error.strerror}") from error
    with file:
        yield file


if __name__ == "__main__":
    sys.exit(main())
