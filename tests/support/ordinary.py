"""Ordinary programs and tests: each row passes for the right program and fails for a wrong one.

A row is (name, the program, what of it is replaced to make it wrong, by what, the test). All of them pass in a plain
Python process as they stand (`test_ordinary_objects.py` sees to that).
"""

from __future__ import annotations

ERRORS = """
class AppError(Exception):
    def __init__(self, message, code=7):
        super().__init__(message)
        self.code = code
    def describe(self):
        return f"{self.code}: {self.args[0]}"
class NotFound(AppError):
    pass
class Quiet(Exception):
    def __str__(self):
        return "quiet"
def f(x):
    if x == 1:
        raise NotFound("no such thing", 404)
    if x == 2:
        try:
            {}["k"]
        except KeyError as error:
            raise AppError("wrapped") from error
    if x == 3:
        try:
            1 / 0
        except ZeroDivisionError:
            raise Quiet("x")
    if x == 4:
        raise ExceptionGroup("many", [ValueError("a"), NotFound("b", 5)])
    if x == 5:
        return NotFound("returned", 9)
    if x == 6:
        error = ValueError("noted")
        error.add_note("see here")
        raise error
    if x == 7:
        raise OSError(2, "gone", "file.txt")
    if x == 8:
        raise AppError("quietly") from None
    return x
def g(n):
    for i in range(n):
        got = yield i
        if got is not None:
            yield got * 10
    return "end"
"""

VALUES = """
import array, collections, dataclasses, datetime, enum, io, ipaddress, pathlib, re, types, uuid, zoneinfo
class Level(enum.IntEnum):
    LOW = 1
    HIGH = 3
class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"
    def shout(self):
        return self.value.upper()
    @classmethod
    def parse(cls, text):
        return cls(text.lower())
class Tag(enum.StrEnum):
    A = "a"
    B = "b"
class Perm(enum.Flag):
    R = enum.auto()
    W = enum.auto()
class Name(str):
    pass
class Count(int):
    pass
class Row(list):
    pass
class Table(dict):
    pass
class Bag(set):
    pass
def f(x):
    return {
        "level": Level.HIGH, "color": Color.RED, "tag": Tag.A, "perm": Perm.R | Perm.W, "name": Name("ann"),
        "count": Count(5), "row": Row([1, 2]), "table": Table(a=1), "bag": Bag({1, 2}),
        "aware": datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.timezone.utc),
        "zoned": datetime.datetime(2024, 7, 2, 3, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        "offset": datetime.timezone(datetime.timedelta(hours=5)),
        "path": pathlib.Path("/a") / "b.txt", "pure": pathlib.PurePosixPath("x/y"),
        "uuid": uuid.UUID(int=5), "keys": {"a": 1, "b": 2}.keys(), "values": {"a": 1, "b": 2}.values(),
        "items": {"a": 1}.items(), "array": array.array("i", [1, 2]), "ip": ipaddress.ip_address("10.0.0.1"),
        "net": ipaddress.ip_network("10.0.0.0/8"), "space": types.SimpleNamespace(a=1, b=[2]),
        "proxy": types.MappingProxyType({"a": 1}), "userdict": collections.UserDict(a=1),
        "userlist": collections.UserList([1, 2]), "userstring": collections.UserString("ab"),
        "chain": collections.ChainMap({"a": 1}, {"b": 2}), "view": memoryview(b"abc"),
        "pattern": re.compile("a+", re.I), "match": re.search("b(c)", "abcd"), "text": io.StringIO("hello"),
        "bytes": io.BytesIO(b"hi"), "ordered": collections.OrderedDict(a=1, b=2),
        "default": collections.defaultdict(list, {"a": [1]}),
        "zip": zip([1], [2]), "map": map(str, [1, 2]), "filter": filter(None, [0, 1]), "gen": (i for i in range(3)),
        "deque": collections.deque([1, 2], maxlen=2), "struct": datetime.date(2024, 1, 2).timetuple(),
        "levels": [Level.LOW, Level.HIGH], "tags": {Tag.A, Tag.B}, "named": {Name("a"): 1}, "iter": iter([1, 2]),
    }[x]
def same(x):
    return x
"""

ARGUMENTS = """
import datetime, io
def year(d): return d.year
def zone(d): return d.utcoffset().total_seconds()
def suffix(p): return p.suffix
def hexed(u): return u.hex
def total(xs): return sum(xs)
def both(a, b): return sorted(a & b)
def read(stream): return stream.read()
def lines(stream): return [line.strip() for line in stream]
def write(stream): stream.write("written")
def matched(m): return m.group(1)
def search(p, s): return p.search(s) is not None
def version(ip): return ip.version
def attribute(o): return o.a + o._b
def touch(o): o._seen = True; o.a += 1; return o
def kind(o): return type(o).__name__
def first(c): return c["a"]
def made(o): return type(o)(5)
def call(o): return o(3)
def size(o): return len(o)
def has(o): return 3 in o
def loop(o): return [x for x in o]
def added(a, b): return a + b
def less(xs): return sorted(xs)
def area(shape): return shape.area() * 2
def fill(xs): xs.append(4)
def inner(rows): rows[0].append(9)
def swap(rows): rows.reverse(); rows[0].append(1)
def put(d): d["k"] = [1]
def clear(s): s.clear()
def namespace(n): n.a = 5
def boom(xs): xs.append(1); raise ValueError("after")
def ident(x): return x
def second(x, y): return y
def pair(a): return [a, a]
def keyword(*, xs): xs.append(7); return xs
"""

CLASSES = """
import abc, contextlib, dataclasses, functools, typing
from typing import NamedTuple
LOG = []
class Vector:
    unit = 1
    def __init__(self, x, y): self.x, self.y = x, y
    def __eq__(self, o): return isinstance(o, Vector) and (self.x, self.y) == (o.x, o.y)
    def __hash__(self): return hash((self.x, self.y))
    def __add__(self, o): return Vector(self.x + o.x, self.y + o.y)
    def __sub__(self, o): return Vector(self.x - o.x, self.y - o.y)
    def __mul__(self, k): return Vector(self.x * k, self.y * k)
    __rmul__ = __mul__
    def __matmul__(self, o): return self.x * o.x + self.y * o.y
    def __neg__(self): return Vector(-self.x, -self.y)
    def __abs__(self): return (self.x ** 2 + self.y ** 2) ** 0.5
    def __lt__(self, o): return abs(self) < abs(o)
    def __iadd__(self, o): self.x += o.x; self.y += o.y; return self
    def __bool__(self): return bool(self.x or self.y)
    def __repr__(self): return f"Vector({self.x}, {self.y})"
    def __str__(self): return f"<{self.x}, {self.y}>"
    def __iter__(self): yield self.x; yield self.y
    def __getitem__(self, i): return (self.x, self.y)[i]
    def __len__(self): return 2
    def __call__(self, t): return self.x * t
    @property
    def norm(self): return abs(self)
    @norm.setter
    def norm(self, n): self.x, self.y = n, 0
    @classmethod
    def zero(cls): return cls(0, 0)
    @staticmethod
    def dims(): return 2
class Tree:
    def __init__(self): self.items = []
    def insert(self, x): self.items.append(x); return self
    def __contains__(self, x): return x in self.items
class Shape(abc.ABC):
    def __init__(self, name="shape"): self.name = name
    @abc.abstractmethod
    def area(self): ...
    def describe(self): return f"{self.name} of {self.area()}"
    def twice(self): return 2 * self.area()
class Square(Shape):
    def __init__(self, side): super().__init__("square"); self.side = side
    def area(self): return self.side ** 2
class Point(NamedTuple):
    x: int
    y: int = 0
    def total(self): return self.x + self.y
@dataclasses.dataclass
class Item:
    name: str
    price: float = 1.0
    tags: list = dataclasses.field(default_factory=list)
    def cost(self): return self.price * 2
@dataclasses.dataclass(frozen=True, order=True)
class Version:
    major: int
    minor: int = 0
class Node:
    def __init__(self, value): self.value, self.links = value, []
class Stack(list):
    def push(self, x): self.append(x); return self
    def peek(self): return self[-1]
class Suppress:
    def __init__(self): self.seen = None
    def __enter__(self): return self
    def __exit__(self, kind, error, trace):
        self.seen = (kind.__name__ if kind else None, str(error))
        LOG.append("exit")
        return kind is ValueError
class Account:
    def __init__(self): self.balance = 10
    @contextlib.contextmanager
    def transaction(self):
        before = self.balance
        try:
            yield self
        except Exception:
            self.balance = before
            raise
@contextlib.contextmanager
def swallowing():
    try:
        yield 5
    except KeyError:
        pass
class Counter2:
    def __init__(self, n): self.n, self.i = n, 0
    def __iter__(self): return self
    def __next__(self):
        if self.i >= self.n: raise StopIteration
        self.i += 1
        return self.i
@typing.runtime_checkable
class Speaks(typing.Protocol):
    def speak(self) -> str: ...
class Base:
    kind = "base"
    def greet(self): return f"{self.who()} from {self.kind}"
    def who(self): return "base"
    def template(self, xs): return [self.step(x) for x in xs]
    def step(self, x): return x + 1
def speak_twice(s): return s.speak() * 2
def use(base): return base.greet()
def gen(n):
    total = 0
    for i in range(n):
        got = yield total
        total += got or 0
    return total
def graph():
    a, b, c = Node(1), Node(2), Node(3)
    a.links, b.links = [b, c], [c]
    return a
def grid(): return [[0] * 2] * 2
def shared_arg(xs): return xs
def entry_fn(x): return Vector(x, 0)
def compose(*fs): return functools.reduce(lambda f, g: lambda x: g(f(x)), fs)
"""

CONCURRENT = """
import asyncio, contextlib, threading, time
lock = threading.Lock()
total = 0
def square(x): return x * x
def bump(n):
    global total
    for _ in range(n):
        with lock:
            total += 1
def current(): return total
class Safe:
    def __init__(self): self.n, self.lock = 0, threading.Lock()
    def add(self):
        with self.lock:
            self.n += 1
def spread(fn, xs):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(fn, xs))
async def slow(x, delay=0.01):
    await asyncio.sleep(delay)
    return x * 2
async def forever():
    await asyncio.sleep(30)
async def ticks(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i
async def fails(): raise LookupError("async")
async def with_callback(cb, x): return await cb(x) + 1
class Pool:
    def __init__(self): self.open, self.seen = False, None
    async def __aenter__(self): self.open = True; return self
    async def __aexit__(self, kind, error, trace):
        self.open, self.seen = False, kind and kind.__name__
        return kind is KeyError
@contextlib.asynccontextmanager
async def managed():
    try:
        yield 3
    except ValueError:
        pass
class Later:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return 8
cancelled = []
async def careful():
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        cancelled.append(1)
        raise
def was_cancelled(): return len(cancelled)
"""

NUMPY = """
import numpy as np
def double(a): a *= 2
def zero(a): a[0] = 0
def empty(): return np.zeros((0, 3))
def flags(x): return np.array([x, not x])
def long(): return np.longdouble("1.25")
def nan(): return np.array([1.0, np.nan])
def days(): return np.array(["2024-01-01", "2024-01-02"], dtype="datetime64[D]")
def span(): return np.timedelta64(3, "h")
def roots(): return np.array([1 + 2j, 1 - 2j])
def single(): return np.float32(0.5)
def texts(): return np.array(["a", "bb"])
def total(a): return int(a.sum())
def shape(a): return a.shape
def back(a): return a
"""

ROWS: list[tuple[str, str, str, str, str]] = []


def rows(program: str, *lines: tuple[str, str, str, str]) -> None:
    ROWS.extend((name, program, old, new, test) for name, old, new, test in lines)


RAISES = "try:\n    f({n})\nexcept {kind} as e:\n    {then}\nelse:\n    assert False"


def raises(n: int, kind: str, then: str) -> str:
    return RAISES.format(n=n, kind=kind, then=then)


OTHER = ("raise NotFound(\"no such thing\", 404)", "raise ValueError(\"other\")")
rows(
    ERRORS,
    ("a subclass is caught as its base", *OTHER, raises(1, "AppError", "pass")),
    ("a subclass is caught as itself", *OTHER, raises(1, "NotFound", "assert type(e) is NotFound")),
    ("a base is not caught as its subclass", "raise AppError(\"wrapped\")", "raise NotFound(\"wrapped\")",
     "try:\n    f(2)\nexcept NotFound:\n    assert False\nexcept AppError:\n    pass"),
    ("an attribute of an exception", "404", "405", raises(1, "AppError", "assert e.code == 404")),
    ("a default attribute of an exception", "code=7", "code=8", raises(2, "AppError", "assert e.code == 7")),
    ("the arguments of an exception", "no such thing", "nothing", raises(1, "AppError", "assert e.args == ('no such thing',)")),
    ("the text of an exception", "no such thing", "nothing", raises(1, "AppError", "assert str(e) == 'no such thing'")),
    ("a text of its own", "\"quiet\"", "\"loud\"", raises(3, "Quiet", "assert str(e) == 'quiet'")),
    ("the cause of an exception", "from error", "from None", raises(2, "AppError", "assert isinstance(e.__cause__, KeyError) and e.__cause__.args == ('k',)")),
    ("the context of an exception", "1 / 0", "raise_ = 1; [][1]", raises(3, "Quiet", "assert type(e.__context__) is ZeroDivisionError")),
    ("a suppressed context", "raise AppError(\"quietly\") from None", "raise AppError(\"quietly\")", raises(8, "AppError", "assert e.__suppress_context__")),
    ("a group of exceptions", "ValueError(\"a\"), NotFound", "TypeError(\"a\"), NotFound", raises(4, "ExceptionGroup", "assert [type(x) for x in e.exceptions] == [ValueError, NotFound]")),
    ("a group, split", "NotFound(\"b\", 5)", "ValueError(\"b\", 5)", "seen = []\ntry:\n    f(4)\nexcept* NotFound as group:\n    seen += [x.code for x in group.exceptions]\nexcept* ValueError:\n    seen.append('v')\nassert seen == [5, 'v']"),
    ("a returned exception", "NotFound(\"returned\", 9)", "NotFound(\"returned\", 8)", "e = f(5)\nassert isinstance(e, AppError) and e.code == 9"),
    ("a returned exception that is raised", "return NotFound(\"returned\"", "return ValueError(\"returned\"", "try:\n    raise f(5)\nexcept NotFound as e:\n    assert e.args == ('returned',)"),
    ("a method of an exception", "{self.code}: ", "{self.code}; ", raises(1, "AppError", "assert e.describe() == '404: no such thing'")),
    ("the notes of an exception", "see here", "see there", raises(6, "ValueError", "assert e.__notes__ == ['see here']")),
    ("the number of an OSError", "OSError(2,", "OSError(3,", raises(7, "OSError", "assert e.errno == 2 and e.filename == 'file.txt'")),
    ("an OSError is of its kind", "OSError(2,", "OSError(13,", raises(7, "FileNotFoundError", "pass")),
    ("assertRaises and its exception", *OTHER, "import unittest\nt = unittest.TestCase()\nwith t.assertRaises(AppError) as c:\n    f(1)\nassert c.exception.code == 404"),
    ("assertRaisesRegex", "no such thing", "nothing", "import unittest\nunittest.TestCase().assertRaisesRegex(NotFound, 'such', f, 1)"),
    ("the order of classes", "class NotFound(AppError)", "class NotFound(Exception)", "f(0)\nassert issubclass(NotFound, AppError) and AppError in NotFound.__mro__"),
    ("an exception that the tests make", "f\"{self.code}: {self.args[0]}\"", "''", "f(0)\nassert AppError('m', code=3).describe() == '3: m'"),
    ("the value of a generator's end", "return \"end\"", "return \"over\"", "f(0)\ni = g(1)\nnext(i)\ntry:\n    next(i)\nexcept StopIteration as e:\n    assert e.value == 'end'"),
    ("a generator that is sent to", "got * 10", "got * 11", "f(0)\ni = g(2)\nnext(i)\nassert i.send(4) == 40"),
    ("a generator within one", "return \"end\"", "return \"over\"", "def whole():\n    return (yield from g(2))\nf(0)\ni = whole()\nseen = []\ntry:\n    while True:\n        seen.append(next(i))\nexcept StopIteration as e:\n    assert (seen, e.value) == ([0, 1], 'end')"),
)  # fmt: skip

rows(
    VALUES,
    ("an IntEnum in a set", "HIGH = 3", "HIGH = 4", "assert f('level') in {1, 3}"),
    ("an IntEnum as a key", "HIGH = 3", "HIGH = 4", "assert {3: 'x'}.get(f('level')) == 'x'"),
    ("an IntEnum as a member", "\"level\": Level.HIGH", "\"level\": Level.LOW", "assert f('level') is Level.HIGH and type(f('level')) is Level"),
    ("IntEnums that are sorted", "[Level.LOW, Level.HIGH]", "[Level.LOW, Level.LOW]", "assert sorted(f('levels'), reverse=True) == [Level.HIGH, Level.LOW]"),
    ("an Enum's name and value", "\"red\"", "\"rot\"", "assert f('color').value == 'red' and f('color').name == 'RED'"),
    ("an Enum by value and by name", "\"color\": Color.RED", "\"color\": Color.BLUE", "assert Color('red') is Color['RED'] is f('color')"),
    ("the members of an Enum", "BLUE = \"blue\"", "GREEN = \"blue\"", "f('color')\nassert [c.name for c in Color] == ['RED', 'BLUE'] and len(Color) == 2"),
    ("an Enum's method", "upper()", "title()", "f('color')\nassert Color.BLUE.shout() == 'BLUE'"),
    ("an Enum's classmethod", "text.lower()", "text", "f('color')\nassert Color.parse('RED') is Color.RED"),
    ("an Enum that has no such value", "\"red\"", "\"rot\"", "f('color')\ntry:\n    Color('rot')\nexcept ValueError:\n    pass\nelse:\n    assert False"),
    ("Enums as keys", "\"color\": Color.RED", "\"color\": Color.BLUE", "assert {Color.RED: 1, Color.BLUE: 2}[f('color')] == 1"),
    ("an Enum that comes back", "def same(x):\n    return x", "def same(x):\n    return x.value", "f('color')\nassert same(Color.BLUE) is Color.BLUE"),
    ("a StrEnum is joined", "A = \"a\"", "A = \"c\"", "assert ','.join(sorted(f('tags'))) == 'a,b'"),
    ("StrEnums equal a set of texts", "B = \"b\"", "B = \"d\"", "assert f('tags') == {'a', 'b'}"),
    ("a StrEnum in a text", "A = \"a\"", "A = \"c\"", "assert f'{f(\"tag\")}' == 'a' and f('tag') == Tag.A"),
    ("flags", "Perm.R | Perm.W", "Perm.R", "assert f('perm') == Perm.R | Perm.W and Perm.W in f('perm')"),
    ("a text subclass in a set", "Name(\"ann\")", "Name(\"bob\")", "assert f('name') in {'ann'} and f('name').upper() == 'ANN'"),
    ("a text subclass as a key", "{Name(\"a\"): 1}", "{Name(\"b\"): 1}", "assert f('named') == {'a': 1} and f('named')['a'] == 1"),
    ("a text subclass is counted", "Name(\"ann\")", "Name(\"anm\")", "from collections import Counter\nassert Counter(f('name')) == {'a': 1, 'n': 2} and Counter([f('name')])['ann'] == 1"),
    ("an int subclass is calculated with", "Count(5)", "Count(6)", "assert f('count') + 1 == 6 and f('count') in (5,) and f('count') % 2 == 1"),
    ("the type of an int subclass", "Count(5)", "int(5)", "assert type(f('count')) is Count and type(f('count')).__name__ == 'Count'"),
    ("a list subclass", "Row([1, 2])", "Row([1, 3])", "r = f('row')\nassert r == [1, 2] and r.count(2) == 1 and r + [3] == [1, 2, 3] and isinstance(r, list)"),
    ("a dict subclass", "Table(a=1)", "Table(a=2)", "t = f('table')\nassert t == {'a': 1} and t.get('b', 0) == 0 and dict(t) == {'a': 1}"),
    ("a set subclass", "Bag({1, 2})", "Bag({1, 4})", "b = f('bag')\nassert b.issubset({1, 2, 3}) and b | {5} == {1, 2, 5}"),
    ("an aware datetime", "2, 3, tzinfo=datetime.timezone.utc", "2, 4, tzinfo=datetime.timezone.utc", "import datetime as d\nassert f('aware') == d.datetime(2024, 1, 2, 3, tzinfo=d.timezone.utc)"),
    ("an aware datetime is not naive", "2, 3, tzinfo=datetime.timezone.utc", "2, 3", "assert f('aware').tzinfo is not None and f('aware').isoformat().endswith('+00:00')"),
    ("a datetime in a zone", "Europe/Berlin", "Europe/London", "assert f('zoned').utcoffset().total_seconds() == 7200"),
    ("a time zone", "hours=5", "hours=6", "import datetime as d\nassert f('offset') == d.timezone(d.timedelta(hours=5))"),
    ("a path", "b.txt", "c.txt", "from pathlib import Path\nassert f('path') == Path('/a/b.txt') and f('path').suffix == '.txt'"),
    ("a pure path", "x/y", "x/z", "from pathlib import PurePosixPath\nassert f('pure') == PurePosixPath('x/y')"),
    ("a UUID", "int=5", "int=6", "import uuid\nassert f('uuid') == uuid.UUID(int=5) and f('uuid').int == 5"),
    ("the keys of a dict", "\"b\": 2}.keys()", "\"c\": 2}.keys()", "assert f('keys') == {'a', 'b'} and f('keys') & {'a'} == {'a'}"),
    ("the values of a dict", "\"b\": 2}.values()", "\"b\": 3}.values()", "assert list(f('values')) == [1, 2] and sum(f('values')) == 3"),
    ("the items of a dict", "{\"a\": 1}.items()", "{\"a\": 2}.items()", "assert f('items') == {('a', 1)} and sorted(f('items')) == [('a', 1)]"),
    ("an array", "\"i\", [1, 2]", "\"i\", [1, 3]", "import array\nassert f('array') == array.array('i', [1, 2]) and f('array').typecode == 'i'"),
    ("an address", "10.0.0.1", "10.0.0.2", "import ipaddress\nassert f('ip') == ipaddress.ip_address('10.0.0.1')"),
    ("a network", "10.0.0.0/8", "10.0.0.0/9", "import ipaddress\nassert ipaddress.ip_address('10.200.0.1') in f('net')"),
    ("a namespace", "b=[2]", "b=[3]", "from types import SimpleNamespace\nassert f('space') == SimpleNamespace(a=1, b=[2]) and f('space').b == [2]"),
    ("a mapping proxy", "MappingProxyType({\"a\": 1})", "MappingProxyType({\"a\": 2})", "assert f('proxy') == {'a': 1}"),
    ("a mapping proxy cannot be written", "types.MappingProxyType({\"a\": 1})", "{\"a\": 1}", "try:\n    f('proxy')['b'] = 1\nexcept TypeError:\n    pass\nelse:\n    assert False"),
    ("a UserDict", "UserDict(a=1)", "UserDict(a=2)", "assert f('userdict') == {'a': 1} and f('userdict').data == {'a': 1}"),
    ("a UserList", "UserList([1, 2])", "UserList([2, 1])", "assert f('userlist') == [1, 2]"),
    ("a UserString", "UserString(\"ab\")", "UserString(\"ba\")", "assert f('userstring') == 'ab' and f('userstring').startswith('a')"),
    ("a ChainMap", "{\"b\": 2})", "{\"b\": 3})", "assert dict(f('chain')) == {'a': 1, 'b': 2} and f('chain').maps[0] == {'a': 1}"),
    ("a memoryview", "memoryview(b\"abc\")", "memoryview(b\"abd\")", "assert f('view') == b'abc' and bytes(f('view')[1:]) == b'bc'"),
    ("a pattern", "re.compile(\"a+\", re.I)", "re.compile(\"a+\")", "import re\nassert f('pattern') == re.compile('a+', re.I) and f('pattern').match('AA')"),
    ("a match", "b(c)", "b(cd)", "assert f('match').group(1) == 'c' and f('match').span() == (1, 3)"),
    ("a text stream", "StringIO(\"hello\")", "StringIO(\"hullo\")", "assert f('text').getvalue() == 'hello' and f('text').read() == 'hello'"),
    ("a byte stream", "BytesIO(b\"hi\")", "BytesIO(b\"ho\")", "assert f('bytes').read() == b'hi'"),
    ("an OrderedDict", "OrderedDict(a=1, b=2)", "OrderedDict(b=2, a=1)", "o = f('ordered')\nassert list(o) == ['a', 'b'] and o.popitem(last=False) == ('a', 1)"),
    ("a defaultdict's factory", "defaultdict(list", "defaultdict(set", "d = f('default')\nassert d['new'] == [] and d.default_factory is list"),
    ("a zip", "zip([1], [2])", "iter([(1, 2)])", "assert isinstance(f('zip'), zip)"),
    ("what a zip holds", "zip([1], [2])", "zip([1], [3])", "assert list(f('zip')) == [(1, 2)]"),
    ("a map", "map(str, [1, 2])", "[str(x) for x in [1, 2]]", "assert isinstance(f('map'), map) and list(f('map')) == ['1', '2']"),
    ("a filter", "filter(None, [0, 1])", "filter(None, [0, 2])", "assert isinstance(f('filter'), filter) and list(f('filter')) == [1]"),
    ("a generator", "(i for i in range(3))", "range(3)", "import types\nassert isinstance(f('gen'), types.GeneratorType) and list(f('gen')) == [0, 1, 2]"),
    ("an iterator's type", "iter([1, 2])", "[1, 2]", "assert type(f('iter')).__name__ == 'list_iterator' and next(f('iter')) == 1"),
    ("a deque's end", "maxlen=2", "maxlen=3", "q = f('deque')\nq.append(3)\nassert list(q) == [2, 3]"),
    ("a struct_time", "date(2024, 1, 2)", "date(2024, 1, 3)", "assert f('struct').tm_mday == 2"),
    ("interfaces of the library", "\"keys\": {\"a\": 1, \"b\": 2}.keys()", "\"keys\": 5", "from collections.abc import Iterable, Mapping, Callable, Hashable\nassert isinstance(f('keys'), Iterable) and isinstance(f('table'), Mapping) and callable(f) and isinstance(f('name'), Hashable)"),
)  # fmt: skip

rows(
    ARGUMENTS,
    ("an aware datetime is given", "d.utcoffset().total_seconds()", "0", "import datetime as d\nassert zone(d.datetime(2024, 1, 1, tzinfo=d.timezone(d.timedelta(hours=2)))) == 7200"),
    ("a path is given", "p.suffix", "p.stem", "from pathlib import Path\nassert suffix(Path('a/b.py')) == '.py'"),
    ("a UUID is given", "u.hex", "str(u)", "import uuid\nassert hexed(uuid.UUID(int=255)) == '0' * 30 + 'ff'"),
    ("an array is given", "sum(xs)", "len(xs)", "import array\nassert total(array.array('d', [1, 2.5])) == 3.5"),
    ("dict views are given", "a & b", "a | b", "assert both({1: 0, 2: 0}.keys(), {2: 0, 3: 0}.keys()) == [2]"),
    ("a text stream is given", "stream.read()", "stream.read(2)", "import io\nassert read(io.StringIO('abc')) == 'abc'"),
    ("a byte stream is given", "stream.read()", "b''", "import io\nassert read(io.BytesIO(b'abc')) == b'abc'"),
    ("a stream of lines is given", "line.strip()", "line", "import io\nassert lines(io.StringIO('a\\nb\\n')) == ['a', 'b']"),
    ("a stream is written to", "\"written\"", "\"wrote\"", "import io\ns = io.StringIO()\nwrite(s)\nassert s.getvalue() == 'written'"),
    ("a match is given", "m.group(1)", "m.group(0)", "import re\nassert matched(re.match('a(b)', 'ab')) == 'b'"),
    ("a pattern is given", "is not None", "is None", "import re\nassert search(re.compile('B', re.I), 'abc')"),
    ("an address is given", "ip.version", "6", "import ipaddress\nassert version(ipaddress.ip_address('::1')) == 6 and version(ipaddress.ip_address('1.1.1.1')) == 4"),
    ("a namespace is given", "n.a = 5", "n.a = 6", "from types import SimpleNamespace\nn = SimpleNamespace(a=1)\nnamespace(n)\nassert n.a == 5"),
    ("private attributes of the tests' objects", "o.a + o._b", "o.a", "class T:\n    def __init__(self): self.a, self._b = 1, 2\nassert attribute(T()) == 3"),
    ("attributes of the tests' objects are set", "o._seen = True", "o._seen = False", "class T:\n    a, _seen = 1, False\nt = T()\nassert touch(t) is t and t._seen and t.a == 2"),
    ("the type name of the tests' object", "type(o).__name__", "'T'", "class T: pass\nclass U: pass\nassert kind(T()) == 'T' and kind(U()) == 'U'"),
    ("a UserDict is given", "c[\"a\"]", "len(c)", "from collections import UserDict\nassert first(UserDict(a=5)) == 5"),
    ("the program makes another of the tests' class", "type(o)(5)", "o", "class T:\n    def __init__(self, n): self.n = n\nassert made(T(1)).n == 5"),
    ("the tests' object is called", "o(3)", "3", "class T:\n    def __call__(self, x): return x + 1\nassert call(T()) == 4"),
    ("the tests' object has a length", "len(o)", "1", "class T:\n    def __len__(self): return 9\nassert size(T()) == 9"),
    ("the tests' object contains", "3 in o", "4 in o", "class T:\n    def __contains__(self, x): return x == 3\nassert has(T())"),
    ("the tests' object is walked", "[x for x in o]", "[]", "class T:\n    def __iter__(self): return iter([1, 2])\nassert loop(T()) == [1, 2]"),
    ("the tests' objects are added", "a + b", "a", "class T:\n    def __init__(self, n): self.n = n\n    def __add__(self, o): return T(self.n + o.n)\nassert added(T(1), T(2)).n == 3"),
    ("the tests' objects are sorted", "sorted(xs)", "xs", "class T:\n    def __init__(self, n): self.n = n\n    def __lt__(self, o): return self.n < o.n\nassert [t.n for t in less([T(3), T(1), T(2)])] == [1, 2, 3]"),
    ("a method of the tests' object", "shape.area() * 2", "shape.area()", "class T:\n    def area(self): return 4\nassert area(T()) == 8"),
    ("a list is changed", "xs.append(4)", "xs + [4]", "x = [1]\nfill(x)\nassert x == [1, 4]"),
    ("a list within a list is changed", "rows[0].append(9)", "rows.append(9)", "inside = [1]\nouter = [inside, [2]]\ninner(outer)\nassert inside == [1, 9] and outer[0] is inside"),
    ("lists change places", "rows.reverse()", "rows.sort()", "a, b = [1], [2]\nr = [a, b]\nswap(r)\nassert r[0] is b and b == [2, 1] and a == [1]"),
    ("a dict is changed", "d[\"k\"] = [1]", "d[\"k\"] = [2]", "d = {'a': 1}\nput(d)\nassert d == {'a': 1, 'k': [1]}"),
    ("a set is changed", "s.clear()", "s.copy()", "s = {1}\nclear(s)\nassert s == set()"),
    ("a change before an exception", "xs.append(1); raise", "raise", "x = []\ntry:\n    boom(x)\nexcept ValueError:\n    pass\nassert x == [1]"),
    ("an argument comes back itself", "def ident(x): return x", "def ident(x): return list(x)", "a = [1]\nassert ident(a) is a"),
    ("another argument comes back itself", "return y", "return dict(y)", "a = {}\nassert second([], a) is a"),
    ("an argument comes back twice", "[a, a]", "[a, list(a)]", "a = [1]\np = pair(a)\nassert p[0] is a and p[1] is a"),
    ("one list given twice is one list", "def second(x, y): return y", "def second(x, y): return list(y)", "a = []\nassert second(a, a) is a"),
    ("an argument by name is changed", "xs.append(7)", "xs = xs + [7]", "a = []\nassert keyword(xs=a) is a and a == [7]"),
    ("a text subclass of the tests is given", "len(o)", "0", "class T(str): pass\nassert size(T('abc')) == 3"),
    ("an Enum of the tests is given", "def ident(x): return x", "def ident(x): return x.value", "import enum\nclass C(enum.Enum):\n    A = 1\nassert ident(C.A) is C.A"),
)  # fmt: skip

V = "Vector(1, 2)"
rows(
    CLASSES,
    ("own equality", "(self.x, self.y) == (o.x, o.y)", "self is o", "assert Vector(1, 2) == Vector(1, 2) and Vector(1, 2) != Vector(1, 3)"),
    ("own inequality", "(self.x, self.y) == (o.x, o.y)", "True", "assert Vector(1, 2) != Vector(2, 1)"),
    ("own addition", "Vector(self.x + o.x", "Vector(self.x - o.x", "assert Vector(1, 2) + Vector(3, 4) == Vector(4, 6)"),
    ("own difference", "self.y - o.y)", "self.y)", "assert Vector(1, 2) - Vector(1, 2) == Vector(0, 0)"),
    ("own product with a number", "self.y * k", "self.y", "assert Vector(1, 2) * 3 == Vector(3, 6) and 3 * Vector(1, 2) == Vector(3, 6)"),
    ("own product of two", "self.x * o.x + self.y * o.y", "0", "assert Vector(1, 2) @ Vector(3, 4) == 11"),
    ("own negation", "-self.x, -self.y", "self.x, self.y", "assert -Vector(1, 2) == Vector(-1, -2)"),
    ("own absolute value", "** 0.5", "** 1", "assert abs(Vector(3, 4)) == 5"),
    ("own order", "abs(self) < abs(o)", "abs(self) > abs(o)", "assert Vector(1, 1) < Vector(2, 2) and sorted([Vector(3, 0), Vector(1, 0)])[0].x == 1"),
    ("own addition in place", "self.x += o.x", "self.x -= o.x", "v = Vector(1, 2)\nw = v\nv += Vector(1, 1)\nassert v is w and v.x == 2"),
    ("own truth", "bool(self.x or self.y)", "True", "assert Vector(1, 0) and not Vector(0, 0)"),
    ("own picture", "Vector({self.x}, {self.y})", "V", "assert repr(Vector(1, 2)) == 'Vector(1, 2)' and repr([Vector(1, 2)]) == '[Vector(1, 2)]'"),
    ("own text", "<{self.x}, ", "<{self.y}, ", "assert str(Vector(1, 2)) == '<1, 2>' and f'{Vector(1, 2)}' == '<1, 2>'"),
    ("own iteration", "yield self.x; yield self.y", "yield self.y; yield self.x", "x, y = Vector(1, 2)\nassert (x, y) == (1, 2) and list(Vector(1, 2)) == [1, 2]"),
    ("own items", "(self.x, self.y)[i]", "(self.y, self.x)[i]", "assert Vector(1, 2)[0] == 1 and Vector(1, 2)[-1] == 2"),
    ("own length", "def __len__(self): return 2", "def __len__(self): return 3", "assert len(Vector(1, 2)) == 2"),
    ("own call", "self.x * t", "self.y * t", "assert Vector(2, 1)(5) == 10 and callable(Vector(1, 2))"),
    ("a property", "def norm(self): return abs(self)", "def norm(self): return 0", "assert Vector(3, 4).norm == 5"),
    ("a property is set", "self.x, self.y = n, 0", "self.x, self.y = 0, n", "v = Vector(1, 2)\nv.norm = 7\nassert (v.x, v.y) == (7, 0)"),
    ("a classmethod", "cls(0, 0)", "cls(0, 1)", "assert Vector.zero() == Vector(0, 0) and type(Vector.zero()) is Vector"),
    ("a staticmethod", "def dims(): return 2", "def dims(): return 3", "assert Vector.dims() == Vector(0, 0).dims() == 2"),
    ("a class attribute", "unit = 1", "unit = 2", "assert Vector.unit == Vector(1, 2).unit == 1"),
    ("own hash, in a set", "hash((self.x, self.y))", "id(self)", "assert len({Vector(1, 2), Vector(1, 2), Vector(2, 1)}) == 2"),
    ("own hash, as a key", "hash((self.x, self.y))", "id(self)", "assert {Vector(1, 2): 'a'}[Vector(1, 2)] == 'a'"),
    ("in a list of its own kind", "(self.x, self.y) == (o.x, o.y)", "False", "assert Vector(1, 2) in [Vector(0, 0), Vector(1, 2)] and [Vector(1, 2)].index(Vector(1, 2)) == 0"),
    ("the greatest by a key", "Vector(self.x * k", "Vector(-self.x * k", "assert max([Vector(1, 2), Vector(3, 0)], key=lambda v: (v * 2).x).x == 3"),
    ("containment without iteration", "return x in self.items", "return x == 4", "t = Tree()\nt.insert(3).insert(5)\nassert 3 in t and 4 not in t"),
    ("the type of an object", "return Vector(x, 0)", "return Tree()", "v = entry_fn(1)\nassert type(v) is Vector and v.__class__ is Vector"),
    ("the name of a type", "return Vector(x, 0)", "return Tree()", "assert type(entry_fn(1)).__name__ == 'Vector' == entry_fn(1).__class__.__name__"),
    ("isinstance of a class", "return Vector(x, 0)", "return Tree()", "assert isinstance(entry_fn(1), Vector) and not isinstance(entry_fn(1), (Tree, list))"),
    ("isinstance of interfaces", "def __len__(self): return 2", "", "from collections.abc import Sized, Iterable, Callable, Hashable\nassert all(isinstance(entry_fn(1), k) for k in (Sized, Iterable, Callable, Hashable))"),
    ("hasattr", "self.x, self.y = x, y", "self.x, self.z = x, y", "assert hasattr(entry_fn(1), 'y') and not hasattr(entry_fn(1), 'z') and hasattr(Vector, 'zero')"),
    ("not callable", "return Vector(x, 0)", "return len", "assert not callable(Tree()) and callable(Tree) and hasattr(entry_fn(1), 'norm')"),
    ("dir", "def dims", "def sizes", "assert 'dims' in dir(Vector) and 'dims' in dir(Vector(1, 2)) and 'x' in dir(Vector(1, 2))"),
    ("vars", "self.x, self.y = x, y", "self.x, self.y = x, 0", "assert vars(Vector(1, 2)) == {'x': 1, 'y': 2} == Vector(1, 2).__dict__"),
    ("an abstract class", "    @abc.abstractmethod\n", "", "try:\n    Shape()\nexcept TypeError:\n    pass\nelse:\n    assert False\nassert issubclass(Square, Shape)"),
    ("a class that inherits", "self.side ** 2", "self.side", "s = Square(3)\nassert isinstance(s, Shape) and s.area() == 9 and s.describe() == 'square of 9'"),
    ("the tests extend an abstract class", "2 * self.area()", "self.area()", "class Mine(Shape):\n    def area(self): return 5\nm = Mine()\nassert m.twice() == 10 and isinstance(m, Shape)"),
    ("the tests extend and call super", "from {self.kind}", "of {self.kind}", "class Sub(Base):\n    kind = 'sub'\n    def who(self): return 'sub of ' + super().who()\nassert Sub().greet() == 'sub of base from sub'"),
    ("an inherited init", "{self.name} of {self.area()}", "{self.area()}", "class Mine(Shape):\n    def __init__(self, n):\n        super().__init__('mine')\n        self.n = n\n    def area(self): return self.n\nm = Mine(4)\nassert m.name == 'mine' and m.n == 4 and m.describe() == 'mine of 4'"),
    ("an extended class is given to the program", "return base.greet()", "return base.who()", "class Sub(Base):\n    def who(self): return 'me'\nassert use(Sub()) == 'me from base' and use(Base()) == 'base from base'"),
    ("a step of a template is replaced", "self.step(x) for x in xs", "x for x in xs", "class Sub(Base):\n    def step(self, x): return x * 10\nassert Sub().template([1, 2]) == [10, 20] and Base().template([1]) == [2]"),
    ("the tests' object fits a protocol", "s.speak() * 2", "s.speak()", "class Dog:\n    def speak(self): return 'wau'\nassert isinstance(Dog(), Speaks) and not isinstance(3, Speaks) and speak_twice(Dog()) == 'wauwau'"),
    ("a NamedTuple", "y: int = 0", "y: int = 1", "p = Point(1)\nassert p == (1, 0) and p.x == 1 and p._fields == ('x', 'y') and type(p) is Point"),
    ("a NamedTuple's method", "self.x + self.y", "self.x", "assert Point(1, 2).total() == 3 and Point(1, 2)._replace(x=5).total() == 7"),
    ("a NamedTuple in a dict", "x: int\n    y: int", "y: int\n    x: int", "assert Point(1, 2)._asdict() == {'x': 1, 'y': 2} and {Point(1, 2): 1}[(1, 2)] == 1"),
    ("a dataclass", "price: float = 1.0", "price: float = 2.0", "i = Item('a')\nassert (i.name, i.price, i.tags) == ('a', 1.0, []) and i == Item('a') and i != Item('b')"),
    ("asdict and astuple", "price: float = 1.0", "price: float = 2.0", "from dataclasses import asdict, astuple\nassert asdict(Item('a')) == {'name': 'a', 'price': 1.0, 'tags': []} and astuple(Item('a')) == ('a', 1.0, [])"),
    ("fields and is_dataclass", "price: float", "cost_: float", "import dataclasses\nassert [x.name for x in dataclasses.fields(Item)] == ['name', 'price', 'tags'] and dataclasses.is_dataclass(Item('a'))"),
    ("replace", "self.price * 2", "2", "import dataclasses\nassert dataclasses.replace(Item('a'), price=4.0).cost() == 8.0"),
    ("a frozen dataclass", "frozen=True, ", "", "import dataclasses\nv = Version(1)\ntry:\n    v.major = 2\nexcept dataclasses.FrozenInstanceError:\n    pass\nelse:\n    assert False\nassert hash(v) == hash(Version(1))"),
    ("an ordered dataclass", "minor: int = 0", "minor: int = dataclasses.field(default=0, compare=False)", "assert Version(1, 2) < Version(1, 3) and max(Version(1, 9), Version(2)) == Version(2)"),
    ("the picture of a dataclass", "class Version:", "class Version:\n    def __repr__(self): return 'v'", "assert repr(Version(1)) == 'Version(major=1, minor=0)'"),
    ("match on a class", "minor: int = 0", "minor: int = 1", "match Version(3):\n    case Version(major=3, minor=m):\n        assert m == 0\n    case _:\n        assert False"),
    ("a copy", "self.value, self.links = value, []", "self.value, self.links = 0, []", "import copy\nn = Node(4)\nm = copy.copy(n)\nassert m is not n and m.value == 4 and type(m) is Node"),
    ("a deep copy", "a.links, b.links = [b, c], [c]", "a.links, b.links = [b, b], [c]", "import copy\ng = graph()\nh = copy.deepcopy(g)\nassert h is not g and h.links[0] is not g.links[0] and h.links[0].links[0] is h.links[1]"),
    ("a pickle and back", "self.x, self.y = x, y", "self.x, self.y = x, 0", "import pickle\nv = pickle.loads(pickle.dumps(Vector(1, 2)))\nassert v == Vector(1, 2) and v.y == 2"),
    ("nodes that are shared", "[b, c], [c]", "[b, c], [Node(3)]", "g = graph()\nassert g.links[1] is g.links[0].links[0]"),
    ("one row three times", "[[0] * 2] * 2", "[[0] * 2 for _ in range(2)]", "g = grid()\nassert g[0] is g[1] and g == [[0, 0], [0, 0]]"),
    ("a list subclass with methods", "return self[-1]", "return self[0]", "s = Stack()\ns.push(1).push(2)\nassert s.peek() == 2 and s == [1, 2] and len(s) == 2 and s.pop() == 2"),
    ("a list subclass that the tests change", "return self[-1]", "return self[0]", "s = Stack([1])\ns.append(5)\nassert s.peek() == 5 and list(s) == [1, 5]"),
    ("a context sees the exception", "str(error)", "''", "c = Suppress()\nwith c:\n    raise ValueError('x')\nassert c.seen == ('ValueError', 'x')"),
    ("a context swallows", "kind is ValueError", "False", "with Suppress():\n    raise ValueError('x')"),
    ("a context lets through", "kind is ValueError", "True", "try:\n    with Suppress():\n        raise KeyError('x')\nexcept KeyError:\n    pass\nelse:\n    assert False"),
    ("a context without an exception", "kind.__name__ if kind else None", "'none'", "with Suppress() as c:\n    pass\nassert c.seen == (None, 'None')"),
    ("a transaction rolls back", "self.balance = before", "pass", "a = Account()\ntry:\n    with a.transaction():\n        a.balance = 3\n        raise RuntimeError('x')\nexcept RuntimeError:\n    pass\nassert a.balance == 10"),
    ("a transaction goes through", "except Exception", "finally:\n            self.balance = before\n        try: pass\n        except Exception", "a = Account()\nwith a.transaction() as b:\n    b.balance = 3\nassert a.balance == 3"),
    ("a contextmanager swallows", "except KeyError", "except ValueError", "with swallowing() as x:\n    assert x == 5\n    raise KeyError('x')"),
    ("an iterator of its own", "self.i >= self.n", "self.i > self.n", "assert list(Counter2(3)) == [1, 2, 3] and sum(Counter2(4)) == 10 and iter(Counter2(1)) is not None"),
    ("an iterator that ends", "self.i >= self.n", "self.i > self.n", "c = Counter2(1)\nassert next(c) == 1 and next(c, 'end') == 'end'"),
    ("a generator that sums", "got or 0", "0", "g = gen(3)\nnext(g)\nassert g.send(5) == 5 and g.send(2) == 7"),
    ("a generator that is closed", "yield total", "total = total", "g = gen(3)\nnext(g)\ng.close()\nassert list(g) == []"),
    ("a generator that is thrown at", "got = yield total", "try:\n            got = yield total\n        except KeyError: got = 0", "g = gen(3)\nnext(g)\ntry:\n    g.throw(KeyError('x'))\nexcept KeyError:\n    pass\nelse:\n    assert False"),
    ("functions composed", "g(f(x))", "f(g(x))", "assert compose(lambda x: x + 1, lambda x: x * 2)(3) == 8"),
    ("weak references", "self.value, self.links = value, []", "self.value, self.links = 1, []", "import weakref\nn = Node(4)\nr = weakref.ref(n)\nassert r() is n and r().value == 4"),
    ("a bound method is kept", "def insert(self, x): self.items.append(x)", "def insert(self, x): self.items.insert(0, x)", "t = Tree()\nadd = t.insert\nfor i in (1, 2):\n    add(i)\nassert t.items == [1, 2]"),
    ("methods are mapped", "self.x * t", "t", "assert list(map(Vector(2, 0), [1, 2])) == [2, 4]"),
    ("a function's name and text", "def shared_arg(xs)", "def shared_arg(ys)", "import inspect\nassert shared_arg.__name__ == 'shared_arg' and str(inspect.signature(shared_arg)) == '(xs)'"),
    ("objects in objects", "self.items.append(x); return self", "return self", "t = Tree()\nv = Vector(1, 2)\nt.insert(v)\nassert t.items[0] is v and v in t"),
)  # fmt: skip

RUN = "import asyncio\n"
rows(
    CONCURRENT,
    ("a pool of threads calls", "x * x", "x + x", "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as p:\n    assert list(p.map(square, range(20))) == [i * i for i in range(20)]"),
    ("threads run the program", "total += 1", "total += 2", "import threading\nts = [threading.Thread(target=bump, args=(50,)) for _ in range(4)]\n[t.start() for t in ts]\n[t.join() for t in ts]\nassert current() == 200"),
    ("threads use an object", "self.n += 1", "self.n = 1", "import threading\ns = Safe()\nts = [threading.Thread(target=s.add) for _ in range(8)]\n[t.start() for t in ts]\n[t.join() for t in ts]\nassert s.n == 8"),
    ("the program's threads call the tests", "list(pool.map(fn, xs))", "list(pool.map(fn, xs))[::-1]", "seen = []\ndef cb(x):\n    seen.append(x)\n    return x + 1\nassert spread(cb, [1, 2, 3]) == [2, 3, 4] and sorted(seen) == [1, 2, 3]"),
    ("a coroutine", "x * 2", "x * 3", RUN + "assert asyncio.run(slow(2)) == 4"),
    ("coroutines gathered", "x * 2", "x * 3", RUN + "async def t():\n    return await asyncio.gather(*[slow(i) for i in range(5)])\nassert asyncio.run(t()) == [0, 2, 4, 6, 8]"),
    ("coroutines at the same time", "asyncio.sleep(delay)", "asyncio.sleep(time.sleep(delay) or 0)", RUN + "import time\nasync def t():\n    b = time.perf_counter()\n    await asyncio.gather(*[slow(i, 0.2) for i in range(5)])\n    return time.perf_counter() - b\nassert asyncio.run(t()) < 0.7"),
    ("a time-out that fires", "asyncio.sleep(30)\nasync def ticks", "asyncio.sleep(0)\nasync def ticks", RUN + "async def t():\n    try:\n        await asyncio.wait_for(forever(), 0.05)\n    except asyncio.TimeoutError:\n        return 'late'\nassert asyncio.run(t()) == 'late'"),
    ("a time-out that does not", "x * 2", "x * 3", RUN + "async def t():\n    return await asyncio.wait_for(slow(2), 5)\nassert asyncio.run(t()) == 4"),
    ("a task", "x * 2", "x * 3", RUN + "async def t():\n    task = asyncio.create_task(slow(3))\n    return await task\nassert asyncio.run(t()) == 6"),
    ("a task that is cancelled", "cancelled.append(1)", "pass", RUN + "async def t():\n    task = asyncio.create_task(careful())\n    await asyncio.sleep(0.02)\n    task.cancel()\n    try:\n        await task\n    except asyncio.CancelledError:\n        return True\nassert asyncio.run(t()) and was_cancelled() == 1"),
    ("an async for", "yield i", "yield i + 1", RUN + "async def t():\n    return [i async for i in ticks(3)]\nassert asyncio.run(t()) == [0, 1, 2]"),
    ("an async exception", "LookupError", "ValueError", RUN + "async def t():\n    try:\n        await fails()\n    except LookupError as e:\n        return str(e)\nassert asyncio.run(t()) == 'async'"),
    ("an async context", "self.open = True; return self", "return self", RUN + "async def t():\n    async with Pool() as p:\n        inside = p.open\n    return inside, p.open\nassert asyncio.run(t()) == (True, False)"),
    ("an async context sees the exception", "kind and kind.__name__", "None", RUN + "p = Pool()\nasync def t():\n    async with p:\n        raise KeyError('x')\nasyncio.run(t())\nassert p.seen == 'KeyError'"),
    ("an async context lets through", "kind is KeyError", "True", RUN + "async def t():\n    async with Pool():\n        raise ValueError('x')\ntry:\n    asyncio.run(t())\nexcept ValueError:\n    pass\nelse:\n    assert False"),
    ("an asynccontextmanager swallows", "except ValueError:\n        pass", "except KeyError:\n        pass", RUN + "async def t():\n    async with managed() as x:\n        assert x == 3\n        raise ValueError('x')\nasyncio.run(t())"),
    ("an awaitable of its own", "return 8", "return 9", RUN + "async def t():\n    return await Later()\nassert asyncio.run(t()) == 8"),
    ("an async function of the tests", "await cb(x) + 1", "await cb(x)", RUN + "async def cb(x):\n    await asyncio.sleep(0)\n    return x * 5\nassert asyncio.run(with_callback(cb, 2)) == 11"),
)  # fmt: skip

NP = "import numpy as np\n"
rows(
    NUMPY,
    ("an array is changed in place", "a *= 2", "a * 2", NP + "a = np.array([1.0, 2.0])\ndouble(a)\nassert a.tolist() == [2.0, 4.0]"),
    ("an item of an array is set", "a[0] = 0", "a[0] = 1", NP + "a = np.array([[1, 2], [3, 4]])\nzero(a)\nassert a.tolist() == [[0, 0], [3, 4]]"),
    ("an array without rows", "np.zeros((0, 3))", "np.zeros((3, 0))", NP + "assert empty().shape == (0, 3)"),
    ("an array of truths", "[x, not x]", "[not x, x]", NP + "assert flags(True).dtype == bool and flags(True).tolist() == [True, False]"),
    ("a long double", "1.25", "1.5", NP + "assert long() == np.longdouble('1.25') and long().dtype == np.longdouble"),
    ("not a number", "np.nan]", "1.0]", NP + "assert np.isnan(nan()[1]) and np.array_equal(nan(), [1.0, np.nan], equal_nan=True)"),
    ("days", "2024-01-02", "2024-01-03", NP + "assert days()[1] == np.datetime64('2024-01-02') and days().dtype.kind == 'M'"),
    ("a span of time", "3, \"h\"", "4, \"h\"", NP + "assert span() == np.timedelta64(180, 'm')"),
    ("complex numbers", "1 - 2j", "1 - 3j", NP + "assert np.allclose(roots(), [1 + 2j, 1 - 2j])"),
    ("a short float", "float32(0.5)", "float64(0.5)", NP + "assert single() == 0.5 and type(single()) is np.float32"),
    ("an array of texts", "\"bb\"", "\"b\"", NP + "assert texts().tolist() == ['a', 'bb']"),
    ("an array is given", "a.sum()", "a.max()", NP + "assert total(np.arange(5)) == 10 and shape(np.zeros((2, 0))) == (2, 0)"),
    ("an array comes back itself", "def back(a): return a", "def back(a): return a.copy()", NP + "a = np.arange(3)\nassert back(a) is a"),
)  # fmt: skip
