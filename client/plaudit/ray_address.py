"""`ray://NAME`: a deployment in the Ray cluster that this process is part of, found by its name.

- The deployment is a named actor (`plaudit ray up`). It says where its API listens now, and under which key.
- A connection that fails asks it again before the next attempt, so a call outlives an API that moves to another node.
- Ray is imported when the first request is sent. Its own client, which has the same scheme, is not meant: NAME is the
  name of a deployment, not of a host.
"""

from __future__ import annotations

import asyncio
import re
import threading
from importlib.util import find_spec
from typing import Any

import httpx

from plaudit.errors import UsageError

SCHEME = "ray://"
RAY_URL = "ray://plaudit"  # the deployment that `plaudit ray up` makes if no other name is given
NAMESPACE = "plaudit"  # of Ray's named actors
LOOK_UP_S = 10.0


def check(url: str) -> str:
    """The name in a `ray://` URL. Raises UsageError for another form, or where Ray is not installed."""
    name = url.removeprefix(SCHEME)
    if not url.startswith(SCHEME) or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise UsageError(f"url: {url!r} is not ray://NAME with the name of a deployment, such as {RAY_URL}")
    if find_spec("ray") is None:
        raise UsageError(
            f"url: {url!r} is a deployment in the Ray cluster of this process, and the package 'ray' is not installed "
            "here; give the http:// URL of a service, or pip install ray"
        )
    return name


class RayAddress:
    """Where a deployment's API is now. Safe to share between threads.

    Args:
        url: `ray://NAME`.
        api_key: The key to use; None: the one that the deployment names.

    Raises:
        UsageError: As `check`.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        self.url = url
        self._name = check(url)
        self._api_key = api_key
        self._lock = threading.Lock()
        self._known: tuple[httpx.URL, str | None] | None = None

    def direct(self, request: httpx.Request) -> None:
        """Send a request to where the API is now.

        Raises:
            UsageError: This process is not part of a Ray cluster.
            httpx.ConnectError: The deployment does not exist, or its API is not up; that may pass.
        """
        with self._lock:
            if self._known is None:
                self._known = self._look_up()
            url, api_key = self._known
        request.url = request.url.copy_with(scheme=url.scheme, host=url.host, port=url.port)
        request.headers["Host"] = url.netloc.decode("ascii")
        if api_key is not None and "Authorization" not in request.headers:
            request.headers["Authorization"] = f"Bearer {api_key}"

    def forget(self) -> None:
        """Ask the deployment again before the next request."""
        with self._lock:
            self._known = None

    def _look_up(self) -> tuple[httpx.URL, str | None]:
        import ray

        if not ray.is_initialized():
            raise UsageError(
                f"url: {self.url!r} is a deployment in the Ray cluster of this process, and this process is not part "
                'of one; call ray.init(address="auto") before, or give the http:// URL of a service'
            )
        try:
            controller: Any = ray.get_actor(self._name, namespace=NAMESPACE)
            told: dict[str, str | None] | None = ray.get(controller.address.remote(), timeout=LOOK_UP_S)
        except ValueError:  # Ray's answer for a name that no actor has
            raise httpx.ConnectError(
                f"{self.url}: this Ray cluster has no deployment of that name (`plaudit ray up` starts one)"
            ) from None
        except ray.exceptions.RayError as error:
            raise httpx.ConnectError(f"{self.url}: the deployment does not answer ({type(error).__name__})") from error
        if told is None:
            raise httpx.ConnectError(f"{self.url}: the API of the deployment is not up (`plaudit ray status`)")
        return httpx.URL(str(told["url"])), self._api_key or told["api_key"]


class RayTransport(httpx.BaseTransport):
    """Requests of a blocking client to a deployment."""

    def __init__(self, address: RayAddress, inner: httpx.BaseTransport) -> None:
        self._address = address
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._address.direct(request)
        try:
            return self._inner.handle_request(request)
        except httpx.TransportError:
            self._address.forget()
            raise

    def close(self) -> None:
        self._inner.close()


class AsyncRayTransport(httpx.AsyncBaseTransport):
    """Requests of an `AsyncClient` to a deployment; the look-up does not hold up the event loop."""

    def __init__(self, address: RayAddress, inner: httpx.AsyncBaseTransport) -> None:
        self._address = address
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.to_thread(self._address.direct, request)
        try:
            return await self._inner.handle_async_request(request)
        except httpx.TransportError:
            self._address.forget()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()
