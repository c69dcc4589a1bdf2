"""Bounds of what a program says: nothing that it answers costs the judge more than a little, or makes it say nonsense.

The programs here take the wire over: they greet by themselves and then answer each request with bytes of their making.
What they are told is a failure of the program (`invalid_result`, `runtime_error`, `wrong_answer`, `no_result`), never
that the suite is invalid, and no report is larger than its bound.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgspec
import pytest

from plaudit.grading import Verdict
from sandbox.errors import InvalidSuite
from sandbox.inside import shared_containers
from sandbox.judge import bounds, codec, judge
from sandbox.sandbox import Sandbox
from sandbox.types import (
    AssertSuite,
    Case,
    CheckSuite,
    FunctionSuite,
    Limits,
    Program,
    Report,
    RunSuite,
    ScriptSuite,
    StdioCase,
    StdioSuite,
    Stop,
    Suite,
)

ROOT = Path(__file__).parent.parent.parent
LIMITS = Limits(cpu_s=2)
JUDGE_S = 1.0  # of the judge's own CPU time for one message, on a machine that reads REFERENCE in REFERENCE_S
REFERENCE = json.dumps({str(number): number for number in range(200_000)})
REFERENCE_S = 0.08
FAILED = {
    Verdict.INVALID_RESULT,
    Verdict.RUNTIME_ERROR,
    Verdict.WRONG_ANSWER,
    Verdict.NO_RESULT,
    Verdict.MEMORY_LIMIT,
    Verdict.TIME_LIMIT,
}
SUITES: dict[str, Suite] = {
    "function": FunctionSuite("f", (Case((1,), {}, 7),)),
    "literal": AssertSuite(("assert f(1) == 2",), entry_point="f"),
    "assert": AssertSuite(("x = f(1)\nassert x == 2",), entry_point="f"),
    "check": CheckSuite("def check(candidate):\n    assert candidate(1) == 2, candidate(1)\n", "f"),
}

WIRE = r"""
import json, os, time
def take():
    size = int.from_bytes(os.read(3, 4), "big")
    return json.loads(os.read(3, size))
def say(data):
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    view = memoryview(len(data).to_bytes(4, "big") + data)
    while view:
        view = view[os.write(3, view):]
def nest(levels, make, x):
    for _ in range(levels):
        x = make(x)
    return b'"ok":' + json.dumps(x).encode()
def tagged(tag, *items):
    return {"t": tag, "v": list(items)}
def many(tag, form, count):
    return b'"ok":{"t":"%s","v":[%s]}' % (tag, b",".join(form % at for at in range(count)))
"""
SERVE = """
say({"hello": True})
while True:
    message = take()
    if message["op"] == "get":
        say({"id": message["id"], "ok": {"t": "h", "mine": True, "id": 0, "type": "function", "native": "function"}})
    else:
        say(b'{"id":%d,' % message["id"] + BODY + b'}')
"""


def serving(body: str) -> str:
    """A program that answers every call with `body`: an expression for the bytes after the number of the message."""
    return f"{WIRE}\nBODY = {body}\n{SERVE}"


def run(sandbox: Sandbox, source: str, suite: Suite, limits: Limits = LIMITS) -> Report:
    return judge(Program("python", source), suite, limits, Stop(), sandbox)


def size(report: Report) -> int:
    return len(msgspec.json.encode(report))


def small(report: Report) -> bool:
    return size(report) <= bounds.MAX_REPORT_BYTES and all(len(test.detail) <= 2600 for test in report.tests)


# --- what an answer costs ---------------------------------------------------------------------------------------------

COSTLY = {
    "a dict as a key as a key": """nest(40, lambda x: tagged("dict", [x, 1]), chr(92))""",
    "a counter as a key": """nest(150, lambda x: tagged("Counter", [x, 1]), '"')""",
    "tuples of dicts as keys": """nest(60, lambda x: tagged("dict", [tagged("tuple", x, "'"), 1]), "'")""",
    "sets in sets": """nest(190, lambda x: tagged("frozenset", x, chr(92)), 1)""",
    "numpy around numpy": """nest(190, lambda x: {"t": "numpy", "v": x, "d": "<i8"}, 1)""",
    "a long text in nested lists": """b'"ok":' + b'[' * 190 + b'"' + b'x' * 15000000 + b'"' + b']' * 190""",
    "a long text in nested sets": """nest(190, lambda x: tagged("frozenset", x), 'x' * 15000000)""",
    "a million empty lists": """b'"ok":[' + b'[],' * 1000000 + b'1]'""",
    "four hundred thousand tuples": """b'"ok":[' + b'{"t":"tuple","v":[1]},' * 400000 + b'1]'""",
    "a million numbers": """b'"ok":[' + b'1.5,' * 1900000 + b'1]'""",
    "a set of a million": """many(b"set", b"%d", 1000000)""",
    "colliding keys": """many(b"dict", b"[%d000000000000000000,1]", 100000)""",
    "colliding numbers": """nest(1, lambda x: tagged("set", *x), [at * ((1 << 61) - 1) for at in range(140000)])""",
    "two million commas in a text": """b'"ok":"' + b',' * 15000000 + b'"'""",
    "a dict of a million": """b'"ok":{' + b','.join(b'"%d":1' % i for i in range(1000000)) + b'}'""",
}


def slowness() -> float:
    """How much slower this machine is just now than the one that the budgets are of; at least 1."""
    began = time.process_time()
    json.loads(REFERENCE)
    return max(1.0, (time.process_time() - began) / REFERENCE_S)


@pytest.mark.parametrize("kind", ["function", "literal"])
@pytest.mark.parametrize("name", COSTLY)
def test_no_answer_costs_the_judge_more_than_its_budget(sandbox: Sandbox, name: str, kind: str) -> None:
    source = serving(COSTLY[name])
    budget_s = JUDGE_S * slowness()
    began = time.process_time()
    report = run(sandbox, source, SUITES[kind])
    assert time.process_time() - began < budget_s, report.tests[0]
    assert report.verdict in FAILED, report.tests[0]
    assert small(report)


def test_colliding_hashes_cost_the_test_process_nothing(sandbox: Sandbox) -> None:
    suite = AssertSuite(("x = f(1)\nassert len(x) > 3",), entry_point="f")
    began = time.monotonic()
    report = run(sandbox, serving(COSTLY["colliding numbers"]), suite)
    assert report.verdict is Verdict.INVALID_RESULT, report.tests[0]
    assert time.monotonic() - began < LIMITS.cpu_s


SAME_HASH = [at * ((1 << 61) - 1) for at in range(2_000)]
PAIRS = [[at, 1] for at in SAME_HASH]
MAPPINGS = ("dict", "Counter", "OrderedDict", "defaultdict", "UserDict", "mappingproxy", "dict_items")
TABLES = dict.fromkeys(MAPPINGS, PAIRS)
TABLES |= dict.fromkeys(("set", "frozenset", "dict_keys"), SAME_HASH)


@pytest.mark.parametrize("tag", TABLES)
def test_a_table_whose_keys_collide_is_malformed(tag: str) -> None:
    with pytest.raises(codec.CodecError, match=f"a malformed {tag}"):
        codec.decode({"t": tag, "v": TABLES[tag]})
    assert len(codec.decode({"t": tag, "v": TABLES[tag][:90]})) == 90


def test_points_around_zero_whose_hashes_collide_by_twos_pass(sandbox: Sandbox) -> None:
    """hash(-1) == hash(-2), and so do tuples of them."""
    source = "def f(n): return {(x, y, z) for x in range(-n, n) for y in range(-n, n) for z in range(-9, 9)}"
    tests = ("r = f(40)\nassert len(r) == 115_200 and (-1, -2, -1) in r", "assert f(1) == {1}")
    suite = AssertSuite(tests, entry_point="f")
    assert [test.verdict for test in run(sandbox, source, suite).tests] == [Verdict.PASSED, Verdict.WRONG_ANSWER]


def test_a_container_that_both_hold_does_not_grow_by_colliding_keys() -> None:
    held = dict.fromkeys(SAME_HASH[:90])
    with pytest.raises(ValueError, match="share their hash"):
        shared_containers.change(held, tuple((at, 1) for at in SAME_HASH[90:]), 90)
    assert len(held) == 90
    shared_containers.change(held, (("a", 1),), 90)
    assert held["a"] == 1


@pytest.mark.parametrize("name", ["a dict as a key as a key", "a million empty lists", "a set of a million"])
def test_what_is_past_the_budget_is_the_programs_invalid_result(sandbox: Sandbox, name: str) -> None:
    assert run(sandbox, serving(COSTLY[name]), SUITES["function"]).verdict is Verdict.INVALID_RESULT


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(n): return list(range(n))", [*range(300_000)]),
        ("def f(n): return [(i, str(i)) for i in range(50_000)]", [[i, str(i)] for i in range(50_000)]),
        ("def f(n): return {i: [i] for i in range(50_000)}", {str(i): [i] for i in range(50_000)}),
        ("def f(n): return ',[{' * 1_000_000", ",[{" * 1_000_000),
        ("def f(n): return [[[1.5] * 10] * 100] * 100", [[[1.5] * 10] * 100] * 100),
    ],
)
def test_large_right_answers_pass_and_wrong_ones_do_not(sandbox: Sandbox, source: str, expected: object) -> None:
    suite = FunctionSuite("f", (Case((300_000,), {}, expected),))
    assert run(sandbox, source, suite).verdict is Verdict.PASSED
    nearly = "{**value, 3: 3}" if isinstance(expected, dict) else "value[:-1]"
    wrong = f"{source}\nright = f\ndef f(n):\n    value = right(n)\n    return {nearly}\n"
    assert run(sandbox, wrong, suite).verdict is Verdict.WRONG_ANSWER


def test_a_long_text_of_commas_crosses_to_the_tests(sandbox: Sandbox) -> None:
    suite = AssertSuite(("x = f(1)\nassert x.count(',') == 3_000_000", "x = f(1)\nassert x == ''"), entry_point="f")
    report = run(sandbox, "def f(n): return ',' * 3_000_000", suite)
    assert [test.verdict for test in report.tests] == [Verdict.PASSED, Verdict.WRONG_ANSWER]


# --- what is said of it -----------------------------------------------------------------------------------------------

LONG = """b'"' + b'x' * 15000000 + b'"'"""
SAID = {
    "a float": f"""b'"ok":{{"t":"float","v":' + {LONG} + b'}}'""",
    "an unknown tag": f"""b'"ok":{{"t":' + {LONG} + b'}}'""",
    "a tag that is a list": """b'"ok":{"t":[' + b'1,' * 200000 + b'1]}'""",
    "a type": f"""b'"ok":{{"t":"type","v":' + {LONG} + b'}}'""",
    "a decimal": f"""b'"ok":{{"t":"decimal","v":' + {LONG} + b'}}'""",
    "a date": f"""b'"ok":{{"t":"date","v":' + {LONG} + b'}}'""",
    "bytes": f"""b'"ok":{{"t":"bytes","v":' + {LONG} + b'}}'""",
    "a named tuple": f"""b'"ok":{{"t":"namedtuple","f":["a"],"v":[1],"n":' + {LONG} + b'}}'""",
    "a field of a named tuple": f"""b'"ok":{{"t":"namedtuple","n":"N","v":[1],"f":[' + {LONG} + b']}}'""",
    "a kind of array": f"""b'"ok":{{"t":"ndarray","v":[1],"d":' + {LONG} + b'}}'""",
    "the type of a handle": f"""b'"ok":{{"t":"h","mine":true,"id":5,"type":' + {LONG} + b'}}'""",
    "a class of exceptions": f"""b'"ok":{{"t":"h","mine":true,"id":5,"exception":[' + {LONG} + b',"ValueError"]}}'""",
    "a wall": f"""b'"wall":' + {LONG}""",
    "a wall that is a list": """b'"wall":[' + b'"x",' * 200000 + b'1]'""",
    "the name of an error": f"""b'"error":{{"base":"ValueError","message":"m","name":' + {LONG} + b'}}'""",
    "the message of an error": f"""b'"error":{{"base":"ValueError","name":"N","message":' + {LONG} + b'}}'""",
    "the base of an error": f"""b'"error":{{"name":"N","message":"m","base":' + {LONG} + b'}}'""",
    "the arguments of an error": f"""b'"error":{{"base":"ValueError","args":{{"t":"tuple","v":[' + {LONG} + b']}}}}'""",
    "a text": f"""b'"ok":' + {LONG}""",
    "an error that is a text": f"""b'"error":' + {LONG}""",
    "an argument that has changed": f"""b'"ok":1,"changed":[[0,{{"t":"float","v":' + {LONG} + b'}}]]'""",
    "a request": f"""b'"op":"call","h":0,"args":[],"names":' + {LONG}""",
}


@pytest.mark.parametrize("kind", SUITES)
@pytest.mark.parametrize("name", SAID)
def test_a_detail_is_cut_whatever_an_answer_quotes(sandbox: Sandbox, name: str, kind: str) -> None:
    report = run(sandbox, serving(SAID[name]), SUITES[kind])
    assert report.verdict in FAILED, report.tests[0]
    assert small(report)


GREETINGS = {
    "an exit": f"""b'{{"hello":true,"exit":' + {LONG} + b'}}'""",
    "an exit that is a list": """b'{"hello":true,"exit":[' + b'1,' * 200000 + b'1]}'""",
    "an error": f"""b'{{"hello":true,"error":{{"name":' + {LONG} + b',"message":"m"}}}}'""",
    "an error that is none": f"""b'{{"hello":true,"error":' + {LONG} + b'}}'""",
    "a hello": f"""b'{{"hello":' + {LONG} + b'}}'""",
    "a list": """b'[' + b'1,' * 1000000 + b'1]'""",
    "no JSON": """b'x' * 15000000""",
}


@pytest.mark.parametrize("kind", SUITES)
@pytest.mark.parametrize("name", GREETINGS)
def test_a_greeting_is_cut_as_well(sandbox: Sandbox, name: str, kind: str) -> None:
    report = run(sandbox, f"{WIRE}\nsay({GREETINGS[name]})\ntime.sleep(9)\n", SUITES[kind], Limits(cpu_s=1, wall_s=3))
    assert report.verdict in FAILED, report.tests[0]
    assert small(report)


# --- whose fault it is ------------------------------------------------------------------------------------------------

COMMAS = r"""b'"' + b'\\u002c' * 2000100 + b'"'"""
BRACKETS = r"""b'"' + b'\\u005b' * 2000100 + b'"'"""
QUOTES = r"""b'"' + b'\\"' * 4000000 + b'"'"""
SURROGATES = r"""b'"' + b'\\ud800' * 2000100 + b'"'"""
CARRIERS = {
    "a wall": """b'"wall":' + TEXT""",
    "an error": """b'"error":{"base":"ValueError","name":"E","message":' + TEXT + b'}'""",
    "a name": """b'"error":{"base":"ValueError","message":"m","name":' + TEXT + b'}'""",
    "a named tuple": """b'"ok":{"t":"namedtuple","f":[],"v":[],"n":' + TEXT + b'}'""",
    "a kind of array": """b'"ok":{"t":"ndarray","v":[],"d":' + TEXT + b'}'""",
    "a handle": """b'"ok":{"t":"h","mine":true,"id":1,"type":' + TEXT + b'}'""",
    "an answer": """b'"ok":' + TEXT""",
    "a key of an answer": """b'"ok":{"t":"dict","v":[[' + TEXT + b',1]]}'""",
}


@pytest.mark.parametrize("text", [COMMAS, BRACKETS, QUOTES, SURROGATES], ids=["comma", "bracket", "quote", "half"])
@pytest.mark.parametrize("name", CARRIERS)
def test_no_text_of_a_program_makes_its_suite_invalid(sandbox: Sandbox, name: str, text: str) -> None:
    for kind in ("assert", "check"):
        report = run(sandbox, serving(f"({CARRIERS[name]})".replace("TEXT", text)), SUITES[kind])
        assert report.verdict in FAILED, report.tests[0]
        assert small(report)


def test_the_tests_own_message_quotes_a_right_answer_and_is_read(sandbox: Sandbox) -> None:
    suite = AssertSuite(("x = f(1)\nassert x == 'no', x", "x = f(1)\nassert len(x) == 2000100"), entry_point="f")
    report = run(sandbox, "def f(n): return ',' * 2000100", suite)
    assert [test.verdict for test in report.tests] == [Verdict.WRONG_ANSWER, Verdict.PASSED]
    assert small(report)


# --- reports ----------------------------------------------------------------------------------------------------------

NOISY = """
import sys
def f(x):
    print('\\x00é' * 3000)
    print('e' * 9000, file=sys.stderr)
    raise ValueError('m' * 9000)
"""


@pytest.mark.parametrize("num_tests", [1, 60])
def test_a_report_of_noise_is_bounded_and_says_so(sandbox: Sandbox, num_tests: int) -> None:
    suites: list[Suite] = [
        FunctionSuite("f", (Case((1,), {}, 1),) * num_tests),
        AssertSuite(("x = f(1)\nassert x == 1",) * num_tests, entry_point="f"),
        StdioSuite((StdioCase("", "x"),) * num_tests),
    ]
    for suite in suites:
        report = run(sandbox, NOISY + "f(1)\n" * isinstance(suite, StdioSuite), suite)
        assert size(report) <= bounds.MAX_REPORT_BYTES
        assert ("report_truncated" in report.flags) is (num_tests > 1)
        assert len(report.tests) == report.total == num_tests
        assert all(test.detail and test.stderr for test in report.tests)


def test_ten_thousand_tests_fit_into_a_report(sandbox: Sandbox) -> None:
    report = run(
        sandbox, "def f(x): return x\n", FunctionSuite("f", tuple(Case((at,), {}, at) for at in range(10_000)))
    )
    assert (report.passed, report.total, report.verdict) == (10_000, 10_000, Verdict.PASSED)
    assert size(report) <= bounds.MAX_REPORT_BYTES
    assert "report_truncated" in report.flags
    assert len(report.tests) >= 1000


def test_requested_output_is_not_cut(sandbox: Sandbox) -> None:
    report = run(sandbox, "print('x' * 500_000)", RunSuite())
    assert report.output is not None
    assert len(report.output.stdout) == 500_001
    assert len(report.tests[0].stdout) <= 4001


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a set of a million", "four hundred thousand tuples", "a long text in nested sets"])
def test_judging_counts_within_the_wall_of_each_test(sandbox: Sandbox, name: str) -> None:
    limits, num_tests = Limits(cpu_s=0.5, wall_s=2), 6
    suite = FunctionSuite("f", (Case((1,), {}, 1),) * num_tests)
    began = time.monotonic()
    report = run(sandbox, serving(COSTLY[name]), suite, limits)
    assert time.monotonic() - began < 1.2 * limits.wall * num_tests
    assert report.passed == 0


SLOW = {
    "loads and answers slowly": "import time\ntime.sleep(0.9)\ndef f(x):\n    time.sleep(0.9)\n    return object()\n",
    "loads slowly and hangs": "import time\ntime.sleep(0.9)\ndef f(x):\n    time.sleep(9)\n",
    "loads slowly and leaves": "import os, time\ntime.sleep(0.9)\ndef f(x):\n    time.sleep(0.9)\n    os._exit(0)\n",
    "answers slowly and opaquely at the end": (
        "import time\ndef f(x):\n    time.sleep(0.7)\n    return object() if x == 2 else x\n"
    ),
}


@pytest.mark.parametrize("kind", ["function", "literal", "assert"])
@pytest.mark.parametrize("name", SLOW)
def test_no_test_holds_its_judge_past_its_wall_and_a_fifth(sandbox: Sandbox, name: str, kind: str) -> None:
    limits, numbers = Limits(cpu_s=0.4, wall_s=1.0), range(3)
    suite: Suite
    if kind == "function":
        suite = FunctionSuite("f", tuple(Case((at,), {}, at) for at in numbers))
    else:
        form = "assert f({0}) == {0}" if kind == "literal" else "x = f({0})\nassert x == {0}"
        suite = AssertSuite(tuple(form.format(at) for at in numbers), entry_point="f")
    began = time.monotonic()
    run(sandbox, SLOW[name], suite, limits)
    assert time.monotonic() - began < 1.2 * limits.wall * len(numbers) + 0.5


def test_state_between_tests_survives_an_answer_that_needs_a_process(sandbox: Sandbox) -> None:
    """The suite begins again with the process, so that the program's count does not."""
    source = "n = 0\nclass A: pass\ndef f(x):\n    global n\n    n += 1\n    return A() if n == 3 else n\n"
    suite = AssertSuite(("assert f(0) == 1", "assert f(0) == 2", "assert f(0)", "assert f(0) == 4"), entry_point="f")
    assert run(sandbox, source, suite).passed == 4


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    ["def f(x:", "  x = 1\ny = 2", "if True:\n\tx\n        y", "print 'x'", "x = '\\N{none}'", "def f(): return\n)"],
)
def test_python_that_does_not_parse_is_a_compile_error(sandbox: Sandbox, source: str) -> None:
    for suite in (*SUITES.values(), StdioSuite((StdioCase("", ""),)), ScriptSuite("assert f(1) == 1")):
        assert run(sandbox, source, suite).verdict is Verdict.COMPILE_ERROR, suite


@pytest.mark.parametrize(
    "source", ["exec('x = (')", "import json\njson.loads('{')", "raise SyntaxError('x')", "compile('1 +', 'a', 'eval')"]
)
def test_what_fails_as_it_runs_is_no_compile_error(sandbox: Sandbox, source: str) -> None:
    for suite in (*SUITES.values(), StdioSuite((StdioCase("", ""),))):
        assert run(sandbox, source, suite).verdict is Verdict.RUNTIME_ERROR, suite


@pytest.mark.parametrize("source", ["bytearray(1 << 40)", "raise MemoryError", "[0] * (1 << 50)", "'a' * (1 << 45)"])
def test_memory_that_is_refused_is_the_memory_limit(sandbox: Sandbox, source: str) -> None:
    assert run(sandbox, source, StdioSuite((StdioCase("", ""),))).verdict is Verdict.MEMORY_LIMIT
    for suite in SUITES.values():
        assert run(sandbox, f"def f(x):\n    {source}\n", suite).verdict is Verdict.MEMORY_LIMIT, suite
        assert run(sandbox, source, suite).verdict is Verdict.MEMORY_LIMIT, suite
    caught = f"try:\n    {source}\nexcept MemoryError:\n    print(3)\n"
    assert run(sandbox, caught, StdioSuite((StdioCase("", "3"),))).verdict is Verdict.PASSED


def test_bad_alloc_is_the_memory_limit(sandbox: Sandbox) -> None:
    source = "#include <vector>\nint main() { std::vector<char> v(1L << 45); return v[7]; }"
    report = judge(Program("cpp", source), StdioSuite((StdioCase("", ""),)), LIMITS, Stop(), sandbox)
    assert report.verdict is Verdict.MEMORY_LIMIT


def test_integers_within_a_tolerance_compare_exactly(sandbox: Sandbox) -> None:
    suite = StdioSuite((StdioCase("", "1000000 2.5"),), compare="float", rel_tol=1e-5)
    for printed, right in (
        ("1000000 2.5000001", True),
        ("1000001 2.5", False),
        ("1000000.0001 2.5", True),
        ("+1000000 2.50", True),
        ("-1000000 2.5", False),
    ):
        assert run(sandbox, f"print('{printed}')", suite).passed == right, printed
    numbers = FunctionSuite("f", (Case((), {}, 1_000_000),), rel_tol=1e-5)
    assert run(sandbox, "def f(): return 1000001", numbers).verdict is Verdict.WRONG_ANSWER
    assert run(sandbox, "def f(): return 1000000.001", numbers).verdict is Verdict.PASSED


def test_expected_output_that_may_not_be_printed_is_refused(sandbox: Sandbox) -> None:
    limits = Limits(output_kb=1)
    for compare in ("exact", "rstrip", "tokens"):
        suite = StdioSuite((StdioCase("", "x"), StdioCase("", "x" * 2000)), compare)  # type: ignore[arg-type]
        with pytest.raises(InvalidSuite, match=r"cases\.1\.stdout: .* 2000 bytes .*limits\.output_kb"):
            run(sandbox, "", suite, limits)
    fits = StdioSuite((StdioCase("", "x" * 1000 + "\n" * 3000),))
    assert run(sandbox, "print('x' * 1000)", fits, limits).verdict is Verdict.PASSED


# --- memory of the judge ----------------------------------------------------------------------------------------------

LIMITED = """
import json, resource, sys
from sandbox.errors import SandboxError
from sandbox.judge import judge
from sandbox.types import *
from sandbox.open import open_sandbox
from service.worker.main import limit_memory
suites = {"function": FunctionSuite("f", (Case((1,), {}, 1),)), "literal": AssertSuite(("assert f(1) == 1",)),
          "assert": AssertSuite(("x = f(1)\\nassert x == 1",), entry_point="f")}
with open_sandbox() as sandbox:
    status = dict(line.split(":") for line in open("/proc/self/status"))
    limit_memory(int(status["VmData"].split()[0]) // 1024 + int(sys.argv[1]))
    for line in sys.stdin:
        kind, source = json.loads(line)
        try:
            report = judge(Program("python", source), suites[kind], Limits(cpu_s=2), Stop(), sandbox)
            print(json.dumps([report.verdict, report.tests[0].detail[:200]]), flush=True)
        except SandboxError as error:
            print(json.dumps(["SandboxError", str(error)]), flush=True)
"""


@pytest.mark.parametrize("more_mb", [24, 96])
def test_an_executor_at_its_memory_limit_says_so_and_lives_on(more_mb: int) -> None:
    """So little is left to the judge that some of these cannot even be received: the program's failure, each time."""
    right = "import resource\nassert resource.getrlimit(resource.RLIMIT_DATA)[0] == -1\ndef f(x): return x\n"
    orders = [("function", right)]
    for kind in ("function", "literal", "assert"):
        for name in ("a dict as a key as a key", "a million numbers", "a set of a million", "a dict of a million"):
            orders += [(kind, serving(COSTLY[name])), (kind, right)]
        orders += [(kind, serving(SAID["a float"])), (kind, right)]
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), str(more_mb)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        input="".join(json.dumps(order) + "\n" for order in orders),
        timeout=170,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    told = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(told) == len(orders)
    for (kind, source), (verdict, detail) in zip(orders, told, strict=True):
        if source == right:
            assert verdict == "passed", (kind, detail)
        else:
            assert verdict in FAILED, (kind, source[-300:], verdict, detail)


def test_a_slice_of_the_fuzz_breaks_no_bound() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/fuzz.py", "--messages", "5000", "--seed", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
