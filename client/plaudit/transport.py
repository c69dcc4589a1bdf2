"""How the clients reach a service: by its URL, or through a Unix socket."""

from __future__ import annotations

from typing import Any

import httpx

UNIX = ("http+unix:", "unix:")  # before the socket's path


def http_options(
    url: str, api_key: str | None, max_connections: int, transport: type[httpx.HTTPTransport | httpx.AsyncHTTPTransport]
) -> dict[str, Any]:
    """What both clients tell httpx; `transport`: the kind that the client takes."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    for scheme in UNIX:
        if url.startswith(scheme):
            through = transport(uds=url.removeprefix(scheme), limits=limits)
            return {"base_url": "http://plaudit", "headers": headers, "transport": through}
    return {"base_url": url, "headers": headers, "limits": limits}
