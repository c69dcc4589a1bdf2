"""How the clients reach a service: by its URL, through a Unix socket, or by its name in a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import httpx

from plaudit.ray_address import SCHEME, AsyncRayTransport, RayAddress, RayTransport

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
    if url.startswith(SCHEME):
        address, inner = RayAddress(url, api_key), transport(limits=limits)
        to_ray = (
            RayTransport(address, inner)
            if isinstance(inner, httpx.HTTPTransport)
            else AsyncRayTransport(address, inner)
        )
        return {"base_url": "http://plaudit", "headers": headers, "transport": to_ray}
    return {"base_url": url, "headers": headers, "limits": limits}


def with_trace(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers of a request, with the `traceparent` of the span that is open here.

    Nothing is imported for it: a process that has not imported OpenTelemetry has no span.
    """
    if "opentelemetry.trace" not in sys.modules:
        return headers
    from opentelemetry import propagate

    carried = dict(headers)
    propagate.inject(carried)
    return carried
