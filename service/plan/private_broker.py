"""A Redis of this process's own, for a measurement or a simulation."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from plaudit.errors import HostLacks
from service.up import broker

START_S = 30.0


@contextlib.contextmanager
def private_broker() -> Iterator[str]:
    """The URL of a Redis for the block alone. Raises HostLacks if there is none on this host."""
    with tempfile.TemporaryDirectory(prefix="plaudit-plan-") as name:
        folder = Path(name)
        command = broker.argv(broker.find_server(), folder / "s", folder)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                until = time.monotonic() + START_S
                while (why := broker.ping(folder / "s")) is not None:
                    if time.monotonic() > until or process.poll() is not None:
                        raise HostLacks(f"the broker of plaudit plan does not start: {why}")
                    time.sleep(0.02)
                yield f"unix://{folder / 's'}"
            finally:
                process.terminate()
