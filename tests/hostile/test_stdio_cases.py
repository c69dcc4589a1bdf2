"""Cases of `stdio` suites: several right answers, files of a case, and answers that no program could print."""

from __future__ import annotations

import pytest

from plaudit.grading import Compare, Verdict
from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.judge.compare import least_output, same_output
from sandbox.judge.stdio_cases import MAX_ANSWERS
from sandbox.limits import MAX_FILES, MAX_FILES_BYTES
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Program, Report, StdioCase, StdioSuite, Stop


def run(sandbox: Sandbox, source: str, suite: StdioSuite, language: str = "python", output_kb: int = 1024) -> Report:
    return judge(Program(language, source), suite, Limits(cpu_s=2, output_kb=output_kb), Stop(), sandbox)


@pytest.mark.parametrize(
    ("compare", "right", "wrong"),
    [
        ("rstrip", ["YES  \n\n", "Yes"], ["yes", "YES Yes", " YES", ""]),
        ("exact", ["YES", "Yes\n"], ["Yes", "YES\n"]),
        ("tokens", [" YES", "\nYes\n"], ["YES Yes", "y e s"]),
        ("float", ["YES", "0.5", "0.5000001"], ["0.6", "YES 0.5"]),
    ],
)
def test_any_of_several_answers_is_right(
    sandbox: Sandbox, compare: Compare, right: list[str], wrong: list[str]
) -> None:
    suite = StdioSuite((StdioCase("", ("YES", "Yes\n", "0.5")),), compare)
    for text in right:
        assert run(sandbox, f"print({text!r}, end='')", suite).verdict is Verdict.PASSED, text
    for text in wrong:
        assert run(sandbox, f"print({text!r}, end='')", suite).verdict is Verdict.WRONG_ANSWER, text


def test_answers_of_one_case_are_no_answers_of_another(sandbox: Sandbox) -> None:
    suite = StdioSuite((StdioCase("1", ("a", "b")), StdioCase("2", ("c", "d")), StdioCase("3", "e")))
    assert run(sandbox, "print({'1': 'b', '2': 'c', '3': 'e'}[input()])", suite).verdict is Verdict.PASSED
    report = run(sandbox, "print('b')", suite)
    assert [test.verdict for test in report.tests] == [Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.WRONG_ANSWER]
    assert {test.score for test in report.tests} == {None}


@pytest.mark.parametrize("size", [0, MAX_ANSWERS + 1])
def test_a_case_has_a_few_answers(sandbox: Sandbox, size: int) -> None:
    with pytest.raises(InvalidSuite, match=rf"cases\.1\.stdout: {size} answers"):
        run(sandbox, "print(1)", StdioSuite((StdioCase("", "1"), StdioCase("", ("1",) * size))))


# --- files -----------------------------------------------------------------------------------------------------------

CAT = {
    "python": "print(open('in/data.txt').read() + open('b').read(), end='')",
    "bash": "cat in/data.txt b",
    "c": '#include <stdio.h>\nint main() { int c; char* n[] = {"in/data.txt", "b"}; for (int i = 0; i < 2; i++) {'
    ' FILE* f = fopen(n[i], "r"); while ((c = getc(f)) != EOF) putchar(c); } }',
    "cpp": '#include <fstream>\n#include <iostream>\nint main() { std::cout << std::ifstream("in/data.txt").rdbuf()'
    ' << std::ifstream("b").rdbuf(); }',
    "javascript": "const fs = require('fs'); process.stdout.write(fs.readFileSync('in/data.txt', 'utf8')"
    " + fs.readFileSync('b', 'utf8'))",
    "perl": 'open(F, "in/data.txt"); print <F>; open(G, "b"); print <G>;',
}


@pytest.mark.parametrize("language", CAT)
def test_each_case_has_its_own_files(sandbox: Sandbox, language: str) -> None:
    if language not in {one.name for one in sandbox.languages()}:
        pytest.skip(f"{language} is not installed")
    cases = tuple(
        StdioCase("", f"{at}\n{at}!\n", (("in/data.txt", f"{at}\n".encode()), ("b", f"{at}!\n".encode())))
        for at in range(3)
    )
    assert run(sandbox, CAT[language], StdioSuite(cases), language).verdict is Verdict.PASSED


def test_no_case_sees_what_another_was_given_or_wrote(sandbox: Sandbox) -> None:
    source = (
        "import os\nprint(*sorted(n for n in os.listdir() if n != 'main.py'))\n"
        "for n in os.listdir(): open(n, 'a').write('x')\nopen('left', 'w').close()"
    )
    cases = (StdioCase("", "a", (("a", b"1"),)), StdioCase("", ""), StdioCase("", "a c", (("a", b""), ("c", b""))))
    assert run(sandbox, source, StdioSuite(cases)).verdict is Verdict.PASSED


def test_a_file_may_be_a_module_and_hold_any_bytes(sandbox: Sandbox) -> None:
    files = (("helper.py", b"def f(x): return 2 * x"), ("raw", bytes(range(256))))
    suite = StdioSuite((StdioCase("", "42 256", files),))
    assert (
        run(sandbox, "import helper\nprint(helper.f(21), len(open('raw', 'rb').read()))", suite).verdict
        is Verdict.PASSED
    )


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((("../x", b""),), "plain relative path"),
        ((("/etc/x", b""),), "plain relative path"),
        ((("a/../../x", b""),), "plain relative path"),
        ((("a\0b", b""),), "plain relative path"),
        ((("x" * 300, b""),), "longer than 200 bytes"),
        ((("a", b""), ("/tmp/a", b"")), "same name"),
        ((("a", b""), ("a/b", b"")), "folder of another"),
        ((("a", bytes(MAX_FILES_BYTES + 1)),), "at most 16777216 are allowed"),
        (tuple((f"f{at}", b"") for at in range(MAX_FILES + 1)), "at most 24 files"),
        ((("main.py", b""),), "the program's own file"),
    ],
)
def test_a_file_that_cannot_be_is_refused_by_its_field(
    sandbox: Sandbox, files: tuple[tuple[str, bytes], ...], words: str
) -> None:
    with pytest.raises(InvalidSuite, match=rf"cases\.1\.files: .*{words}"):
        run(sandbox, "print(1)", StdioSuite((StdioCase("", "1"), StdioCase("", "1", files))))


# --- answers that no program could print -----------------------------------------------------------------------------


@pytest.mark.parametrize("compare", ["exact", "rstrip", "tokens"])
@pytest.mark.parametrize("answers", ["x" * 3000, ("y", "x" * 3000), "é" * 1500])
def test_an_answer_that_no_program_may_print_names_both_numbers(
    sandbox: Sandbox, compare: Compare, answers: str | tuple[str, ...]
) -> None:
    suite = StdioSuite((StdioCase("", "1"), StdioCase("", answers)), compare)
    with pytest.raises(InvalidSuite, match=r"cases\.1\.stdout: .*3000 bytes.*2048 \(2 KB\)"):
        run(sandbox, "print(1)", suite, output_kb=2)
    printed = answers if isinstance(answers, str) else answers[1]
    source = f"print({printed!r} if input() else 1, end='')"
    suite = StdioSuite((StdioCase("x", answers),), compare)
    assert run(sandbox, source, suite, output_kb=3).verdict is Verdict.PASSED


def test_what_can_be_printed_shorter_is_not_refused(sandbox: Sandbox) -> None:
    blanks = StdioSuite((StdioCase("", "1" + " " * 3000 + "\n2" + "\n" * 3000),))
    assert run(sandbox, "print('1\\n2')", blanks, output_kb=1).verdict is Verdict.PASSED
    digits = StdioSuite((StdioCase("", " ".join(["0.500000000000"] * 300)),), "float")
    assert run(sandbox, "print('.5 ' * 300)", digits, output_kb=1).verdict is Verdict.PASSED


@pytest.mark.parametrize("answer", [b"", b"a", b" a  b \n\n c\n\n", b"1.50 x\t2e3\r\n", b"\xff\n \n0\n"])
@pytest.mark.parametrize("mode", ["exact", "rstrip", "tokens", "float"])
def test_nothing_shorter_than_the_least_is_taken(answer: bytes, mode: Compare) -> None:
    least = least_output(answer, mode)
    assert least <= len(answer)
    shortest = {
        "exact": answer,
        "rstrip": b"\n".join(line.rstrip() for line in answer.split(b"\n")).rstrip(b"\n"),
        "tokens": b" ".join(answer.split()),
    }
    if mode in shortest:
        assert len(shortest[mode]) == least
        assert same_output(shortest[mode], answer, mode)
        assert not least or not same_output(shortest[mode][:-1], answer, mode)
