"""Where the API listens: a TCP port or a Unix socket, with TLS or without."""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

from plaudit.errors import UsageError
from service.settings import Settings

if TYPE_CHECKING:  # workers have no starlette, and take `bind` from here
    from starlette.types import Scope

MAX_SOCKET_PATH = 107  # bytes of sun_path, less its terminator


def listen(settings: Settings) -> tuple[socket.socket, str]:
    """A bound socket, and the URL that the ready line says. Raises UsageError for an address that is not available."""
    scheme = "http" if settings.ssl_certfile is None else "https"
    if settings.uds is not None:
        if settings.apis > 1:
            raise UsageError(f"--uds {settings.uds}: one API process can listen on it, not {settings.apis}")
        return bind_unix(str(settings.uds)), f"{scheme}+unix:{settings.uds}"
    sock = bind(settings.host, settings.port, shared=settings.apis > 1)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return sock, f"{scheme}://{host}:{sock.getsockname()[1]}"


def path_below_root(scope: Scope) -> str:
    """The path of a request without the root path, which a proxy may or may not have removed."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) or "/" if path == root or path.startswith(f"{root}/") else path


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket bound to this address; port 0 takes a free one. Raises UsageError when the address is not available.

    `shared`: with other API processes of this user, among which the kernel divides the connections.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return sock


def bind_unix(path: str) -> socket.socket:
    """A socket bound to this path, open to all users who can reach it; one that a crashed process left is replaced.

    Raises UsageError for a path that is too long, that cannot be written, or that another process listens on.
    """
    if (num_bytes := len(os.fsencode(path))) > MAX_SOCKET_PATH:
        raise UsageError(f"--uds {path}: {num_bytes} bytes, and the path of a socket has at most {MAX_SOCKET_PATH}")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:  # nobody listens on it any more
            os.unlink(path)
        except OSError as error:
            raise UsageError(f"--uds {path}: {error.strerror}") from error
        else:
            raise UsageError(f"--uds {path}: another process listens on it")
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        os.chmod(path, 0o666)
    except OSError as error:
        sock.close()
        raise UsageError(f"--uds {path}: {error.strerror}") from error
    return sock


def tls_options(settings: Settings) -> dict[str, Any]:
    """The part of uvicorn's configuration that is about TLS. Raises UsageError for files that cannot be used."""
    if settings.ssl_certfile is None:
        if settings.ssl_keyfile is not None:
            raise UsageError("--ssl-keyfile needs --ssl-certfile, the certificate that it belongs to")
        return {}
    certificate, key = settings.ssl_certfile, settings.ssl_keyfile
    password = settings.ssl_keyfile_password
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key, password or "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = f"--ssl-certfile {certificate}" + ("" if key is None else f" with --ssl-keyfile {key}")
        raise UsageError(f"{files}: {getattr(error, 'strerror', None) or error}") from error
    return {
        "ssl_certfile": str(certificate),
        "ssl_keyfile": None if key is None else str(key),
        "ssl_keyfile_password": password,
    }
