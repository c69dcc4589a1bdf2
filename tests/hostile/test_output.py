"""Running without judging: everything that was printed comes back, files go in and out, and no name leads elsewhere."""

from __future__ import annotations

import pytest

from plaudit.grading import Verdict
from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.limits import MAX_FETCHED_BYTES, MAX_FILES, MAX_FILES_BYTES
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Output, Program, Report, RunSuite, Stop

LIMITS = Limits(cpu_s=2, output_kb=2048)


def run(sandbox: Sandbox, source: str, suite: RunSuite | None = None, language: str = "python") -> Report:
    return judge(Program(language, source), suite or RunSuite(), LIMITS, Stop(), sandbox)


def output(report: Report) -> Output:
    assert report.output is not None
    return report.output


def test_stdin_goes_in_and_stdout_stderr_and_exit_code_come_out(sandbox: Sandbox) -> None:
    source = "import sys\nprint(sys.stdin.read()[::-1], end='')\nprint('aside', file=sys.stderr)\nsys.exit(3)"
    report = run(sandbox, source, RunSuite(stdin="abc"))
    assert output(report) == Output(3, None, b"cba", b"aside\n", {})
    assert (report.verdict, report.tests[0].detail) == (Verdict.RUNTIME_ERROR, "exit code 3")


def test_a_megabyte_of_output_is_whole(sandbox: Sandbox) -> None:
    report = run(sandbox, "print('x' * (1 << 20), end='')")
    assert output(report).stdout == b"x" * (1 << 20)
    assert report.verdict is Verdict.PASSED


def test_too_much_output_is_said_and_its_beginning_kept(sandbox: Sandbox) -> None:
    report = run(sandbox, "while True: print('x' * 4096)")
    assert report.verdict is Verdict.OUTPUT_LIMIT
    assert len(output(report).stdout) == LIMITS.output_kb * 1024


def test_bytes_that_are_no_text_come_back_as_they_are(sandbox: Sandbox) -> None:
    source = "import sys\nsys.stdout.buffer.write(bytes(range(256)))"
    assert output(run(sandbox, source)).stdout == bytes(range(256))


def test_a_signal_is_told(sandbox: Sandbox) -> None:
    left = output(run(sandbox, "import os\nos.kill(os.getpid(), 11)"))
    assert (left.exit_code, left.signal) == (None, 11)


def test_files_go_in_may_be_changed_and_come_out(sandbox: Sandbox) -> None:
    source = "open('data/in.txt', 'a').write('!')\nopen('out.bin', 'wb').write(open('data/in.txt', 'rb').read())"
    suite = RunSuite(files=(("data/in.txt", b"hello"), ("/tmp/other", b"")), fetch=("out.bin", "absent"))
    assert output(run(sandbox, source, suite)).files == {"out.bin": b"hello!"}


def test_a_fetched_link_leads_nowhere(sandbox: Sandbox) -> None:
    source = "import os\nos.symlink('/etc/passwd', 'a')\nos.mkfifo('b')\nos.mkdir('c')"
    assert output(run(sandbox, source, RunSuite(fetch=("a", "b", "c")))).files == {}


def test_a_file_that_is_too_big_to_fetch_is_left_out(sandbox: Sandbox) -> None:
    source = f"open('big', 'wb').write(bytes({MAX_FETCHED_BYTES + 1}))"
    assert output(run(sandbox, source, RunSuite(fetch=("big",)))).files == {}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "", "a/../../x", "./x", "a//b", "x\0y", "n" * 300])
def test_a_name_that_leads_elsewhere_is_refused(sandbox: Sandbox, name: str) -> None:
    with pytest.raises(InvalidSuite):
        run(sandbox, "", RunSuite(files=((name, b""),)))
    with pytest.raises(InvalidSuite):
        run(sandbox, "", RunSuite(fetch=(name,)))


def test_what_cannot_be_is_refused(sandbox: Sandbox) -> None:
    for suite in (
        RunSuite(fetch=("a/b",)),
        RunSuite(files=(("a", b""), ("/tmp/a", b""))),
        RunSuite(files=(("a", b""), ("a/b", b""))),
        RunSuite(files=tuple((f"f{at}", b"") for at in range(MAX_FILES + 1))),
        RunSuite(files=(("a", bytes(MAX_FILES_BYTES + 1)),)),
    ):
        with pytest.raises(InvalidSuite):
            run(sandbox, "", suite)


def test_a_native_program_runs_once_compiled(sandbox: Sandbox) -> None:
    if "cpp" not in {language.name for language in sandbox.languages()}:
        pytest.skip("needs g++")
    source = "#include <iostream>\nint main() { std::cout << std::cin.rdbuf(); return 4; }"
    report = run(sandbox, source, RunSuite(stdin="in\n"), "cpp")
    assert (output(report).stdout, output(report).exit_code) == (b"in\n", 4)
    broken = run(sandbox, "int main( {", language="cpp")
    assert (broken.verdict, broken.output) == (Verdict.COMPILE_ERROR, None)
    assert broken.compile is not None
    assert "error" in broken.compile.stderr
