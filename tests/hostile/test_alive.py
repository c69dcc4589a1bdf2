"""Containers that both sides hold: a lying program reaches those that crossed, and decides nothing by them.

What right and wrong programs do with them is in `support/alive.txt`.
"""

from __future__ import annotations

import pytest

from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, Limits, Options, Program, PytestSuite, Report, Stop, Suite, UnittestSuite

LIMITS = Limits(cpu_s=5)
LIAR = """
import gc
WORDS = {}
ARMED = []
def end():
    return next(one for one in gc.get_objects() if type(one).__name__ == "Endpoint")
def say(how):
    endpoint = end()
    honest = endpoint.value_reply
    def lie(message, found):
        reply = honest(message, found)
        if ARMED:
            how(reply)
        return reply
    endpoint.value_reply = lie
"""


def run(sandbox: Sandbox, source: str, suite: Suite) -> Report:
    return judge(Program("python", source), suite, LIMITS, Stop(), sandbox)


def verdicts(sandbox: Sandbox, source: str, *tests: str) -> list[str]:
    return [str(test.verdict) for test in run(sandbox, source, AssertSuite(tests, "", "f")).tests]


@pytest.mark.parametrize(
    "live",
    [
        "7",
        "{'of': 3}",
        "{'of': [[0, 0]]}",
        "{'of': [[0, -1, {'t': 'tuple', 'v': [9]}]]}",
        "{'of': [[0, 99, {'t': 'tuple', 'v': [9]}]]}",
        "{'of': [[0, 0, [9]]]}",
        "{'of': [[0, 0, {'t': 'dict', 'v': []}]]}",
        "{'of': [[0, 0, {'t': 'tuple', 'v': [{'t': 'h', 'live': 5}]}]]}",
        "{'of': [[0, 0, {'t': 'tuple', 'v': [[1], [2]]}]], 'first': 0}",
        "{'of': [[0, 0, {'t': 'tuple', 'v': [[1], [2]]}]], 'first': -1}",
        "{'of': [[0, 0, {'t': 'tuple', 'v': [[1], [2]]}]], 'first': '1'}",
        "{'gone': 'all'}",
    ],
)
def test_nonsense_about_containers_fails_the_test_and_no_other(sandbox: Sandbox, live: str) -> None:
    source = (
        LIAR
        + f"""
KEPT = []
def f(x):
    KEPT.append(x)
    if x == [1]:
        say(lambda reply: (ARMED.clear(), reply.update(live={live})))
        ARMED.append(1)
    return sum(x)
"""
    )
    found = verdicts(
        sandbox, source, "x = [1]\nassert f(x) == 1 and f(x) == 1", "y = [2, 3]\nassert f(y) == 5 and y == [2, 3]"
    )
    assert found[0] in ("invalid_result", "wrong_answer")
    assert found[1] == "passed"


@pytest.mark.parametrize("more", ["held=[0], first=2", "held=[5], first=1", "held=7, first=1", "gone=3", "first=[]"])
def test_nonsense_about_an_answer_fails_the_test(sandbox: Sandbox, more: str) -> None:
    source = (
        LIAR
        + f"""
def f(x):
    say(lambda reply: (ARMED.clear(), reply.update({more})))
    ARMED.append(1)
    return [x]
"""
    )
    found = verdicts(sandbox, source, "assert f(1) == [1] and f(1) == [1]", "assert 2 + f(1)[0] == 3")
    assert "invalid" not in found
    assert found[0] == ("passed" if more == "first=[]" else "invalid_result")


def test_no_key_reaches_what_the_program_was_never_given(sandbox: Sandbox) -> None:
    source = (
        LIAR
        + """
def f(x):
    say(lambda reply: reply.update(live={"of": [[key, 0, {"t": "tuple", "v": [0]}] for key in range(200)]}))
    ARMED.append(1)
    return [0]
"""
    )
    test = "secret = [1, 2]\nassert f([3]) == secret"
    assert (
        verdicts(sandbox, source, test, "want = [4]\ngot = f([5])\nassert got == want and want == [4]")
        == ["wrong_answer"] * 2
    )


def test_a_key_that_nobody_gave_out_finds_nothing(sandbox: Sandbox) -> None:
    source = (
        LIAR
        + """
def f(x):
    say(lambda reply: reply.update(ok={"t": "h", "live": 4}))
    ARMED.append(1)
    return 0
"""
    )
    found = verdicts(sandbox, source, "want = [[1], [2]]\nassert f(0) == want and f(1) == want")
    assert found == ["invalid_result"]


def test_an_answer_that_is_filled_in_later_marks_the_test(sandbox: Sandbox) -> None:
    source = "GIVEN = []\ndef f(x):\n    GIVEN[:] = x\n    return GIVEN\n"
    test = "a = f([3])\nb = f([1, 2])\nassert a == [1, 2]"
    report = run(sandbox, source, AssertSuite((test,), "", "f"))
    assert (report.passed, report.judge) == (1, "program_methods")


def test_an_argument_changed_in_its_own_call_marks_nothing(sandbox: Sandbox) -> None:
    source = "KEPT = []\ndef f(x):\n    x.sort()\n    KEPT.append(x)\n"
    report = run(sandbox, source, AssertSuite(("a = [2, 1]\nf(a)\nassert a == [1, 2]",), "", "f"))
    assert (report.passed, report.judge) == (1, "split")


def test_a_program_that_keeps_everything_is_judged_as_quickly(sandbox: Sandbox) -> None:
    source = "KEPT = []\ndef f(x):\n    KEPT.append(x)\n    return sum(x)\n"
    test = "for n in range(4000):\n    assert f([n] * 10) == 10 * n"
    assert run(sandbox, source, AssertSuite((test,), "", "f")).passed == 1


def test_the_first_of_many_kept_containers_stays_in_step(sandbox: Sandbox) -> None:
    source = """
KEPT = []
def f(x):
    KEPT.append(x)
    KEPT[0].append(len(KEPT))
    return len(x)
"""
    test = "log, more = [], [[n] for n in range(2000)]\nf(log)\nfor one in more: f(one)\nassert log[:3] == [1, 2, 3]"
    test += "\nassert log == list(range(1, 2002))"
    assert verdicts(sandbox, source, test) == ["passed"]


def test_arguments_of_calls_that_fail_are_let_go(sandbox: Sandbox) -> None:
    source = """
import gc, sys
class Big(list):
    pass
def f(x):
    raise ValueError(len(x))
def alive():
    endpoint = next(one for one in gc.get_objects() if type(one).__name__ == "Endpoint")
    return len(endpoint.containers.by_key)
"""
    test = """
held = []
for n in range(50):
    held.append([n])
    try:
        f(held[-1])
    except ValueError as error:
        assert error.args == (1,)
assert alive() == 0
"""
    assert verdicts(sandbox, source, test) == ["passed"]


def test_a_test_that_fails_on_a_value_leaves_the_next_in_step(sandbox: Sandbox) -> None:
    source = """
class C:
    def __init__(self, out): self.out = out
    def f(self): self.out.append(1)
    def equals(self, o): return True
def f(out): return C(out)
"""
    bad = "x = []\nc = f(x)\nassert c.equals(1)"
    good = "y = []\nc = f(y)\nc.f()\nassert y == [1]"
    assert verdicts(sandbox, source, bad, good) == ["invalid_result", "passed"]


PROGRAM = """
import contextlib
@contextlib.contextmanager
def scope(log):
    log.append("a")
    yield
    log.append("b")
class Account:
    def __init__(self): self._history = []
    def add(self, n):
        self._history.append(n)
        return self
    def history(self): return self._history
"""
PYTEST = """
import pytest
from solution import scope, Account
@pytest.fixture
def account():
    return Account()
@pytest.fixture
def log():
    return []
def test_scope(log):
    with scope(log):
        log.append("in")
    assert log == ["a", "in", "b"]
def test_history(account):
    history = account.history()
    account.add(1).add(2)
    assert history == [1, 2]
    history.clear()
    assert account.history() == []
"""
UNITTEST = """
import unittest
from solution import scope, Account
class Test(unittest.TestCase):
    def setUp(self):
        self.log, self.account = [], Account()
    def test_scope(self):
        with scope(self.log):
            self.log.append("in")
        self.assertEqual(self.log, ["a", "in", "b"])
    def test_history(self):
        history = self.account.history()
        self.account.add(1).add(2)
        self.assertListEqual(history, [1, 2])
        self.assertIs(self.account.history(), history)
"""


@pytest.mark.parametrize("suite", [PytestSuite(PYTEST), UnittestSuite(UNITTEST)], ids=["pytest", "unittest"])
def test_kept_containers_in_files_of_tests(sandbox: Sandbox, suite: Suite) -> None:
    wrong = PROGRAM.replace('append("b")', 'append("c")').replace("return self._history", "return [*self._history, 0]")
    assert (run(sandbox, PROGRAM, suite).passed, run(sandbox, wrong, suite).passed) == (2, 0)


def test_a_deep_recursion_between_both_ends_is_an_exception_of_either(sandbox: Sandbox) -> None:
    source = "def f(x, g):\n    x.append(len(x))\n    return g(x)\n"
    together = Options(grading="together")
    suite = AssertSuite(
        ("def g(x): return f(x, g)\ntry:\n    f([], g)\nexcept RecursionError:\n    pass\nassert f([1], len) == 2",),
        "",
        "f",
    )
    for options in (Options(), together):
        report = judge(Program("python", source), suite, LIMITS, Stop(), sandbox, options)
        assert report.verdict == "passed", report.tests[0].detail
