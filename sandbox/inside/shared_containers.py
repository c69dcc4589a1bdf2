"""Containers that both ends hold: what one end changes in them is changed at the other with the next message.

- A container that can change and crosses the wire in a request gets a key. Both ends hold a copy of it under that key
  (`SharedContainers`). Every message carries what its sender has changed in them since the last message.
- A container that crosses again goes as its key, so it arrives as the same object.
- An end that holds a container only in this table says so, and both ends forget it. An argument that a call has not
  kept costs nothing after the call.
- Of an answer, only those containers get keys that the answering end still holds: an attribute, a cached result.
- The program's end may send anything. It reaches only the containers that crossed; it can put only values into them;
  its keys are odd, the tests' keys are even; their number and size are bounded.
- A change in what an earlier call was given, or has returned, marks the test: the program makes that change knowing
  what the test has asked since.
"""

from __future__ import annotations

import operator
import sys

from sandbox.inside.framing import attempt
from sandbox.inside.operations import base_value, replace_content
from sandbox.judge import bounds, codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_EXTENDED, MAX_EXTENDED_ITEMS = 100, 2_000  # objects whose classes extend containers, and what each may hold
MAX_ALIVE, MAX_ALIVE_ITEMS = 1_000, 100_000  # containers, and what is in them, that stay after a call
GROWING = frozenset({list, dict})  # of which only the new end is sent if the rest is unchanged
WITH_PARTS = frozenset({"list", "set", "dict", "deque", "UserList", "UserDict", "SimpleNamespace", "Namespace"})
NAMESPACES = ("SimpleNamespace", "Namespace")

count_references: Any = sys.getrefcount


class SharedContainer:
    """One container, what it held when both ends last agreed, and whether it has ever been changed."""

    __slots__ = ("before", "changed", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.before = look(value)
        self.changed = False


class ExtendedContainer:
    """An object whose class extends a container, and what was in it when both ends last agreed."""

    __slots__ = ("base", "before", "value")

    def __init__(self, value: Any, base: type) -> None:
        self.value = value
        self.base = base
        self.look()

    def look(self) -> None:
        self.before = look(base_value(self.value, self.base))

    def change(self, content: Any) -> None:
        if type(content) is not self.base:
            raise ValueError("a malformed change of a container")
        replace_content(self.value, content, self.base)
        self.look()


class SharedContainers:
    """This end's half of the table."""

    def __init__(self, side: int) -> None:
        self.next = side
        self.by_key: dict[int, SharedContainer] = {}
        self.by_id: dict[int, int] = {}
        self.since = side  # the first key of what the last request has brought the other end
        self.relied_on_program = (
            False  # whether the other end has changed what was not among that: an earlier argument or answer
        )
        self.lent: dict[int, ExtendedContainer] = {}  # objects of this end that extend a container, by their handles
        self.borrowed: dict[int, ExtendedContainer] = {}  # stand-ins for such of the other end, likewise
        self.lost = False  # whether the ends may hold different tables: one of them could not say something

    def lose(self) -> None:
        self.by_key.clear()
        self.by_id.clear()
        self.lost = True

    # what goes out

    def lender(self, lend: Any) -> Any:
        return codec.Lender(lend, [], self.by_id)

    def changes(self, lend: Any, *, forget: bool = True) -> dict[str, Any]:
        """What has changed here since the last message. Raises CodecError."""
        message: dict[str, Any] = {}
        if self.lost:
            self.lost, message["reset"] = False, True
        if not self.by_key and not self.lent and not self.borrowed:
            return message
        changed = []
        lender = self.lender(lend)
        for key, container in list(self.by_key.items()):
            value = container.value
            if (at := changed_from(value, container.before)) is not None:
                parts = lender if type(value).__name__ in WITH_PARTS or isinstance(value, dict) else lend
                changed.append([key, at, codec.encode(inside(value, at), parts)])
                container.before, container.changed = look(value), True
        for name, table in (("lent", self.lent), ("home", self.borrowed)):
            if table and (changes := [*self.of_extended(table, lender)]):
                message[name] = changes
        if changed:
            message["of"] = changed
        if lender.kept:
            message["first"] = self.commit(lender.kept)
            lender.kept.clear()
        if forget and (gone := self.prune()):
            message["gone"] = gone
        return message

    def of_extended(self, table: dict[int, ExtendedContainer], lender: Any) -> Any:
        for number, extended in table.items():
            content = base_value(extended.value, extended.base)
            if changed_from(content, extended.before) is not None:
                extended.before = look(content)
                yield [number, codec.encode(content, lender)]

    def note(self, table: dict[int, ExtendedContainer], number: int, value: Any, base: type) -> None:
        """Keep the content of an object in sync, if it is not too large."""
        if number not in table and len(table) < MAX_EXTENDED and base.__len__(value) <= MAX_EXTENDED_ITEMS:  # type: ignore[attr-defined]
            table[number] = ExtendedContainer(value, base)

    def commit(self, values: list[Any]) -> int:
        """Give keys to the containers in the message that is about to be sent."""
        first = self.next
        for value in values:
            self.add(self.next, value)
            self.next += 2
        return first

    def add(self, key: int, value: Any) -> None:
        self.by_key[key] = SharedContainer(value)
        self.by_id[id(value)] = key

    def held_in(self, lender: Any) -> dict[str, Any]:
        """The containers of an answer that are still referenced here, by their numbers in it."""
        kept, held = lender.kept, []
        for number in reversed(range(len(kept))):  # what holds others comes after them
            if count_references(kept[number]) > ALONE:
                held.append(number)
            else:
                kept[number] = None
        if not held:
            return {}
        held.reverse()
        return {"held": held, "first": self.commit([kept[number] for number in held])}

    def prune(self) -> list[int]:
        """Forget the containers that only this table references."""
        gone = []
        for key in reversed(list(self.by_key)):
            if self.alone(key):
                gone.append(key)
                self.forget([key])
        return gone

    def alone(self, key: int) -> bool:
        return bool(count_references(self.by_key[key].value) <= ALONE)

    def evict(self) -> list[int]:
        """Forget what exceeds the limit that both ends keep in sync: large ones first, then those never changed."""
        sizes = {key: size_of(container.value) for key, container in self.by_key.items()}
        total = sum(sizes.values())
        if len(sizes) <= MAX_ALIVE and total <= MAX_ALIVE_ITEMS:
            return []
        gone = []
        left = len(sizes)
        for key in sorted(sizes, key=lambda key: (sizes[key] <= MAX_ALIVE_ITEMS // 4, self.by_key[key].changed, key)):
            if left <= MAX_ALIVE and total <= MAX_ALIVE_ITEMS:
                break
            gone.append(key)
            left -= 1
            total -= sizes[key]
        self.forget(gone)
        return gone

    # what comes in

    def forget(self, keys: Any) -> None:
        if type(keys) is not list:
            raise codec.CodecError("the keys to forget are not a list")
        for key in keys:
            container = self.by_key.pop(key, None) if type(key) is int else None
            if container is not None and self.by_id.get(id(container.value)) == key:
                del self.by_id[id(container.value)]

    def find(self, key: Any) -> Any:
        container = self.by_key.get(key) if type(key) is int else None
        if container is None:
            raise codec.CodecError("an unknown key of a container")
        return container.value

    def apply(self, news: Any, borrow: Callable[[dict[str, Any]], Any]) -> list[ExtendedContainer]:
        """Make the changes that the other end has sent. Returns the stand-ins among them.

        Raises CodecError, TypeError or ValueError for malformed changes.
        """
        if type(news) is not dict or type(news.get("of", [])) is not list:
            raise codec.CodecError("malformed changes of containers")
        if not news:
            return []
        if news.get("reset") is True:
            self.lose()
            self.lost = False
        borrower = codec.Borrower(borrow, [])
        changed: list[ExtendedContainer] = []
        for entry in news.get("of", ()):
            if type(entry) is not list or len(entry) != 3 or type(entry[0]) is not int or type(entry[1]) is not int:
                raise codec.CodecError("a malformed change of a container")
            content = codec.decode(entry[2], borrower)
            container = self.by_key.get(entry[0])
            if container is not None:
                change(container.value, content, entry[1])
                self.relied_on_program = (
                    self.relied_on_program or entry[0] < self.since or entry[0] % 2 != self.since % 2
                )
                container.before, container.changed = look(container.value), True
        for name, table in (("lent", self.borrowed), ("home", self.lent)):
            for entry in self.pairs(news.get(name, [])):
                content = codec.decode(entry[1], borrower)
                if entry[0] in table:
                    table[entry[0]].change(content)
                    self.relied_on_program = True
                    if table is self.borrowed:
                        changed.append(table[entry[0]])
        self.adopt(news.get("first"), borrower.built)
        self.forget(news.get("gone", []))
        return changed

    def pairs(self, entries: Any) -> list[Any]:
        if type(entries) is not list or not all(
            type(entry) is list and len(entry) == 2 and type(entry[0]) is int for entry in entries
        ):
            raise codec.CodecError("a malformed change of a container")
        return entries

    def adopt(self, first: Any, values: list[Any]) -> None:
        """Take over the keys that the other end has given to containers of its message, if any."""
        if first is None or not values:
            return
        if type(first) is not int or not 0 <= first < 1 << 53 or first % 2 == self.next % 2:
            raise codec.CodecError("a malformed key of a container")
        if len(self.by_key) + len(values) > codec.MAX_NODES:
            raise codec.CodecError("more containers than are kept")
        for value in values:
            if first in self.by_key:
                raise codec.CodecError("a key of two containers")
            self.add(first, value)
            first += 2

    def held(self, numbers: Any, built: list[Any]) -> list[Any]:
        """The containers of an answer that the other end holds on to."""
        if numbers is None:
            return []
        if type(numbers) is not list or not all(type(n) is int and 0 <= n < len(built) for n in numbers):
            raise codec.CodecError("malformed numbers of held containers")
        if len(numbers) > bounds.MAX_HANDLES:
            raise codec.CodecError("more containers than are kept")
        return [built[number] for number in numbers]


def release_frames(error: BaseException | None) -> None:
    """Release what the finished frames of an exception hold, such as the arguments of a failed call."""
    for _ in range(MAX_CHAIN):
        if error is None:
            return
        trace = error.__traceback__
        while trace is not None:
            if not trace.tb_frame.f_code.co_flags & CAN_GO_ON:
                attempt(trace.tb_frame.clear)  # but for one that still runs
            trace = trace.tb_next
        error = error.__context__


MAX_CHAIN = 20
CAN_GO_ON = 0x20 | 0x80 | 0x200  # generators and coroutines: one that waits would be closed


# A container is looked at before and after, one level, by the identity of its parts.


def look(value: Any) -> Any:
    kind = type(value)
    if kind is list or kind is set or kind.__name__ in ("deque", "UserList"):
        return list(value)
    if isinstance(value, dict) or kind.__name__ == "UserDict":
        return [part for pair in value.items() for part in pair]
    if kind.__name__ == "ndarray":
        return value.copy()
    if kind.__name__ in NAMESPACES:
        return [part for pair in vars(value).items() for part in pair]
    if kind.__name__ in ("StringIO", "BytesIO"):
        return ["closed"] if value.closed else [value.getvalue(), value.tell()]
    return bytes(value)


def changed_from(value: Any, before: Any) -> int | None:
    """The index from which a container has changed; None if it has not changed."""
    after: Any = value if type(value) is list else look(value)
    if type(before) is bytes:
        return None if after == before else 0
    if type(before) is not list:
        return None if after.shape == before.shape and after.tobytes() == before.tobytes() else 0
    same = len(before) <= len(after) and all(map(operator.is_, before, after))
    if not same and len(before) == len(after):
        same = all(
            a is b or (type(a) is type(b) and type(a) in ATOMS and a == b) for a, b in zip(after, before, strict=True)
        )
    if same and len(before) == len(after):
        return None
    if not same or type(value) not in GROWING:
        return 0
    return len(before) // (2 if type(value) is dict else 1)


ATOMS = frozenset({int, str, bytes, bool})


def size_of(value: Any) -> int:
    kind = type(value)
    if kind.__name__ in NAMESPACES:
        return len(vars(value))
    if kind.__name__ in ("StringIO", "BytesIO"):
        return 0 if value.closed else len(value.getvalue())
    return int(value.size) if kind.__name__ == "ndarray" else len(value)


def inside(value: Any, at: int = 0) -> Any:
    """The content of a container as a value without identity, from its part `at` on."""
    kind = type(value)
    if isinstance(value, dict) or kind.__name__ == "UserDict":
        return tuple(value.items())[at:]
    if kind.__name__ in NAMESPACES:
        return tuple(vars(value).items())
    if kind.__name__ in ("StringIO", "BytesIO"):
        return () if value.closed else (value.getvalue(), value.tell())
    if kind.__name__ == "ndarray":
        return (value.copy(),)
    return tuple(value[at:]) if kind is list else tuple(value)


def change(target: Any, content: Any, at: int = 0) -> None:
    """Give one of our containers the content that it has at the other end, from its part `at` on."""
    kind = type(target)
    if type(content) is not tuple or at < 0 or (at and (kind not in GROWING or at > len(target))):
        raise ValueError("a malformed change of a container")
    if kind is list or kind is bytearray or kind.__name__ == "UserList":
        target[at:] = content
    elif kind.__name__ == "array":
        target[:] = kind(target.typecode, content)
    elif kind is set:
        codec.check_hashes(list(content))
        target.clear()
        target.update(content)
    elif isinstance(target, dict) or kind.__name__ == "UserDict":
        codec.check_hashes([*(target if at else ()), *(key for key, _ in content)])
        if not at:
            target.clear()
        for key, value in content:
            target[key] = value
    elif kind.__name__ == "deque":
        target.clear()
        target.extend(content)
    elif kind.__name__ in NAMESPACES:
        vars(target).clear()
        vars(target).update(content)
    elif kind.__name__ in ("StringIO", "BytesIO"):
        if not content:
            target.close()
        else:
            target.seek(0)
            target.truncate()
            target.write(content[0])
            target.seek(content[1])
    elif kind.__name__ == "ndarray":
        if content[0].shape != target.shape or content[0].dtype != target.dtype:
            raise ValueError("an array of another shape")
        target[...] = content[0]


_sample = SharedContainer([])
ALONE: int = count_references(_sample.value)  # what it counts of a container that only one place holds
