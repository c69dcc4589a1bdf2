"""Programs that write to the wire themselves: what they can say that way is at most a value, and costs only themselves.

A program finds its own end of the wire without trouble (it shares a process with it). `answer(tree)` in the programs
here makes that end reply with a tree of the program's choosing; others write bytes to descriptor 3.
"""

from __future__ import annotations

import json
import time

import pytest

from plaudit.grading import Verdict
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, Case, FunctionSuite, Limits, Program, Report, Stop, Suite

LIMITS = Limits(cpu_s=5)
QUICK = Limits(cpu_s=0.5, wall_s=3)
ASSERT = AssertSuite(("x = 1\nassert f(x) == 2",), "", "f")  # needs a process of the tests
LITERAL = AssertSuite(("assert f(1) == 2",))  # may be compared without one
CALL = FunctionSuite("f", (Case((1,), {}, 2),))
WAYS = (ASSERT, LITERAL, CALL)
ALL = pytest.mark.parametrize("suite", WAYS, ids=["assert", "literal", "function"])

WIRE = """
import gc, json, os, sys, time
def end():
    return next(thing for thing in gc.get_objects() if type(thing).__name__ == "Endpoint")
def answer(tree):
    type(end()).encode.__globals__["codec"].encode = lambda value, *rest: tree
def number():
    frame = sys._getframe(1)
    while frame is not None:
        message = frame.f_locals.get("message")
        if type(message) is dict and "id" in message:
            return message["id"]
        frame = frame.f_back
def raw(text):
    data = text.replace("ID", str(number())).encode()
    return len(data).to_bytes(4, "big") + data
"""


def run(sandbox: Sandbox, source: str, suite: Suite, limits: Limits = LIMITS) -> Report:
    return judge(Program("python", WIRE + source), suite, limits, Stop(), sandbox)


def answering(tree: object) -> str:
    return f"def f(x): answer(json.loads({json.dumps(json.dumps(tree))}))\n"


def writing(text: str) -> str:
    return f"def f(x):\n    os.write(3, raw({text!r}))\n    os._exit(0)\n"


@ALL
def test_the_way_these_programs_answer_works(sandbox: Sandbox, suite: Suite) -> None:
    """So that a failure of the others is not a failure of the attack."""
    assert run(sandbox, answering(2), suite).verdict is Verdict.PASSED
    assert run(sandbox, answering(3), suite).verdict is Verdict.WRONG_ANSWER
    assert run(sandbox, writing('{"id":ID,"ok":3}'), suite).passed == 0


CONFUSED = {
    "a tag that is a list": {"t": ["int"], "v": "0x2"},
    "a tag that is a tree": {"t": {"t": "int", "v": "0x2"}, "v": 2},
    "a tag that is true": {"t": True, "v": 2},
    "no tag": {"v": 2},
    "an int of words": {"t": "int", "v": "two"},
    "an int of a number": {"t": "int", "v": 2},
    "an int of a list": {"t": "int", "v": ["0x2"]},
    "a float that is no number": {"t": "float", "v": "two"},
    "pairs that are no pairs": {"t": "dict", "v": [1, 2]},
    "a dict of three": {"t": "dict", "v": [[1, 2, 3]]},
    "a list as a key": {"t": "dict", "v": [[[1], 2]]},
    "a set of lists": {"t": "set", "v": [[1]]},
    "a set of a text": {"t": "set", "v": "ab"},
    "a range of texts": {"t": "range", "v": ["a", "b", "c"]},
    "an endless range": {"t": "range", "v": [0, {"t": "int", "v": "0x" + "f" * 200}, 0]},
    "bytes that are no hex": {"t": "bytes", "v": "zz"},
    "a division by zero": {"t": "fraction", "v": [1, 0]},
    "a decimal that signals": {"t": "decimal", "v": "sNaN"},
    "a decimal of code": {"t": "decimal", "v": "__import__('os')"},
    "a day that never was": {"t": "date", "v": "2023-02-30"},
    "a time span past all days": {"t": "timedelta", "v": [10**18, 0, 0]},
    "a type that is none": {"t": "type", "v": "eval"},
    "a type from a module": {"t": "type", "v": "os.system"},
    "a namedtuple of dunders": {"t": "namedtuple", "n": "X", "f": ["__eq__"], "v": [1]},
    "a namedtuple with code for a name": {"t": "namedtuple", "n": "X; import os", "f": [], "v": []},
    "an array of objects": {"t": "ndarray", "d": "O", "v": [{"t": "h", "mine": True, "id": 1, "type": "x"}]},
    "an array of giants": {"t": "ndarray", "d": "<U999999999", "v": ["a"]},
    "a number of an unknown kind": {"t": "numpy", "d": "no such kind", "v": 3},
    "a queue of no length": {"t": "deque", "v": [2], "max": "x"},
    "a home-coming handle": {"t": "h", "mine": False, "id": 10**30},
    "a handle below zero": {"t": "h", "mine": False, "id": -1},
    "a handle that is true": {"t": "h", "mine": True, "id": True},
    "a handle without a number": {"t": "h", "mine": True, "type": "int", "base": "int"},
    "a handle to a module": {"t": "h", "mine": True, "id": 1, "type": "module", "module": "os"},
    "a handle to a module that runs": {"t": "h", "mine": True, "id": 1, "type": "module", "module": "this.x"},
    "a handle to our own main": {"t": "h", "mine": True, "id": 1, "type": "module", "module": "__main__"},
    "a handle to a function of ours": {"t": "h", "mine": True, "id": 1, "type": "function", "ref": ["os", "_exit"]},
    "a handle with a base that is none": {"t": "h", "mine": True, "id": 1, "type": "x", "base": ["int"]},
    "an exception without a name": {"t": "h", "mine": True, "id": 1, "type": "type", "exception": [[], {}]},
    "an exception that exits": {"t": "h", "mine": True, "id": 1, "type": "type", "exception": ["X", "SystemExit"]},
}


@ALL
@pytest.mark.parametrize("name", CONFUSED)
def test_a_confused_value_is_no_right_answer(sandbox: Sandbox, name: str, suite: Suite) -> None:
    report = run(sandbox, answering(CONFUSED[name]), suite)
    assert report.verdict in (Verdict.INVALID_RESULT, Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR), report


TEXTS = {
    "a constant that JSON does not have": '{"id":ID,"ok":NaN}',
    "an infinity": '{"id":ID,"ok":-Infinity}',
    "an int of five thousand digits": '{"id":ID,"ok":' + "9" * 5000 + "}",
    "a float out of range": '{"id":ID,"ok":1e999999}',
    "the same key twice": '{"id":ID,"ok":2,"ok":3}',
    "an answer and an error": '{"id":ID,"ok":2,"error":{"base":"ValueError","name":"X","message":"m"}}',
    "an answer and a wall": '{"id":ID,"ok":2,"wall":"x"}',
    "an error that is a list": '{"id":ID,"error":[1]}',
    "an error of nothing": '{"id":ID,"error":{}}',
    "an error with a tree for a name": '{"id":ID,"error":{"base":{},"name":[],"message":{}}}',
    "the number as a text": '{"id":"ID","ok":2}',
    "a number of thirty digits": '{"id":' + "1" * 30 + ',"ok":2}',
    "a text after the message": '{"id":ID,"ok":2} trailing',
    "two bytes of UTF-16": '\ufeff{"id":ID,"ok":2}',
    "nothing": "",
    "a bare word": "passed",
    "changes to no argument": '{"id":ID,"ok":3,"changed":[[7,2],["x",2],[-1,2]]}',
    "changes that are none": '{"id":ID,"ok":3,"changed":[1]}',
    "an order to the tests": '{"op":"get","id":ID,"name":"f"}',
    "an order about what was never lent": '{"op":"attr","id":ID,"h":0,"name":"peer"}',
    "an order without a handle": '{"op":"call","id":ID,"args":[],"names":[]}',
    "a verdict": '{"done":["passed",""]}',
}


@ALL
@pytest.mark.parametrize("name", TEXTS)
def test_a_malformed_message_is_no_right_answer(sandbox: Sandbox, name: str, suite: Suite) -> None:
    assert run(sandbox, writing(TEXTS[name]), suite).passed == 0


@ALL
def test_a_value_nested_past_all_depth_is_refused(sandbox: Sandbox, suite: Suite) -> None:
    grow = "tree = 2\nfor _ in range(DEPTH): tree = WRAP\ndef f(x): answer(tree)\n"
    for depth, wrap in ((300, "[tree]"), (300, "{'t': 'tuple', 'v': [tree]}"), (250, "{'t': 'set', 'v': [tree]}")):
        report = run(sandbox, grow.replace("DEPTH", str(depth)).replace("WRAP", wrap), suite)
        assert report.verdict is Verdict.INVALID_RESULT, wrap


@ALL
def test_halves_of_surrogate_pairs_leave_a_report_that_can_be_written(sandbox: Sandbox, suite: Suite) -> None:
    half = "\\ud800"
    for source in (
        f"def f(x): raise ValueError('{half}')",
        f"def f(x): raise type('X{half}', (Exception,), {{}})('{half}')",
        f"def f(x): return type('X{half}', (), {{}})()",
        f"def f(x): return '{half}'",
        f"def f(x): return {{'{half}': '{half}'}}",
        f"import sys\ndef f(x): sys.stdout.reconfigure(errors='surrogatepass'); print('{half}')",
        f"raise ValueError('{half}')",
        answering({"t": "\ud800"}),
        answering({"t": "h", "mine": True, "id": 1, "type": "\ud800"}),
        writing('{"id":ID,"wall":"\\ud800"}'),
    ):
        report = run(sandbox, source, suite)
        assert report.passed == 0
        for test in report.tests:
            (test.detail + test.stdout + test.stderr).encode()  # raises where it cannot be written


def test_a_dict_of_keys_with_one_hash_costs_nobody(sandbox: Sandbox) -> None:
    source = "def f(x): return {n * (2 ** 61 - 1): 0 for n in range(1, 4000)}"
    quick = "def f(x): answer({'t': 'dict', 'v': [[n * (2 ** 61 - 1), 0] for n in range(1, 60000)]})"
    assert run(sandbox, source, CALL).verdict is Verdict.WRONG_ANSWER  # the process that compares hashes no such key
    began = time.process_time()
    report = run(sandbox, quick, CALL)
    assert time.process_time() - began < 3
    assert report.verdict is Verdict.WRONG_ANSWER
    assert run(sandbox, quick, ASSERT, QUICK).verdict is Verdict.INVALID_RESULT


def test_a_cycle_is_no_value(sandbox: Sandbox) -> None:
    for value in ("a = []; a.append(a)", "a = {}; a[1] = a", "a = ([],); a[0].append(a)"):
        for suite in WAYS:
            assert run(sandbox, f"{value}\ndef f(x): return a", suite).verdict is Verdict.INVALID_RESULT


@ALL
def test_an_honest_answer_may_come_byte_by_byte(sandbox: Sandbox, suite: Suite) -> None:
    source = """
def f(x):
    for byte in raw('{"id":ID,"ok":2}'):
        os.write(3, bytes([byte]))
        time.sleep(0.001)
    wire, peer = end().sock, end()
    type(peer).answer = lambda self, message: None  # the reply has been given
    return 2
"""
    assert run(sandbox, source, suite).verdict is Verdict.PASSED


@ALL
def test_a_message_that_never_ends_meets_the_clock(sandbox: Sandbox, suite: Suite) -> None:
    source = """
def f(x):
    os.write(3, (1 << 20).to_bytes(4, "big"))
    while True:
        os.write(3, b"x")
        time.sleep(0.2)
"""
    report = run(sandbox, source, suite, Limits(cpu_s=0.5, wall_s=1))
    assert report.verdict is Verdict.TIME_LIMIT


@ALL
def test_a_flood_of_messages_ends(sandbox: Sandbox, suite: Suite) -> None:
    flood = """
def f(x):
    frame = raw('{"id":0,"ok":"' + "x" * 60000 + '"}')
    while True:
        os.write(3, frame)
"""
    report = run(sandbox, flood, suite, QUICK)
    assert report.verdict in (Verdict.INVALID_RESULT, Verdict.TIME_LIMIT, Verdict.RUNTIME_ERROR, Verdict.NO_RESULT)


@ALL
def test_a_message_over_the_size_limit_is_refused(sandbox: Sandbox, suite: Suite) -> None:
    source = """
def f(x):
    size = (16 << 20) + 1
    os.write(3, size.to_bytes(4, "big"))
    end().sock.sendall(bytes(1 << 20))
    os._exit(0)
"""
    report = run(sandbox, source, suite, QUICK)
    assert report.verdict in (Verdict.INVALID_RESULT, Verdict.NO_RESULT, Verdict.RUNTIME_ERROR, Verdict.TIME_LIMIT)


@ALL
def test_hanging_up_is_no_answer(sandbox: Sandbox, suite: Suite) -> None:
    for source in (
        "def f(x): os.close(3)",
        "def f(x): end().sock.shutdown(2)",
        "def f(x): os.dup2(1, 3)",
        "def f(x):\n    os.close(3)\n    os._exit(0)",
    ):
        report = run(sandbox, source, suite, Limits(cpu_s=0.5, wall_s=1))
        assert report.passed == 0
        assert report.verdict is not Verdict.WRONG_ANSWER


@ALL
def test_descriptors_sent_over_the_wire_arrive_nowhere(sandbox: Sandbox, suite: Suite) -> None:
    """A message may carry descriptors; neither the tests nor the judge take them, and the answer is only an answer."""
    source = """
import socket
def f(x):
    wire = socket.socket(fileno=os.dup(3))
    held = [os.open("/tmp/main.py", os.O_RDONLY) for _ in range(20)]
    socket.send_fds(wire, [raw('{"id":ID,"ok":3}')], held)
    os._exit(0)
"""
    assert run(sandbox, source, suite).passed == 0
    assert run(sandbox, "def f(x): return x + 1", suite).verdict is Verdict.PASSED


def test_a_flood_from_the_program_to_a_lent_function_ends(sandbox: Sandbox) -> None:
    source = "def f(g):\n    while True: g(1)\n"
    report = run(sandbox, source, AssertSuite(("assert f(lambda x: x) == 2",)), QUICK)
    assert report.verdict is Verdict.TIME_LIMIT
