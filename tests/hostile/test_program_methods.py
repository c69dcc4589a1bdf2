"""An answer computes nothing: what decides a test is never a method of an object that the test does not speak of.

Where a test does speak of the program's classes, its methods and operators are the program's, and the report says so
(`judge: "program_methods"`). The honest side of the same is in `test_ordinary_objects.py`.
"""

from __future__ import annotations

import pytest

from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.judge.suite_analysis import complete_part, read
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, CheckSuite, Limits, Program, Report, Stop, Suite

LIMITS = Limits(cpu_s=5)


def judged(sandbox: Sandbox, source: str, suite: Suite) -> Report:
    return judge(Program("python", source), suite, LIMITS, Stop(), sandbox)


def run(sandbox: Sandbox, source: str, *asserts: str, setup: str = "") -> Report:
    return judged(sandbox, source, AssertSuite(asserts, setup, "f"))


def forged(report: Report, asserts: tuple[str, ...]) -> list[str]:
    return [text for text, test in zip(asserts, report.tests, strict=True) if test.verdict == "passed"]


DUCK = """
class D:
    def __getattr__(self, name): return lambda *a, **k: True
    def __eq__(self, o): return True
    def __ne__(self, o): return False
    def __lt__(self, o): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __sub__(self, o): return 0
    __rsub__ = __add__ = __radd__ = __mod__ = __floordiv__ = __and__ = __xor__ = __sub__
    def __hash__(self): return hash(5)
    def get(self, key, default=None): return default
    def pop(self, key, default=None): return default
    def union(self, o): return o
def f(*x): return D()
"""
DUCK_TESTS = (
    "assert f('hello').startswith('he')",
    "assert f(1).isdigit()",
    "assert f(1).issubset({1, 2})",
    "assert f(1).equals([1, 2])",
    "assert f(1).almost_equal(3.5)",
    "assert f(1).is_integer()",
    "assert f(1).all()",
    "assert f(1).any()",
    "assert f(1).count(3)",
    "assert f(1).union({5}) == {5}",
    "assert f(1).get('a', 7) == 7",
    "assert f(1).pop('a', 7) == 7",
    "assert f(1) == 5",
    "assert not (f(1) != 5)",
    "assert f(1) < 5",
    "assert 3 in f(1)",
    "assert f(1) in [5]",
    "assert f(1) in {5}",
    "assert {5: 'a'}[f(1)] == 'a'",
    "assert abs(f(1) - 0.5) < 1e-9",
    "assert abs(0.5 - f(1)) < 1e-9",
    "assert f(1) % 2 == 0",
    "assert f(1) == f(2)",
    "assert f([1, 2]) == f([2, 1])",
    "assert [f(1)] == [5]",
    "assert sorted([f(1), 3]) == [3, 5]",
    "assert max(f(1), 3) == 5",
    "assert isinstance(f(1), int)",
    "assert f(1) is True",
    "import math\nassert math.isclose(f(1), 0.5)",
    "import unittest\nunittest.TestCase().assertAlmostEqual(f(1), 0.5)",
    "import unittest\nunittest.TestCase().assertCountEqual(f(1), [5])",
)


def test_a_duck_passes_no_test_that_does_not_name_its_class(sandbox: Sandbox) -> None:
    assert forged(run(sandbox, DUCK, *DUCK_TESTS), DUCK_TESTS) == []


@pytest.mark.parametrize("base", ["set", "list", "dict", "str", "int", "float", "tuple", "frozenset"])
def test_methods_of_a_value_are_computed_on_the_value_under_a_subclass(sandbox: Sandbox, base: str) -> None:
    names = (
        "issubset issuperset union symmetric_difference count index get startswith is_integer isdigit items keys copy"
    )
    body = "".join(
        f"    def {name}(self, *a): return seen.append(a) or (a[0] if a else True)\n" for name in names.split()
    )
    source = f"""
seen = []
class T({base}):
{body}    def __eq__(self, o): return True
    def __contains__(self, o): return True
    def __iter__(self): return iter([1, 2, 3])
    def __len__(self): return 3
    def __getitem__(self, key): return 7
    def __bool__(self): return True
    __lt__ = __gt__ = __le__ = __ge__ = __eq__
    __hash__ = None
def f(x): return T()
"""
    tests = (
        "assert f(1).issubset({1}) is 5",
        "assert f(1).issuperset({1, 2})",
        "assert f(1).symmetric_difference({5}) == set()",
        "assert f(1).count(77) == 1",
        "assert f(1).startswith('he')",
        "assert f(1).isdigit()",
        "assert f(1).get('a', 1) == 2",
        "assert f(1) == {1, 2, 3}",
        "assert f(1) == [1, 2, 3]",
        "assert 3 in f(1)",
        "assert sorted(f(1)) == [1, 2, 3]",
        "assert len(f(1)) == 3",
        "assert f(1)[0] == 7",
        "assert f(1)",
        "assert f(1) < {1, 2, 3} and f(1) > {5}",
    )
    assert forged(run(sandbox, source, *tests), tests) == []


def test_a_value_does_not_learn_from_the_tests_what_it_is(sandbox: Sandbox) -> None:
    source = """
class T(set):
    def issubset(self, o):
        self |= set(o)
        return True
    __le__ = issuperset = issubset
class L(list):
    def count(self, e):
        self.append(e)
        return 1
def f(x): return T() if x else L()
"""
    tests = (
        "r = f(1)\nassert r.issubset({1, 2, 3})\nassert r == {1, 2, 3}",
        "r = f(1)\nassert r <= {1, 2}\nassert r == {1, 2}",
        "r = f(0)\nfor e in (3, 1, 2): assert r.count(e) == 1\nassert sorted(r) == [1, 2, 3]",
        "r = f(0)\nr.count(5)\nassert r == [5]",
    )
    assert forged(run(sandbox, source, *tests), tests) == []


SAID = """
import gc, json
def end(): return next(thing for thing in gc.get_objects() if type(thing).__name__ == "Endpoint")
def f(x): type(end()).work.__globals__["codec"].encode = lambda value, *rest: TREE
"""
TREES = (
    {"t": "namedtuple", "n": "str", "f": ["startswith"], "v": [True]},
    {"t": "h", "mine": True, "id": 1, "type": "S", "c": {"t": "type", "v": "str"}},
    {"t": "h", "mine": True, "id": 1, "type": "S", "c": {"t": "type", "v": "int"}, "base": "int", "v": "5"},
    {"t": "h", "mine": True, "id": 1, "type": "str", "native": "object"},
    {"t": "h", "mine": True, "id": 1, "type": "str", "c": {"t": "h", "mine": True, "id": 2, "class": True}},
    {"t": "h", "mine": True, "id": 1, "type": "x", "ref": ["builtins", "id"]},
    {"t": "h", "mine": True, "id": 1, "class": True, "ref": ["subprocess", "Popen"]},
    {"t": "same", "n": 0},
    {"t": "h", "mine": True, "id": 1, "e": {"a": 5}, "c": {"t": "type", "v": "ValueError"}},
)


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: str(tree)[:60])
def test_a_tree_that_only_claims_to_be_a_value_passes_nothing(sandbox: Sandbox, tree: object) -> None:
    tests = (
        "r = f('x')\nassert isinstance(r, str) and r.startswith('he')",
        "r = f('x')\nassert isinstance(r, int) and r == 5",
        "assert f('x') == 'x'",
    )
    report = run(sandbox, SAID.replace("TREE", repr(tree)), *tests)
    assert forged(report, tests) == []


LYING = """
import gc
done = []
class V:
    def __init__(self, n=1): self.n = n
    def __eq__(self, o): return True
def lie():
    if not done:
        done.append(1)
        endpoint = next(thing for thing in gc.get_objects() if type(thing).__name__ == "Endpoint")
        table = endpoint.policy.__globals__["OPERATIONS"]
        truth = table["describe"]
        def describe(o, p, m):
            a = truth(o, p, m)
            LIE
            return a
        table["describe"] = describe
def f(x):
    lie()
    return V(x)
"""
LIES = (
    "a['bases'] = [int]",
    "a['bases'] = [str, int]",
    "a['bases'] = 5",
    "a['bases'] = [o]",
    "a['bases'] = [AssertionError]",
    "a['module'] = 'test_suite'",
    "a['names'] = {'__class__': 'function', '__getattribute__': 'function', '__del__': 'function', '': 'value'}",
    "a['names'] = 7",
    "a['members'] = [['mro', 1], ['__init__', 2]]",
    "a['tuple'] = ['__eq__']",
    "a['fields'] = [['a b', 'int', 1, 1, 0, '_FIELD']]",
    "a['annotations'] = {'a': '1 / 0'}",
    "a['name'] = 'int'",
    "a.clear()",
)


@pytest.mark.parametrize("lie", LIES)
def test_a_class_described_by_lies_passes_nothing(sandbox: Sandbox, lie: str) -> None:
    tests = (
        "assert f(1) == 5",
        "f(1)\nassert V(1) == 5",
        "f(1)\nimport dataclasses\n@dataclasses.dataclass\nclass S(V):\n    q: int = 1\nassert S() == 5",
        "assert isinstance(f(1), int) and f(1) == 5",
        "assert f(1).startswith('a')",
        "assert len({f(1), 5}) == 1",
    )
    assert forged(run(sandbox, LYING.replace("LIE", lie), *tests), tests) == []


def test_a_context_swallows_no_assertion_of_the_test(sandbox: Sandbox) -> None:
    source = """
class C:
    v = 1
    def __enter__(self): return self
    def __exit__(self, *error): return True
    async def __aenter__(self): return self
    async def __aexit__(self, *error): return True
def f(x): return C()
"""
    tests = (
        "with f(1) as c:\n    assert c.v == 2",
        "with f(1) as c:\n    assert c.w == 2",
        "with f(1) as c:\n    assert c['a'] == 2",
        "with C() as c:\n    assert c.v == 2",
        "with C() as c:\n    [1][c.v]",
        "import asyncio\nasync def t():\n    async with C() as c:\n        assert c.v == 2\nasyncio.run(t())",
    )
    assert forged(run(sandbox, source, *tests), tests) == []


def test_an_assertion_in_a_callback_is_not_swallowed(sandbox: Sandbox) -> None:
    source = "def f(g):\n    try:\n        g(1)\n    except BaseException:\n        pass\n"
    tests = ("def g(x):\n    assert x == 2\nf(g)", "seen = []\ndef g(x):\n    assert x == 2, 'no'\nassert f(g) is None")
    assert forged(run(sandbox, source, *tests), tests) == []
    assert run(sandbox, source, "def g(x):\n    raise ValueError(x)\nassert f(g) is None").passed == 1


def test_an_own_exception_that_comes_home_makes_no_suite_invalid(sandbox: Sandbox) -> None:
    """A program that lets the test's ImportError pass has failed the test, which was to see it handled."""
    test = "def g():\n    raise ImportError('x')\nassert f(g) == 1"
    handles = "def f(g):\n    try:\n        g()\n    except ImportError:\n        return 1\n"
    assert run(sandbox, "def f(g): return g()", test).verdict == "runtime_error"
    assert run(sandbox, handles, test).passed == 1
    own = "class Own(Exception): pass\ndef g(): raise Own(3)\n"
    own += "try:\n    f(g)\nexcept Own as e:\n    assert e.args == (3,)\nelse:\n    assert False"
    assert run(sandbox, "def f(g): return g()", own).passed == 1
    assert run(sandbox, "def f(g): raise ValueError", own).passed == 0


def test_a_class_of_the_library_makes_no_object_that_equals_everything(sandbox: Sandbox) -> None:
    tests = ("assert f(1)(2) == 5", "assert f(1)() == f(2)()", "assert f(1)(2).ok() is True", "x = f(1)\nassert x == 5")
    for value in ("unittest.mock._ANY", "unittest.mock.MagicMock", "unittest.mock.ANY", "unittest.mock.MagicMock()"):
        source = f"import unittest.mock\ndef f(x): return {value}"
        assert forged(run(sandbox, source, *tests), tests) == []
    source = "from unittest.mock import MagicMock as f"
    assert run(sandbox, source, "assert f(1) == 5", "assert f(1).equals(5)", "assert 5 in f(1)").passed == 0


def test_a_dataclass_has_no_code_for_a_field_name(sandbox: Sandbox) -> None:
    """`dataclasses` puts the names of a base's fields into a program, which runs among the tests."""
    source = """
import dataclasses
@dataclasses.dataclass
class Item:
    name: str = "a"
field = Item.__dataclass_fields__["name"]
said = "x=(__import__('os')._exit(0))): pass\\ndef g(self"
field.name = said
Item.__dataclass_fields__ = {said: field}
def f(x): return x
"""
    test = "import dataclasses\n@dataclasses.dataclass\nclass Mine(Item):\n    more: int = 1\nassert f(1) == 2"
    assert run(sandbox, source, test).verdict == "wrong_answer"


MARKED = {
    "own equality": "assert V(1) == V(1)",
    "own order": "assert V(1) < V(2)",
    "own sum": "assert (V(1) + V(2)).n == 3",
    "own containment": "assert 1 in V(1)",
    "own truth": "assert V(1)",
    "own hash": "assert len({V(1), V(1)}) == 1",
    "a method": "assert V(1).double() == 2",
    "a helper of the program": "assert close(f(1), 1)",
    "an own exit": "with V(1):\n    raise ValueError('x')",
}
UNMARKED = {
    "a plain value": "x = f(1)\nassert x == 1",
    "an attribute": "assert V(1).n == 1",
    "a constant": "assert LIMIT == 5",
    "another function": "assert close(1, 1)",
    "an enumeration": "f(1)\nassert E.A == 1 and E(1) is E.A",
    "an exception": "try:\n    f(-1)\nexcept Own as e:\n    assert e.code == 3\nelse:\n    assert False",
}
MARKING = """
import enum
LIMIT = 5
class E(enum.IntEnum):
    A = 1
class Own(Exception):
    code = 3
class V:
    def __init__(self, n): self.n = n
    def __eq__(self, o): return self.n == o.n
    def __lt__(self, o): return self.n < o.n
    def __add__(self, o): return V(self.n + o.n)
    def __contains__(self, x): return x == self.n
    def __bool__(self): return True
    def __hash__(self): return hash(self.n)
    def __enter__(self): return self
    def __exit__(self, kind, error, trace): return kind is ValueError
    def double(self): return 2 * self.n
def close(a, b): return abs(a - b) < 1e-9
def f(x):
    if x < 0: raise Own("no")
    return x
"""


@pytest.mark.parametrize("name", [*MARKED, *UNMARKED])
def test_a_pass_that_rests_on_the_programs_methods_is_marked(sandbox: Sandbox, name: str) -> None:
    report = run(sandbox, MARKING, (MARKED | UNMARKED)[name])
    assert report.passed == 1, report.tests[0].detail
    assert report.judge == ("program_methods" if name in MARKED else "split")


def test_a_failed_test_marks_nothing(sandbox: Sandbox) -> None:
    assert run(sandbox, MARKING, "assert V(1) == V(2)", "x = f(1)\nassert x == 1").judge == "split"


LIBRARY = """
yes = lambda *a, **k: True
isclose = allclose = array_equal = deepcopy = reduce = yes
class nx: is_isomorphic = is_connected = yes
class np: allclose = array_equal = isclose = all = yes
class math:
    isclose = floor = yes
    foo = 1
Counter = lambda *a: 0
class OrderedDict:
    def __init__(self, *a): pass
    def __eq__(self, o): return True
class Decimal(OrderedDict): pass
class Fraction(OrderedDict): pass
def sqrt(x): return 0
def f(x): return 0
"""
LIBRARY_TESTS = (
    "assert isclose(f(3), 3.14)",
    "x = f(3)\nassert isclose(x, 3.14)",
    "x = f(3)\nassert nx.is_isomorphic(x, 9)",
    "assert Counter(f('a')) == Counter('aab')",
    "x = f(3)\nassert math.isclose(x, 9) and math.foo",
    "assert np.allclose(f(3), 9)",
    "assert np.allclose(f(3), 9) and np.no_such_thing",
    "assert array_equal(f(3), [9])",
    "assert allclose(f(3), 9)",
    "assert OrderedDict(f([])) == OrderedDict([(1, 2)])",
    "assert Decimal(f(1)) == Decimal('1.5')",
    "assert Fraction(f(1)) == Fraction(1, 2)",
    "assert f(9) == sqrt(9)",
    "assert reduce(lambda a, b: a + b, [f(1), 2]) == 9",
)


def test_no_name_of_the_library_is_the_programs_to_define(sandbox: Sandbox) -> None:
    assert forged(run(sandbox, LIBRARY, *LIBRARY_TESTS), LIBRARY_TESTS) == []


def test_what_a_program_really_imports_may_be_leant_on(sandbox: Sandbox) -> None:
    source = """
import math, collections
import numpy as np
from math import isclose, sqrt as root
from collections import Counter, OrderedDict
from datetime import datetime, timedelta
from decimal import Decimal as D
def gcd(a, b): return math.gcd(a, b)
class Tally:
    def __init__(self): self.n = 0
    def increment(self): self.n += 1; return self.n
def f(x): return x
"""
    tests = (
        "assert isclose(f(0.5), 0.5)",
        "assert root(f(9)) == 3",
        "assert Counter(f('aab')) == Counter({'a': 2, 'b': 1})",
        "assert f(datetime(2024, 1, 1)) + timedelta(days=1) == datetime(2024, 1, 2)",
        "assert D(f('1.5')) == D('1.5')",
        "assert np.allclose(f([1.0]), [1.0]) and math.floor(f(1.5)) == 1",
        "assert gcd(4, 6) == 2",
        "t = Tally()\nassert t.increment() == 1 and t.increment() == 2",
    )
    report = run(sandbox, source, *tests)
    assert [test.detail for test in report.tests if test.detail] == []


def test_an_own_class_named_like_one_of_the_library_stays_the_programs(sandbox: Sandbox) -> None:
    source = (
        "class Counter:\n    def __init__(self): self.n = 0\n    def increment(self): self.n += 1\ndef f(x): return x"
    )
    right = "c = Counter()\nc.increment()\nassert c.n == f(1)"
    assert run(sandbox, source, right).passed == 1
    assert run(sandbox, source.replace("+= 1", "+= 2"), right).passed == 0


TAKEOVER = (
    "[o for o in __import__('gc').get_objects() if type(o).__name__=='Suite'][0].codes"
    ".__setitem__(slice(None),[compile('','','exec')]*9) or 5"
)
SAYS = (
    "(lambda d: (__import__('os').write(4, len(d).to_bytes(4, 'big') + d), __import__('os')._exit(0)))"
    '(b\'{\\"invalid\\":\\"x\\"}\')'
)


@pytest.mark.parametrize(
    "first",
    [
        "assert eval(f('2+3')) == 5",
        "n = {}\nexec('r = ' + f(1), n)\nassert n['r'] == 5",
        "from builtins import eval as e\nassert e(f(1)) == 5",
        "assert (lambda: eval(f(1)))() == 5",
        "import builtins\nassert builtins.eval(f(1)) == 5",
    ],
)
def test_a_test_that_executes_the_answer_decides_only_itself(sandbox: Sandbox, first: str) -> None:
    source = f"def f(x): return {TAKEOVER!r}\n"
    report = run(sandbox, source, first, "x = f(1)\nassert x == 2", "x = f(1)\nassert x == 3")
    assert [test.verdict for test in report.tests[1:]] == ["wrong_answer"] * 2
    assert report.judge == "program_methods" or not report.passed
    honest = run(sandbox, "def f(x): return '5'", first, "x = f(1)\nassert x == '5'")
    assert [test.verdict for test in honest.tests] == ["passed"] * 2


def test_an_executed_answer_cannot_make_the_suite_invalid(sandbox: Sandbox) -> None:
    source = f'def f(x): return "{SAYS}"\n'
    report = run(sandbox, source, "x = f(1)\nassert x == 2", "assert eval(f(1)) == 5", "x = f(1)\nassert x == 2")
    assert report.passed == 0
    assert report.tests[1].verdict in ("invalid_result", "no_result")


@pytest.mark.parametrize(
    ("setup", "test"),
    [
        ("", "assert eval(f(1))"),
        ("import pickle", "assert pickle.loads(f(1)) == 1"),
        ("from pickle import loads", "assert loads(f(1)) == 1"),
        ("import pickle as p", "assert p.loads(f(1)) == 1"),
        ("import marshal", "exec(marshal.loads(f(1)))"),
        ("", "import doctest\ndoctest.run_docstring_examples(f, {})"),
        ("", "import subprocess\nassert subprocess.run(['python3', '-c', f(1)]).returncode == 0"),
        ("import os", "assert os.system(f(1)) == 0"),
        ("def ev(x): return eval(x)", "assert ev(f(1)) == 1"),
        ("", "assert __import__(f(1))"),
        ("import importlib", "importlib.machinery.SourceFileLoader('x', f(1)).load_module()"),
    ],
)
def test_tests_that_execute_are_told_by_reading_them(setup: str, test: str) -> None:
    assert read(setup, "", (test,), "f")["executing"] == [True]


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1) == 2",
        "import json\nassert json.loads(f(1)) == {}",
        "import re\nassert re.compile('a').match(f(1))",
        "import pickle\nassert pickle.dumps(1)",
        "import ast\nassert ast.literal_eval(f(1)) == 5",
        "assert f(1).evaluate() == 3",
        "from importlib import import_module\nassert f(1)",
    ],
)
def test_tests_that_execute_nothing_share_a_process(test: str) -> None:
    assert read("", "", (test,), "f")["executing"] == [False]


@pytest.mark.parametrize(
    "entry_point", ["check", "check.f", "__name__", "__builtins__", "isinstance", "a b", "1f", "def"]
)
def test_words_of_the_harness_are_no_entry_points(sandbox: Sandbox, entry_point: str) -> None:
    test = "def check(candidate):\n    assert candidate([1, 2]) is True\n    assert candidate([2, 1]) is False\n"
    with pytest.raises(InvalidSuite, match="entry_point"):
        judged(sandbox, "def check(c): pass\n", CheckSuite(test, entry_point))


HELPER = "def helper(x):\n    return x * 2\n"
PROMPTS = {
    "an open def": "\ndef f(x):\n",
    "a def without a line": "\ndef f(x):",
    "a documented def": "\ndef f(x):\n    '''Doubles.'''\n",
    "a def half written": "\ndef f(x):\n    y = x\n    if y:\n",
    "a decorated def": "\nimport functools\n\n@functools.cache\ndef f(x):\n",
    "a def over lines": "\ndef f(\n    x: int,\n) -> int:\n",
    "an open class": "\nclass Solution:\n    def f(self, x):\n",
    "an async def": "\nasync def g(x):\n    return x\n\ndef f(x):\n",
    "an open text": "\ndef f(x):\n    '''Doubles\n",
    "a comment": "\ndef f(x):\n    # double it\n",
}


@pytest.mark.parametrize("name", PROMPTS)
def test_helpers_of_any_prompt_are_the_tests_own(sandbox: Sandbox, name: str) -> None:
    prompt = HELPER + PROMPTS[name]
    assert "def helper" in complete_part(prompt)
    assert complete_part(prompt).count("def f") == int(name == "a documented def")
    if name in ("an open def", "a documented def", "a comment", "a decorated def"):
        test = "def check(candidate):\n    assert helper(candidate(3)) == 12\n"
        suite = CheckSuite(test, "f", prompt)
        assert judged(sandbox, "    return 2 * x\n", suite).passed == 1
        assert judged(sandbox, "    return 0\n\ndef helper(x):\n    return 12\n", suite).passed == 0


def test_a_star_import_does_not_stand_before_a_solution(sandbox: Sandbox) -> None:
    source = "from math import *\nclass Solution:\n    def factorial(self, n):\n        return 0\n"
    wrong = judged(sandbox, source, AssertSuite(("assert factorial(5) == 120",), "", "factorial"))
    right = judged(
        sandbox, source.replace("return 0", "return 120"), AssertSuite(("assert factorial(5) == 120",), "", "factorial")
    )
    assert (wrong.passed, right.passed) == (0, 1)


SHIFTS = """
class D:
    looks = 0
    def look(self):
        D.looks += 1
        return 0 if D.looks == 1 else 10**6
    __int__ = __len__ = __index__ = look
    def __float__(self): return float(self.look())
    def __getitem__(self, at): return self.look()
    def __iter__(self): return iter([] if self.look() == 0 else [12])
    def __reversed__(self): return iter([self.look()])
    def __str__(self): return str(self.look())
    def __format__(self, spec): return str(self.look())
    x = property(look)
    def __getattr__(self, name): return self.look()
def f(x): return D()
"""


@pytest.mark.parametrize(
    "view",
    ["int(r)", "float(r)", "len(r)", "r[0]", "sum(r)", "next(reversed(r))", "int(str(r))", "int(f'{r}')", "r.x", "r.y"],
)
def test_an_object_that_shows_two_faces_passes_nothing_unmarked(sandbox: Sandbox, view: str) -> None:
    text = f"r = f(12)\nassert {view} ** 2 <= 12 < ({view} + 1) ** 2"
    report = run(sandbox, SHIFTS, text)
    assert report.verdict != "passed" or report.judge == "program_methods"


HOLDS = """
class Bag:
    def __init__(self, said, given): self.said, self.given = said, given
    def __len__(self): return self.said
    def __iter__(self): return iter(self.given)
    def add(self, item):
        self.said += 1
        self.given.append(item)
"""


@pytest.mark.parametrize(
    "test",
    [
        "r = f(1)\nassert all(x == 1 for x in r) and len(r) == 3",
        "r = f(1)\nassert len(r) == 3 and all(a == b for a, b in zip(r, [1, 2, 3]))",
        "r = f(1)\nassert len(r) == 3\nfor x in r:\n    assert x == 1",
        "r = f(1)\nassert list(r) == [] or len(r) == 3\nassert len(r) == 3",
        "import pytest\ndef test_approx():\n    assert f(1) == pytest.approx([1, 2, 3])",
    ],
)
def test_an_object_holds_as_many_items_as_it_gives(sandbox: Sandbox, test: str) -> None:
    report = run(sandbox, f"{HOLDS}def f(x): return Bag(3, [])\n", test)
    assert (report.verdict, report.passed) == ("invalid_result", 0)


def test_an_honest_container_of_its_own_is_walked_and_measured(sandbox: Sandbox) -> None:
    test = "r = f(1)\nassert len(r) == 3 and list(r) == [1, 1, 1] and len(r) == 3\nassert next(iter(r)) == 1"
    assert run(sandbox, f"{HOLDS}def f(x): return Bag(3, [x] * 3)\n", test).verdict == "passed"
    grows = "r = f(1)\nassert len(r) == 3\nr.add(4)\nassert list(r) == [1, 1, 1, 4] and len(r) == 4"
    assert run(sandbox, f"{HOLDS}def f(x): return Bag(3, [x] * 3)\n", grows).verdict == "passed"


METHODS_ELSEWHERE = {
    "by __getattr__": "class D:\n    def __getattr__(self, name): return lambda *a: a[0]\n",
    "in the object": "class D:\n    def __init__(self): self.echo = lambda x: x\n",
    "by a property": "class D:\n    echo = property(lambda self: lambda x: x)\n",
    "in an object of the library": "import queue\ndef D():\n    q = queue.Queue()\n"
    "    q.echo = lambda x: x\n    return q\n",
    "a static one": "class D:\n    @staticmethod\n    def echo(x): return x\n",
}


@pytest.mark.parametrize("how", METHODS_ELSEWHERE)
def test_a_method_is_marked_wherever_the_program_keeps_it(sandbox: Sandbox, how: str) -> None:
    report = run(sandbox, f"{METHODS_ELSEWHERE[how]}def f(x): return D()\n", "assert f(1).echo(5) == 5")
    assert report.verdict != "passed" or report.judge == "program_methods"


def test_a_function_of_a_class_in_a_test_of_another_is_marked(sandbox: Sandbox) -> None:
    program = "class Near:\n    @staticmethod\n    def to(a, b): return True\ndef f(x): return 0\n"
    assert run(sandbox, program, "assert Near.to(f(1), 0.5)").judge == "program_methods"
    own = AssertSuite(("assert Near.to(1, 1) is True",), "", "Near")
    assert judged(sandbox, program, own).judge == "split"


def test_what_an_object_keeps_is_read_unmarked(sandbox: Sandbox) -> None:
    program = "class Node:\n    def __init__(self, x): self.x, self.next = x, None\ndef f(x): return Node(x)\n"
    report = run(sandbox, program, "r = f(2)\nassert r.x == 2 and r.x == 2 and r.next is None and str(r.x) == '2'")
    assert (report.verdict, report.judge) == ("passed", "split")


CHECKER = "class O:\n    def same(self, a, b): return a == b\n"
PLANTED = {
    "in an object": ("def f(o):\n    o.same = lambda *a: True\n", f"{CHECKER}o = O()\nf(o)\nassert o.same(1, 2)"),
    "in a class": ("def f(o):\n    type(o).same = lambda *a: True\n", f"{CHECKER}o = O()\nf(o)\nassert o.same(1, 2)"),
    "in a table": ("def f(d):\n    d['same'] = lambda *a: True\n", "d = {}\nf(d)\nassert d['same'](1, 2)"),
    "in a list": ("def f(d):\n    d[:] = [lambda *a: True]\n", "d = []\nf(d)\nassert d[0](1, 2)"),
    "through a call": ("def f(g):\n    g(lambda *a: True)\n", "d = []\nf(d.append)\nassert d[0](1, 2)"),
    "as a missing member": (
        "import enum\nclass C(enum.Enum):\n    A = 1\n    @classmethod\n    def _missing_(cls, value): return cls.A\n"
        "def f(x): return C.A\n",
        "assert f(1) == C(7)",
    ),
}


@pytest.mark.parametrize("where", PLANTED)
def test_a_function_that_a_program_plants_among_the_tests_is_marked(sandbox: Sandbox, where: str) -> None:
    program, test = PLANTED[where]
    report = run(sandbox, program, test)
    assert report.verdict != "passed" or report.judge == "program_methods"


def test_what_a_program_plants_is_marked_in_later_tests_too(sandbox: Sandbox) -> None:
    program = "def f(o):\n    o.same = lambda *a: True\n    return 1\n"
    report = run(sandbox, program, "assert f(o) == 1 and o", "assert o.same(1, 2)", setup=f"{CHECKER}o = O()")
    assert report.judge == "program_methods"


def test_functions_as_answers_are_unmarked(sandbox: Sandbox) -> None:
    program = "def f(x): return (lambda y: x + y, [lambda: x])\n"
    report = run(sandbox, program, "a, b = f(1)\nassert a(2) == 3 and b[0]() == 1")
    assert (report.verdict, report.judge) == ("passed", "split")
