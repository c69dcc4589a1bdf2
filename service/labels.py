"""Tests out of a data set's own words: the shapes in which code data sets carry them, as the contract's kinds.

A label that is no test (a plain answer, nothing at all) is None, and the caller scores by the model; something that
sets out to be tests and cannot be used is Invalid, so that a spoilt data set is heard of. Understood:
  {"kind": ...}                                   the contract's own, `ref` included
  {"tests": ..., "language"?}, {"unit_tests": ...}  any of the others, one level down
  ["assert ...", ...], {"assert_case": [...]}, {"test_list": [...], "test_setup_code"?}     MBPP, verl
  [{"input", "output"}, ...]                      open-instruct, open-r1
  {"inputs": [...], "outputs": [...], "fn_name"?}   APPS, TACO, LiveCodeBench, NeMo-Gym
  {"test": "def check(candidate): ...", "entry_point": "f"}                                 HumanEval
  "from solution import f ... def test_...", {"test": the same}   KodCode, ClassEval, BigCodeBench: a Python test file
each of them also as a JSON string.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sandbox.judge.forms import kind_of, parsed
from sandbox.types import UnittestSuite
from service.errors import Invalid
from service.schemas import (
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

_native: TypeAdapter[Tests] = TypeAdapter(Tests)
_WRAPPED = ("tests", "unit_tests", "test_cases", "ground_truth", "input_output")


@dataclass(frozen=True, slots=True)
class Tested:
    """Tests, and the language where the label names it."""

    tests: Tests
    language: str | None = None

    def program(self, source: str) -> str:
        """The program as these tests expect it: LeetCode's data calls a method of `Solution` by its bare name."""
        name = getattr(self.tests, "entry_point", None)
        if isinstance(self.tests, FunctionTests) and name and "class Solution" in source:
            return f"{source}\n\nif {name!r} not in globals():\n    {name} = Solution().{name}\n"
        return source


def tests_of(label: Any) -> Tested | None:
    """The tests that a label carries, None where it carries none. Raises Invalid for spoilt ones."""
    label = _parsed(label)
    try:
        if isinstance(label, str):
            return _of_file(label)
        return _of_list(label) if isinstance(label, list) else _of_dict(label) if isinstance(label, dict) else None
    except (ValidationError, TypeError, ValueError, RecursionError) as error:
        why = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise Invalid(f"label: tests that cannot be used: {why}") from None


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
        return Tested(CheckTests(kind="check", test=label["test"], entry_point=label["entry_point"]))
    if isinstance(label.get("test"), str) and (tested := _of_file(label["test"])) is not None:
        return tested
    for name in _WRAPPED:
        if name in label:
            found = tests_of(label[name])
            if found is not None and isinstance(label.get("language"), str):
                return Tested(found.tests, label["language"])
            return found
    return None


def _of_file(text: str) -> Tested | None:
    """A text that defines tests for pytest or unittest and waits for a runner."""
    tree = parsed(text) if "def test" in text else None
    kind = None if tree is None else kind_of(tree)
    if kind is None:
        return None
    if kind is UnittestSuite:
        return Tested(UnittestTests(kind="unittest", source=text), "python")
    return Tested(PytestTests(kind="pytest", source=text), "python")


def _of_list(label: list[Any]) -> Tested | None:
    if not label:
        return None
    if all(isinstance(one, str) for one in label):
        return Tested(AssertTests(kind="assert", asserts=label))
    if all(isinstance(one, dict) and "input" in one and "output" in one for one in label):
        return _of_pairs([one["input"] for one in label], [one["output"] for one in label], None)
    return None


def _of_pairs(inputs: list[Any], outputs: list[Any], fn_name: str | None) -> Tested:
    if len(inputs) != len(outputs):
        raise Invalid(f"label: {len(inputs)} inputs and {len(outputs)} outputs")
    pairs = list(zip(inputs, outputs, strict=True))
    if fn_name:
        cases = [FunctionCase(args=_arguments(given), expected=_expected(wanted, given)) for given, wanted in pairs]
        return Tested(FunctionTests(kind="function", entry_point=fn_name, cases=cases), "python")
    lines = [StdioTestCase(stdin=_text(given), stdout=_text(wanted)) for given, wanted in pairs]
    return Tested(StdioTests(kind="stdio", cases=lines))


def _arguments(given: Any) -> list[Any]:
    """A list of arguments, or one JSON value a line."""
    if isinstance(given, str):
        return [json.loads(line) for line in given.split("\n") if line.strip()]
    return list(given)


def _expected(wanted: Any, given: Any) -> Any:
    """JSON where the arguments are; APPS puts the returned value into a list of one beside lists of arguments."""
    if isinstance(wanted, str) and isinstance(given, str):
        return json.loads(wanted)
    return wanted[0] if isinstance(wanted, list) and len(wanted) == 1 else wanted


def _text(value: Any) -> str:
    """Standard input and output are text; APPS has them as lists of lines too."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
