"""Checkers: right and wrong programs, scores, whose fault a broken checker is, and outputs that aim at the checker."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.grading import Verdict
from plaudit.languages import UnsupportedLanguage
from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.judge.checker_verdicts import MAX_MESSAGE_CHARS, CheckerVerdict, TriedCheckers, interpret_exit
from sandbox.run import RunOutcome
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Options, Program, Report, StdioCase, StdioSuite, Stop
from support.checker_problems import CHECKER_PROBLEMS, CheckerProblem

LIMITS = Limits(cpu_s=2, output_kb=4096)


def run(sandbox: Sandbox, source: str, suite: StdioSuite, language: str = "python", **options: bool) -> Report:
    return judge(Program(language, source), suite, LIMITS, Stop(), sandbox, Options(**options))


def suite_of(problem: CheckerProblem) -> StdioSuite:
    cases = tuple(StdioCase(given, answer) for given, answer in problem.cases)
    return StdioSuite(cases, checker=Program(problem.language, problem.checker))


def checked(checker: str, *cases: tuple[str, str], language: str = "python") -> StdioSuite:
    return StdioSuite(
        tuple(StdioCase(*case) for case in cases or (("1\n", "1\n"),)), checker=Program(language, checker)
    )


# Accepts the answer's words in any order; what the tests below break, they break in this one.
WORDS = (
    "import sys\n"
    "got, want = (sorted(open(name, 'rb').read().split()) for name in sys.argv[2:4])\n"
    "sys.exit(got != want)\n"
)


@pytest.mark.parametrize("problem", CHECKER_PROBLEMS, ids=lambda problem: problem.name)
def test_a_checker_takes_every_right_program_and_no_wrong_one(sandbox: Sandbox, problem: CheckerProblem) -> None:
    suite = suite_of(problem)
    for program in problem.right:
        report = run(sandbox, program, suite)
        assert report.verdict is Verdict.PASSED, (program, report.tests)
        assert [test.score for test in report.tests] == [1.0] * len(problem.cases)
    for program in problem.wrong:
        report = run(sandbox, program, suite)
        assert report.verdict in (Verdict.WRONG_ANSWER, Verdict.INVALID_RESULT), (program, report.tests)
        assert min(test.score for test in report.tests if test.score is not None) < 1
    for program, score in problem.partial:
        test = run(sandbox, program, suite).tests[0]
        assert (test.verdict, test.score) == (Verdict.WRONG_ANSWER, pytest.approx(score)), (program, test)
    assert not any(test.vacuous for test in run(sandbox, problem.right[0], suite).tests)


def test_there_are_twenty_problems_in_both_languages() -> None:
    assert len(CHECKER_PROBLEMS) >= 20
    assert {problem.language for problem in CHECKER_PROBLEMS} == {"python", "cpp"}


def test_a_checker_in_any_language_says_why(sandbox: Sandbox) -> None:
    bash = 'if [ "$(sort $2)" = "$(sort $3)" ]; then exit 0; fi; echo "other lines" >&2; exit 1\n'
    suite = checked(bash, ("", "a\nb\n"), language="bash")
    assert run(sandbox, "print('b\\na')", suite).verdict is Verdict.PASSED
    test = run(sandbox, "print('b')", suite).tests[0]
    assert (test.verdict, test.detail, test.score) == (Verdict.WRONG_ANSWER, "other lines", 0.0)


def test_the_checker_of_the_documentation_checks(sandbox: Sandbox) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
    suite = checked(page.partition("```python checker\n")[2].partition("```")[0], ("", "b a\n"))
    assert run(sandbox, "print('a b')", suite).verdict is Verdict.PASSED
    assert run(sandbox, "print('a')", suite).tests[0].detail == "other words"


def test_a_compiled_program_is_checked_too(sandbox: Sandbox) -> None:
    source = '#include <cstdio>\nint main() { puts("b a"); }\n'
    assert run(sandbox, source, checked(WORDS, ("", "a b\n")), "cpp").verdict is Verdict.PASSED
    broken = run(sandbox, "int main( {", checked(WORDS, ("", "a b\n")), "cpp")
    assert broken.verdict is Verdict.COMPILE_ERROR


def test_a_program_that_does_not_end_well_is_never_checked(sandbox: Sandbox) -> None:
    anything_but_nonsense = "import sys\nsys.exit('~' in open('output.txt').read())\n"
    suite = checked(anything_but_nonsense)
    for source, verdict in (
        ("print(1); raise SystemExit(3)", Verdict.RUNTIME_ERROR),
        ("print(1)\nwhile True: pass", Verdict.TIME_LIMIT),
        ("x = bytearray(1 << 30)", Verdict.RUNTIME_ERROR),
        ("while True: print('1' * 9999)", Verdict.OUTPUT_LIMIT),
    ):
        report = run(sandbox, source, suite)
        assert report.verdict in (verdict, Verdict.MEMORY_LIMIT), source
        assert report.tests[0].score == 0.0


# --- whose fault it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checker", "language", "words"),
    [
        ("import sys\nsys.exit(1)", "python", "cases.0: the checker refuses"),
        ("raise ValueError('spoilt')", "python", "cases.0: the checker breaks.*spoilt"),
        ("import os\nos.kill(os.getpid(), 11)", "python", "SIGSEGV"),
        ("while True: pass", "python", "cpu: more than|wall: not done"),
        ("x = []\nwhile True: x.append(bytes(1 << 22))", "python", "MemoryError|more than 512 MB|refused more memory"),
        ("print(0.5)", "python", "gives 0.5"),
        ("print(100)", "python", "gives 100, and a score lies in"),
        ("import sys\nsys.exit(7)", "python", "code 7"),
        ("import sys\nprint('bad data', file=sys.stderr)\nsys.exit(3)", "python", "says that it failed.*bad data"),
        ("def check(:", "python", "cannot be loaded: SyntaxError"),
        ("import surely_not_there", "python", "cannot be loaded: ModuleNotFoundError"),
        ("def check(given, output, answer):\n    return output == answer\n", "python", "accepts anything"),
        ("print(open('output.txt').read() == open('answer.txt').read())", "python", "accepts anything"),
        ("int main( {", "cpp", "does not compile"),
        ('#include "testlib.h"\nint main(int c, char** v) { registerTestlibCmd(c, v); }', "cpp", "without quit"),
        (
            '#include "testlib.h"\nint main(int c, char** v) { registerTestlibCmd(c, v); exit(0); }',
            "cpp",
            "without quit",
        ),
    ],
)
def test_a_checker_that_is_broken_by_itself_spoils_the_suite(
    sandbox: Sandbox, checker: str, language: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.judge.checkers.MIN_CPU_S", 2.0)  # of those without end
    suite = checked(checker, language=language)
    for program in ("print(1)", "print(2)", "raise SystemExit(1)"):  # whatever the program is
        with pytest.raises(InvalidSuite, match=words):
            run(sandbox, program, suite)


def test_an_answer_that_the_checker_refuses_names_its_case(sandbox: Sandbox) -> None:
    suite = checked("import sys\nsys.exit(len(open('output.txt').read()) > 3)", ("", "ab\n"), ("", "abcdef\n"))
    with pytest.raises(InvalidSuite, match=r"cases\.1: the checker refuses on the case's own stdout"):
        run(sandbox, "print('x')", suite)
    assert run(sandbox, "print('x')", suite, control=False).verdict is Verdict.PASSED


def test_one_vacuous_case_is_marked_and_the_others_count(sandbox: Sandbox) -> None:
    checker = "import sys\nsys.exit(0 if open('input.txt').read() == 'any\\n' else open('output.txt').read() != 'a\\n')"
    tests = run(sandbox, "print('a')", checked(checker, ("any\n", "x\n"), ("one\n", "a\n"))).tests
    assert [test.vacuous for test in tests] == [True, False]


def test_a_suite_is_tried_once(sandbox: Sandbox) -> None:
    suite = checked(WORDS, *((f"{at}\n", f"{at} x\n") for at in range(20)))
    tried = len(sandbox.cached(TriedCheckers))
    run(sandbox, "print(input(), 'x')", suite)
    before = sandbox.num_made, len(sandbox.cached(TriedCheckers))
    run(sandbox, "print('x', input())", suite)
    assert before == (sandbox.num_made, tried + 1) == (sandbox.num_made, len(sandbox.cached(TriedCheckers)))


BREAKS_ON = """\
import os, sys
got = open('output.txt', 'rb').read()
if got == b'crash\\n': [][1]
if got == b'signal\\n': os.kill(os.getpid(), 11)
if got == b'loop\\n':
    while True: pass
if got == b'memory\\n': x = [bytearray(1 << 24) for _ in range(99)]
if got == b'fail\\n': sys.exit(3)
if got == b'strange\\n': sys.exit(99)
if got == b'flood\\n':
    while True: print('x' * 4096)
if got == b'import\\n': import surely_not_there
if got == b'score\\n': sys.exit(print(7))
sys.exit(got != b'1\\n')
"""


@pytest.mark.parametrize("word", ["crash", "signal", "loop", "memory", "fail", "strange", "flood", "import", "score"])
def test_no_program_turns_its_failure_into_null_by_breaking_the_checker(
    sandbox: Sandbox, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.judge.checkers.MIN_CPU_S", 2.0)
    report = run(sandbox, f"print({word!r})", checked(BREAKS_ON))
    assert (report.verdict, report.tests[0].score) == (Verdict.INVALID_RESULT, 0.0)
    assert report.tests[0].detail.startswith("the checker ")
    assert set(report.flags) - {"rerun_alone"} == {"checker_failed"}  # again, where this host was busy
    assert run(sandbox, "print(1)", checked(BREAKS_ON)).verdict is Verdict.PASSED


def test_without_an_answer_a_checker_decides_alone(sandbox: Sandbox) -> None:
    suite = checked("import sys\nsys.exit(int(open('output.txt').read()) % 7)", ("", ""))
    assert run(sandbox, "print(14)", suite).verdict is Verdict.PASSED
    assert run(sandbox, "print(15)", suite).verdict is Verdict.WRONG_ANSWER
    assert run(sandbox, "print('x')", suite).verdict is Verdict.INVALID_RESULT
    with pytest.raises(InvalidSuite, match="cannot be loaded"):
        run(sandbox, "print(14)", checked("import surely_not_there", ("", "")))
    with pytest.raises(InvalidSuite, match="accepts anything"):
        run(sandbox, "print(14)", checked("pass", ("", "")))


def test_a_language_that_is_not_there_is_the_checkers(sandbox: Sandbox) -> None:
    with pytest.raises(UnsupportedLanguage, match="the checker: "):
        run(sandbox, "print(1)", checked("", language="klingon"))


def test_a_suite_takes_a_checker_or_an_interactor(sandbox: Sandbox) -> None:
    both = StdioSuite((StdioCase("", ""),), checker=Program("python", ""), interactor=Program("python", ""))
    with pytest.raises(InvalidSuite, match="one of them"):
        run(sandbox, "print(1)", both)


# --- outputs that aim at the checker ---------------------------------------------------------------------------------

HOSTILE = {
    "what an accepting checker prints": "print('1')\nprint('ok accepted')\nprint('points 1')",
    "a line of a megabyte": "print('7' * (1 << 20))",
    "a million lines": "print('\\n' * 1000000)",
    "nul bytes": "import sys\nsys.stdout.write('1\\0' * 1000)",
    "bytes that are no text": "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 100)",
    "the answer with a nul byte": "print('1\\0')",
    "an early exit": "import os\nos.write(1, b'2')\nos._exit(0)",
    "nothing": "",
    "an answer file of its own": "open('answer.txt', 'w').write('x')\nopen('output.txt', 'w').write('1')\nprint('x')",
    "a checker of its own": "open('main.py', 'w').write('')\n"
    "open('/tmp/sitecustomize.py', 'w').write('raise SystemExit(0)')\nprint(2)",
    "a child that waits for the checker": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    for _ in range(200):\n"
        "        for name in ('answer.txt', 'output.txt'):\n            open('/tmp/' + name, 'w').write('1')\n"
        "        time.sleep(0.01)\nprint(2)"
    ),
    "a folder in the output's place": "import os\nos.mkdir('output.txt')\nos.mkdir('input.txt')\nprint(2)",
    "a link in the answer's place": "import os\nos.symlink('/dev/null', 'answer.txt')\nprint(2)",
    "an environment": "import os\nos.environ['PYTHONSTARTUP'] = '/tmp/x'\nprint(2)",
    "a testlib of its own": "open('testlib.h', 'w').write('')\nprint(2)",
    "numbers without end": "print('9' * 5000)",
}
NUMBER = (
    '#include "testlib.h"\nint main(int c, char** v) { registerTestlibCmd(c, v);\n'
    'if (ouf.readInt() != ans.readInt()) quit(_wa, "no"); quit(_ok, "yes"); }\n'
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_output_talks_a_checker_round(sandbox: Sandbox, name: str) -> None:
    careless = "import sys\nsys.exit(int(open(sys.argv[2]).read()) != int(open(sys.argv[3]).read()))\n"
    for suite in (checked(WORDS), checked(careless), checked(NUMBER, language="cpp")):
        report = run(sandbox, HOSTILE[name], suite)
        assert report.verdict not in (Verdict.PASSED, Verdict.SKIPPED), report.tests
        assert report.tests[0].score == 0.0
        assert run(sandbox, "print(1)", suite).verdict is Verdict.PASSED  # the next program meets a checker as new


def test_a_checker_reads_what_a_program_may_print_to_the_last_byte(sandbox: Sandbox) -> None:
    checker = "import sys\nsys.exit(open('output.txt', 'rb').read() != bytes(range(256)) * 8192)"
    suite = checked(checker, ("", ""))
    assert (
        run(sandbox, "import os\nfor _ in range(8192): os.write(1, bytes(range(256)))", suite).verdict is Verdict.PASSED
    )
    assert (
        run(sandbox, "import os\nfor _ in range(8191): os.write(1, bytes(range(256)))", suite).verdict
        is not Verdict.PASSED
    )


def test_a_checker_has_more_than_a_small_program(sandbox: Sandbox) -> None:
    checker = (
        "import sys\nx = bytearray(200 << 20)\nfor _ in range(6000000): pass\n"
        "sys.exit(open('output.txt').read() != open('answer.txt').read())\n"
    )
    small = Limits(cpu_s=0.05, wall_s=3, memory_mb=32)
    report = judge(Program("python", "print(1)"), checked(checker), small, Stop(), sandbox)
    assert (report.verdict, report.tests[0].cpu_ms < 50) == (Verdict.PASSED, True)


def test_a_message_is_cut(sandbox: Sandbox) -> None:
    suite = checked("import sys\ngot = open('output.txt').read()\nif got != '1\\n': sys.exit('no: ' + got * 100)\n")
    detail = run(sandbox, "print('\\x1b\\udc80x' * 10000)".replace("\\udc80", ""), suite).tests[0].detail
    assert detail.startswith("no: ")
    assert len(detail) <= MAX_MESSAGE_CHARS + 1


def test_files_of_a_case_are_there_for_program_and_checker(sandbox: Sandbox) -> None:
    checker = "import sys\nsys.exit(open('output.txt').read().strip() != open('data/n.txt').read().strip()[::-1])"
    case = StdioCase("", "", (("data/n.txt", b"123\n"), ("output.txt", b"theirs")))
    suite = StdioSuite((case,), checker=Program("python", checker))
    assert run(sandbox, "print(open('data/n.txt').read().strip()[::-1])", suite).verdict is Verdict.PASSED
    assert run(sandbox, "print(open('data/n.txt').read())", suite).verdict is Verdict.WRONG_ANSWER
    assert run(sandbox, "print(open('output.txt').read())", suite).verdict is Verdict.WRONG_ANSWER


# --- the table of endings --------------------------------------------------------------------------------------------

ENDED = RunOutcome(Verdict.RUNTIME_ERROR, "exit code")


@pytest.mark.parametrize(
    ("code", "out", "err", "ruling"),
    [
        (0, b"", b"", CheckerVerdict(1.0)),
        (0, b"", b"ok 3 numbers\n", CheckerVerdict(1.0, "ok 3 numbers")),
        (0, b"checking\n0.25\n\n", b"", CheckerVerdict(0.25)),
        (0, b"1", b"", CheckerVerdict(1.0)),
        (0, b"1.0\nfine", b"", CheckerVerdict(1.0, "1.0")),
        (0, b"1e-1", b"", CheckerVerdict(0.1)),
        (0, b"-1", b"", CheckerVerdict(None, "it gives -1, and a score lies in [0, 1]")),
        (0, b"nan", b"", CheckerVerdict(1.0, "nan")),
        (1, b"0", b"", CheckerVerdict(0.0, "wrong answer")),
        (1, b"1", b"", CheckerVerdict(0.0, "wrong answer")),
        (2, b"", b"bad form\nmore", CheckerVerdict(0.0, "bad form")),
        (4, b"", b"", CheckerVerdict(0.0, "more output than was asked for")),
        (8, b"", b"", CheckerVerdict(0.0, "less output than was asked for")),
        (7, b"", b"points 0.5 half", CheckerVerdict(0.5, "points 0.5 half")),
        (7, b"0.5", b"", CheckerVerdict(0.5, "0.5")),
        (7, b"", b"points 2", CheckerVerdict(None, "it gives 2, and a score lies in [0, 1]")),
        (
            7,
            b"",
            b"points nan",
            CheckerVerdict(None, "it ends with code 7, and no score stands first on its stderr or stdout"),
        ),
        (3, b"", b"FAIL jury", CheckerVerdict(None, "FAIL jury", failed=True)),
        (50, b"1", b"", CheckerVerdict(None, "exit code")),
        (
            1,
            b"",
            b"Traceback (most recent call last):\n  x\nAssertionError: no\n",
            CheckerVerdict(0.0, "AssertionError: no"),
        ),
        (1, b"", b"Traceback (most recent call last):\n  x\nKeyError: 1\n", CheckerVerdict(None, "KeyError: 1")),
    ],
)
def test_an_ending_has_one_meaning(code: int, out: bytes, err: bytes, ruling: CheckerVerdict) -> None:
    assert interpret_exit(ENDED if code else RunOutcome(None), code, out, err) == ruling


STRICT = {
    "literal_eval": "import ast\nread = ast.literal_eval\n",
    "eval": "read = eval\n",
    "json": "import json\nread = json.loads\n",
    "int": "read = int\n",
    "compile": "def read(text):\n    exec(compile('x = ' + text, 'answer', 'exec'), globals())\n    return x\n",
}


@pytest.mark.parametrize("how", STRICT)
def test_a_checker_that_cannot_read_nonsense_is_no_broken_one(sandbox: Sandbox, how: str) -> None:
    """It takes its own answers, so it loads; an output that it stumbles over is the program's failure."""
    checker = f"import sys\n{STRICT[how]}got, want = (read(open(name).read()) for name in sys.argv[2:4])\n"
    checker += "assert got == want\n"
    suite = checked(checker, ("1\n", "1\n"), ("2\n", "2\n"))
    assert run(sandbox, "print(input())", suite).passed == 2
    for wrong in ("print(3)", "print('nothing of the kind')", "pass", "print('import os')", "print(')')"):
        report = run(sandbox, wrong, suite)
        assert (report.passed, report.total) == (0, 2)
        assert {test.verdict for test in report.tests} <= {Verdict.WRONG_ANSWER, Verdict.INVALID_RESULT}


@pytest.mark.parametrize("text", ["def f(:\n", "import no_such_module_here\n"])
def test_a_checker_that_does_not_load_is_still_broken(sandbox: Sandbox, text: str) -> None:
    for case in (("1\n", "1\n"), ("1\n", "")):
        with pytest.raises(InvalidSuite, match="cannot be loaded"):
            run(sandbox, "print(1)", checked(text, case))
