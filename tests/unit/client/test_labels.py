"""Labels of data sets as tests: what each shape says, and how the graders of these data sets take it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.requests import Request

from plaudit import labels
from plaudit.errors import Invalid
from plaudit.graders import IMPORTS, Grader
from plaudit.schemas import CheckTests, FunctionTests, StdioTests
from sandbox.judge.compare import same_output
from sandbox.judge.compare_lines import same_by_lines


def called(label: Any) -> FunctionTests:
    tested = labels.tests_of(label)
    assert tested is not None
    assert isinstance(tested.tests, FunctionTests)
    return tested.tests


def streams(inputs: list[Any], outputs: list[Any]) -> list[tuple[str, str]]:
    tested = labels.tests_of({"inputs": inputs, "outputs": outputs})
    assert tested is not None
    assert isinstance(tested.tests, StdioTests)
    return [(case.stdin, case.stdout) for case in tested.tests.cases]


def asked(query: str) -> Grader:
    return Grader.of(Request({"type": "http", "query_string": query.encode(), "headers": []}))


@pytest.mark.parametrize(
    ("given", "args", "kwargs"),
    [
        ([1, 2], [1, 2], {}),
        ({"b": 2, "a": 5}, [], {"b": 2, "a": 5}),
        ("1\n[2]", [1, [2]], {}),
        ('{"a": 1}', [{"a": 1}], {}),
        (None, [], {}),
        ([None], [None], {}),
        ([], [], {}),
        (7, [7], {}),
    ],
)
def test_inputs_are_arguments_in_order_or_by_name(given: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    (case,) = called({"inputs": [given], "outputs": [1], "fn_name": "f"}).cases
    assert (case.args, case.kwargs) == (args, kwargs)


@pytest.mark.parametrize(
    ("given", "wanted", "values"),
    [
        ([1], [3], [[3], 3]),
        ([1], [[3]], [[[3]], [3]]),
        ([1], [1, 2], [[1, 2]]),
        ([1], [], [[]]),
        ([1], 3, [3]),
        ([1], None, [None]),
        ([1], [None], [[None], None]),
        ("1", "[3]", [[3]]),
        ("1", '"a"', ["a"]),
    ],
)
def test_a_list_of_one_is_read_either_way(given: Any, wanted: Any, values: list[Any]) -> None:
    (case,) = called({"inputs": [given], "outputs": [wanted], "fn_name": "f"}).cases
    assert [case.expected, *case.also] == values


def test_solution_is_asked_before_the_bare_name() -> None:
    assert called({"inputs": [[1]], "outputs": [1], "fn_name": "f"}).entry_point == "Solution.f|f"
    assert called({"inputs": [[1]], "outputs": [1], "fn_name": "Other.f"}).entry_point == "Other.f"


def test_leetcode_s_call_of_a_class_is_a_method_s_name() -> None:
    test = "def check(candidate):\n    assert candidate(1)"
    tested = labels.tests_of({"test": test, "entry_point": "Solution().twoSum"})
    assert tested is not None
    assert isinstance(tested.tests, CheckTests)
    assert tested.tests.entry_point == "Solution.twoSum"


@pytest.mark.parametrize("name", ["f g", "f()", "1f", "", "a..b", "class", "Solution().f.", "import os; f", "f|"])
def test_a_function_s_name_is_a_name(name: str) -> None:
    with pytest.raises(Invalid, match="entry_point") if name else pytest.raises(AssertionError):
        called({"inputs": [[1]], "outputs": [1], "fn_name": name})


def test_a_call_for_a_name_is_told_how_to_be_written() -> None:
    for kind in (
        {"kind": "assert", "asserts": ["assert f(1)"]},
        {"kind": "check", "test": "def check(c): pass"},
        {"kind": "function", "cases": [{"args": [], "expected": 1}]},
    ):
        with pytest.raises(Invalid, match=r"write 'Solution\.f'"):
            labels.tests_of(kind | {"entry_point": "Solution().f"})


@pytest.mark.parametrize(
    ("given", "text"),
    [("1\n", "1\n"), (["1", "2"], "1\n2"), (None, ""), ([None], ""), (["a", None], "a\n"), (5, "5"), ("None", "None")],
)
def test_null_is_no_text(given: Any, text: str) -> None:
    assert streams([given], [given]) == [(text, text)]


@pytest.mark.parametrize(
    "label",
    [
        {"inputs": [{"a": 1}], "outputs": ["1"]},
        {"inputs": ["1"], "outputs": [{"a": 1}]},
        {"inputs": None, "outputs": ["1"]},
        {"inputs": ["1"], "outputs": []},
        {"inputs": [{1: 2}], "outputs": [1], "fn_name": "f"},
        {"inputs": ["x y"], "outputs": ["1"], "fn_name": "f"},
    ],
)
def test_a_label_that_makes_no_sense_is_an_error(label: Any) -> None:
    with pytest.raises(Invalid, match="label: "):
        labels.tests_of(label)


# --- graders ---------------------------------------------------------------------------------------------------------

PAIRS = {"inputs": ["1"], "outputs": ["2"]}


def graded(label: Any, language: str = "python", query: str = "", rel_tol: float | None = None) -> Any:
    tested = labels.tests_of(label)
    assert tested is not None
    return tested.graded(language, asked(query), rel_tol)


def test_pairs_are_compared_by_lines_under_a_prelude_of_imports() -> None:
    for label in (PAIRS, json.dumps(PAIRS), [{"input": "1", "output": "2"}], {"tests": PAIRS}, {"unit_tests": PAIRS}):
        tests = graded(label)
        assert (tests.compare, tests.rel_tol, tests.prelude) == ("lines", None, IMPORTS)
        assert graded(label, rel_tol=1e-6).rel_tol == 1e-6
    assert graded(PAIRS | {"fn_name": "f"}).prelude == IMPORTS


def test_asserts_and_native_suites_are_left_as_they_are() -> None:
    native = {"kind": "stdio", "cases": [{"stdin": "1", "stdout": "2"}]}
    assert (graded(native).compare, graded(native).prelude) == ("rstrip", "")
    assert graded(["assert f(1) == 2"]).prelude == ""


@pytest.mark.parametrize("language", ["cpp", "c++20", "go", "nonsense"])
def test_only_python_gets_imports(language: str) -> None:
    assert (graded(PAIRS, language).prelude, graded(PAIRS, language).compare) == ("", "lines")


def test_a_url_chooses_comparison_tolerance_and_prelude() -> None:
    tests = graded(PAIRS, query="compare=float&rel_tol=1e-3&prelude=none", rel_tol=1e-6)
    assert (tests.compare, tests.rel_tol, tests.prelude) == ("float", 1e-3, "")
    assert graded(PAIRS, query="compare=exact", rel_tol=1e-6).rel_tol is None
    assert graded(PAIRS, query="compare=tokens").compare == "tokens"


@pytest.mark.parametrize(
    "query",
    [
        "compare=fuzzy",
        "compare=",
        "rel_tol=much",
        "rel_tol=-1",
        "rel_tol=1",
        "rel_tol=nan",
        "compare=exact&rel_tol=0.1",
        "prelude=numpy",
        "compar=exact",
    ],
)
def test_a_url_parameter_that_means_nothing_is_refused(query: str) -> None:
    with pytest.raises(Invalid, match="URL parameter"):
        asked(query)


def test_the_imports_hide_nothing_that_python_has() -> None:
    namespace: dict[str, Any] = {}
    exec(IMPORTS.replace("sys.setrecursionlimit(50000)", ""), namespace)
    import builtins

    assert all(namespace.get(name, value) is value for name, value in vars(builtins).items() if name[0] != "_")
    for name in ("List", "defaultdict", "Counter", "deque", "heappush", "bisect_left", "gcd", "lru_cache", "math"):
        assert name in namespace


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("5", "5\n", True),
        (" 5", "5", True),
        ("5\n\n", "5", True),
        ("\n5", "5", True),
        ("1.0", "1", True),
        ("2.50 1", "2.5 1", True),
        ("1  2", "1 2", True),
        ("1e3", "1000", True),
        ("a\n b ", "a\nb", True),
        ("0.30000000000000004", "0.3", False),
        ("0.333333", "0.333333333333", False),
        ("1 2", "1\n2", False),
        ("ab", "a b", False),
        ("a  b", "a b", False),
        ("YES", "Yes", False),
        ("1", "1 1", False),
        ("1\n1", "1", False),
        ("nan", "1", False),
        ("1_0", "10", False),
        ("0x5", "5", False),
        ("", "0", False),
        ("5", "", False),
        ("1" * 4990 + ".0", "1" * 4990, True),
        ("9" * 6000 + ".0", "9" * 6000, False),
    ],
)
def test_lines_are_compared_as_livecodebench_does(got: str, expected: str, same: bool) -> None:
    assert same_output(got.encode(), expected.encode(), "lines") is same


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("0.30000000000000004", "0.3", True),
        ("0.333333", "0.333333333333", True),
        ("1 2", "1\n2", False),
        ("1000001", "1000000", False),
        ("1000001.0", "1000000", True),
        ("0.5", "0.6", False),
        ("inf", "1", False),
        ("1e400000", "1e400000.0", False),
        ("-0.0", "0", True),
    ],
)
def test_a_tolerance_is_for_numbers_that_are_not_integers(got: str, expected: str, same: bool) -> None:
    assert same_output(got.encode(), expected.encode(), "lines", 1e-6) is same


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", [b"1 ", b"1.0\n", b"9" * 4000 + b" ", b"1e999999 ", b" ", b"\n"])
def test_comparing_takes_time_in_proportion_to_the_text(piece: bytes) -> None:
    text = piece * (2_000_000 // len(piece))
    assert not same_by_lines(text + b"x", text + b"y", 1e-6)
    assert not same_by_lines(text, b"1", 1e-6) or not text.strip()
