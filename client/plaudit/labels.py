"""Tests from the labels of code data sets, in the shapes that these have, as kinds of the contract.

- A label without tests (a plain answer, nothing at all) is None; for `required_tests` it is Invalid, so that no model's
  score takes the place of tests.
- Malformed tests are Invalid, so that a broken data set is reported instead of skipped.

Understood:
  {"kind": ...}                                   the contract's own, `ref` included
  {"tests": ..., "language"?}, {"unit_tests": ...}  any of the others, one level down
  ["assert ...", ...], {"assert_case": [...]}, {"test_list": [...], "test_setup_code"?}     MBPP, verl
  [{"input", "output"}, ...]                      open-instruct, open-r1
  {"inputs": [...], "outputs": [...], "fn_name"?}   APPS, TACO, LiveCodeBench, NeMo-Gym
  {"test": "def check(candidate): ...", "entry_point": "f"}                                 HumanEval
  "assert ..."                                    bare assert statements, each a test
  "from solution import f ... def test_...", {"test": the same}   KodCode, ClassEval, BigCodeBench: a Python test file
each of them also as a JSON string.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from plaudit.errors import Invalid
from plaudit.graders import Grader
from plaudit.schemas import (
    AssertTests,
    CheckTests,
    FunctionCase,
    FunctionTests,
    PytestTests,
    StdioTestCase,
    StdioTests,
    Tests,
    UnittestTests,
)
from plaudit.test_code import parsed, runner_of

_native: TypeAdapter[Tests] = TypeAdapter(Tests)
_WRAPPED = ("tests", "unit_tests", "test_cases", "ground_truth", "input_output")


@dataclass(frozen=True, slots=True)
class Tested:
    """Tests, and the language where the label names it; `pairs`: inputs and outputs, compared as their graders do."""

    tests: Tests
    language: str | None = None
    pairs: bool = False

    def graded(self, language: str, grader: Grader, rel_tol: float | None = None) -> Tests:
        """The tests as a grader takes them for programs of a language; `rel_tol` is the dialect's own."""
        return grader.suite(self.tests, language, rel_tol) if self.pairs else self.tests


def tests_of(label: Any) -> Tested | None:
    """The tests that a label carries, None where it carries none. Raises Invalid for broken ones."""
    label = _parsed(label)
    if isinstance(label, str):
        label = _statements(label) or label
    try:
        if isinstance(label, str):
            return _of_file(label)
        return _of_list(label) if isinstance(label, list) else _of_dict(label) if isinstance(label, dict) else None
    except (ValidationError, TypeError, ValueError, RecursionError) as error:
        why = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise Invalid(f"label: its tests cannot be used: {why}") from None


FORMS = (
    'a list of asserts, {"kind": ...} as in docs/api.md, {"inputs": [...], "outputs": [...]}, [{"input", "output"}], '
    '{"test": "def check(candidate): ...", "entry_point"}, a test file of pytest or unittest, {"tests": ...}; '
    "each also as JSON text"
)


def required_tests(label: Any, field: str) -> Tested:
    """The tests that a label carries. Raises Invalid, naming the field, where it carries none or broken ones."""
    try:
        tested = tests_of(label)
    except Invalid as error:
        raise Invalid(f"{field}: {error.detail.removeprefix('label: ')}") from None
    if tested is None:
        empty = label is None or (isinstance(label, str | list | dict) and not label)
        seen = "nothing" if empty else ascii(label)
        raise Invalid(f"{field}: no tests in it that can be read, but {seen[:120]}; readable are {FORMS}")
    return tested


def _statements(text: str) -> list[str] | None:
    """The assert statements of a text that holds nothing else."""
    try:
        body = ast.parse(text := text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not body or not all(isinstance(statement, ast.Assert) for statement in body):
        return None
    return [ast.get_source_segment(text, statement) or "" for statement in body]


def _parsed(label: Any) -> Any:
    if isinstance(label, str) and label.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(label)
        except (ValueError, RecursionError):
            return None
    return label


def _of_dict(label: dict[str, Any]) -> Tested | None:
    if "kind" in label:
        return Tested(_native.validate_python(label))
    if "inputs" in label and "outputs" in label and not label.get("assert_case"):
        return _of_pairs(label["inputs"], label["outputs"], label.get("fn_name"))
    if asserts := label.get("assert_case") or label.get("test_list"):
        return Tested(AssertTests(kind="assert", asserts=asserts, setup=label.get("test_setup_code") or ""))
    if isinstance(label.get("test"), str) and label.get("entry_point"):
        name = str(label["entry_point"]).replace("()", "")  # LeetCode's data: `Solution().twoSum`
        return Tested(CheckTests(kind="check", test=label["test"], entry_point=name))
    if isinstance(label.get("test"), str) and (tested := _of_file(label["test"])) is not None:
        return tested
    for name in _WRAPPED:
        if name in label:
            tested = tests_of(label[name])
            if tested is not None and isinstance(label.get("language"), str):
                return replace(tested, language=label["language"])
            return tested
    return None


def _of_file(text: str) -> Tested | None:
    """A text that defines tests for pytest or unittest and waits for a runner."""
    tree = parsed(text) if "def test" in text else None
    kind = None if tree is None else runner_of(tree)
    if kind is None:
        return None
    if kind == "unittest":
        return Tested(UnittestTests(kind="unittest", source=text), "python")
    return Tested(PytestTests(kind="pytest", source=text), "python")


def _of_list(label: list[Any]) -> Tested | None:
    if not label:
        return None
    if all(isinstance(entry, str) for entry in label):
        return Tested(AssertTests(kind="assert", asserts=label))
    if all(isinstance(entry, dict) and "input" in entry and "output" in entry for entry in label):
        return _of_pairs([entry["input"] for entry in label], [entry["output"] for entry in label], None)
    return None


def _of_pairs(inputs: list[Any], outputs: list[Any], fn_name: str | None) -> Tested:
    if len(inputs) != len(outputs):
        raise Invalid(f"label: {len(inputs)} inputs and {len(outputs)} outputs")
    pairs = list(zip(inputs, outputs, strict=True))
    if fn_name:
        names = fn_name if "." in fn_name else f"Solution.{fn_name}|{fn_name}"  # LeetCode's form is asked first
        cases = [_case(given, wanted) for given, wanted in pairs]
        return Tested(FunctionTests(kind="function", entry_point=names, cases=cases), "python", pairs=True)
    lines = [StdioTestCase(stdin=_text(given), stdout=_text(wanted)) for given, wanted in pairs]
    return Tested(StdioTests(kind="stdio", cases=lines), pairs=True)


def _case(given: Any, wanted: Any) -> FunctionCase:
    """A call and its answer. APPS puts the returned value into a list of one: both readings are right, as there."""
    args, kwargs = _arguments(given)
    if isinstance(wanted, str) and isinstance(given, str):
        return FunctionCase(args=args, kwargs=kwargs, expected=json.loads(wanted))
    also = wanted if isinstance(wanted, list) and len(wanted) == 1 else []
    return FunctionCase(args=args, kwargs=kwargs, expected=wanted, also=also)


def _arguments(given: Any) -> tuple[list[Any], dict[str, Any]]:
    """A list of arguments, a dict of them by name, one JSON value per line, none at all (null), or just one."""
    if isinstance(given, str):
        return [json.loads(line) for line in given.split("\n") if line.strip()], {}
    if isinstance(given, dict):
        return [], given
    if given is None:
        return [], {}
    return (list(given) if isinstance(given, list) else [given]), {}


def _text(value: Any) -> str:
    """Standard input and output are text; APPS has them as lists of lines, too; null is empty."""
    if isinstance(value, dict):
        raise ValueError("a stream is text or a list of lines, not a dict; fn_name says that values are meant")
    return "\n".join(map(_text, value)) if isinstance(value, list) else "" if value is None else str(value)
