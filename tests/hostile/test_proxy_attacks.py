"""Programs that answer with objects instead of values: what the tests see of these is decided on their side."""

from __future__ import annotations

import pytest

from plaudit.grading import Verdict
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, Limits, Program, Report, Stop

LIMITS = Limits(cpu_s=5)
QUICK = Limits(cpu_s=0.5, wall_s=3)


def run(sandbox: Sandbox, source: str, *asserts: str, setup: str = "", limits: Limits = LIMITS) -> Report:
    return judge(Program("python", source), AssertSuite(asserts, setup, "f"), limits, Stop(), sandbox)


def verdicts(report: Report) -> list[str]:
    return [test.verdict.value for test in report.tests]


SHIFTY = """
import gc
tries = 0
def content(self, value, base=None):
    global tries
    tries += 1
    return VALUE
def shift():
    endpoint = next(thing for thing in gc.get_objects() if type(thing).__name__ == "Endpoint")
    type(endpoint).content = content
"""


def test_one_answer_is_held_against_many_values_not_many_answers(sandbox: Sandbox) -> None:
    """A subclass of int is compared by the int underneath, which the program may be asked for only once."""
    source = SHIFTY.replace("VALUE", "tries") + "class N(int): pass\ndef f(x):\n    shift()\n    return N(0)\n"
    report = run(sandbox, source, "assert f(1) in (2, 3, 4, 5)", "r = f(1)\nassert r == 7 or r == 8 or r == 9")
    assert verdicts(report) == ["wrong_answer"] * 2


def test_a_list_says_one_thing_until_the_program_is_asked_to_do_something(sandbox: Sandbox) -> None:
    source = SHIFTY.replace("VALUE", "[tries]") + "class L(list): pass\ndef f(x):\n    shift()\n    return L()\n"
    assert verdicts(run(sandbox, source, "assert f(1) in ([2], [3], [4])")) == ["wrong_answer"]
    honest = "class L(list): pass\ndef f(x): return L([x])\n"
    test = "r = f(1)\nassert r == [1]\nr.append(2)\nassert r == [1, 2] and r in ([0], [1, 2])"
    assert verdicts(run(sandbox, honest, test)) == ["passed"]


def test_a_text_answers_for_its_methods_itself(sandbox: Sandbox) -> None:
    source = """
class T(str):
    def startswith(self, *a): return True
    endswith = isdigit = __contains__ = startswith
    def upper(self): return "RIGHT"
    def split(self, *a): return ["right"]
    def __len__(self): return 5
    def __getitem__(self, key): return "r"
class D(float):
    def is_integer(self): return True
def f(x): return T("wrong") if x else D(0.5)
"""
    tests = (
        "assert f(1).startswith('right')",
        "assert f(1).upper() == 'RIGHT'",
        "assert f(1).split() == ['right']",
        "assert f(1).isdigit()",
        "assert 'right' in f(1)",
        "assert f(0).is_integer()",
    )
    assert verdicts(run(sandbox, source, *tests)) == ["wrong_answer"] * len(tests)
    honest = "class T(str): pass\ndef f(x): return T('right')\n"
    assert run(sandbox, honest, "assert f(1).startswith('ri') and f(1).upper() == 'RIGHT'").verdict is Verdict.PASSED


def test_the_end_of_an_iterator_is_no_answer(sandbox: Sandbox) -> None:
    """Raised inside of `map` it would end `all` early, and nothing would have been compared."""
    source = "def f(x): raise StopIteration(x)"
    tests = (
        "assert all(map(lambda x: f(x) == x, [1, 2]))",
        "assert not any(map(f, [1, 2]))",
        "for got in map(f, [1, 2]): assert got == 3",
        "assert list(map(f, [1, 2])) == []",
    )
    assert verdicts(run(sandbox, source, *tests)) == ["runtime_error"] * len(tests)
    own = "class Mine(StopIteration): pass\ndef f(x): raise Mine(x)"
    assert verdicts(run(sandbox, own, tests[0])) == ["runtime_error"]
    asked = "try:\n    f(1)\nexcept StopIteration:\n    pass\nelse:\n    assert False"
    assert run(sandbox, source, asked).verdict is Verdict.PASSED
    assert run(sandbox, "def f(x): return iter([x])", "g = f(1)\nassert next(g) == 1 and next(g, 0) == 0").passed == 1


def test_a_library_that_the_tests_lean_on_is_their_own(sandbox: Sandbox) -> None:
    """Tests may use the program's `import math`; what it calls math need not be that."""
    source = """
import gc
class math:
    @staticmethod
    def isclose(a, b, **k): return True
    floor = staticmethod(lambda x: 7)
class np:
    allclose = staticmethod(lambda *a, **k: True)
def f(x): return 0.0
"""
    assert run(sandbox, source, "assert math.isclose(f(1), 3.5)", "assert math.floor(7.5) == f(1) + 7 + 1").passed == 0
    assert run(sandbox, source, "assert np.allclose(f(1), 3.5)").passed == 0
    assert (
        run(sandbox, "import math\ndef f(x): return x / 2", "assert math.isclose(f(1), 0.5)").verdict is Verdict.PASSED
    )
    assert run(sandbox, "def f(x): return x / 2", "assert math.isclose(f(1), 0.5)").verdict is Verdict.RUNTIME_ERROR
    own = "class calendar:\n    @staticmethod\n    def days(x): return x\ndef f(x): return x"
    assert run(sandbox, own, "assert calendar.days(2) == f(2)").verdict is Verdict.PASSED


SELVES = """
class Self:
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
    def __iter__(self): return self
    def __next__(self): return self
    def __getitem__(self, key): return self
    def __enter__(self): return self
    def __abs__(self): return self
    def __neg__(self): return self
    def __reversed__(self): return self
me = Self()
def f(x): return me
"""


def test_an_object_that_is_all_its_own_parts_equals_nothing(sandbox: Sandbox) -> None:
    tests = (
        "assert f(1).a.b.c.d() == 5",
        "assert f(1)[0][1][2] == 'x'",
        "assert next(f(1)) == 1",
        "assert abs(-f(1)) == 0",
        "with f(1) as g:\n    assert g() == 1",
        "a, b = next(f(1)), next(reversed(f(1)))\nassert a == 1 and b == 2",
    )
    assert verdicts(run(sandbox, SELVES, *tests)) == ["wrong_answer"] * len(tests)


def test_an_object_without_end_meets_the_clock(sandbox: Sandbox) -> None:
    for test in ("assert list(f(1)) == [1]", "assert 5 in f(1)", "for x in f(1): pass"):
        report = run(sandbox, SELVES, test, limits=QUICK)
        assert report.verdict in (Verdict.TIME_LIMIT, Verdict.MEMORY_LIMIT)


LIARS = {
    "less than nothing": ("__len__", "-5", "len(f(1)) == 3"),
    "more than there is": ("__len__", "10 ** 30", "len(f(1)) == 3"),
    "a length that is a text": ("__len__", "'3'", "len(f(1)) == 3"),
    "a truth that is none": ("__bool__", "1", "f(1)"),
    "an int that is a list": ("__int__", "[3]", "int(f(1)) == 3"),
    "an index that is a text": ("__index__", "'a'", "'abc'[f(1)] == 'a'"),
    "an index past everything": ("__index__", "10 ** 30", "'abc'[f(1)] == 'a'"),
    "a float that is none": ("__float__", "None", "float(f(1)) == 1.0"),
    "a text that is bytes": ("__str__", "b'x'", "str(f(1)) == 'x'"),
    "a picture that is an int": ("__repr__", "5", "repr(f(1)) == '5'"),
    "a format that is a list": ("__format__", "['x']", "f'{f(1)}' == 'x'"),
    "an iterator that is a number": ("__iter__", "3", "list(f(1)) == [1]"),
    "an item that is an error": ("__getitem__", "1 / 0", "f(1)[0] == 1"),
    "a hash that is a float": ("__hash__", "0.5", "f(1) in {5: 1}"),
}


@pytest.mark.parametrize("name", LIARS)
def test_a_special_method_that_lies_is_no_right_answer(sandbox: Sandbox, name: str) -> None:
    method, value, test = LIARS[name]
    source = f"class L:\n    def {method}(self, *a): return {value}\ndef f(x): return L()"
    assert run(sandbox, source, f"assert {test}").verdict in (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR)


def test_a_giant_index_takes_the_memory_of_the_test_only(sandbox: Sandbox) -> None:
    source = "class L:\n    def __index__(self): return 10 ** 9\ndef f(x): return L()"
    report = run(sandbox, source, "assert bytearray(f(1)) == b''", "assert f(1) != 3")
    assert verdicts(report)[0] in ("memory_limit", "wrong_answer")
    assert verdicts(report)[1] == "passed"


def test_the_wall_may_be_crossed_in_the_middle_of_a_crossing(sandbox: Sandbox) -> None:
    source = "def f(x, g): return x if x <= 0 else g(x - 1)"
    assert run(sandbox, source, "def g(x): return f(x, g)\nassert f(20, g) == 0").verdict is Verdict.PASSED


def test_endless_recursion_through_the_wall_ends(sandbox: Sandbox) -> None:
    source = "def f(x, g): return g(x + 1)"
    report = run(sandbox, source, "def g(x): return f(x, g)\nassert f(0, g) == 0", "assert f(1, lambda x: x) == 2")
    assert verdicts(report)[0] in ("runtime_error", "wrong_answer", "time_limit", "invalid_result")
    assert verdicts(report)[1] == "passed"


def test_two_threads_on_one_wire_earn_nothing(sandbox: Sandbox) -> None:
    source = """
import threading
def f(g):
    def call():
        try:
            while True: g(1)
        except BaseException:
            pass
    for _ in range(4): threading.Thread(target=call, daemon=True).start()
    for _ in range(20): g(2)
    return 0
"""
    report = run(sandbox, source, "assert f(lambda x: x) == 1", limits=QUICK)
    assert report.passed == 0


def test_a_thread_that_goes_on_calling_does_not_answer_for_the_next_test(sandbox: Sandbox) -> None:
    source = """
import threading, time
def f(g):
    if not callable(g): return 0
    def call():
        while True:
            try: g(1)
            except BaseException: time.sleep(0.001)
    threading.Thread(target=call, daemon=True).start()
    return 1
"""
    report = run(sandbox, source, "assert f(lambda x: x) == 2", "assert f(1) == 2", "assert f(2) == 3", limits=QUICK)
    assert report.passed == 0


def test_what_changes_while_it_is_walked_is_seen_as_python_sees_it(sandbox: Sandbox) -> None:
    source = """
class Growing(list):
    def __iter__(self):
        for n in range(3):
            self.append(n)
            yield n
def f(x): return Growing()
"""
    walk = "g = {}\nassert [x for x in g] == [0, 1, 2]"
    assert run(sandbox, source, "f(1)\n" + walk.format("Growing()")).verdict is Verdict.PASSED
    assert run(sandbox, source, walk.format("f(1)")).verdict is Verdict.WRONG_ANSWER  # a list, as far as the test knows
    source = "def f(d):\n    for k in d:\n        d[k + 1] = 0\n    return d"
    report = run(sandbox, source, "assert f({1: 2}) == {1: 2}")
    assert "changed size during iteration" in report.tests[0].detail


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException", "MemoryError"])
def test_an_exception_that_ordinary_handlers_miss_ends_only_its_test(sandbox: Sandbox, kind: str) -> None:
    source = f"def f(x):\n    if x == 1: raise {kind}('x')\n    return x"
    careful = "try:\n    f(1)\nexcept Exception:\n    pass\nassert f(1) == 1"
    report = run(sandbox, source, "assert f(1) == 1", careful, "assert f(2) == 2")
    verdict = {"SystemExit": "no_result", "MemoryError": "memory_limit"}.get(kind, "runtime_error")
    assert verdicts(report)[:2] == [verdict] * 2
    assert verdicts(report)[2] == "passed"


def test_an_exception_of_giant_size_leaves_a_short_report(sandbox: Sandbox) -> None:
    source = "def f(x): raise ValueError('x' * (10 << 20), list(range(10 ** 5)))"
    report = run(sandbox, source, "assert f(1) == 1")
    assert report.verdict is Verdict.RUNTIME_ERROR
    assert len(report.tests[0].detail) < 10_000


def test_an_exception_that_imitates_the_tests_own_is_the_programs(sandbox: Sandbox) -> None:
    for kind in ("AssertionError", "ImportError", "NameError", "type('Lost', (BaseException,), {})"):
        report = run(sandbox, f"def f(x): raise {kind}('forged')", "assert f(1) == 1")
        assert report.verdict is Verdict.RUNTIME_ERROR


def test_what_the_tests_lend_keeps_its_shape(sandbox: Sandbox) -> None:
    setup = """
class Node:
    def __init__(self, value): self.value, self._hidden = value, "hidden"
    def __eq__(self, other): return type(other) is Node and other.value == self.value
    __hash__ = None
"""
    source = """
def f(node):
    for name, value in (("__class__", int), ("__dict__", {}), ("_hidden", "x"), ("__eq__", lambda s, o: True)):
        try:
            setattr(node, name, value)
        except BaseException:
            pass
    node.value = 5
    return node
"""
    tests = ("n = Node(1)\nassert f(n) is n and n.value == 5 and n._hidden == 'x'", "assert f(Node(1)) == Node(6)")
    assert verdicts(run(sandbox, source, *tests, setup=setup)) == ["passed", "wrong_answer"]


def test_what_was_lent_in_one_process_means_nothing_in_the_next(sandbox: Sandbox) -> None:
    """The first test's object outlives its process in a name of the tests; the second test gets a fresh pair."""
    source = "import os\nclass V:\n    def kill(self): os._exit(0)\nkept = V()\ndef f(x): return kept"
    report = run(sandbox, source, "v = f(1)\nv.kill()", "assert v is f(1)", "assert f(1)")
    assert verdicts(report) == ["no_result", "runtime_error", "passed"]
