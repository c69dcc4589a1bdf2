"""`python -m service.on_ray.tree ROLE PARENT ADDRESS`: the process tree of one actor, which ends with its actor.

The kernel sends this process SIGTERM when the thread of the actor that started it ends; it then drains and ends.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from pathlib import Path

from plaudit.errors import PlauditError, exit_code
from service import logs
from service.settings import Settings, load
from service.up import broker, launcher
from service.up.process import Child, end_with_parent
from service.up.supervisor import Supervisor


def main() -> int:
    role, parent, address = sys.argv[1:]
    end_with_parent(int(parent))
    password = sys.stdin.read()
    try:
        settings = load()
        logs.configure(settings.log_level, settings.log_format)
        if role == "broker":
            return _broker(address, password, settings)
        if role == "api":
            return launcher.apis(settings, on_ready=_announce)
        kind, count = ("score", 1) if role == "scorer" else ("execute", launcher.num_executors(settings))
        return launcher.workers(settings, kind, count, on_ready=_announce)  # type: ignore[arg-type]
    except PlauditError as error:
        print(f"plaudit: {error.detail}", file=sys.stderr, flush=True)
        return exit_code(error)


def _announce(event: dict[str, object]) -> None:
    print(json.dumps(event), flush=True)


def _broker(address: str, password: str, settings: Settings) -> int:
    """A broker that the other nodes reach; its password is in a file that only this user reads."""
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(launcher.run_folder())
        locks = [stack.enter_context(launcher.locked(settings.state_dir))] if settings.state_dir else []
        bound = stack.enter_context(launcher.reserved(address, 0))
        port = bound.getsockname()[1]
        secrets = run / "broker.conf"
        secrets.touch(0o600)
        secrets.write_text(f"requirepass {password}\n")
        data = settings.state_dir or run
        server, *options = broker.argv(broker.find_server(), run / "s", data)
        argv = (server, str(secrets), *options, "--bind", address, "--port", str(port))
        probe = functools.partial(_serves, run / "s", password, {"event": "ready", "host": address, "port": port})
        child = Child("broker", argv, {"PATH": os.defpath}, probe=probe)
        bound.close()  # the server does not share a port
        return Supervisor([child], drain_s=settings.drain_s, folders=[run], keep_open=locks).run()


def _serves(unix_socket: Path, password: str, event: dict[str, object]) -> str | None:
    """None once the broker answers, which is then announced; else why it does not."""
    trouble = broker.ping(unix_socket, password)
    if trouble is None:
        _announce(event)
    return trouble


if __name__ == "__main__":
    sys.exit(main())
