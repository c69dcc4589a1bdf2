"""C++: programs and compile bombs."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from plaudit.grading import Verdict
from plaudit.languages import UnsupportedLanguage
from sandbox import limits
from sandbox.judge import judge
from sandbox.judge.compile_cache import CompileCache
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, Limits, Program, Report, StdioCase, StdioSuite, Stop

LIMITS = Limits(cpu_s=1)


@pytest.fixture(autouse=True)
def _compiler(sandbox: Sandbox) -> None:
    if "cpp" not in {language.name for language in sandbox.languages()}:
        pytest.skip("needs g++")


def run(sandbox: Sandbox, source: str, *cases: tuple[str, str]) -> Report:
    suite = StdioSuite(tuple(StdioCase(*case) for case in cases or [("", "")]))
    return judge(Program("c++", source), suite, LIMITS, Stop(), sandbox)


ADD = '#include <cstdio>\nint main() { long a, b; std::scanf("%ld %ld", &a, &b); std::printf("%ld\\n", a + b); }'


def test_a_program_is_compiled_once_and_run_for_every_case(sandbox: Sandbox) -> None:
    report = run(sandbox, ADD, ("1 2", "3"), ("10 20", "30"), ("1 1", "3"))
    assert [test.verdict for test in report.tests] == ["passed", "passed", "wrong_answer"]
    assert report.compile is not None
    assert report.compile.ok
    assert report.judge == "bytes"


def test_a_syntax_error_is_a_compile_error_and_skips_the_tests(sandbox: Sandbox) -> None:
    report = run(sandbox, "int main() { return x; }", ("", ""), ("", ""))
    assert report.verdict is Verdict.COMPILE_ERROR
    assert [test.verdict for test in report.tests] == ["compile_error", "skipped"]
    assert report.compile is not None
    assert "not declared" in report.compile.stderr


@pytest.mark.parametrize("path", ["/etc/shadow", "/proc/1/environ", "/proc/self/environ", "/dev/stdin"])
def test_including_a_secret_compiles_to_nothing(sandbox: Sandbox, path: str) -> None:
    report = run(sandbox, f'#include "{path}"\nint main() {{}}')
    assert report.compile is not None
    assert "root:" not in report.compile.stderr
    assert report.verdict in (Verdict.COMPILE_ERROR, Verdict.PASSED)


@pytest.mark.parametrize("path", ["/etc/shadow", "/proc/1/environ", "/proc/1/maps", "/tmp/../etc/hostname"])
def test_assembling_a_secret_compiles_to_nothing(sandbox: Sandbox, path: str) -> None:
    """The assembler reads files as they are, past everything that makes an `#include` fail."""
    source = f"""
#include <cstdio>
__asm__(".section .rodata\\nsecret: .incbin \\"{path}\\"\\nends: .byte 0\\n.text");
extern const char secret[] __asm__("secret");
int main() {{ std::puts(secret); }}
"""
    assert run(sandbox, source).verdict is Verdict.COMPILE_ERROR


def test_what_one_compilation_leaves_no_other_finds(sandbox: Sandbox) -> None:
    leave = '__asm__(".incbin \\"/tmp/main.cpp\\"");\nint main() {}\n// secret of the first'
    assert run(sandbox, leave).verdict is Verdict.PASSED
    for name in ("main", "main.o", "main.s", "a.out", "left.h"):
        seek = f'__asm__(".incbin \\"/tmp/{name}\\"");\nint main() {{}}'
        assert run(sandbox, seek).verdict is Verdict.COMPILE_ERROR


def test_including_an_endless_file_is_a_compile_error(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(limits.compile_limits(), memory_bytes=200 << 20)
    monkeypatch.setattr("sandbox.judge.compile_cache.compile_limits", lambda *_: small)
    report = run(sandbox, '#include "/dev/zero"\nint main() {}')
    assert report.verdict is Verdict.COMPILE_ERROR
    assert report.compile is not None
    assert "more than 200 MB" in report.compile.stderr


def test_endless_templates_are_a_compile_error(sandbox: Sandbox) -> None:
    source = "template <int N> struct A { A<N + 1> a; };\nA<0> a;\nint main() {}"
    report = run(sandbox, source)
    assert report.verdict is Verdict.COMPILE_ERROR


def test_an_endless_loop_uses_its_cpu_and_no_more(sandbox: Sandbox) -> None:
    report = run(sandbox, "int main() { volatile int x = 0; for (;;) x = x + 1; }")
    assert report.verdict is Verdict.TIME_LIMIT


def test_a_native_program_gets_no_descriptor_and_no_privilege(sandbox: Sandbox) -> None:
    source = """
#include <cstdio>
#include <fcntl.h>
#include <unistd.h>
int main() {
    int held = 0;
    for (int fd = 3; fd < 1024; fd++) held += fcntl(fd, F_GETFD) != -1;
    std::printf("%d %d\\n", held, getuid() != 0 && setuid(0) == -1);
}
"""
    assert run(sandbox, source, ("", "0 1")).verdict is Verdict.PASSED


def test_a_program_cannot_change_what_its_next_case_runs(sandbox: Sandbox) -> None:
    source = """
#include <cstdio>
#include <fcntl.h>
#include <unistd.h>
int main() {
    int fd = open("/proc/self/exe", O_RDWR), in = open("/proc/self/fd/0", O_RDWR);
    std::printf("%d %zd", fd, in < 0 ? -1 : write(in, "x", 1));
}
"""
    report = run(sandbox, source, ("abc", "-1 -1"), ("abc", "-1 -1"))
    assert [test.verdict for test in report.tests] == ["passed", "passed"]


def test_a_deep_stack_of_contest_size_works(sandbox: Sandbox) -> None:
    source = """
#include <cstdio>
__attribute__((optimize("O0"))) int f(int n) { return n ? 1 + f(n - 1) : 0; }
int main() { std::printf("%d", f(1000000)); }
"""
    assert run(sandbox, source, ("", "1000000")).passed == 1


def test_asserts_are_for_python_only(sandbox: Sandbox) -> None:
    with pytest.raises(UnsupportedLanguage, match="cpp"):
        judge(Program("cpp", ADD), AssertSuite(("assert f(1)",)), LIMITS, Stop(), sandbox)
    with pytest.raises(UnsupportedLanguage, match="cobol"):
        judge(Program("cobol", ADD), StdioSuite((StdioCase("", ""),)), LIMITS, Stop(), sandbox)


def test_a_program_that_is_sent_again_is_not_compiled_again(sandbox: Sandbox) -> None:
    before = len(sandbox.cached(CompileCache))
    source = f"{ADD}\n// {before}"
    first, second = run(sandbox, source, ("1 2", "3")), run(sandbox, source, ("3 4", "7"))
    assert (first.verdict, second.verdict) == (Verdict.PASSED, Verdict.PASSED)
    assert second.compile == first.compile
    broken = "int main( {"
    assert run(sandbox, broken).compile == run(sandbox, broken).compile


def test_executables_are_kept_within_bounds(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.judge.compile_cache.MAX_KEPT", 2)
    for number in range(4):
        assert run(sandbox, f"int main() {{ return {number}; }}").tests[0].detail in ("", f"exit code {number}")
    assert len(sandbox.cached(CompileCache)) == 2
    monkeypatch.setattr("sandbox.judge.compile_cache.MAX_KEPT_BYTES", 1)
    run(sandbox, "int main() { return 9; }")
    assert len(sandbox.cached(CompileCache)) == 1


def test_a_compiler_that_was_stopped_is_asked_again_within_other_limits(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"{ADD}\n// stopped"
    slow = replace(limits.compile_limits(), cpu_s=0.01)
    with monkeypatch.context() as patched:
        patched.setattr("sandbox.judge.compile_cache.compile_limits", lambda *_: slow)
        assert run(sandbox, source, ("1 2", "3")).verdict is Verdict.COMPILE_ERROR
    assert run(sandbox, source, ("1 2", "3")).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    "source",
    [
        '#include "/dev/fd/1"\nint main() {}',
        '#include "/proc/self/fd/1"\nint main() {}',
        '#include "/dev/stdout"\nint main() {}',
        '#include "/dev/fd/2"\nint main() {}',
        '__asm__(".incbin \\"/proc/self/fd/1\\"");\nint main() {}',
    ],
)
def test_a_compiler_that_waits_for_itself_is_stopped_soon_and_once(sandbox: Sandbox, source: str) -> None:
    began = time.monotonic()
    first = run(sandbox, source)
    took = time.monotonic() - began
    assert first.verdict in (Verdict.COMPILE_ERROR, Verdict.PASSED)
    assert took < limits.COMPILE_IDLE_S + 4
    began = time.monotonic()
    for _ in range(5):
        assert run(sandbox, source).verdict is first.verdict
    assert time.monotonic() - began < 3


def test_a_compilers_wall_time_follows_the_programs_own() -> None:
    assert limits.compile_limits(Limits(cpu_s=1)).wall_s == Limits(cpu_s=1).wall + limits.COMPILE_WALL_S
    assert limits.compile_limits(Limits(cpu_s=100)).wall_s == limits.MAX_COMPILE_WALL_S
