"""The control program, which answers nothing: it takes the program's place in the control run.

- Every name that the tests ask of the program exists (`ControlName`): it can be called, has attributes, can be a base
  class.
- A call returns an `OpaqueAnswer` that rejects every operation, so a test that passes has not looked at it.
- In later rounds it is an `Echo`, of which everything is true or nothing is, or a plain constant. A test that only
  checks `is not None` fails there.

No part of any program is in this process, and no other end is connected.
"""

from __future__ import annotations

from collections import abc

from sandbox.inside.rpc import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONSTANTS: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "number": 987654321,
    "text": "plaudit control",
    "list": [987654321, "plaudit"],
    "dict": {"plaudit": 987654321},
}
ECHOES = {"no": False, "yes": True}
MAX_ECHOES = 2_000  # in one test: a test that goes on until the answer pleases it ends here
OPERATIONS = (
    "repr",
    "str",
    "bytes",
    "format",
    "lt",
    "le",
    "eq",
    "ne",
    "gt",
    "ge",
    "hash",
    "bool",
    "len",
    "length_hint",
    "getitem",
    "setitem",
    "delitem",
    "iter",
    "next",
    "reversed",
    "contains",
    "int",
    "float",
    "complex",
    "index",
    "abs",
    "neg",
    "pos",
    "invert",
    "round",
    "trunc",
    "floor",
    "ceil",
    "enter",
    "exit",
    "aenter",
    "aexit",
    "aiter",
    "anext",
    "instancecheck",
    "subclasscheck",
    "fspath",
    "buffer",
    "reduce",
    "reduce_ex",
    "copy",
    "deepcopy",
    "dir",
    "sizeof",
    *(
        f"{side}{name}"
        for side in ("", "r", "i")
        for name in (
            "add",
            "sub",
            "mul",
            "matmul",
            "truediv",
            "floordiv",
            "mod",
            "divmod",
            "pow",
            "lshift",
            "rshift",
            "and",
            "xor",
            "or",
        )
    ),
)
OF_NAMES = {"hash"}  # what a name allows: the key of a table may be the program's function


class ControlRefusal(BaseException):
    """The test looks at what the program answers."""


def refuse(operation: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise ControlRefusal(f"the test looks at the answer: {operation}")

    return method


class OpaqueAnswer:
    """The control program's answer. It can be passed on, kept and awaited, and nothing else."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        raise ControlRefusal(f"the test looks at the answer: .{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise ControlRefusal(f"the test changes the answer: .{name}")

    def __delattr__(self, name: str) -> None:
        raise ControlRefusal(f"the test changes the answer: .{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise ControlRefusal("the test calls the answer")

    def __await__(self) -> Any:
        yield from ()
        return self


class Base:
    """The base of a test's own class where the test extends a class of the program."""

    _control: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return ControlName(type(self)._control, name)


class ControlName:
    """A name of the control program: usable as a function, a class, a module or a value."""

    __slots__ = ("_control", "_name")

    def __init__(self, control: ControlEndpoint, name: str) -> None:
        object.__setattr__(self, "_control", control)
        object.__setattr__(self, "_name", name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        control: ControlEndpoint = object.__getattribute__(self, "_control")
        return control.answer_of_call()

    def __getattr__(self, name: str) -> Any:
        if name in ("__name__", "__qualname__"):
            return object.__getattribute__(self, "_name")
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return ControlName(object.__getattribute__(self, "_control"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        """A class's attribute may be set; the control program forgets it."""

    def __delattr__(self, name: str) -> None:
        """As above."""

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return (type("Base", (Base,), {"_control": object.__getattribute__(self, "_control")}),)


class Echo(ControlName):
    """A name or an answer of the control program that allows every operation; comparisons give a fixed truth value.

    It empties the containers that it is given, so that a test that looks at its arguments afterwards fails.
    """

    __slots__ = ()

    def echo(self) -> Echo:
        control: ControlEndpoint = object.__getattribute__(self, "_control")
        control.echoes += 1
        if control.echoes > MAX_ECHOES:
            raise ControlRefusal("the test goes on until the answer pleases it")
        return Echo(control, object.__getattribute__(self, "_name"))

    def truth(self) -> bool:
        self.echo()
        return ECHOES[object.__getattribute__(self, "_control").mode]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if type(value) in (list, dict, set, bytearray):
                value.clear()
        return self.echo()

    def __getattr__(self, name: str) -> Any:
        if name in ("__name__", "__qualname__"):
            return object.__getattribute__(self, "_name")
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self.echo()

    def __await__(self) -> Any:
        yield from ()
        return self.echo()

    def send(self, value: Any = None) -> Any:
        """As a coroutine it has ended already."""
        raise StopIteration(self.echo())

    __next__ = send


def echoing(result: Any) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.echo()
        return result(self)

    return method


ECHOED: dict[str, Any] = {
    "bytes": lambda echo: b"plaudit",
    "len": lambda echo: 2,
    "length_hint": lambda echo: 2,
    "iter": lambda echo: iter([echo, echo]),
    "reversed": lambda echo: iter([echo, echo]),
    "int": lambda echo: 2,
    "index": lambda echo: 2,
    "float": lambda echo: 2.0,
    "complex": lambda echo: 2j,
    "fspath": lambda echo: "/tmp/plaudit",
    "dir": lambda echo: [],
    "hash": lambda echo: 2,
    "setitem": lambda echo: None,
    "delitem": lambda echo: None,
    "exit": lambda echo: False,
} | dict.fromkeys(("repr", "str", "format"), lambda echo: "plaudit")
LEFT = frozenset(
    {
        "next",
        "aenter",
        "aexit",
        "aiter",
        "anext",
        "reduce",
        "reduce_ex",
        "sizeof",
        "buffer",
        "instancecheck",
        "subclasscheck",
    }
)


def _install() -> None:
    for name in OPERATIONS:
        setattr(OpaqueAnswer, f"__{name}__", refuse(name))
        if name not in OF_NAMES:
            setattr(ControlName, f"__{name}__", refuse(name))
        if name in ("lt", "le", "eq", "ne", "gt", "ge", "contains", "bool"):
            setattr(Echo, f"__{name}__", echoing(Echo.truth))
        elif name not in LEFT:
            setattr(Echo, f"__{name}__", echoing(ECHOED.get(name, Echo.echo)))
    abc.Coroutine.register(Echo)  # `asyncio.run` asks


_install()


class ControlEndpoint(Endpoint):
    """The wire of a test process without a program. `mode`: "refuse", or a key of ECHOES or of CONSTANTS."""

    def __init__(self, mode: str) -> None:
        super().__init__(None, no_policy)  # type: ignore[arg-type]
        self.mode = mode
        self.echoes = 0

    def answer_of_call(self) -> Any:
        return OpaqueAnswer() if self.mode == "refuse" else CONSTANTS[self.mode]

    def exchange(self, op: str, fields: dict[str, Any], values: Any = None) -> dict[str, Any]:
        if op == "get":
            return {"ok": {"named": str(fields["name"])}}
        if op == "global":  # a name of the program's module is set, or given back; the control program forgets it
            return {"ok": None}
        raise ControlRefusal(f"the test asks the program for {op!r}")

    def decode(self, tree: Any) -> Any:
        if type(tree) is not dict:
            return tree
        return (Echo if self.mode in ECHOES else ControlName)(self, tree["named"])

    def read_value(self, reply: dict[str, Any], *, answering: bool = False) -> Any:
        return self.decode(reply["ok"])

    def finish_reply(self, reply: dict[str, Any]) -> None:
        """Nothing to do."""

    def encode(self, value: Any) -> Any:
        return None

    def receive(self) -> dict[str, Any]:
        return {"hello": True}


def no_policy(endpoint: Any, message: dict[str, Any]) -> Any:
    raise ControlRefusal("the control program asks nothing")
