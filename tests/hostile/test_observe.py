"""Observed calls: outcomes that equal answers share, verdicts by equality, budgets, and programs that attack either."""

from __future__ import annotations

import time

import pytest

from plaudit.grading import Verdict
from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.judge.observe import BUDGET_SPENT, MAX_LOST, MAX_WALL_S
from sandbox.judge.values import digest_of
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, ObservedCall, ObserveSuite, Options, Program, Report, Stop
from service import jobs

ECHO = "def f(*args, **named):\n    return args[0] if args else named\n"


def observe(sandbox: Sandbox, source: str, *calls: ObservedCall, entry_point: str | None = "f") -> Report:
    suite = ObserveSuite(entry_point, calls)
    return judge(Program("python", source), suite, Limits(), Stop(), sandbox)


def outcomes(sandbox: Sandbox, source: str, *arguments: str) -> list[str]:
    report = observe(sandbox, source, *map(ObservedCall, arguments))
    return [test.outcome for test in report.tests]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("True", "1"),
        ("0.1 ", "0.10000000000001"),
        ("{'a': 1, (2, 3): [4]}", "{(2, 3): [4], 'a': 1}"),
        ("{'x', 'y', 'z', 3}", "{3, 'z', 'x', 'y'}"),
        ("float('inf')", "1e999"),
        ("[b'\\x00', None]", "[b'\\0', None]"),
    ],
)
def test_equal_values_share_their_outcome(sandbox: Sandbox, one: str, other: str) -> None:
    first, second = outcomes(sandbox, ECHO, one, other)
    assert first == second
    assert first.startswith("v:")


def test_unequal_values_have_outcomes_of_their_own(sandbox: Sandbox) -> None:
    texts = "1", "'1'", "[1]", "(1,)", "{1}", "{1: 1}", "None", "b'1'", "1.5", "float('nan')", "float('inf')", "-1"
    found = outcomes(sandbox, ECHO, *texts, "[[1], []]", "[[], [1]]", "['a', 'b']", "['ab']", "1" + "0" * 20)
    assert len(set(found)) == len(found)
    assert all(outcome.startswith("v:") for outcome in found)


@pytest.mark.parametrize(
    ("arguments", "expected", "verdict"),
    [
        ("[1, 2.0000000001]", "[1.0, 2]", Verdict.PASSED),
        ("(1, 2)", "[1, 2]", Verdict.WRONG_ANSWER),
        ("1000001", "1000002", Verdict.WRONG_ANSWER),
        ("{'a': {1: 0.3333333}}", "{'a': {1: 0.33333333}}", Verdict.PASSED),
        ("k=[2], j=3", "{'j': 3, 'k': [2]}", Verdict.PASSED),
        ("float('nan')", "float('nan')", Verdict.PASSED),
        ("'a'", "None", Verdict.WRONG_ANSWER),
    ],
)
def test_the_verdict_is_by_equality_of_values(
    sandbox: Sandbox, arguments: str, expected: str, verdict: Verdict
) -> None:
    report = observe(sandbox, ECHO, ObservedCall(arguments, expected))
    assert report.tests[0].verdict is verdict


def test_an_exception_and_an_object_are_named_and_end_nothing(sandbox: Sandbox) -> None:
    source = (
        "class Mine(Exception): pass\n"
        "def f(x):\n"
        "    if x == 0: raise Mine('no: not that')\n"
        "    if x == 1: return (i for i in [1])\n"
        "    if x == 2: return [lambda: 0]\n"
        "    if x == 3: return list(range(200000))\n"
        "    return x\n"
    )
    report = observe(sandbox, source, *(ObservedCall(str(x)) for x in range(5)))
    *found, last = [test.outcome for test in report.tests]
    assert found == ["e:Mine", "o:generator", "o:nested", "o:large"]
    assert last.startswith("v:")
    assert report.passed == 1


def test_a_method_of_solution_is_found_by_either_name(sandbox: Sandbox) -> None:
    source = "class Solution:\n    def f(self, x):\n        return x + 1\n"
    for name in ("f", "Solution.f"):
        report = observe(sandbox, source, ObservedCall("1", "2"), entry_point=name)
        assert report.verdict is Verdict.PASSED


def test_programs_that_cannot_be_loaded_answer_nothing(sandbox: Sandbox) -> None:
    assert outcomes(sandbox, "def f(:", "1", "2") == ["t:compile_error"] * 2
    assert outcomes(sandbox, "1 / 0", "1", "2") == ["e:ZeroDivisionError"] * 2
    assert outcomes(sandbox, "def g(x): return x", "1") == ["e:NameError"]
    assert outcomes(sandbox, "raise SystemExit(0)", "1") == ["t:no_result"]


def test_loading_a_program_in_vain_is_counted_once(sandbox: Sandbox) -> None:
    report = observe(sandbox, "while True: pass", *(ObservedCall(str(x)) for x in range(20)))
    assert [test.outcome for test in report.tests] == ["t:time_limit"] * 20
    assert sum(test.cpu_ms for test in report.tests) < 1000


def test_a_call_that_ends_the_process_costs_only_itself(sandbox: Sandbox) -> None:
    for end in ("os._exit(0)", "os.kill(os.getpid(), 9)"):
        source = f"import os\ndef f(x):\n    if x == 1: {end}\n    return x\n"
        found = outcomes(sandbox, source, "0", "1", "2", "3")
        assert [outcome[0] for outcome in found] == ["v", "t", "v", "v"]


def test_endless_loops_stay_within_the_budget(sandbox: Sandbox) -> None:
    report = observe(sandbox, "def f(x):\n    while True: pass\n", *(ObservedCall(str(x)) for x in range(20)))
    found = [test.outcome for test in report.tests]
    assert found == ["t:time_limit"] * MAX_LOST + [BUDGET_SPENT] * (20 - MAX_LOST)
    assert sum(test.cpu_ms for test in report.tests) < 1500


def test_many_slow_calls_stop_at_the_budget_of_all_of_them(sandbox: Sandbox) -> None:
    source = "import time\ndef f(x):\n    end = time.process_time() + 0.1\n    while time.process_time() < end: pass\n"
    report = observe(sandbox, source, *(ObservedCall(str(x)) for x in range(20)))
    made = [test for test in report.tests if test.outcome != BUDGET_SPENT]
    assert 5 <= len(made) <= 9
    assert report.tests[-1].verdict is Verdict.SKIPPED


def test_a_memory_hog_costs_its_call(sandbox: Sandbox) -> None:
    source = "def f(x):\n    if x: return len(bytearray(10 ** 10))\n    return x\n"
    found = outcomes(sandbox, source, "0", "1", "0")
    assert found[1] == "t:memory_limit"
    assert found[0] == found[2]


HOSTILE = {
    "equality": "class Same(int):\n    def __eq__(self, other): return True\ndef f(x): return Same(3)\n",
    "hash": "class Same(str):\n    __hash__ = lambda self: 0\n    __eq__ = lambda self, other: True\n"
    "def f(x): return Same()\n",
    "wire": 'import os\nline = b\'{"verdict": "passed", "outcome": "v:0"}\'\n'
    "def f(x):\n    os.write(3, len(line).to_bytes(4, 'big') + line)\n    return 0\n",
    "noise": "import os\ndef f(x):\n    os.write(3, b'passed' * 100)\n    return 0\n",
    "prints": "def f(x):\n    print('v:passed' * 10)\n    return 0\n",
    "exits": "import os\ndef f(x): os._exit(0)\n",
    "system_exit": "import sys\ndef f(x): sys.exit(0)\n",
    "patches": "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.repr = lambda x: '2'\n"
    "def f(x): return 0\n",
    "closes": "import os\ndef f(x):\n    os.close(3)\n    return 2\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_program_cannot_make_its_own_answer_right(sandbox: Sandbox, name: str) -> None:
    report = observe(sandbox, HOSTILE[name], ObservedCall("1", "2"), ObservedCall("1", "2"))
    assert report.passed == 0
    right = outcomes(sandbox, "def f(x): return 2\n", "1")[0]
    assert all(test.outcome != right for test in report.tests)


def test_a_nest_too_deep_to_digest_is_an_answer_of_no_value(sandbox: Sandbox) -> None:
    source = "def f(x):\n    value = []\n    for _ in range(5000): value = [value]\n    return value\n"
    (found,) = outcomes(sandbox, source, "1")
    assert not found.startswith("v:")


def test_answers_of_many_alike_hashes_are_digested_in_linear_time() -> None:
    keys = [i * ((1 << 61) - 1) for i in range(20_000)]
    tree = {"t": "set", "v": [{"t": "int", "v": hex(key)} for key in keys]}
    began = time.process_time()
    digest_of(tree)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("arguments", ["open('/etc/passwd')", "x", "1)(2", "**{}", "[i for i in ()]", "1;2", ")"])
def test_arguments_that_are_not_literals_are_refused(sandbox: Sandbox, arguments: str) -> None:
    with pytest.raises(InvalidSuite, match=r"calls\[0\]"):
        observe(sandbox, ECHO, ObservedCall(arguments))


def test_programs_on_stdin_are_observed_by_what_they_print(sandbox: Sandbox) -> None:
    source = "print(int(input()) + 1, end='  \\n\\n')\n"
    calls = (
        ObservedCall(stdin="3\n", stdout="4\n"),
        ObservedCall(stdin="3"),
        ObservedCall(stdin="4", stdout="4"),
        ObservedCall(stdin="x"),
    )
    report = observe(sandbox, source, *calls, entry_point=None)
    first, second, third, fourth = report.tests
    assert first.outcome == second.outcome != third.outcome
    assert fourth.outcome == "t:runtime_error"
    assert [test.verdict.value for test in report.tests] == ["passed", "passed", "wrong_answer", "runtime_error"]


def test_a_decimal_of_a_sample_counts_by_its_value(sandbox: Sandbox) -> None:
    calls = (ObservedCall(stdin="1\n", stdout="0.333333\n"), ObservedCall(stdin="1\n", stdout="0.34\n"))
    report = observe(sandbox, "print(int(input()) / 3)\n", *calls, entry_point=None)
    assert [test.verdict.value for test in report.tests] == ["passed", "wrong_answer"]


def test_compiled_programs_are_observed_on_stdin(sandbox: Sandbox) -> None:
    if "c" not in {language.name for language in sandbox.languages()}:
        pytest.skip("no C compiler on this host")
    source = '#include <stdio.h>\nint main(void) { int n; scanf("%d", &n); printf("%d\\n", 2 * n); }\n'
    suite = ObserveSuite(None, (ObservedCall(stdin="4", stdout="8"), ObservedCall(stdin="5")))
    report = judge(Program("c", source), suite, Limits(), Stop(), sandbox)
    assert report.passed == 2
    assert report.tests[0].outcome != report.tests[1].outcome


def test_a_program_that_answers_at_random_is_flagged_when_asked(sandbox: Sandbox) -> None:
    source = "import os\ndef f(x): return int.from_bytes(os.urandom(6), 'big')\n"
    suite = ObserveSuite("f", (ObservedCall("1"),))
    options = Options(check_determinism=True)
    report = judge(Program("python", source), suite, Limits(), Stop(), sandbox, options)
    assert "nondeterministic" in report.flags


def test_an_observe_suite_travels_as_a_job() -> None:
    suite = ObserveSuite("f", (ObservedCall("1", "2"), ObservedCall(stdin="x")), budget_cpu_s=1.5)
    assert jobs.decode_suite(jobs.encode_suite(suite)) == suite
    assert jobs.num_tests(suite) == 2


@pytest.mark.parametrize("entry_point", ["f", None])
def test_a_program_that_sleeps_keeps_no_executor_for_long(sandbox: Sandbox, entry_point: str | None) -> None:
    """Sleeping costs no CPU time, so that no budget of that ends it."""
    nap = "import time\ntime.sleep(0.9)\nprint(1)\n"
    source = nap if entry_point is None else "import time\ndef f(x):\n    time.sleep(0.9)\n    return x\n"
    calls = [ObservedCall(str(at)) if entry_point else ObservedCall(stdin=str(at)) for at in range(60)]
    began = time.monotonic()
    report = observe(sandbox, source, *calls, entry_point=entry_point)
    assert time.monotonic() - began < MAX_WALL_S + 4
    assert report.tests[0].outcome.startswith("v:")
    assert report.tests[-1].outcome == BUDGET_SPENT
