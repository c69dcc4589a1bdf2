"""What travels through the queue comes out as it went in, and a job's identity is all of its content."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import types as sandbox
from service.jobs import (
    FINAL_STATES,
    Executed,
    ExecuteTask,
    Failed,
    JobState,
    Reply,
    Scored,
    ScoreTask,
    content_hash,
    decode_reply,
    decode_suite,
    decode_task,
    encode,
    encode_suite,
    num_tests,
)

REPORT = sandbox.Report(
    sandbox.Verdict.WRONG_ANSWER,
    1,
    2,
    (
        sandbox.TestReport(sandbox.Verdict.PASSED, 1.5, 2.5, 11.0, "out", "err", ""),
        sandbox.TestReport(sandbox.Verdict.WRONG_ANSWER, detail="1 != 2"),
    ),
    "split",
    "strong",
    sandbox.CompileReport(True, 3.0, "", "warning"),
    ("shared_state",),
)

TEXT = st.text(st.characters(codec="utf-8"))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**60), 10**60) | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "task",
    [
        ScoreTask("default", "sha256:0", "p", ["a", ""], "truncate_left"),
        ScoreTask("default", "sha256:0", [{"role": "user", "content": "é"}], ["a"]),
        ExecuteTask("python", "x = 1\x00", "s" * 64, sandbox.Limits(cpu_s=2.5, wall_s=None), 3),
        ExecuteTask("python", "x", "s", sandbox.Limits(), None, sandbox.Options(audit=True, grading="together")),
    ],
)
def test_a_task_comes_out_as_it_went_in(task: Any) -> None:
    assert decode_task(encode(task)) == task


@pytest.mark.parametrize(
    "body",
    [
        Scored("sha256:x", [1.5, None], [3, 4], [False, True], [None, "too_long: 4 tokens"], [0.5, None]),
        Executed(REPORT),
        Failed(JobState.TIMEOUT, "deadline", "late", True),
    ],
)
def test_a_reply_comes_out_as_it_went_in(body: Any) -> None:
    reply = Reply("id", body, 1.0, 2.0, "worker")
    assert decode_reply(encode(reply)) == reply


def test_a_frame_that_is_no_task_is_refused() -> None:
    for frame in (b"", b"\xc1", encode({"type": "delete", "path": "/"}), encode(Reply("id", Executed(REPORT)))):
        with pytest.raises(msgspec.DecodeError):
            decode_task(frame)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(args=st.lists(JSON, max_size=3), expected=JSON)
def test_a_function_suite_keeps_every_value_integers_of_any_size_included(args: list[Any], expected: Any) -> None:
    suite = sandbox.FunctionSuite("f", (sandbox.Case(tuple(args), {"k": expected}, expected),), 1e-6)
    assert decode_suite(encode_suite(suite)) == suite


@pytest.mark.parametrize(
    ("suite", "tests"),
    [
        (sandbox.AssertSuite(("assert f()", "assert g()"), "import f", "f"), 2),
        (sandbox.CheckSuite("def check(c): pass", "f", "prompt"), 1),
        (sandbox.ScriptSuite("exit 0\n\x00é", "replace"), 1),
        (sandbox.StdioSuite((sandbox.StdioCase("", "\r\n"), sandbox.StdioCase("é", "")), "float", 0.1), 2),
        (sandbox.FunctionSuite("f", (sandbox.Case((2**64,), {}, -(2**64)),)), 1),
        (sandbox.StdioSuite((sandbox.StdioCase("", ("a", "b"), (("x", bytes(range(256))), ("y", b""))),)), 1),
        (sandbox.StdioSuite((sandbox.StdioCase("", ""),), checker=sandbox.Program("cpp", "é\n")), 1),
        (sandbox.StdioSuite((sandbox.StdioCase("", ""),), interactor=sandbox.Program("python", "")), 1),
    ],
)
def test_every_kind_of_suite_comes_out_as_it_went_in_and_can_be_counted(suite: sandbox.Suite, tests: int) -> None:
    assert decode_suite(encode_suite(suite)) == suite
    assert num_tests(suite) == tests


def test_the_frame_of_a_suite_is_the_same_for_the_same_suite() -> None:
    one = sandbox.FunctionSuite("f", (sandbox.Case((), {"a": 1, "b": 2}, 0),))
    two = sandbox.FunctionSuite("f", (sandbox.Case((), {"b": 2, "a": 1}, 0),))
    assert encode_suite(one) == encode_suite(two)


# Of the options that are no switch, or are on where nobody asks, a value that is not the default.
OTHERWISE: dict[str, Any] = {"grading": "auto", "control": False, "missing_modules": "invalid"}


def test_an_identity_depends_on_every_input() -> None:
    task = ExecuteTask("python", "x", "s", sandbox.Limits(), None)
    others = [
        msgspec.structs.replace(task, language="cpp"),
        msgspec.structs.replace(task, source="y"),
        msgspec.structs.replace(task, suite="t"),
        msgspec.structs.replace(task, stop_after=1),
        *(
            msgspec.structs.replace(task, limits=replace(task.limits, **change))
            for change in (
                {"cpu_s": 4.0},
                {"wall_s": 9.0},
                {"memory_mb": 256},
                {"output_kb": 1},
                {"processes": 1},
            )
        ),
        *(
            msgspec.structs.replace(task, options=sandbox.Options(**{one.name: one.default is not True}))
            for one in fields(sandbox.Options)
        ),
        msgspec.structs.replace(task, toolchain="sha256:0"),
    ]
    score = ScoreTask("default", "sha256:0", "p", ["a", "b"])
    others_too = [
        msgspec.structs.replace(score, model="other"),
        msgspec.structs.replace(score, revision="r"),
        msgspec.structs.replace(score, prompt="q"),
        msgspec.structs.replace(score, completions=["b", "a"]),
        msgspec.structs.replace(score, on_overflow="truncate_left"),
        msgspec.structs.replace(score, prompt=[{"role": "user", "content": "p"}]),
    ]
    tasks = [task, *others, score, *others_too]
    assert len({content_hash("tools", encode(one)) for one in tasks}) == len(tasks)
    assert content_hash("tools", encode(task)) != content_hash("other tools", encode(task))
    assert content_hash("tools", encode(task)) == content_hash("tools", encode(msgspec.structs.replace(task)))


def test_an_identity_does_not_run_its_parts_together() -> None:
    assert content_hash("ab", "c") != content_hash("a", "bc")
    assert content_hash("a", "b") != content_hash("b", "a")
    assert len(content_hash("a")) == 64


def test_every_state_is_waiting_running_or_an_ending() -> None:
    assert set(JobState) - FINAL_STATES == {JobState.QUEUED, JobState.RUNNING}
