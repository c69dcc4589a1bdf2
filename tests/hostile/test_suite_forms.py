"""Suites as data sets have them: tests that are only defined are run, each has a verdict, and nothing passes idly."""

from __future__ import annotations

import pytest

from plaudit.grading import Verdict
from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import (
    AssertSuite,
    CheckSuite,
    Limits,
    Options,
    Program,
    PytestSuite,
    Report,
    ScriptSuite,
    Stop,
    Suite,
    UnittestSuite,
)
from support.suite_forms import BIGCODEBENCH, CLASSEVAL, KODCODE, Example

ADD = "def add(a, b):\n    return a + b\n"
WRONG = "def add(a, b):\n    return 0\n"


def run(
    sandbox: Sandbox,
    source: str,
    suite: Suite,
    limits: Limits | None = None,
    stop: Stop | None = None,
    **options: object,
) -> Report:
    chosen = Options(**options)  # type: ignore[arg-type]
    return judge(Program("python", source), suite, limits or Limits(cpu_s=5), stop or Stop(), sandbox, chosen)


def failed(report: Report) -> list[str]:
    return [test.name for test in report.tests if test.verdict not in ("passed", "skipped")]


def as_kinds(example: Example, native: type[PytestSuite | UnittestSuite]) -> list[Suite]:
    """A suite in its own kind, and where it is only recognised: a script, the entry of a list."""
    return [native(example.tests), ScriptSuite(example.tests), AssertSuite((example.tests,))]


@pytest.mark.parametrize("example", KODCODE, ids=lambda one: one.name)
def test_kodcode_suites_tell_right_from_wrong(sandbox: Sandbox, example: Example) -> None:
    for suite in as_kinds(example, PytestSuite):
        right, wrong = run(sandbox, example.right, suite), run(sandbox, example.wrong, suite)
        assert (right.verdict, failed(right)) == ("passed", [])
        assert right.judge in ("split", "program_methods")
        assert right.passed == right.total >= 2
        assert (wrong.verdict != "passed", failed(wrong)) == (True, list(example.failing))


@pytest.mark.parametrize("example", BIGCODEBENCH, ids=lambda one: one.name)
def test_bigcodebench_suites_tell_right_from_wrong(sandbox: Sandbox, example: Example) -> None:
    for suite in as_kinds(example, UnittestSuite):
        right, wrong = run(sandbox, example.right, suite), run(sandbox, example.wrong, suite)
        assert (right.verdict, failed(right)) == ("passed", [])
        assert right.judge in ("split", "program_methods")
        assert right.passed == right.total == 2
        assert (wrong.verdict, failed(wrong)) != ("passed", [])
        assert failed(wrong) == list(example.failing)


@pytest.mark.parametrize("example", CLASSEVAL, ids=lambda one: one.name)
def test_classeval_suites_tell_right_from_wrong(sandbox: Sandbox, example: Example) -> None:
    for suite in as_kinds(example, UnittestSuite):
        right, wrong = run(sandbox, example.right, suite), run(sandbox, example.wrong, suite)
        assert (right.verdict, failed(right)) == ("passed", [])
        assert failed(wrong) == list(example.failing)


def test_there_are_twenty_suites_of_each_form() -> None:
    assert [len(KODCODE), len(BIGCODEBENCH), len(CLASSEVAL)] == [20, 20, 20]


TOGETHER = [(KODCODE[7], PytestSuite), (BIGCODEBENCH[4], UnittestSuite), (CLASSEVAL[8], UnittestSuite)]


@pytest.mark.parametrize(("example", "kind"), TOGETHER, ids=lambda one: getattr(one, "name", ""))
def test_suites_judged_together_tell_right_from_wrong(
    sandbox: Sandbox, example: Example, kind: type[PytestSuite | UnittestSuite]
) -> None:
    right, wrong = (
        run(sandbox, one, kind(example.tests), grading="together") for one in (example.right, example.wrong)
    )
    assert (right.verdict, right.judge) == ("passed", "shared_process")
    assert failed(wrong) == list(example.failing)


NOTHING = {
    "a comparison": ("add(1, 2) == 3", "write `assert add(1, 2) == 3`"),
    "a print": ("print(add(1, 2))", "a print"),
    "a printed comparison": ("print(add(1, 2) == 3)", "write `assert add(1, 2) == 3`"),
    "a tuple": ("assert (add(1, 2) == 3, 'sum')", "write `assert add(1, 2) == 3, 'sum'`"),
    "a call": ("add(1, 2)", "a call whose answer is not checked"),
    "a lambda": ("lambda: add(1, 2) == 3", "a lambda"),
    "an asserted lambda": ("assert lambda: add(1, 2) == 3", "always true"),
    "a generator": ("assert (add(x, 1) == x for x in [1])", "always true"),
    "a definition": ("def helper():\n    assert add(1, 2) == 3", "only definitions"),
    "a class of no tests": ("class Cases:\n    def run(self):\n        assert add(1, 2) == 3", "only definitions"),
    "or True": ("assert add(1, 2) == 3 or True", "always true"),
    "a list": ("assert [add(1, 2) == 3]", "always true"),
    "a negation": ("not add(0, 0)", "is not checked"),
    "a text": ("'assert add(1, 2) == 3'", "a constant"),
    "a late comparison": ("x = add(1, 2)\nx == 3", "write `assert x == 3`"),
    "another function's comparison": ("twice(1) == 2", "write `assert twice(1) == 2`"),
    "a method's comparison": ("Thing().size() == 2", "write `assert Thing().size() == 2`"),
    "isinstance": ("isinstance(add(1, 2), int)", "is not checked"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_an_entry_that_asserts_nothing_is_refused_by_name(sandbox: Sandbox, name: str) -> None:
    entry, said = NOTHING[name]
    with pytest.raises(InvalidSuite) as refused:
        run(sandbox, ADD, AssertSuite(("assert add(1, 1) == 2", entry), entry_point="add"))
    assert "tests.asserts.1: " in str(refused.value)
    assert said in str(refused.value)


SOMETHING = [
    "for x in [1, 2]:\n    assert add(x, 1) == x + 1",
    "try:\n    add(1, None)\nexcept TypeError:\n    pass\nelse:\n    assert False",
    "import pytest\nwith pytest.raises(TypeError):\n    add(1, None)",
    "import unittest\nunittest.TestCase().assertEqual(add(1, 2), 3)",
    "import unittest\nwith unittest.TestCase().assertRaises(TypeError):\n    add(1, None)",
    "def same(a, b):\n    assert a == b\nsame(add(1, 2), 3)",
    "if add(1, 2) != 3:\n    raise AssertionError('no')",
    "import sys\nif add(1, 2) != 3:\n    sys.exit(1)",
    "assert add(1, 2) == 3, 'sum'",
    "assert not add(0, 0)",
    "x = add(1, 2)\nassert x == 3 and x",
    "assert all(add(x, x) == 2 * x for x in range(3))",
    "def test_add():\n    assert add(1, 2) == 3",
    "from solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n",
]


@pytest.mark.parametrize("entry", SOMETHING)
def test_an_honest_entry_is_taken_and_tells_right_from_wrong(sandbox: Sandbox, entry: str) -> None:
    helped = "import pytest" in entry
    if helped:  # only test files bring pytest along
        entry = "def test_raises():\n    " + entry.replace("\n", "\n    ")
    suite = AssertSuite((entry,), entry_point="add")
    assert run(sandbox, ADD, suite).verdict == "passed"
    wrong = "def add(a, b):\n    return 1\n"
    assert run(sandbox, wrong, suite).verdict != "passed"


@pytest.mark.parametrize(
    "test",
    [
        "def check(candidate):\n    candidate(1, 2) == 3",
        "def check(candidate):\n    pass",
        "def check(candidate):\n    print(candidate(1, 2) == 3)",
        "def check(candidate):\n    assert True, 'fine'",
        "def check(candidate):\n    def inner():\n        assert candidate(1, 2) == 3",
        "def check(candidate):\n    results = []\n    results.append(candidate(1, 2) == 3)",
    ],
)
def test_a_check_without_an_assertion_that_runs_is_refused(sandbox: Sandbox, test: str) -> None:
    with pytest.raises(InvalidSuite):
        run(sandbox, ADD, CheckSuite(test, "add"))


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("python", "# assert add(1, 2) == 3\n\n"),
        ("javascript", "// nothing\n/* assert */\n"),
        ("bash", "# nothing\n"),
        ("cpp", "/* nothing */ // at all\n"),
        ("python", "def run_tests():\n    assert add(1, 2) == 3\n"),
        ("python", "for n in range(3):\n    add(n, 1) == n + 1\n"),
        ("python", "print(add(1, 2))\nresult = add(2, 2)\n"),
        ("python", "try:\n    assert add(1, 2) == 7\nexcept Exception:\n    pass\n"),
        ("python", "try:\n    assert add(1, 2) == 7\n    print('ok')\nexcept AssertionError as e:\n    print(e)\n"),
        ("python", "import contextlib\nwith contextlib.suppress(Exception):\n    assert add(1, 2) == 7\n"),
        ("python", "for n in []:\n    assert add(n, n) == 7\nadd(1, 2) == 7\n"),
        ("python", "if add(1, 2) == 7:\n    assert add(1, 2) == 7\n"),
        ("javascript", "const assert = require('assert');\nfunction testAdd() { assert.equal(add(1, 2), 3); }\n"),
        ("javascript", "test('adds', () => {});\n"),
    ],
)
def test_a_script_that_checks_nothing_is_refused(sandbox: Sandbox, language: str, source: str) -> None:
    if language not in {known.name for known in sandbox.languages()}:
        pytest.skip(f"{language} is not installed")
    with pytest.raises(InvalidSuite):
        judge(Program(language, "\n"), ScriptSuite(source), Limits(), Stop(), sandbox)


def test_entries_whose_answers_nobody_looks_at_are_vacuous(sandbox: Sandbox) -> None:
    entries = ("twice(1)", "for n in range(2):\n    twice(n) == n", "x = add(1, 1)", "assert add(x, 1) == 3")
    program = f"{ADD}def twice(x):\n    return add(x, x)\n"
    report = run(sandbox, program, AssertSuite(entries, entry_point="add"))
    assert [test.vacuous for test in report.tests] == [True, True, True, False]
    assert (report.verdict, report.passed, report.total) == ("passed", 4, 4)
    assert run(sandbox, WRONG, AssertSuite(entries, entry_point="add")).verdict != "passed"
    with pytest.raises(InvalidSuite, match="no test looks at"):
        run(sandbox, program, AssertSuite(entries[:2], entry_point="add"))


PASSES_IDLY = {
    "an answer kept": "def test_idle():\n    x = add(1, 2)\n",
    "an answer called and dropped": "def test_idle():\n    add(1, 2)\n",
    "a comparison": "def test_idle():\n    add(1, 2) == 3\n",
    "a loop of comparisons": "def test_idle():\n    for n in range(3):\n        add(n, 1) == n + 1\n",
    "a swallowed assertion": "def test_idle():\n    try:\n        assert add(1, 2) == 3\n"
    "    except BaseException:\n        pass\n",
    "a swallowed failure": "def test_idle():\n    try:\n        assert add(1, 2) == 3\n"
    "    except Exception:\n        pass\n",
    "a printed failure": "def test_idle():\n    try:\n        assert add(1, 2) == 3\n"
    "    except AssertionError as error:\n        print(error)\n",
    "a suppressed failure": "import contextlib\ndef test_idle():\n    with contextlib.suppress(AssertionError):\n"
    "        assert add(1, 2) == 3\n",
    "a failure under finally": "def test_idle():\n    try:\n        assert add(1, 2) == 3\n"
    "    finally:\n        return\n",
    "an assertion behind its end": "def test_idle():\n    x = add(1, 2)\n    x == 7\n    return\n    assert x == 7\n",
    "a helper that nobody calls": "def test_idle():\n    def check():\n        assert add(1, 2) == 7\n"
    "    add(1, 2) == 7\n",
    "a loop over nothing": "def test_idle():\n    add(1, 2) == 7\n    for n in []:\n        assert add(n, n) == 7\n",
    "a condition of its own": "def test_idle():\n    if add(1, 2) == 7:\n        assert add(1, 2) == 7\n",
    "a text that is something": "def test_idle():\n    assert str(add(1, 2)) is not None\n",
    "any length": "def test_idle():\n    assert len([add(1, 2)]) >= 0\n",
    "any object": "def test_idle():\n    assert isinstance(add(1, 2), object)\n",
    "a constant compared": "def test_idle():\n    add(1, 2) == 7\n    assert 1 == 1\n",
    "a mock of its own": "from unittest import mock\ndef test_idle():\n    m = mock.Mock()\n    m(add(1, 2))\n"
    "    m.assert_called_once()\n",
    "an expected failure": "import pytest\n@pytest.mark.xfail\ndef test_idle():\n    assert add(1, 2) == 7\n",
    "an unreached assertion": "def test_idle():\n    x = add(1, 2)\n    if False:\n        assert x == 3\n",
}


@pytest.mark.parametrize("name", PASSES_IDLY)
def test_what_passes_for_no_answer_is_vacuous(sandbox: Sandbox, name: str) -> None:
    idle = PASSES_IDLY[name]
    with pytest.raises(InvalidSuite, match="no test looks at what the program answers"):
        run(sandbox, ADD, PytestSuite(idle))
    mixed = PytestSuite(f"{idle}\ndef test_real():\n    assert add(1, 2) == 3\n")
    for program, verdict, passed in ((ADD, "passed", 2), (WRONG, "wrong_answer", 1)):
        report = run(sandbox, program, mixed)
        assert [(test.name, test.vacuous) for test in report.tests] == [("test_idle", True), ("test_real", False)]
        assert (report.verdict, report.passed, report.total) == (verdict, passed, 2)
    assert run(sandbox, ADD, PytestSuite(idle), control=False).verdict == "passed"


@pytest.mark.parametrize(
    "test",
    [
        "assert add(1, 2) is not None",
        "assert add(1, 2) is not True",
        "assert add(1, 2) != 7",
        "assert not add(0, 0)",
        "assert isinstance(add(1, 2), int)",
        "assert add(1, 2) in (3, 4)",
        "assert len(str(add(1, 2))) == 1",
    ],
)
def test_a_weak_test_is_not_called_vacuous(sandbox: Sandbox, test: str) -> None:
    report = run(sandbox, ADD, PytestSuite(f"def test_weak():\n    {test}\n"))
    assert (report.verdict, report.tests[0].vacuous) == ("passed", False)


IDLE_METHODS = {
    "a true text": "add(1, 2) == 7\n        self.assertTrue('x')",
    "constants": "add(1, 2) == 7\n        self.assertEqual(1, 1)",
    "a swallowed failure": "try:\n            self.assertEqual(add(1, 2), 7)\n"
    "        except Exception:\n            pass",
    "a subtest of nothing": "for n in []:\n            with self.subTest(n):\n"
    "                self.assertEqual(add(n, n), n)",
}


@pytest.mark.parametrize("name", IDLE_METHODS)
def test_a_method_that_passes_for_no_answer_is_vacuous(sandbox: Sandbox, name: str) -> None:
    text = (
        "import unittest\nclass T(unittest.TestCase):\n"
        f"    def test_idle(self):\n        {IDLE_METHODS[name]}\n"
        "    def test_real(self):\n        self.assertEqual(add(1, 2), 3)\n"
    )
    report = run(sandbox, ADD, UnittestSuite(text))
    assert [(test.name, test.vacuous) for test in report.tests] == [("T.test_idle", True), ("T.test_real", False)]
    assert run(sandbox, WRONG, UnittestSuite(text)).verdict == "wrong_answer"


HONEST = {
    "a loop": "for a, b, c in [(1, 2, 3), (2, 2, 4)]:\n        assert add(a, b) == c",
    "a helper": "def same(a, b):\n        assert a == b\n    same(add(1, 2), 3)",
    "raise": "if add(1, 2) != 3:\n        raise AssertionError('no')",
    "exit": "import sys\n    if add(1, 2) != 3:\n        sys.exit(1)",
    "numpy": "import numpy\n    numpy.testing.assert_array_equal(add(numpy.array([1]), 2), [3])",
    "fail": "import pytest\n    if add(1, 2) != 3:\n        pytest.fail('no')",
    "a failure that is told again": "try:\n        assert add(1, 2) == 3\n    except AssertionError as error:\n"
    "        raise RuntimeError('no') from error",
    "an attempt with else": "try:\n        x = add(1, 2)\n    except TypeError:\n        assert False\n"
    "    else:\n        assert x == 3",
    "which exception": "try:\n        add(1, None)\n    except ValueError:\n        assert False\n"
    "    except TypeError:\n        pass\n    assert add(1, 2) == 3",
    "a context": "import contextlib\n    with contextlib.nullcontext():\n        assert add(1, 2) == 3",
    "an inverted failure": "import pytest\n    with pytest.raises(AssertionError):\n        assert add(1, 2) == 0",
    "a search": "found = [n for n in range(5) if add(n, 1) == 3]\n    assert found == [2]",
    "as long as it takes": "n = 0\n    while add(n, 0) < 3:\n        n += 1\n    assert n == 3",
    "an exception's text": "try:\n        add(1, None)\n    except TypeError as error:\n"
    "        assert 'NoneType' in str(error)\n    assert add(1, 2) == 3",
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_test_is_neither_vacuous_nor_refused(sandbox: Sandbox, name: str) -> None:
    suite = PytestSuite(f"def test_it():\n    {HONEST[name]}\n")
    right, wrong = run(sandbox, ADD, suite), run(sandbox, WRONG, suite, limits=Limits(cpu_s=1))
    assert (right.verdict, right.passed, right.tests[0].vacuous) == ("passed", 1, False)
    assert wrong.passed == 0


def test_an_assertion_about_a_caught_exception_alone_is_honest(sandbox: Sandbox) -> None:
    own = "class Own(Exception):\n    code = 3\ndef add(a, b):\n    raise Own\n"
    for line, right in (("assert error.code == 3", True), ("assert error.code == 4", False)):
        test = f"try:\n    add(1, 2)\nexcept Own as error:\n    {line}"
        report = run(sandbox, own, AssertSuite((test,), entry_point="add"))
        assert (report.verdict == "passed", report.tests[0].vacuous) == (right, False)


def test_an_argument_that_has_to_stay_as_it_is_is_honest(sandbox: Sandbox) -> None:
    test = "xs = [1, 2]\nadd(xs, [3])\nassert xs == [1, 2]"
    for suite in (AssertSuite((test,), entry_point="add"), ScriptSuite(test)):
        right, wrong = run(sandbox, ADD, suite), run(sandbox, "def add(a, b):\n    a += b\n    return a\n", suite)
        assert (right.verdict, right.tests[0].vacuous, wrong.passed) == ("passed", False, 0)


def test_a_handler_that_fails_beside_one_that_does_not_is_honest(sandbox: Sandbox) -> None:
    test = "try:\n    add(1, 2)\nexcept KeyError:\n    assert False\nexcept LookupError:\n    pass"
    for error, right in (("IndexError", True), ("KeyError", False), ("ValueError", False)):
        report = run(sandbox, f"def add(a, b):\n    raise {error}\n", AssertSuite((test,), entry_point="add"))
        assert (report.verdict == "passed", report.tests[0].vacuous) == (right, False)


HONEST_SCRIPTS = {
    "a helper": "def verify():\n    assert add(1, 2) == 3\nverify()\n",
    "a loop": "for n in range(3):\n    assert add(n, 1) == n + 1\n",
    "exit": "import sys\nif add(1, 2) != 3:\n    sys.exit(1)\n",
    "counted": "failed = 0\ntry:\n    assert add(1, 2) == 3\nexcept AssertionError:\n    failed += 1\n"
    "assert not failed\n",
    "main": "if __name__ == '__main__':\n    assert add(1, 2) == 3\n",
}


@pytest.mark.parametrize("name", HONEST_SCRIPTS)
def test_an_honest_script_is_taken(sandbox: Sandbox, name: str) -> None:
    suite = ScriptSuite(HONEST_SCRIPTS[name])
    assert run(sandbox, ADD, suite).verdict == "passed"
    assert run(sandbox, WRONG, suite).verdict != "passed"


def test_an_assertion_in_the_end_of_a_fixture_is_honest(sandbox: Sandbox) -> None:
    suite = PytestSuite(
        "import pytest\n@pytest.fixture\ndef results():\n    found = []\n    yield found\n    assert found == [3]\n"
        "def test_it(results):\n    results.append(add(1, 2))\n"
    )
    right, wrong = run(sandbox, ADD, suite), run(sandbox, WRONG, suite)
    assert (right.verdict, right.tests[0].vacuous, wrong.passed) == ("passed", False, 0)


def test_a_program_that_does_not_load_fails_every_test_by_name(sandbox: Sandbox) -> None:
    for suite in (PytestSuite(KODCODE[3].tests), UnittestSuite(BIGCODEBENCH[4].tests)):
        loaded, broken = run(sandbox, "prime = task_func = 1", suite), run(sandbox, "raise OSError('no')", suite)
        assert [test.name for test in broken.tests] == [test.name for test in loaded.tests] != []
        assert {test.verdict for test in broken.tests} == {Verdict.RUNTIME_ERROR}
        assert broken.passed == 0
    missing = run(sandbox, "x = 1", PytestSuite(KODCODE[0].tests))
    assert (missing.verdict, missing.passed, missing.total) == ("runtime_error", 0, 2)
    other = PytestSuite("def test_a():\n    assert other(1) == 1\n", entry_point="add")
    assert run(sandbox, "def other(x): return x", other).verdict == "runtime_error"
    assert run(sandbox, "def other(x): return x\nadd = other", other).verdict == "passed"


@pytest.mark.parametrize(
    "end",
    [
        "__import__('os')._exit(0)",
        "__import__('time').sleep(60)",
        "raise KeyboardInterrupt",
        "raise SystemExit",
        "__import__('os').kill(__import__('os').getpid(), 9)",
    ],
)
@pytest.mark.parametrize("kind", ["pytest", "unittest"])
def test_a_test_that_ends_the_program_costs_only_itself(sandbox: Sandbox, kind: str, end: str) -> None:
    program = f"def f(x):\n    if x == 2:\n        {end}\n    return x\n"
    calls = [f"assert f({n}) == {n}" for n in (1, 2, 3)]
    if kind == "pytest":
        suite: Suite = PytestSuite("".join(f"def test_{n}():\n    {call}\n" for n, call in enumerate(calls)))
    else:
        lines = "".join(f"    def test_{n}(self):\n        {call}\n" for n, call in enumerate(calls))
        suite = UnittestSuite(f"import unittest\nclass T(unittest.TestCase):\n{lines}")
    report = run(sandbox, program, suite, Limits(cpu_s=1, wall_s=2))
    assert [test.verdict == "passed" for test in report.tests] == [True, False, True]


def test_stopping_early_names_the_tests_that_did_not_run(sandbox: Sandbox) -> None:
    report = run(sandbox, KODCODE[3].wrong, PytestSuite(KODCODE[3].tests), stop=Stop(after_failures=1))
    assert [test.verdict for test in report.tests] == ["wrong_answer", *["skipped"] * 4]
    assert report.tests[4].name == "test_no[9-square]"
    assert report.total == 5


def test_what_the_suite_skips_is_not_counted(sandbox: Sandbox) -> None:
    text = "import pytest\n@pytest.mark.skip(reason='slow')\ndef test_a():\n    assert add(1, 2) == 3\n"
    with pytest.raises(InvalidSuite, match="every test is skipped"):
        run(sandbox, ADD, PytestSuite(text))
    report = run(sandbox, ADD, PytestSuite(f"{text}def test_b():\n    assert add(1, 2) == 3\n"))
    assert (report.verdict, report.passed, report.total) == ("passed", 1, 1)
    assert "slow" in report.tests[0].detail


def test_a_program_cannot_have_itself_skipped(sandbox: Sandbox) -> None:
    text = (
        "import pytest\ndef test_a():\n    if add(1, 2) is None:\n        pytest.skip('no')\n"
        "    assert add(1, 2) == 3\n"
    )
    needs = text.replace("pytest.skip('no')", "pytest.importorskip('nowhere')")
    for suite in (text, text.replace("skip", "xfail"), needs):
        report = run(sandbox, "def add(a, b):\n    pass\n", PytestSuite(suite))
        assert (report.verdict, report.passed, report.total) == ("invalid_result", 0, 1)


BEYOND = {
    "its globals": "def test_beyond():\n    assert solution.add.__globals__['LIMIT'] == 1\n",
    "a trace": "import sys\ndef test_beyond():\n    seen = []\n    sys.settrace(lambda *a: seen.append(a))\n"
    "    assert solution.add(1, 2) == 3\n    sys.settrace(None)\n",
    "its source": "import inspect\ndef test_beyond():\n    assert 'return' in inspect.getsource(solution.add)\n",
}
PATCHING = {
    "a patched helper": "from unittest.mock import patch\n@patch('solution.helper', return_value=2)\n"
    "def test_patch(m):\n    assert solution.more(1) == 3\n",
    "a module's variable": "def test_patch():\n    solution.LIMIT = 3\n    assert solution.limited(9) == 3\n",
    "a library function": "from unittest.mock import patch\ndef test_patch():\n"
    "    with patch('time.sleep') as m:\n"
    "        assert solution.slow(3) == 3\n        m.assert_called_once_with(1000)\n",
    "monkeypatch": "import time\ndef test_patch(monkeypatch):\n"
    "    monkeypatch.setattr(time, 'sleep', lambda s: None)\n"
    "    assert solution.slow(4) == 4\n",
}
PATCHED = """import time
LIMIT = 1
def helper(): return 1
def more(x): return x + helper()
def limited(x): return min(x, LIMIT)
def slow(x):
    time.sleep(1000)
    return x
"""


@pytest.mark.parametrize("name", PATCHING)
def test_what_a_test_patches_is_patched_for_the_program(sandbox: Sandbox, name: str) -> None:
    suite = PytestSuite(f"import solution\n{PATCHING[name]}")
    assert run(sandbox, PATCHED, suite).verdict == "passed"
    wrong = PATCHED.replace("x + helper()", "x").replace("min(x, LIMIT)", "x").replace("return x\n", "return 0\n")
    assert run(sandbox, wrong, suite).verdict != "passed"


PROGRAM = "import time\nLIMIT = 1\ndef helper():\n    return 1\n" + ADD


@pytest.mark.parametrize("name", BEYOND)
def test_what_values_cannot_answer_is_unjudgeable_or_judged_together(sandbox: Sandbox, name: str) -> None:
    text = f"import solution\n{BEYOND[name]}"
    with pytest.raises(InvalidSuite, match=r"use options\.grading together"):
        run(sandbox, PROGRAM, PytestSuite(text))
    whole = PytestSuite(f"{text}def test_plain():\n    assert solution.add(2, 2) == 4\n")
    split = run(sandbox, PROGRAM, whole)
    assert [test.verdict for test in split.tests] == ["unjudgeable", "passed"]
    assert split.tests[0].detail
    assert (split.verdict, split.passed, split.total, split.judge) == ("passed", 1, 1, "split")
    auto = run(sandbox, PROGRAM, whole, grading="auto")
    assert (auto.passed, auto.total, auto.judge) == (2, 2, "shared_process"), auto.tests
    wrong = run(sandbox, PROGRAM.replace("a + b", "a * b"), whole, grading="auto")
    assert wrong.tests[0].verdict != "unjudgeable"
    assert run(sandbox, WRONG, whole).verdict == "wrong_answer"


@pytest.mark.parametrize(
    "program",
    [
        "def add(a, b):\n    raise ImportError('no')\n",
        "def add(a, b):\n    raise SyntaxError('no')\n",
        "import types\nadd = types.ModuleType('scipy.nothing')\n",
        "def add(a, b):\n    return chr(0xd800) * 100000\n",
        "def add(a, b):\n    e = ImportError('x')\n    e.name = 'solution'\n    raise e\n",
    ],
)
def test_no_program_makes_a_test_file_invalid(sandbox: Sandbox, program: str) -> None:
    for suite in (
        PytestSuite("from solution import *\ndef test_a():\n    assert add(1, 2) == 3\n"),
        UnittestSuite(BIGCODEBENCH[0].tests.replace("task_func", "add")),
    ):
        report = run(sandbox, program, suite)
        assert (report.verdict != "passed", report.passed) == (True, 0)


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        (PytestSuite("import no_such_module\ndef test_a():\n    assert add(1, 2) == 3\n"), "no_such_module"),
        (PytestSuite("def test_a():\n    import no_such_module\n    assert add(1, 2) == 3\n"), "no_such_module"),
        (UnittestSuite("class T(:\n"), "SyntaxError"),
        (PytestSuite("x = 1\n"), "no test is defined"),
        (UnittestSuite("import unittest\nclass T(unittest.TestCase):\n    pass\n"), "no test is in it"),
        (
            PytestSuite("import pytest\n@pytest.mark.parametrize('x', add(1, 2))\ndef test_a(x):\n    assert x\n"),
            "depend on",
        ),
        (PytestSuite("if add(1, 2):\n    def test_a():\n        assert add(1, 2) == 3\n"), "depend on"),
    ],
)
def test_a_test_file_that_is_of_no_use_is_invalid(sandbox: Sandbox, suite: Suite, said: str) -> None:
    with pytest.raises(InvalidSuite, match=said):
        run(sandbox, ADD, suite)


def test_assertions_that_are_never_reached_pass_nothing_together(sandbox: Sandbox) -> None:
    text = "def test_all():\n    for x in items():\n        assert x > 0\n"
    right, empty = "def items():\n    return [1]\n", "def items():\n    return []\n"
    assert run(sandbox, right, PytestSuite(text), grading="together").verdict == "passed"
    report = run(sandbox, empty, PytestSuite(text), grading="together")
    assert (report.verdict, report.judge) == ("wrong_answer", "shared_process")
    assert "reached" in report.tests[0].detail
    for entry in (
        "for x in items():\n    assert x > 0",
        "for x in items():\n    if x < 0:\n        raise AssertionError",
    ):
        suite = AssertSuite((entry,), entry_point="items")
        assert run(sandbox, right, suite, grading="together").verdict == "passed"
        assert run(sandbox, empty, suite, grading="together").verdict == "wrong_answer"


JEST = """
describe("add", () => {
  let one; beforeEach(() => { one = 1; });
  it("adds", () => { expect(add(one, 2)).toBe(3); expect([add(1, 1)]).toEqual([2]); });
  test.each([[1, 2, 3], [0, 0, 0]])("%d + %d", (a, b, c) => expect(add(a, b)).toBe(c));
});
"""


@pytest.mark.parametrize(
    "suite",
    [
        JEST,
        "test('adds', () => expect(add(1, 2)).not.toBe(4 - 4));",
        "const assert = require('assert');\nit('adds', async () => { assert.equal(await add(1, 2), 3); });",
        "const { test } = require('node:test');\nconst assert = require('assert');\n"
        "test('adds', () => assert.strictEqual(add(1, 2), 3));",
    ],
)
@pytest.mark.parametrize("language", ["javascript", "typescript"])
def test_javascript_tests_that_are_defined_are_run(sandbox: Sandbox, language: str, suite: str) -> None:
    if language not in {known.name for known in sandbox.languages()}:
        pytest.skip(f"{language} is not installed")
    right, wrong = "function add(a, b) { return a + b; }\n", "function add(a, b) { return 0; }\n"
    reports = [judge(Program(language, one), ScriptSuite(suite), Limits(), Stop(), sandbox) for one in (right, wrong)]
    assert [report.verdict for report in reports] == ["passed", "runtime_error"]


def test_the_runner_of_test_files_is_the_executors_own(sandbox: Sandbox) -> None:
    lines = ("for one in (pytest, pluggy):", "    assert add(one.__file__, '')[:13] == '/harness/lib/'")
    probe = "import pytest\nimport pluggy\ndef test_a():\n    " + "\n    ".join(lines)
    assert run(sandbox, ADD, PytestSuite(probe)).verdict == "passed"


UNFINISHED = ("@(lambda g: lambda *a: None)", "if False:", "x = (", "x = 1 \\", "class Rest:", "def rest():")


@pytest.mark.parametrize("line", UNFINISHED)
def test_an_unfinished_last_line_does_not_swallow_a_script(sandbox: Sandbox, line: str) -> None:
    script = ScriptSuite("def verify():\n    assert add(1, 2) == 3\nverify()\n")
    assert run(sandbox, f"{WRONG}{line}", script).verdict in ("runtime_error", "compile_error")
    assert run(sandbox, ADD, script).verdict == "passed"


APPENDED = {
    "go": (
        'package main\n\nimport "strings"\n\nfunc twice(s string) string { return strings.Repeat(s, 2) }\n',
        'package main\n\nimport (\n\t"os"\n\t"strings"\n)\n\nfunc main() {\n'
        '\tif twice("a") != strings.ToLower("AA") {\n\t\tos.Exit(1)\n\t}\n}\n',
    ),
    "go in single lines": (
        'package main\n\nimport "strings"\n\nfunc twice(s string) string { return strings.Repeat(s, 2) }\n',
        'import "os"\nimport "strings"\n\nfunc main() {\n'
        '\tif twice("a") != strings.ToLower("AA") {\n\t\tos.Exit(1)\n\t}\n}\n',
    ),
    "java": (
        "class Words { static String twice(String s) { return s + s; } }\n",
        "import java.util.Objects;\n\npublic class Main {\n  public static void main(String[] a) {\n"
        '    if (!Objects.equals(Words.twice("a"), "aa")) throw new RuntimeException("no");\n  }\n}\n',
    ),
    "csharp": (
        "public static class Words { public static string Twice(string s) { return s + s; } }\n",
        "using System;\n\npublic static class Test {\n  public static void Main() {\n"
        '    if (Words.Twice("a") != String.Concat("a", "a")) Environment.Exit(1);\n  }\n}\n',
    ),
}


@pytest.mark.parametrize("name", APPENDED)
def test_an_appended_test_may_have_imports_of_its_own(sandbox: Sandbox, name: str) -> None:
    language = name.partition(" ")[0]
    if language not in {known.name for known in sandbox.languages()}:
        pytest.skip(f"{language} is not installed")
    program, test = APPENDED[name]
    wrong = program.replace("strings.Repeat(s, 2)", "strings.Repeat(s, 3)").replace("s + s", "s")
    verdicts = [
        judge(Program(language, one), ScriptSuite(test), Limits(), Stop(), sandbox).verdict for one in (program, wrong)
    ]
    assert verdicts == ["passed", "runtime_error"]


FORGERS = {
    "equal to all": "class Yes:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n"
    "def add(a, b): return Yes()\n",
    "a skip": "import unittest\ndef add(a, b): raise unittest.SkipTest('no')\n",
    "a class named Skipped": "class Skipped(Exception): pass\ndef add(a, b): raise Skipped('no')\n",
    "a class named ControlRefusal": "class ControlRefusal(BaseException): pass\n"
    "def add(a, b): raise ControlRefusal('no')\n",
    "an early end": "import os\ndef add(a, b): os._exit(0)\n",
    "an exit": "raise SystemExit(0)\n",
    "patched asserts": "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef add(a, b): return 0\n",
    "its own tests": "def test_sum(): pass\nclass T: pass\ndef add(a, b): return 0\n",
    "words on the wire": 'import os\ndef add(a, b):\n    b = b\'{"done":["passed",""]}\'\n'
    "    os.write(3, len(b).to_bytes(4, 'big') + b)\n    return 0\n",
    "StopIteration": "def add(a, b): raise StopIteration\n",
    "a generator's end": "def add(a, b): raise GeneratorExit\n",
    "a hook": "def pytest_pyfunc_call(pyfuncitem): return True\nload_tests = setUpModule = lambda *a: None\n"
    "def add(a, b): return 0\n",
}


@pytest.mark.parametrize("name", FORGERS)
def test_no_program_forges_a_test_file(sandbox: Sandbox, name: str) -> None:
    for suite in (
        PytestSuite("from solution import *\ndef test_sum():\n    assert add(1, 2) == 3\n"),
        PytestSuite("import pytest\ndef test_sum():\n    assert add(1, 2) == pytest.approx(3)\n"),
        UnittestSuite(
            "import unittest\nclass T(unittest.TestCase):\n    def test_sum(self):\n"
            "        self.assertEqual(add(1, 2), 3)\n"
        ),
    ):
        report = run(sandbox, FORGERS[name], suite)
        assert (report.verdict != "passed", report.passed, report.total) == (True, 0, 1), report.tests


@pytest.mark.parametrize("late", [False, True], ids=["at the head of the file", "in a test"])
def test_files_of_a_suite_are_imported_and_those_of_a_program_are_not(sandbox: Sandbox, late: bool) -> None:
    lines = ("def test_all():\n", "    from cases import CASES\n", "    assert all(add(a, 1) == b for a, b in CASES)\n")
    source = "".join(lines) if late else "from cases import CASES\n" + lines[0] + lines[2]
    suite = PytestSuite(source, files=(("cases.py", b"CASES = [(1, 2), (2, 3)]\n"),))
    verdicts = [
        judge(Program("python", text), suite, Limits(), Stop(), sandbox).verdict
        for text in ("def add(a, b): return a + b\n", "def add(a, b): return a - b\n")
    ]
    assert verdicts == ["passed", "wrong_answer"]
    planted = "from planted import right\ndef test_all():\n    assert right(add(1, 1))\n"
    late_planted = "def test_all():\n    told = add(1, 1)\n    from planted import right\n    assert right(told)\n"
    writer = "def add(a, b):\n    open('planted.py', 'w').write('right = lambda told: True')\n    return 5\nadd(1, 1)\n"
    suite = PytestSuite(late_planted if late else planted, files=suite.files)
    with pytest.raises(InvalidSuite, match="planted"):  # it is not there without the program
        judge(Program("python", writer), suite, Limits(), Stop(), sandbox)
    if late:
        report = judge(Program("python", writer), suite, Limits(), Stop(), sandbox, Options(control=False))
        assert (report.passed, report.total) == (0, 1)
