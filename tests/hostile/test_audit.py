"""What a program is seen doing is reported beside its verdict, changes nothing about it, and can be denied."""

from __future__ import annotations

import pytest

from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import (
    AssertSuite,
    Case,
    CheckSuite,
    FunctionSuite,
    Limits,
    Options,
    Program,
    Report,
    RunSuite,
    StdioCase,
    StdioSuite,
    Stop,
    Suite,
)

LIMITS = Limits(cpu_s=1, wall_s=6)
AUDIT = Options(audit=True)
THREE = AssertSuite(("assert f(1) == 2", "assert f(2) == 3", "assert f(3) == 4"))
CALLS = FunctionSuite("f", (Case((1,), {}, 2), Case((2,), {}, 3), Case((3,), {}, 4)))
CHECK = CheckSuite("def check(candidate):\n    for x in (1, 2, 3):\n        assert candidate(x) == x + 1\n", "f")
EMPTY = StdioSuite((StdioCase("", ""),))


def run(sandbox: Sandbox, source: str, suite: Suite, options: Options = AUDIT) -> Report:
    return judge(Program("python", source), suite, LIMITS, Stop(), sandbox, options)


AUDIT_FLAGS = {
    "equal to everything": (
        "class Y:\n    def __eq__(self, o): return True\ndef f(x): return Y()",
        "operators_overridden",
    ),
    "equal to whatever equals itself": (
        "class Y:\n    def __eq__(self, o): return o == o\ndef f(x): return Y()",
        "operators_overridden",
    ),
    "never unequal": ("class Y:\n    __ne__ = lambda s, o: False\ndef f(x): return Y()", "operators_overridden"),
    "a type made on the spot": (
        "def f(x): return type('Y', (), {'__eq__': lambda s, o: True})()",
        "operators_overridden",
    ),
    "made of a text": (
        "exec('class Y:\\n    def __eq__(self, o): return True\\n')\ndef f(x): return Y()",
        "operators_overridden",
    ),
    "frame walk": ("import sys\ndef f(x): return sys._getframe().f_back and None", "reads_frames"),
    "frame walk by another name": (
        "import sys\ng = getattr(sys, '_get' + 'frame')\ndef f(x): return g(1) and None",
        "reads_frames",
    ),
    "frames through inspect": ("import inspect\ndef f(x): return len(inspect.stack())", "reads_frames"),
    "a traceback's frame": (
        "def f(x):\n    try: 1 / 0\n    except Exception as e: return getattr(e.__traceback__, 'tb' + '_frame') and 0",
        "reads_frames",
    ),
    "gc walk": ("import gc\ndef f(x): return len([o for o in gc.get_objects() if 0])", "reads_frames"),
    "tracing": ("import sys\ndef f(x):\n    sys.settrace(None)\n    return 0", "reads_frames"),
    "patched builtins": ("import builtins\nbuiltins.all = lambda *a: True\ndef f(x): return 0", "patches_builtins"),
    "builtins through their dict": (
        "import builtins\nvars(builtins)['a' + 'll'] = lambda *a: True\ndef f(x): return 0",
        "patches_builtins",
    ),
    "a patched operator": (
        "import operator\nsetattr(operator, 'eq', lambda a, b: True)\ndef f(x): return 0",
        "patches_modules",
    ),
    "patched json, in a roundabout way": (
        "import json\nvars(json)['du' + 'mps'] = lambda *a, **k: '1'\ndef f(x): return 0",
        "patches_modules",
    ),
    "another code": (
        "import json\njson.dumps.__code__ = (lambda *a, **k: '1').__code__\ndef f(x): return 0",
        "patches_modules",
    ),
    "a fake pytest": (
        "import sys, types\nsys.modules['pytest'] = types.ModuleType('pytest')\ndef f(x): return 0",
        "patches_modules",
    ),
    "a patched unittest": (
        "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef f(x): return 0",
        "patches_modules",
    ),
    "a report": ("open('/tmp/results.json', 'w').write('{\"passed\": true}')\ndef f(x): return 0", "writes_results"),
    "a conftest": ("open('conftest.py', 'w').write('x')\ndef f(x): return 0", "writes_results"),
    "a file elsewhere": (
        "try: open('/usr/lib/python3/x', 'w')\nexcept OSError: pass\ndef f(x): return 0",
        "writes_results",
    ),
    "one descriptor after the other": (
        "import os\nfor n in range(10, 60):\n    try: os.write(n, b'1')\n    except OSError: pass\ndef f(x): return 0",
        "writes_results",
    ),
    "a descriptor by its number": ("import os\ndef f(x):\n    os.write(9, b'1')", "writes_results"),
    "its judge's files": ("import os\ndef f(x): return len(os.listdir('/harness'))", "reads_proc"),
    "its own memory": ("open('/pr' + 'oc/self/maps').read()\ndef f(x): return 0", "reads_proc"),
    "pytest's variable": (
        "import os\ndef f(x): return x + 1 if 'PYTEST_CURRENT_TEST' in os.environ else 0",
        "detects_tests",
    ),
    "a loaded test runner": ("import sys\ndef f(x): return 0 if 'unittest' in sys.modules else 1", "detects_tests"),
    "a signal to its parent": (
        "import os\ntry: os.kill(os.getppid(), 9)\nexcept OSError: pass\ndef f(x): return 0",
        "signals_others",
    ),
    "a shell": ("import subprocess\nsubprocess.run(['true'])\ndef f(x): return 0", "starts_processes"),
    "the network": (
        "import socket\ntry: socket.getaddrinfo('example.org', 80)\nexcept OSError: pass\ndef f(x): return 0",
        "uses_network",
    ),
    "native code": ("import ctypes\nctypes.CDLL(None)\ndef f(x): return 0", "calls_native"),
    "an exit while it is loaded": ("import sys\nsys.exit(0)", "early_exit"),
    "an exit in a call": ("import os\ndef f(x): os._exit(0)", "early_exit"),
}


@pytest.mark.parametrize("name", AUDIT_FLAGS)
@pytest.mark.parametrize("suite", [THREE, CALLS, CHECK], ids=["literal", "function", "check"])
def test_it_is_seen_and_passes_nothing(sandbox: Sandbox, name: str, suite: Suite) -> None:
    source, flag = AUDIT_FLAGS[name]
    report = run(sandbox, source, suite)
    assert flag in report.flags, report
    assert report.passed == 0
    plain = run(sandbox, source, suite, Options())
    assert [test.verdict for test in plain.tests] == [test.verdict for test in report.tests]
    assert not set(plain.flags) & {flag}


@pytest.mark.parametrize("name", [name for name, (_, flag) in AUDIT_FLAGS.items() if flag != "early_exit"])
def test_it_is_seen_in_a_program_that_reads_stdin_too(sandbox: Sandbox, name: str) -> None:
    source, flag = AUDIT_FLAGS[name]
    for options in (AUDIT, Options(audit=True, fresh_interpreter=True)):
        report = run(sandbox, f"{source}\ntry: f(1)\nexcept NameError: pass\n", EMPTY, options)
        assert flag in report.flags


@pytest.mark.parametrize("name", ["frame walk", "patched json, in a roundabout way", "equal to everything"])
def test_it_is_seen_in_a_shared_process_where_it_may_pass(sandbox: Sandbox, name: str) -> None:
    source, flag = AUDIT_FLAGS[name]
    report = run(sandbox, source, THREE, Options(audit=True, grading="together"))
    assert flag in report.flags
    assert report.judge == "shared_process"


HONEST = {
    "exits as scripts do": "import sys\nprint(1)\nsys.exit(0)\n",
    "exits by quit": "print(1)\nquit()\n",
    "fast input and output": """
import sys, os, io
input = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline
sys.stdout = io.StringIO()
sys.setrecursionlimit(10000)
os.write(1, b"1\\n")
""",
    "named tuples, dataclasses, enums": """
import collections, dataclasses, enum, typing, functools, logging, warnings, traceback, inspect
P = collections.namedtuple("P", "x y")
@dataclasses.dataclass(order=True)
class D:
    x: int = 0
class E(enum.Enum): A = 1
class N(typing.NamedTuple):
    x: int
class Node:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return isinstance(other, Node) and self.x == other.x
    def __ne__(self, other): return not self == other
    def __lt__(self, other): return True
class Never:
    def __eq__(self, other): return False
class Default:
    def __eq__(self, other): return NotImplemented
logging.warning("x")
warnings.warn("x")
inspect.signature(Node)
inspect.getsource(Node)
try: 1 / 0
except ZeroDivisionError: traceback.print_exc()
D(1) == D(2), P(1, 2), functools.lru_cache(None)(abs)(1)
""",
    "files of its own": """
import tempfile, os, shutil, json, pathlib
with tempfile.TemporaryDirectory() as d:
    pathlib.Path(d, "results.txt").write_text("1")
with open("data.txt", "w") as f: json.dump([1], f)
open("/dev/null", "w").write("x")
os.listdir("."), os.path.abspath(".."), open(__file__).read()
""",
    "threads, processes of multiprocessing apart": """
import threading, queue, asyncio, concurrent.futures
async def main(): await asyncio.sleep(0)
asyncio.run(main())
with concurrent.futures.ThreadPoolExecutor(2) as pool: list(pool.map(str, [1]))
""",
    "unit tests of its own": """
import unittest
class T(unittest.TestCase):
    def test_one(self): self.assertEqual(1, 1)
if __name__ == "__main__":
    unittest.main(argv=["x"], exit=False)
""",
    "copies, sorts, evaluates": """
import copy, gc, itertools, heapq, random, time, decimal, fractions, statistics
decimal.getcontext().prec = 50
copy.deepcopy({1: [2]}); gc.collect(); eval("1 + 1"); exec("y = 2"); time.time(); random.seed(1)
print = lambda *a: None
""",
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("fresh", [False, True])
def test_honest_programs_raise_no_flag(sandbox: Sandbox, name: str, fresh: bool) -> None:
    report = run(sandbox, HONEST[name], RunSuite(""), Options(audit=True, fresh_interpreter=fresh))
    assert (report.verdict, report.flags) == ("passed", ()), report.tests[0].stderr


def test_a_script_that_leaves_around_its_end_is_an_early_exit(sandbox: Sandbox) -> None:
    source = "import os, sys\nprint(1)\nsys.stdout.flush()\nos._exit(0)\n"
    report = run(sandbox, source, StdioSuite((StdioCase("", "1"),)))
    assert (report.verdict, report.flags) == ("passed", ("early_exit",))
    for other in ("while True: pass", "import os; os.abort()", "raise ValueError"):  # an end, but not of that kind
        assert "early_exit" not in run(sandbox, other, EMPTY).flags


def test_it_can_be_denied_and_forged_and_the_verdict_does_not_care(sandbox: Sandbox) -> None:
    denied = "import os\nos.close(3)\nprint(os.getppid() and open('/proc/self/stat').read(0))\n"
    forged = "import os\nos.write(3, b'uses_network\\nall is well\\n\\xff\\nended\\n')\n"
    flood = "import os\nfor _ in range(100):\n    try: os.write(3, b'ended\\n' * 9999)\n    except OSError: pass\n"
    suite = StdioSuite((StdioCase("", ""),))
    assert "reads_proc" in run(sandbox, denied, suite).flags  # it was said before the door was shut
    report = run(sandbox, forged, suite)
    assert (report.verdict, report.flags) == ("passed", ("uses_network", "writes_results"))
    assert run(sandbox, flood, suite).verdict == "passed"


def test_what_is_no_program_raises_no_flag(sandbox: Sandbox) -> None:
    for source in ("x = (", "\0", "(" * 100_000, "x = " + "-" * 50_000 + "1", "# " + "x" * 200_000):
        watched, plain = run(sandbox, source, EMPTY), run(sandbox, source, EMPTY, Options())
        assert (watched.flags, watched.verdict) == (plain.flags, plain.verdict)


def test_the_words_are_the_same_inside_and_outside() -> None:
    import re
    from pathlib import Path

    from sandbox.inside import audit as inside
    from sandbox.judge.audit import AUDIT_FLAGS as MEANINGS

    text = Path(inside.__file__).read_text("utf-8")
    said = set(re.findall(r'"([a-z]+_[a-z]+)"', text)) & {flag for _, flag in AUDIT_FLAGS.values()}
    assert said | {"early_exit"} == set(MEANINGS) == {flag for _, flag in AUDIT_FLAGS.values()}
