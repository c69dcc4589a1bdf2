"""Awaiting across the two ends: the work runs in an event loop of its owner, one slice at a time.

- The awaiting end asks the owner to begin, and then polls until the work is done.
- In each slice the owner's loop runs all work that has begun. Between two slices the awaiting end's own loop runs, so
  its time-outs fire, `gather` overlaps, and a cancelled wait cancels the work.
- If the awaiting end has no loop, the owner is asked once and runs the work to the end.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TICKET, POLLS = "\0ticket", "\0polls"
MAX_SLICE_S = 0.005
CANCEL_S = 2.0

_loops: list[Any] = []  # one, once it is needed
_tasks: dict[int, Any] = {}


def running() -> Any:
    """The event loop that this thread is in, if it is in one."""
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()


def own_loop() -> Any:
    asyncio = __import__("asyncio")
    if not _loops or _loops[0].is_closed():
        _loops[:] = [asyncio.new_event_loop()]
        asyncio.set_event_loop(_loops[0])
    return _loops[0]


# --- the owner -------------------------------------------------------------------------------------------------------


async def whole(what: str, value: Any, error: Any) -> Any:
    if what == "anext":
        try:
            return (await value.__anext__(),)
        except StopAsyncIteration:
            return None
    if what == "aenter":
        return await value.__aenter__()
    if what == "aexit":
        return bool(await value.__aexit__(None if error is None else type(error), error, None))
    return await value


def work_of(value: Any, endpoint: Any, message: Any) -> Any:
    return whole(message["what"], value, endpoint.decode(message.get("error")))


def begin(value: Any, endpoint: Any, message: Any) -> int:
    """Start the work and run it until it waits. Work that began earlier runs after it, as in one loop."""
    number = len(_tasks)
    loop = running() or own_loop()
    waiting = [] if loop.is_running() else list(loop._ready)
    if waiting:
        loop._ready.clear()
    _tasks[number] = loop.create_task(work_of(value, endpoint, message))
    if not loop.is_running():
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop._ready.extendleft(reversed(waiting))
    return number


def poll(value: Any, endpoint: Any, message: Any) -> Any:
    """The value in a tuple once it is there; None before."""
    task = _tasks[message["ticket"]]
    if not task.done() and running() is None and message["polls"]:
        run_for(task, min(MAX_SLICE_S, 0.0002 * 2 ** min(int(message["polls"]), 10)))
    return (task.result(),) if task.done() else None


def cancel(value: Any, endpoint: Any, message: Any) -> Any:
    task = _tasks[message["ticket"]]
    task.cancel()
    if running() is None:
        run_for(task, CANCEL_S)
    return (task.result(),) if task.done() and not task.cancelled() else None


def run_for(task: Any, seconds: float) -> None:
    asyncio = __import__("asyncio")
    loop = task.get_loop()
    if not loop.is_running():
        loop.run_until_complete(asyncio.wait({task}, timeout=seconds))


def complete(value: Any, endpoint: Any, message: Any) -> Any:
    """The value, for an end without an event loop. Runs until it is there."""
    if running() is not None:
        raise TypeError("an await without an event loop, while the other end is in one")
    return own_loop().run_until_complete(work_of(value, endpoint, message))


OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "begin": begin,
    "poll": poll,
    "cancel": cancel,
    "complete": complete,
    "aiter": lambda o, p, m: aiter(o),
}


# --- the end that awaits ---------------------------------------------------------------------------------------------


class Pause:
    """Lets the loop run one iteration."""

    def __await__(self) -> Any:
        yield


async def drive(value: Any, what: str, ask: Any, **fields: Any) -> Any:
    if running() is None:
        return ask(value, "complete", what=what, **fields)
    ticket, polls = ask(value, "begin", what=what, **fields), 0
    while True:
        reply = ask(value, "poll", ticket=ticket, polls=polls)
        if type(reply) is tuple and len(reply) == 1:
            return reply[0]
        polls += 1
        try:
            await Pause()
        except BaseException:  # a time-out of this end's, or its loop ends
            ask(value, "cancel", ticket=ticket)
            raise


def wait_for(ask: Any) -> Any:
    def method(self: Any) -> Any:
        return drive(self, "await", ask).__await__()

    return method


def enter(ask: Any) -> Any:
    async def method(self: Any) -> Any:
        return await drive(self, "aenter", ask)

    return method


def iterate(ask: Any) -> Any:
    def method(self: Any) -> Any:
        return ask(self, "aiter")

    return method


def step(ask: Any) -> Any:
    async def method(self: Any) -> Any:
        reply = await drive(self, "anext", ask)
        if type(reply) is not tuple or len(reply) != 1:
            raise StopAsyncIteration
        return reply[0]

    return method


def coroutine_methods(ask: Any) -> dict[str, Any]:
    """The methods by which a loop drives a coroutine, for one of the other end."""

    def known(self: Any, key: str, default: Any) -> Any:
        try:
            return object.__getattribute__(self, key)
        except AttributeError:
            return default

    def send(self: Any, value: Any = None) -> Any:
        if running() is None:
            raise StopIteration(ask(self, "complete", what="await"))
        ticket, polls = known(self, TICKET, None), known(self, POLLS, 0)
        if ticket is None:
            ticket = ask(self, "begin", what="await")
            object.__setattr__(self, TICKET, ticket)
        object.__setattr__(self, POLLS, polls + 1)
        reply = ask(self, "poll", ticket=ticket, polls=polls)
        if type(reply) is tuple and len(reply) == 1:
            raise StopIteration(reply[0])
        return None

    def throw(self: Any, kind: Any, value: Any = None, trace: Any = None) -> Any:
        error = value if isinstance(value, BaseException) else kind() if isinstance(kind, type) else kind
        ticket = known(self, TICKET, None)
        if ticket is not None:
            reply = ask(self, "cancel", ticket=ticket)
            if type(reply) is tuple and len(reply) == 1:
                raise StopIteration(reply[0])
        raise error

    def close(self: Any) -> None:
        ticket = known(self, TICKET, None)
        if ticket is not None:
            ask(self, "cancel", ticket=ticket)

    return {"send": send, "__next__": send, "throw": throw, "close": close, "__await__": wait_for(ask)}
