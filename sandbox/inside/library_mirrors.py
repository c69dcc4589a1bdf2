"""Mirrors of library classes whose instances cross as objects: functions, generators, coroutines, locks, graphs.

Their instances report the library's class. The mirrors that most programs need are made before the fork.
"""

from __future__ import annotations

import types

from sandbox.inside import async_bridge
from sandbox.inside.class_mirrors import META, Mirror
from sandbox.inside.proxy import CLASS, ENDPOINT, Proxy, ask
from sandbox.inside.special_methods import method_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NATIVE: dict[str, type] = {  # what an object can be besides a value, and a test may ask about
    str(kind.__name__): kind
    for kind in (
        types.FunctionType,
        types.BuiltinFunctionType,
        types.MethodType,
        types.GeneratorType,
        types.CoroutineType,
        types.AsyncGeneratorType,
        types.CodeType,
        types.FrameType,
        types.TracebackType,
        types.MethodWrapperType,
        types.WrapperDescriptorType,
        types.MethodDescriptorType,
        types.ClassMethodDescriptorType,
        types.GetSetDescriptorType,
        types.MemberDescriptorType,
        types.CellType,
        types.GenericAlias,
        map,
        filter,
        zip,
        enumerate,
        reversed,
        property,
        staticmethod,
        classmethod,
        type(iter([])),
        type(iter(())),
        type(iter({})),
        type(iter(set())),
        type(iter("")),
        type(iter(range(0))),
        type(iter({}.values())),
        type(iter({}.items())),
        type(reversed([])),
        type(iter(b"")),
        type(iter(int, 0)),
        object,
    )
}


PROTOCOL = frozenset(
    {  # special methods that instances of NATIVE are asked for
        "__call__",
        "__iter__",
        "__next__",
        "__len__",
        "__getitem__",
        "__repr__",
        "__str__",
        "__await__",
        "__aiter__",
        "__anext__",
        "__enter__",
        "__exit__",
        "__contains__",
        "__eq__",
        "__ne__",
        "__bool__",
        "__setitem__",
        "__delitem__",
        "__reversed__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
        "__add__",
        "__sub__",
        "__mul__",
        "__or__",
        "__and__",
        "__truediv__",
        "__radd__",
        "__rmul__",
        "__rsub__",
        "__hash__",
        "__aenter__",
        "__aexit__",
        "__float__",
        "__int__",
        "__index__",
        "__abs__",
        "__neg__",
        "__fspath__",
        "__format__",
        "__complex__",
        "__round__",
        "__pow__",
        "__mod__",
        "__floordiv__",
        "__matmul__",
        "__xor__",
        "__invert__",
        "__rtruediv__",
        "__rpow__",
    }
)


def native_mirror(endpoint: Any, kind: type) -> Any:
    """The mirror of a library class whose instances are not values: functions, generators, locks, graphs."""
    body: dict[str, Any] = {"__module__": kind.__module__, ENDPOINT: endpoint, CLASS: f"\0{kind.__name__}", META: False}
    body["__class__"] = property(lambda self: kind)
    for name in ("__doc__", "__module__"):  # which the class itself has
        body[name] = shown(name)
    for name in PROTOCOL:
        if getattr(kind, name, None) is not getattr(object, name, None):
            body[name] = method_for(name, None)
    if "__eq__" in body and "__hash__" not in body:
        body["__hash__"] = method_for("__hash__", None)
    if kind is types.CoroutineType:
        body.update(async_bridge.coroutine_methods(ask))
    elif kind is types.GeneratorType:
        for name in ("send", "throw", "close"):
            body[name] = in_pieces(name)
    return types.new_class(kind.__name__, (Proxy,), {"metaclass": Mirror}, lambda namespace: namespace.update(body))


def shown(name: str) -> Any:
    return property(lambda self: ask(self, "attr", name=name))


def in_pieces(name: str) -> Any:
    def method(self: Any, *args: Any) -> Any:
        if name == "throw":
            args = args[:1] if len(args) < 2 or args[1] is None else args[1:2]
        reply = ask(self, "pieces", name=name, given=args)
        if type(reply) is tuple and len(reply) == 1:
            return reply[0]
        if name == "close":
            return None
        raise StopIteration(*([] if reply[0] is None else reply))

    method.__name__ = name
    return method


# Those that most programs need are made once, for all processes that are forked from this one; whose an instance is, it
# says itself.
READY: dict[type, Any] = {
    kind: native_mirror(False, kind)
    for kind in (types.FunctionType, types.MethodType, types.GeneratorType, types.CoroutineType)
}
