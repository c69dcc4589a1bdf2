"""Running without judging: everything that was printed comes back, files go in and out, and no name leads elsewhere."""

from __future__ import annotations

import pytest

from plaudit.grading import Verdict
from sandbox import limits as fences
from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Output, Program, Report, RunSuite, Stop

LIMITS = Limits(cpu_s=2, output_kb=2048)


def run(box: Sandbox, source: str, suite: RunSuite | None = None, language: str = "python") -> Report:
    return judge(Program(language, source), suite or RunSuite(), LIMITS, Stop(), box)


def output(report: Report) -> Output:
    assert report.output is not None
    return report.output


def test_stdin_goes_in_and_stdout_stderr_and_exit_code_come_out(box: Sandbox) -> None:
    source = "import sys\nprint(sys.stdin.read()[::-1], end='')\nprint('aside', file=sys.stderr)\nsys.exit(3)"
    report = run(box, source, RunSuite(stdin="abc"))
    assert output(report) == Output(3, None, b"cba", b"aside\n", {})
    assert (report.verdict, report.tests[0].detail) == (Verdict.RUNTIME_ERROR, "exit code 3")


def test_a_megabyte_of_output_is_whole(box: Sandbox) -> None:
    report = run(box, "print('x' * (1 << 20), end='')")
    assert output(report).stdout == b"x" * (1 << 20)
    assert report.verdict is Verdict.PASSED


def test_too_much_output_is_said_and_its_beginning_kept(box: Sandbox) -> None:
    report = run(box, "while True: print('x' * 4096)")
    assert report.verdict is Verdict.OUTPUT_LIMIT
    assert len(output(report).stdout) == LIMITS.output_kb * 1024


def test_bytes_that_are_no_text_come_back_as_they_are(box: Sandbox) -> None:
    source = "import sys\nsys.stdout.buffer.write(bytes(range(256)))"
    assert output(run(box, source)).stdout == bytes(range(256))


def test_a_signal_is_told(box: Sandbox) -> None:
    left = output(run(box, "import os\nos.kill(os.getpid(), 11)"))
    assert (left.exit_code, left.signal) == (None, 11)


def test_files_go_in_may_be_changed_and_come_out(box: Sandbox) -> None:
    source = "open('data/in.txt', 'a').write('!')\nopen('out.bin', 'wb').write(open('data/in.txt', 'rb').read())"
    suite = RunSuite(files=(("data/in.txt", b"hello"), ("/tmp/other", b"")), fetch=("out.bin", "absent"))
    assert output(run(box, source, suite)).files == {"out.bin": b"hello!"}


def test_a_fetched_link_leads_nowhere(box: Sandbox) -> None:
    source = "import os\nos.symlink('/etc/passwd', 'a')\nos.mkfifo('b')\nos.mkdir('c')"
    assert output(run(box, source, RunSuite(fetch=("a", "b", "c")))).files == {}


def test_a_file_that_is_too_big_to_fetch_is_left_out(box: Sandbox) -> None:
    source = f"open('big', 'wb').write(bytes({fences.MAX_FETCHED_BYTES + 1}))"
    assert output(run(box, source, RunSuite(fetch=("big",)))).files == {}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "", "a/../../x", "./x", "a//b", "x\0y", "n" * 300])
def test_a_name_that_leads_elsewhere_is_refused(box: Sandbox, name: str) -> None:
    with pytest.raises(InvalidSuite):
        run(box, "", RunSuite(files=((name, b""),)))
    with pytest.raises(InvalidSuite):
        run(box, "", RunSuite(fetch=(name,)))


def test_what_cannot_be_is_refused(box: Sandbox) -> None:
    for suite in (
        RunSuite(fetch=("a/b",)),
        RunSuite(files=(("a", b""), ("/tmp/a", b""))),
        RunSuite(files=(("a", b""), ("a/b", b""))),
        RunSuite(files=tuple((f"f{at}", b"") for at in range(fences.MAX_FILES + 1))),
        RunSuite(files=(("a", bytes(fences.MAX_FILES_BYTES + 1)),)),
    ):
        with pytest.raises(InvalidSuite):
            run(box, "", suite)


def test_a_native_program_runs_once_compiled(box: Sandbox) -> None:
    if "cpp" not in {language.name for language in box.languages()}:
        pytest.skip("needs g++")
    source = "#include <iostream>\nint main() { std::cout << std::cin.rdbuf(); return 4; }"
    report = run(box, source, RunSuite(stdin="in\n"), "cpp")
    assert (output(report).stdout, output(report).exit_code) == (b"in\n", 4)
    broken = run(box, "int main( {", language="cpp")
    assert (broken.verdict, broken.output) == (Verdict.COMPILE_ERROR, None)
    assert broken.compile is not None
    assert "error" in broken.compile.stderr
