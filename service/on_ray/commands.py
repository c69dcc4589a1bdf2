"""`plaudit ray up`, `status` and `down`. Imports nothing heavy: each command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plaudit.errors import EXIT_FAILED, EXIT_OK, UsageError
from service.on_ray.options import DeploymentOptions, read_options, read_pairs
from service.settings import Settings

EPILOG = """\
Examples, on a node of a Ray cluster (`ray start --head` makes one of a single node):
  plaudit ray up --min-executors 8 --max-executors 64 --actor-cpus 8
  plaudit ray up --executor-labels pool=cpu --scorer-resources accelerator_a=1 --redis-url redis://10.0.0.5:6379
  plaudit ray status --json
  plaudit ray down
Programs of the cluster need no URL: plaudit.Client("ray://plaudit"), or a plug-in without a URL (docs/ray.md).
Exit codes: 0 success, 1 failure, 2 wrong usage, 3 this host or a node lacks what the message names."""

Command = Callable[..., argparse.ArgumentParser]
SETTINGS = ("address", "broker", "keys", "scoring", "executing", "state", "drain", "logging")


def register(commands: Any, command: Command, settings_of: Callable[[argparse.Namespace], Settings]) -> None:
    """Add the commands. `command` adds one with groups of settings, `settings_of` reads these."""
    ray = commands.add_parser("ray", help="run on a Ray cluster that is there already")
    kinds = ray.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def up(flags: argparse.Namespace) -> int:
        return _up(flags, settings_of(flags))

    start = command(kinds, "up", up, "start a deployment and wait until it is ready", *SETTINGS, epilog=EPILOG)
    _add_options(start)
    start.add_argument("--runtime-env", metavar="FILE", help="JSON of the actors' runtime environment, as Ray takes it")
    start.add_argument("--wait-s", metavar="SECONDS", help="how long to wait until it is ready (default: 600)")
    show = command(kinds, "status", _status, "show what a deployment is doing", epilog=EPILOG)
    show.add_argument("--json", action="store_true", help="one JSON document instead of text")
    show.add_argument("--key", action="store_true", help="show the API's key, too, for callers outside the cluster")
    end = command(kinds, "down", _down, "drain a deployment and end it", epilog=EPILOG)
    end.add_argument("--wait-s", metavar="SECONDS", help="how long the drain may take (default: 120)")
    for parser in (show, end):
        parser.add_argument("--name", metavar="NAME", help="name of the deployment (default: plaudit)")
    for parser in (start, show, end):
        parser.add_argument(
            "--ray-address", metavar="ADDRESS", help="of the cluster, such as 10.0.0.1:6379 (default: auto)"
        )


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The fields of `DeploymentOptions` as flags."""
    flags = parser.add_argument_group("deployment")
    for name, field in DeploymentOptions.model_fields.items():
        extra: Any = field.json_schema_extra
        text, default = field.description or "", field.get_default(call_default_factory=True)
        if default not in (None, {}):
            text += f" (default: {default})"
        many = "=" in extra["metavar"]
        listed: dict[str, Any] = {"action": "extend", "nargs": "+"} if many else {}
        flags.add_argument(
            f"--{name.replace('_', '-')}", dest=f"option_{name}", metavar=extra["metavar"], help=text, **listed
        )


def _options(flags: argparse.Namespace) -> DeploymentOptions:
    given = {name.removeprefix("option_"): value for name, value in vars(flags).items() if name.startswith("option_")}
    for name, value in given.items():
        if isinstance(value, list):
            given[name] = read_pairs(f"--{name.replace('_', '-')}", value)
    return read_options(given)


def _up(flags: argparse.Namespace, settings: Settings) -> int:
    options, runtime_env = _options(flags), _runtime_env(getattr(flags, "runtime_env", None))
    wait_s = _seconds(flags, 600.0)
    from service.on_ray.deployment import up

    state = up(options, settings, runtime_env=runtime_env, ray_address=_address(flags), wait_s=wait_s)
    print(json.dumps({"event": "ready", "name": state["name"], "url": state["url"]}), flush=True)
    return EXIT_OK


def _status(flags: argparse.Namespace) -> int:
    from service.on_ray.deployment import status

    state = status(_name(flags), ray_address=_address(flags), key=hasattr(flags, "key"))
    print(json.dumps(state, indent=2) if hasattr(flags, "json") else as_text(state))
    return EXIT_OK if state["phase"] == "ready" else EXIT_FAILED


def _down(flags: argparse.Namespace) -> int:
    from service.on_ray.deployment import down

    down(_name(flags), ray_address=_address(flags), wait_s=_seconds(flags, 120.0))
    return EXIT_OK


def as_text(state: dict[str, Any]) -> str:
    """The lines of `plaudit ray status`."""
    executors, queue = state["executors"], state["queue"]
    lines = [f"ray://{state['name']}  {state['phase']}  {state['url'] or 'no API yet'}"]
    if "api_key" in state:
        lines.append(f"key        {state['api_key'] or 'none is asked'}")
    if executors:
        lines.append(
            f"executors  {executors['ready']} ready in {executors['actors']} actors, of {executors['min']} to "
            f"{executors['max']}; isolation {', '.join(state['isolation']) or 'not known yet'}"
        )
    if queue is not None:
        lines.append(
            f"queue      {queue['depth']} programs waiting or running, the oldest for {queue['oldest_s']:.1f} s"
        )
    lines += [
        f"{actor['actor']:<14} {actor['phase']:<20} {actor['host']} {actor['node'][:12]}" for actor in state["actors"]
    ]
    lines += [f"problem    {problem}" for problem in state["problems"]]
    return "\n".join(lines)


def _runtime_env(path: str | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        value = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--runtime-env {path}: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"--runtime-env {path}: expected a JSON object")
    return value


def _seconds(flags: argparse.Namespace, default: float) -> float:
    text = getattr(flags, "wait_s", None)
    try:
        seconds = default if text is None else float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--wait-s {text}: expected a number of seconds above 0")
    return seconds


def _address(flags: argparse.Namespace) -> str:
    return str(getattr(flags, "ray_address", "auto"))


def _name(flags: argparse.Namespace) -> str:
    return str(getattr(flags, "name", "plaudit"))
