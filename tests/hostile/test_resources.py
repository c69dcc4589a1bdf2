"""Programs that want all the memory, disk, output or descriptors there are."""

from __future__ import annotations

import pytest

from plaudit.grading import Verdict
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Program, Report, StdioCase, StdioSuite, Stop

SMALL = Limits(cpu_s=3, memory_mb=64, output_kb=256)


def run(sandbox: Sandbox, source: str, stdout: str = "", *, stdin: str = "", limits: Limits = SMALL) -> Report:
    return judge(Program("python", source), StdioSuite((StdioCase(stdin, stdout),)), limits, Stop(), sandbox)


def test_allocating_forever_is_a_memory_limit(sandbox: Sandbox) -> None:
    report = run(sandbox, "hoard = []\nwhile True: hoard.append(bytearray(10 << 20))")
    assert report.verdict is Verdict.MEMORY_LIMIT
    assert report.tests[0].peak_memory_mb >= 50


def test_catching_memory_errors_does_not_help(sandbox: Sandbox) -> None:
    source = """
hoard = []
while True:
    try:
        hoard.append(bytearray(10 << 20))
    except MemoryError:
        pass
"""
    assert run(sandbox, source).verdict is Verdict.MEMORY_LIMIT


def test_memory_is_counted_over_all_processes(sandbox: Sandbox) -> None:
    source = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        hoard = bytearray(20 << 20)
        time.sleep(100)
for _ in range(8):
    try:
        os.wait()
        break
    except ChildProcessError:
        break
"""
    assert run(sandbox, source).verdict is Verdict.MEMORY_LIMIT


def test_more_address_space_than_allowed_is_the_memory_limit(sandbox: Sandbox) -> None:
    report = run(sandbox, "bytearray(1 << 40)")
    assert report.verdict is Verdict.MEMORY_LIMIT
    assert "MemoryError" in report.tests[0].stderr


def test_a_file_cannot_fill_the_disk(sandbox: Sandbox) -> None:
    source = "with open('/tmp/big', 'wb') as f:\n    while True: f.write(bytes(1 << 20))"
    report = run(sandbox, source)
    assert report.verdict is Verdict.RUNTIME_ERROR
    assert "File too large" in report.tests[0].stderr


def test_many_files_cannot_fill_the_disk(sandbox: Sandbox) -> None:
    source = "n = 0\nwhile True:\n    open(f'/tmp/{n}', 'w').close()\n    n += 1"
    report = run(sandbox, source)
    assert report.verdict is Verdict.RUNTIME_ERROR
    assert "No space left on device" in report.tests[0].stderr


@pytest.mark.parametrize("where", ["/tmp", "/dev/shm"])
def test_several_files_cannot_fill_the_memory(sandbox: Sandbox, where: str) -> None:
    source = f"for n in range(100):\n    open(f'{where}/{{n}}', 'wb').write(bytes(8 << 20))"
    assert run(sandbox, source).verdict in (Verdict.RUNTIME_ERROR, Verdict.MEMORY_LIMIT)


@pytest.mark.parametrize(
    "source",
    ["while True: print('y' * 1000)", "import subprocess; subprocess.run(['yes'])"],
    ids=["print", "yes"],
)
def test_endless_output_is_an_output_limit(sandbox: Sandbox, source: str) -> None:
    report = run(sandbox, source)
    assert report.verdict is Verdict.OUTPUT_LIMIT
    assert len(report.tests[0].stdout) < 10_000


def test_endless_stderr_is_cut_and_does_not_stop_the_program(sandbox: Sandbox) -> None:
    source = "import sys\nfor _ in range(5000): sys.stderr.write('e' * 999 + '\\n')\nprint('ok')"
    report = run(sandbox, source, "ok")
    assert report.verdict is Verdict.PASSED
    assert "stderr_truncated" in report.flags
    assert len(report.tests[0].stderr) < 10_000


def test_four_megabytes_of_stdin_that_nobody_reads_block_nobody(sandbox: Sandbox) -> None:
    assert run(sandbox, "print('ok')", "ok", stdin="x" * (4 << 20)).verdict is Verdict.PASSED


def test_stdin_arrives_whole_and_cannot_be_written(sandbox: Sandbox) -> None:
    source = """
import os, sys
data = sys.stdin.read()
try:
    os.write(0, b"x")
except OSError as error:
    print(len(data), error.errno)
"""
    assert run(sandbox, source, "1000000 9", stdin="x" * 1_000_000).verdict is Verdict.PASSED


def test_descriptors_run_out_inside_only(sandbox: Sandbox) -> None:
    source = """
import os
n = 0
try:
    while True:
        os.dup(0)
        n += 1
except OSError as error:
    print(error.errno, n < 200)
"""
    assert run(sandbox, source, "24 True").verdict is Verdict.PASSED


def test_closing_stdin_and_stdout_hurts_only_oneself(sandbox: Sandbox) -> None:
    assert run(sandbox, "import os; os.close(0); input()").verdict is Verdict.RUNTIME_ERROR
    assert run(sandbox, "import os; os.close(1); print('x', flush=True)").verdict is Verdict.RUNTIME_ERROR


def test_output_is_compared_as_bytes(sandbox: Sandbox) -> None:
    raw = "import sys; sys.stdout.buffer.write(b'a\\x00\\xff\\xfeb')"
    suite = StdioSuite((StdioCase("", "a\x00\udcff\udcfeb"),), compare="exact")
    assert judge(Program("python", raw), suite, SMALL, Stop(), sandbox).verdict is Verdict.PASSED
    assert run(sandbox, raw, "a\x00??b").verdict is Verdict.WRONG_ANSWER


def test_printing_what_a_passed_test_looks_like_is_only_output(sandbox: Sandbox) -> None:
    report = run(sandbox, "print('PASSED\\n1 passed in 0.01s\\nOK')", "42")
    assert report.verdict is Verdict.WRONG_ANSWER


def test_reports_of_the_same_program_agree(sandbox: Sandbox) -> None:
    source = "print({'b', 'a', 'c'}, hash('x'), [f'{i}' for i in {3, 1, 2}])"
    outputs = {run(sandbox, source).tests[0].stdout for _ in range(3)}
    assert len(outputs) == 1
