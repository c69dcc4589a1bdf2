"""Interactors: dialogues between two jails, how each may end, and who decides then."""

from __future__ import annotations

import time

import pytest

from plaudit.grading import Verdict
from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Options, Program, Report, StdioCase, StdioSuite, Stop
from support.interactive_problems import BISECT, GUESS, INTERACTIVE_PROBLEMS, InteractiveProblem

LIMITS = Limits(cpu_s=1, wall_s=3)
NOT_WELL = (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR, Verdict.TIME_LIMIT, Verdict.INVALID_RESULT)


def run(sandbox: Sandbox, source: str, suite: StdioSuite, language: str = "python", limits: Limits = LIMITS) -> Report:
    return judge(Program(language, source), suite, limits, Stop(), sandbox)


def interactive(interactor: str, *inputs: str, language: str = "python") -> StdioSuite:
    return StdioSuite(tuple(StdioCase(given, "") for given in inputs), interactor=Program(language, interactor))


@pytest.mark.parametrize("problem", INTERACTIVE_PROBLEMS, ids=lambda problem: problem.name)
def test_an_interactor_takes_right_programs_and_no_wrong_one(sandbox: Sandbox, problem: InteractiveProblem) -> None:
    suite = interactive(problem.interactor, *problem.inputs, language=problem.language)
    for language, program in problem.right:
        report = run(sandbox, program, suite, language)
        assert report.verdict is Verdict.PASSED, report.tests
        assert [test.score for test in report.tests] == [1.0] * len(problem.inputs)
        assert not any(test.vacuous for test in report.tests)
    for program in problem.wrong:
        report = run(sandbox, program, suite)
        assert report.verdict in NOT_WELL, (program, report.tests)
        assert min(test.score for test in report.tests if test.score is not None) < 1
    if problem.score is not None:
        program, score = problem.score
        test = run(sandbox, program, suite).tests[0]
        assert (test.verdict, test.score) == (Verdict.WRONG_ANSWER, pytest.approx(score))


# --- how a program may end -------------------------------------------------------------------------------------------


def test_output_that_is_not_flushed_is_idle_time(sandbox: Sandbox) -> None:
    began = time.monotonic()
    silent = BISECT.replace(", flush=True", "").replace("input()", "sys.stdin.readline().strip()")  # `input` flushes
    test = run(sandbox, f"import sys\n{silent}", interactive(GUESS, "7\n")).tests[0]
    assert test.verdict is Verdict.TIME_LIMIT
    assert test.detail.startswith("wall: ")
    assert "waited for each other" in test.detail
    assert test.cpu_ms < 500
    assert time.monotonic() - began < 1.2 * LIMITS.wall + 1


def test_a_program_that_computes_too_long_is_over_its_own_limit(sandbox: Sandbox) -> None:
    test = run(sandbox, "print(5, flush=True)\nwhile True: pass", interactive(GUESS, "7\n")).tests[0]
    assert (test.verdict, test.detail[:4], test.score) == (Verdict.TIME_LIMIT, "cpu:", 0.0)


def test_a_program_that_exits_early_is_refused(sandbox: Sandbox) -> None:
    for source in ("print(5)", "import os\nprint(5, flush=True)\nos._exit(0)", "import sys\nsys.exit()"):
        test = run(sandbox, source, interactive(GUESS, "7\n")).tests[0]
        assert (test.verdict, test.score) == (Verdict.WRONG_ANSWER, 0.0)
        assert test.detail


def test_a_program_that_crashes_is_a_runtime_error(sandbox: Sandbox) -> None:
    for source in ("1 / 0", "print(5, flush=True)\ninput()\nraise ValueError", "import os\nos.abort()", "exit(3)"):
        assert run(sandbox, source, interactive(GUESS, "7\n")).verdict is Verdict.RUNTIME_ERROR


def test_a_crash_after_the_right_answer_is_one_still(sandbox: Sandbox) -> None:
    for _ in range(5):  # whichever of the two ends first
        assert run(sandbox, "print(7, flush=True)\n1 / 0", interactive(GUESS, "7\n")).verdict is Verdict.RUNTIME_ERROR


@pytest.mark.parametrize(
    "more",
    [
        "for _ in range(3): input()",  # the interactor has gone: end of file
        "import time\ntime.sleep(0.2)\nfor _ in range(99): print('x' * 999, flush=True)",  # a broken pipe
        "import time\ntime.sleep(0.2)\nprint('unflushed')",
    ],
)
def test_who_meets_a_closed_pipe_after_the_right_answer_has_passed(sandbox: Sandbox, more: str) -> None:
    report = run(sandbox, f"print(7, flush=True)\n{more}", interactive(GUESS, "7\n"))
    assert report.verdict is Verdict.PASSED, report.tests


def test_a_last_reply_that_nobody_reads_changes_nothing(sandbox: Sandbox) -> None:
    talker = GUESS.replace(
        "        sys.exit(0)\n", "        print('well done ' * 30000, flush=True)\n        sys.exit(0)\n"
    )
    assert talker != GUESS
    for interactor in (GUESS, "import time\n" + GUESS.replace("    print(", "    time.sleep(0.1)\n    print("), talker):
        for program in ("print(7)", "print(7, flush=True)\nimport os\nos.close(0)\nos._exit(0)"):
            report = run(sandbox, program, interactive(interactor, "7\n"))
            assert report.verdict is Verdict.PASSED, report.tests


def test_who_meets_a_closed_pipe_after_a_refusal_has_answered_wrongly(sandbox: Sandbox) -> None:
    cpp = '#include <cstdio>\nint main() { for (;;) { puts("x"); fflush(stdout); } }'
    for language, source in (
        ("python", "print('x', flush=True)\nwhile True: input()"),
        ("python", "while True: print('x', flush=True)"),
        ("cpp", cpp),
    ):
        test = run(sandbox, source, interactive(GUESS, "7\n"), language).tests[0]
        assert (test.verdict, test.detail) == (Verdict.WRONG_ANSWER, "no guess: 'x\\n'")


def test_a_program_that_never_ends_after_the_right_answer_is_over_time(sandbox: Sandbox) -> None:
    report = run(sandbox, "print(7, flush=True)\nwhile True: pass", interactive(GUESS, "7\n"))
    assert report.verdict is Verdict.TIME_LIMIT


def test_a_program_is_ended_as_soon_as_it_is_refused(sandbox: Sandbox) -> None:
    began = time.monotonic()
    report = run(sandbox, "import time\nprint('x', flush=True)\ntime.sleep(60)", interactive(GUESS, "7\n"))
    assert report.verdict is Verdict.WRONG_ANSWER
    assert time.monotonic() - began < 2


def test_a_flood_costs_nobody_but_the_program(sandbox: Sandbox) -> None:
    deaf = "import sys, time\ntime.sleep(1)\nsys.exit(1)"
    sink = "import sys\nwhile sys.stdin.buffer.read(1 << 16): pass\nsys.exit(1)"
    line = "import sys\nsys.exit(len(sys.stdin.readline()) > 0)"
    flood = "import sys\nwhile True: sys.stdout.write('1' * 65536)"
    for interactor in (deaf, sink, line):
        began = time.monotonic()
        report = run(sandbox, flood, interactive(interactor, ""), limits=Limits(cpu_s=1, wall_s=4, memory_mb=64))
        rerun = "rerun_alone" in report.flags  # this host was busy
        assert report.verdict in (Verdict.TIME_LIMIT, Verdict.WRONG_ANSWER, Verdict.INVALID_RESULT)
        assert report.tests[0].score == 0.0
        assert rerun or time.monotonic() - began < 8


def test_memory_is_the_programs_own(sandbox: Sandbox) -> None:
    source = "x = bytearray(200 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint(7, flush=True)"
    report = run(sandbox, source, interactive(GUESS, "7\n"), limits=Limits(cpu_s=2, memory_mb=64))
    assert report.verdict is Verdict.MEMORY_LIMIT
    greedy = "x = bytearray(200 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\n" + GUESS
    report = run(sandbox, BISECT, interactive(greedy, "7\n"), limits=Limits(cpu_s=2, memory_mb=64))
    assert (report.verdict, report.tests[0].peak_memory_mb < 64) == (Verdict.PASSED, True)


# --- whose fault it is -----------------------------------------------------------------------------------------------

BREAKS_ON = """\
import os, sys
line = sys.stdin.readline()
if line == 'crash\\n': [][1]
if line == 'signal\\n': os.kill(os.getpid(), 11)
if line == 'fail\\n': sys.exit(3)
if line == 'strange\\n': sys.exit(99)
if line == 'memory\\n': x = [bytearray(1 << 24) for _ in range(99)]
sys.exit(line != '1\\n')
"""


@pytest.mark.parametrize("word", ["crash", "signal", "fail", "strange", "memory"])
@pytest.mark.parametrize("then", ["", "\ninput()"])
def test_no_program_turns_its_failure_into_null_by_breaking_an_interactor(
    sandbox: Sandbox, word: str, then: str
) -> None:
    report = run(sandbox, f"print({word!r}, flush=True){then}", interactive(BREAKS_ON, ""))
    assert (report.verdict, report.tests[0].score) == (Verdict.INVALID_RESULT, 0.0)
    assert set(report.flags) - {"rerun_alone"} == {"interactor_failed"}
    assert run(sandbox, "print(1, flush=True)", interactive(BREAKS_ON, "")).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("interactor", "language", "words"),
    [
        ("def interact(:", "python", "the interactor cannot be loaded: SyntaxError"),
        ("import surely_not_there", "python", "the interactor cannot be loaded"),
        ("print('hello')", "python", "the interactor accepts anything"),
        ("import sys\nsys.exit(3)", "python", "the interactor says that it failed, whatever"),
        ("int main( {", "cpp", "the interactor does not compile"),
        (
            '#include "testlib.h"\nint main(int c, char** v) { registerInteraction(c, v); inf.readInt(); }',
            "cpp",
            "FAIL Expected int32.*input.txt",
        ),
    ],
)
def test_an_interactor_that_is_broken_by_itself_spoils_the_suite(
    sandbox: Sandbox, interactor: str, language: str, words: str
) -> None:
    for program in ("print(1)", "raise SystemExit(1)"):
        with pytest.raises(InvalidSuite, match=words):
            run(sandbox, program, interactive(interactor, "x\n", language=language))


# --- what a program may not reach ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import os\nprint([os.path.exists(f) for f in ('input.txt', 'answer.txt')], flush=True)",
        "import os, glob\nfor n in range(3, 64):\n    try: os.write(n, b'7\\n')\n    except OSError: pass\nprint('x')",
        "for n in (0, 1):\n    try: open(f'/proc/self/fd/{n}', 'w').write('7\\n')\n    except OSError: pass\n"
        "print('x')",
        "import os\ntry: os.write(0, b'=\\n')\nexcept OSError: pass\nprint(5, flush=True)",
        "print('= ok accepted points 1', flush=True)\nraise SystemExit(0)",
        "import os, signal\ntry: os.kill(-1, signal.SIGKILL)\nexcept OSError: pass\nprint(5)",
    ],
)
def test_a_program_speaks_to_its_interactor_and_to_nobody_else(sandbox: Sandbox, source: str) -> None:
    report = run(sandbox, source, interactive(GUESS, "777\n"))
    assert report.verdict in NOT_WELL
    assert run(sandbox, BISECT, interactive(GUESS, "777\n")).verdict is Verdict.PASSED


def test_a_dialogue_by_the_names_of_its_streams(sandbox: Sandbox) -> None:
    names = "said, heard = open('/dev/stdout', 'w', buffering=1), open('/dev/stdin')\n"
    program = BISECT.replace("print(m, flush=True)", "print(m, file=said)").replace(
        "input()", "heard.readline().strip()"
    )
    assert run(sandbox, names + program, interactive(GUESS, "7\n")).verdict is Verdict.PASSED
    stolen = "open('/dev/stdin', 'w').write('=\\n')\nprint(5, flush=True)\nprint(open('/dev/stdout').readline())"
    assert run(sandbox, stolen, interactive(GUESS, "7\n")).verdict in NOT_WELL


def test_options_go_with_an_interactor(sandbox: Sandbox) -> None:
    options = Options(audit=True, check_determinism=True, fresh_interpreter=True)
    report = judge(Program("python", BISECT), interactive(GUESS, "7\n"), LIMITS, Stop(), sandbox, options)
    assert (report.verdict, report.flags) == (Verdict.PASSED, ())


def test_files_of_a_case_are_there_for_both(sandbox: Sandbox) -> None:
    interactor = "import sys\nsys.exit(input() != open('n.txt').read()[::-1])"
    suite = StdioSuite((StdioCase("", "", (("n.txt", b"123"),)),), interactor=Program("python", interactor))
    assert run(sandbox, "print(open('n.txt').read()[::-1], flush=True)", suite).verdict is Verdict.PASSED
    assert run(sandbox, "print(open('n.txt').read(), flush=True)", suite).verdict is Verdict.WRONG_ANSWER
