"""What honest programs and tests rely on, across the wall between them and in a plain run."""

from __future__ import annotations

import itertools

import pytest

from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import (
    AssertSuite,
    Case,
    CheckSuite,
    FunctionSuite,
    Limits,
    Program,
    Report,
    StdioCase,
    StdioSuite,
    Stop,
)

LIMITS = Limits(cpu_s=2)

PROGRAM = """
import collections, datetime, decimal, enum, fractions, functools, heapq, math
from typing import NamedTuple

LIMIT = 10

class Point(NamedTuple):
    x: int
    y: int

class Colour(enum.IntEnum):
    RED = 1

class Stack:
    def __init__(self, items=()):
        self.items = list(items)
    def push(self, item): self.items.append(item)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __getitem__(self, i): return self.items[i]
    def __repr__(self): return f"Stack({self.items})"
    @property
    def top(self): return self.items[-1]
    @classmethod
    def of(cls, *items): return cls(items)
    class Empty(Exception): pass

class TooBig(ValueError): pass

def identity(x): return x
def walk(s): return list(s)
def typed(x): return type(x).__name__
def sort_in_place(xs): xs.sort()
def clear(d): d.clear(); d["left"] = True
def grow(s, q): s.add(9); q.append(9)
def count_up(n):
    for i in range(n): yield i
def adder(n): return lambda x: x + n
def apply(g, *args): return g(*args)
def compose(g, h): return lambda x: g(h(x))
def sort_by(xs, key): return sorted(xs, key=key)
def total(numbers): return sum(numbers)
def fail(x): raise ValueError(f"bad {x}")
def fail_own(x): raise TooBig("too big")
def fail_key(d, k): return d[k]
def colour(): return Colour.RED
def point(): return Point(1, 2)
def money(): return decimal.Decimal("1.10")
def half(): return fractions.Fraction(1, 2)
def day(): return datetime.date(2024, 2, 29)
def counts(s): return collections.Counter(s)
def groups():
    d = collections.defaultdict(list); d["a"].append(1); return d
def queue(): return collections.deque([1, 2], maxlen=3)
def big(): return 2 ** 5000
def nan(): return float("nan")
def inf(): return -math.inf
def default(x, *, scale=2, **rest): return [x * scale, rest]
def reverse_list(head):
    back = None
    while head:
        head.next, back, head = back, head, head.next
    return back
def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
"""

SETUP = """
class Node:
    def __init__(self, value, next=None): self.value, self.next = value, next
def nodes(head):
    return [] if head is None else [head.value] + nodes(head.next)
def double(x): return 2 * x
"""

ASSERTS = [
    "v = [1, (2, 3), {4: {5}}, b'6', 7j, None, True, 1.5, 'ü', range(3)]\nassert identity(v) == v",
    "vs = (1, True, 1.0, 'a', b'a', [], (), {}, set(), 1j)\nassert all(typed(v) == type(v).__name__ for v in vs)",
    "xs = [3, 1, 2]\nassert sort_in_place(xs) is None and xs == [1, 2, 3]",
    "d = {1: 2}\nclear(d)\nassert d == {'left': True}",
    "from collections import deque\ns, q = {1}, deque([1])\ngrow(s, q)\nassert s == {1, 9} and list(q) == [1, 9]",
    "assert list(count_up(4)) == [0, 1, 2, 3]",
    "g = count_up(2)\nassert next(g) == 0 and next(g) == 1 and next(g, 'end') == 'end'",
    "assert sum(x for x in count_up(4)) == 6 and 3 in count_up(4)",
    "assert adder(3)(4) == 7",
    "for s in ({12, 13, 14, 15, 16}, set(range(12, 17)), {'a', 'b', 'c', 'd', 'e'}):\n    assert walk(s) == list(s)",
    "assert apply(lambda a, b: a - b, 5, 3) == 2",
    "assert apply(double, 4) == 8 and apply(len, [1, 2]) == 2 and apply(str.upper, 'a') == 'A'",
    "seen = []\napply(seen.append, 3)\nassert seen == [3]",
    "assert compose(double, lambda x: x + 1)(3) == 8",
    "assert sort_by(['bb', 'a', 'ccc'], key=lambda s: -len(s)) == ['ccc', 'bb', 'a']",
    "import operator\nassert apply(operator.add, 1, 2) == 3",
    "import operator\nassert sort_by([(1, 'b'), (2, 'a')], operator.itemgetter(1)) == [(2, 'a'), (1, 'b')]",
    "assert total(x * x for x in range(4)) == 14 and total(iter([1, 2])) == 3 and total({1: 2}.values()) == 2",
    "try:\n    fail(3)\nexcept ValueError as error:\n    assert str(error) == 'bad 3'\nelse:\n    assert False",
    "try:\n    fail_own(3)\nexcept TooBig as error:\n    assert str(error) == 'too big'\nelse:\n    assert False",
    "try:\n    fail_own(3)\nexcept ValueError:\n    pass\nelse:\n    assert False",
    "try:\n    fail_key({}, 'k')\nexcept KeyError as error:\n    assert error.args == ('k',)",
    "s = Stack()\ns.push(1); s.push([2])\nassert s.pop() == [2] and len(s) == 1 and list(s) == [1]",
    "s = Stack([1, 2])\nassert s[0] == 1 and s.top == 2",
    "assert repr(Stack([1])) == 'Stack([1])' and f'{Stack.of(1, 2)}' == 'Stack([1, 2])'",
    "assert bool(Stack()) is False and bool(Stack([1])) is True",
    "s = Stack()\nassert identity(s) is s and s == s and s != Stack()",
    "s = Stack([1])\ns.items = [5]\nassert s.pop() == 5",
    "assert isinstance(Stack.Empty('x'), Stack.Empty)",
    "assert isinstance(Stack(), Stack) and not isinstance(colour(), Stack) and not isinstance([], Stack)",
    "assert isinstance(Stack(), (int, Stack)) and issubclass(Stack, Stack) and not issubclass(Colour, Stack)",
    "assert issubclass(Colour, Colour) and isinstance(colour(), Colour) and not isinstance(1, Colour)",
    "assert LIMIT == 10 and math.floor(1.5) == 1 and heapq.nlargest(1, [1, 2]) == [2]",
    "assert colour() == 1 and 1 == colour() and colour() + 1 == 2 and colour() < 2",
    "assert isinstance(colour(), int) and not isinstance(colour(), str)",
    "assert point() == (1, 2) and point().x == 1",
    "from decimal import Decimal\nassert money() == Decimal('1.10')",
    "from fractions import Fraction\nassert half() == Fraction(1, 2) and half() == 0.5",
    "import datetime\nassert day() == datetime.date(2024, 2, 29)",
    "assert counts('aab') == {'a': 2, 'b': 1} and groups() == {'a': [1]} and list(queue()) == [1, 2]",
    "assert big() == 2 ** 5000 and nan() != nan() and inf() == float('-inf')",
    "assert default(2) == [4, {}] and default(2, scale=3, more=1) == [6, {'more': 1}]",
    "assert nodes(reverse_list(Node(1, Node(2, Node(3))))) == [3, 2, 1]",
    "assert identity(double) is double and identity(Node(1)).value == 1",
    "assert depth(900) == 900",
    "assert abs(half() - 0.5) < 1e-9 and identity('x' * 1_000_000) == 'x' * 1_000_000",
    "assert identity('\\ud800') == '\\ud800' and identity(int) is int and identity(...) is ...",
]


def test_honest_tests_pass_across_the_wall(sandbox: Sandbox) -> None:
    report = judge(Program("python", PROGRAM), AssertSuite(tuple(ASSERTS), SETUP, "identity"), LIMITS, Stop(), sandbox)
    wrong = {text: (test.verdict, test.detail) for text, test in zip(ASSERTS, report.tests, strict=True) if test.detail}
    assert wrong == {}
    assert report.passed == len(ASSERTS)


def test_what_cannot_be_split_says_so(sandbox: Sandbox) -> None:
    source = "class V:\n    def __add__(self, o): return 3\n    def __lt__(self, o): return True\ndef f(): return V()"
    report = judge(
        Program("python", source), AssertSuite(("assert f() + 1 == 3", "assert f() < 1")), LIMITS, Stop(), sandbox
    )
    assert [test.verdict for test in report.tests] == ["invalid_result"] * 2
    assert "would be computed by the program itself" in report.tests[0].detail


def test_helpers_of_the_prompt_are_the_tests_own(sandbox: Sandbox) -> None:
    """The test of HumanEval/32 calls a helper that the prompt defines: a program may not replace it."""
    prompt = """
def poly(xs, x):
    return sum(c * x ** i for i, c in enumerate(xs))

def find_zero(xs):
    '''Zero of poly.'''
"""
    test = "def check(candidate):\n    assert abs(poly([-6, 2], candidate([-6, 2]))) < 1e-6\n"
    suite = CheckSuite(test, "find_zero", prompt)
    honest = judge(Program("python", "    return 3.0\n"), suite, LIMITS, Stop(), sandbox)
    cheat = judge(Program("python", "    return 1.0\ndef poly(xs, x): return 0\n"), suite, LIMITS, Stop(), sandbox)
    assert (honest.verdict, cheat.verdict) == ("passed", "wrong_answer")
    assert (honest.passed, honest.total, honest.judge) == (1, 1, "split")


@pytest.mark.parametrize(
    ("source", "args", "kwargs", "expected", "verdict"),
    [
        ("def f(x): return (x, [x])", (1,), {}, [1, [1]], "passed"),
        ("def f(x): return {x: 1.0}", (1,), {}, {"1": 1}, "passed"),
        ("def f(x, y): return x - y", (1,), {"y": 3}, -2, "passed"),
        ("def f(x): return {3, 1, 2}", (1,), {}, {1, 2, 3}, "passed"),
        ("def f(x): return 0.1 + 0.2", (1,), {}, 0.3, "wrong_answer"),
        ("def f(x): return iter([1])", (1,), {}, [1], "invalid_result"),
        ("def f(x): return lambda: 1", (1,), {}, 1, "invalid_result"),
        ("def f(x):\n    a = []\n    a.append(a)\n    return a", (1,), {}, [], "invalid_result"),
        ("def g(x): return 1", (1,), {}, 1, "runtime_error"),
        ("def f(): return 1", (1,), {}, 1, "runtime_error"),
        ("def f(x): return 'x' * (20 << 20)", (1,), {}, "x", "invalid_result"),
    ],
)
def test_returned_values_are_compared_outside(
    sandbox: Sandbox, source: str, args: tuple[object, ...], kwargs: dict[str, object], expected: object, verdict: str
) -> None:
    suite = FunctionSuite("f", (Case(args, kwargs, expected),))
    report = judge(Program("python", source), suite, LIMITS, Stop(), sandbox)
    assert report.tests[0].verdict == verdict, report.tests[0].detail


def test_floats_may_differ_by_a_tolerance(sandbox: Sandbox) -> None:
    suite = FunctionSuite("f", (Case((1,), {}, [0.3, {"a": 1}]),), rel_tol=1e-9)
    report = judge(Program("python", "def f(x): return [0.1 + 0.2, {'a': 1.0}]"), suite, LIMITS, Stop(), sandbox)
    assert report.verdict == "passed"


def test_a_method_can_be_the_entry_point(sandbox: Sandbox) -> None:
    source = "class Solution:\n    def twoSum(self, nums, target): return [0, 1]"
    suite = FunctionSuite("Solution.twoSum", (Case(([1, 2], 3), {}, [0, 1]),))
    assert judge(Program("py3", source), suite, LIMITS, Stop(), sandbox).verdict == "passed"


def run_script(sandbox: Sandbox, source: str, stdin: str = "") -> Report:
    return judge(Program("python", source), StdioSuite((StdioCase(stdin, ""),)), LIMITS, Stop(), sandbox)


def test_a_script_sees_what_python_shows_it(sandbox: Sandbox) -> None:
    source = """
import os, sys, inspect
print(__name__, __file__, sys.argv, os.getcwd(), sys.getrecursionlimit(), sys.path[0])
print(sys.modules["__main__"].__dict__ is globals(), __builtins__.__name__, __doc__, __spec__)
print(sys.stdin.encoding, sys.stdout.encoding, os.environ["HOME"], sorted(os.environ))
def here(): return 1
print(inspect.getsource(here).strip(), sys.get_int_max_str_digits(), sys.flags.hash_randomization)
"""
    lines = run_script(sandbox, source).tests[0].stdout.splitlines()
    assert lines[0] == "__main__ /tmp/main.py ['/tmp/main.py'] /tmp 1000 /tmp"
    assert lines[1] == "True builtins None None"
    assert lines[2].startswith("utf-8 utf-8 /tmp [")
    assert lines[3] == "def here(): return 1 4300 0"


@pytest.mark.parametrize("head", ["", "import numpy\n"], ids=["light", "numpy"])
def test_nothing_of_how_it_was_started_shows(sandbox: Sandbox, head: str) -> None:
    source = """
import os, signal, threading
assert threading.main_thread() is threading.current_thread()
assert threading.main_thread().native_id == threading.get_native_id() == os.getpid()
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL and signal.set_wakeup_fd(-1) == -1
assert not [name for name in os.environ if name.startswith("LD_")]
child = os.fork()
if child == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    report = run_script(sandbox, head + source)
    assert report.verdict == "passed", report.tests[0].stderr


def test_a_traceback_shows_the_programs_lines_and_no_other(sandbox: Sandbox) -> None:
    report = run_script(sandbox, "def f():\n    return 1 / 0\n\nf()\n")
    assert report.tests[0].stderr.splitlines() == [
        "Traceback (most recent call last):",
        '  File "/tmp/main.py", line 4, in <module>',
        "    f()",
        '  File "/tmp/main.py", line 2, in f',
        "    return 1 / 0",
        "           ~~^~~",
        "ZeroDivisionError: division by zero",
    ]
    report = run_script(sandbox, "x = (\n")
    assert report.tests[0].stderr.splitlines()[0] == '  File "/tmp/main.py", line 1'
    assert report.tests[0].stderr.splitlines()[-1] == "SyntaxError: '(' was never closed"


def test_exit_codes_are_pythons(sandbox: Sandbox) -> None:
    for source, detail in (
        ("import sys; sys.exit(3)", "exit code 3"),
        ("raise SystemExit('msg')", "exit code 1"),
        ("exit(4)", "exit code 4"),
        ("raise KeyboardInterrupt", "killed by SIGINT (signal 2)"),
    ):
        assert run_script(sandbox, source).tests[0].detail == detail
    assert run_script(sandbox, "raise SystemExit('msg')").tests[0].stderr == "msg\n"


def test_numpy_is_there_where_the_host_has_it(sandbox: Sandbox) -> None:
    report = run_script(sandbox, "import numpy; print(numpy.arange(3).sum())")
    if "No module named 'numpy'" in report.tests[0].stderr:
        pytest.skip("the base interpreter of this host has no numpy")
    assert report.tests[0].stdout == "3\n"
    source = "import numpy as np\ndef f(x): return np.array(x) * 2\ndef g(x): return np.int64(x)"
    asserts = ("import numpy as np\nassert (f([1, 2]) == np.array([2, 4])).all()", "assert g(3) == 3")
    assert judge(Program("python", source), AssertSuite(asserts), LIMITS, Stop(), sandbox).passed == 2
    suite = FunctionSuite("f", (Case(([1, 2],), {}, [2, 4]),))
    assert judge(Program("python", source), suite, LIMITS, Stop(), sandbox).verdict == "passed"


def test_a_literal_set_is_walked_in_the_order_that_python_gives_it(sandbox: Sandbox) -> None:
    """A wrong program that leans on the order of a set is as wrong here as in a plain process, whatever the way."""
    program = Program("python", "def f(s): return tuple(s)")
    for text in ("{6, 7, 8, 9, 10, 11}", "{15, 16, 17, 18}", "{3, 1, 2}", "{(1, 2), (0, 9)}", "[{1}, {9, 8}]"):
        order = tuple(eval(text))
        for want in (order, order[::-1]):
            literal = AssertSuite((f"assert f({text}) == {want!r}",))
            longer = AssertSuite((f"assert f({text}) == {want!r}",), "x = 1", "f")
            verdicts = [judge(program, suite, LIMITS, Stop(), sandbox).passed for suite in (literal, longer)]
            assert verdicts == [int(want == order)] * 2, (text, want)
    # Texts are hashed with the jail's seed, which is the same for all, and not with that of this process.
    for want in itertools.permutations("abcd"):
        text = f"assert f({{'c', 'b', 'a', 'd'}}) == {want}"
        ways = AssertSuite((text,)), AssertSuite((text,), "x = 1", "f")
        assert len({judge(program, suite, LIMITS, Stop(), sandbox).passed for suite in ways}) == 1
