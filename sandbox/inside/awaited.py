"""The asynchronous part of a program, run to its end wherever the tests wait for it.

Tests and program have no event loop in common. What the tests await is driven here, in one loop that lasts as long as
the process, and the value crosses when it is there: `asyncio.run(f(1))` is right, `gather` gets its values one after
the other, and a time-out that the tests put around a wait is never met.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sandbox.inside.wire import Unsplittable
else:
    from wire import Unsplittable

_loops: list[Any] = []  # one, once it is needed


def complete(awaitable: Any) -> Any:
    """The value of an awaitable. Raises what it raises, Unsplittable if the program waits for itself meanwhile."""
    asyncio = __import__("asyncio")
    if not _loops:
        _loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(_loops[0])
    if _loops[0].is_running():
        raise Unsplittable("an await while the program itself is in one")

    async def whole() -> Any:
        return await awaitable

    return _loops[0].run_until_complete(whole())


def next_of(iterator: Any) -> Any:
    """The next item of an asynchronous iterator, in a tuple; None at its end."""
    try:
        return (complete(iterator.__anext__()),)
    except StopAsyncIteration:
        return None


OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "await": lambda o, p, m: complete(o),
    "aiter": lambda o, p, m: aiter(o),
    "anext": lambda o, p, m: next_of(o),
    "aenter": lambda o, p, m: complete(o.__aenter__()),
    "aexit": lambda o, p, m: complete(o.__aexit__(None, None, None)),
}
