"""Coroutines, generators, functions and streams: what tests do with them across the wall, or why they cannot."""

from __future__ import annotations

import pytest

from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, Limits, Program, Report, Stop

PROGRAM = """
import asyncio

async def later(x):
    await asyncio.sleep(0.001)
    return x + 1

async def fails():
    raise ValueError("no")

def count(n):
    for i in range(n):
        yield i

async def acount(n):
    for i in range(n):
        yield i

class Door:
    async def __aenter__(self):
        return 1
    async def __aexit__(self, *error):
        return None
    async def knock(self):
        return 5

def helper(x):
    return x

def plain(x: int, *, y=2):
    return helper(x)

async def lends(callback):
    return await callback(1)

class Number:
    def __add__(self, other):
        return 2

def number():
    return Number()

def asks():
    print("hi")
    return int(input()) + 1
"""

SPLIT = {
    "a coroutine": "assert asyncio.run(later(1)) == 2",
    "an await": "async def t():\n    return await later(3)\nassert asyncio.run(t()) == 4",
    "gathered": "async def t():\n    return await asyncio.gather(later(3), later(4))\nassert asyncio.run(t()) == [4,5]",
    "a loop of the test's": "assert asyncio.new_event_loop().run_until_complete(later(1)) == 2",
    "an async method": "assert asyncio.run(Door().knock()) == 5",
    "an async error": "try:\n    asyncio.run(fails())\nexcept ValueError:\n    pass\nelse:\n    assert False",
    "an async for": "async def t():\n    return [x async for x in acount(3)]\nassert asyncio.run(t()) == [0, 1, 2]",
    "an async with": "async def t():\n    async with Door() as d:\n        return d\nassert asyncio.run(t()) == 1",
    "is it a generator": "assert inspect.isgenerator(count(3)) and isinstance(count(1), types.GeneratorType)",
    "is it a function": "assert inspect.isfunction(plain) and not inspect.isfunction(Door)",
    "is it a class": "assert inspect.isclass(Door) and isinstance(Door, type)",
    "is it async": "assert inspect.iscoroutinefunction(later) and not inspect.iscoroutinefunction(plain)",
    "does it yield": "assert inspect.isgeneratorfunction(count)",
    "its signature": "assert str(inspect.signature(plain)) == '(x: int, *, y=2)'",
    "its documentation": "assert plain.__name__ == 'plain' and plain.__doc__ is None",
    "an async callback": "async def cb(x):\n    return x\nassert asyncio.run(lends(cb)) == 1",
    "a patched helper": "with patch('__main__.helper', return_value=9):\n    assert plain(1) == 9",
    "another stdin": "sys.stdin = io.StringIO('3')\nassert asks() == 4",
    "a patched input": "with patch('builtins.input', return_value='3'):\n    assert asks() == 4",
    "its module": "from __main__ import plain as same\nassert same(3) == plain(3) == 3",
}

UNSPLIT = {
    "arithmetic on an answer": ("assert number() + 1 == 2", "add"),
}

IMPORTS = "import asyncio, contextlib, inspect, io, sys, types\nfrom unittest.mock import patch\n"


def run(sandbox: Sandbox, source: str, test: str) -> Report:
    return judge(Program("python", source), AssertSuite((test,), IMPORTS, "plain"), Limits(cpu_s=5), Stop(), sandbox)


@pytest.mark.parametrize("name", SPLIT)
def test_tests_may_await_and_inspect_what_a_program_returns(sandbox: Sandbox, name: str) -> None:
    report = run(sandbox, PROGRAM, SPLIT[name])
    assert report.verdict == "passed", report.tests[0].detail


def test_a_test_that_looks_into_the_program_is_unjudgeable_and_not_counted(sandbox: Sandbox) -> None:
    looking = "assert plain.__globals__['helper'](1) == 9"
    with pytest.raises(InvalidSuite, match=r"no test can be judged by values.*globals"):
        run(sandbox, PROGRAM, looking)
    suite = AssertSuite((looking, "assert plain(1) is not None"), IMPORTS, "plain")
    report = judge(Program("python", PROGRAM), suite, Limits(cpu_s=5), Stop(), sandbox)
    assert [test.verdict for test in report.tests] == ["unjudgeable", "passed"]
    assert "globals" in report.tests[0].detail
    assert (report.verdict, report.passed, report.total) == ("passed", 1, 1)


@pytest.mark.parametrize("name", UNSPLIT)
def test_a_test_that_needs_the_programs_process_is_an_invalid_result_with_the_reason(
    sandbox: Sandbox, name: str
) -> None:
    test, reason = UNSPLIT[name]
    report = run(sandbox, PROGRAM, test)
    assert report.verdict == "invalid_result"
    assert reason in report.tests[0].detail


@pytest.mark.parametrize(
    "test",
    [
        "assert asyncio.run(plain(1)) == 2",
        "async def t():\n    return await plain(1)\nassert asyncio.run(t()) == 2",
        "assert inspect.isgenerator(plain(1))",
        "for x in plain(3):\n    assert x == 5\nassert inspect.isgenerator(plain(1))",
    ],
)
@pytest.mark.parametrize(
    "answer",
    [
        "Yes()",
        "type('coroutine', (), {'__await__': lambda s: iter(()), '__class__': type((lambda: 0))})()",
        "type('generator', (Yes,), {})()",
        "Yes",
    ],
)
def test_an_object_that_only_looks_like_a_coroutine_or_generator_passes_nothing(
    sandbox: Sandbox, test: str, answer: str
) -> None:
    source = f"""
class Yes:
    def __eq__(self, other): return True
    def __await__(self):
        return self
        yield
    def __iter__(self): return iter(())
def plain(x): return {answer}
"""
    assert run(sandbox, source, test).passed == 0
