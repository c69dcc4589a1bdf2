"""The `script` kind: the exit code of program and test together, for every language, without passing by accident."""

from __future__ import annotations

import pytest

from plaudit.grading import Position
from sandbox.judge import judge
from sandbox.language_specs import BY_NAME, LANGUAGE_SPECS
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Program, Report, ScriptSuite, Stop

LIMITS = Limits(cpu_s=10)
LANGUAGES = [spec.name for spec in LANGUAGE_SPECS]

# The program, and a test of it that is true where {} is 3: add(1, 2).
ADD = {
    "python": ("def add(a, b):\n    return a + b", "assert add(1, 2) == {}"),
    "cpp": (
        "#include <cassert>\nint add(int a, int b) { return a + b; }",
        "int main() { auto candidate = add; assert(candidate(1, 2) == {}); }",
    ),
    "c": ("#include <assert.h>\nint add(int a, int b) { return a + b; }", "int main() { assert(add(1, 2) == {}); }"),
    "java": (
        "import java.util.*;\nimport org.javatuples.*;\nclass Problem {\n"
        "    public static int add(int a, int b) { return a + b; }",
        "    public static void main(String[] args) { assert(add(1, 2) == {}); }\n}",
    ),
    "javascript": (
        "function add(a, b) { return a + b }",
        "const assert = require('node:assert');\nassert.deepEqual(add(1, 2), {})",
    ),
    "typescript": (
        "function add(a: number, b: number): number { return a + b }",
        "declare var require: any;\nconst assert = require('node:assert');\nassert.deepEqual(add(1, 2), {})",
    ),
    "php": (
        "<?php\nfunction add($a, $b) { return $a + $b; }\n",
        "if (add(1, 2) !== {}) { throw new Exception('Test failed!'); }",
    ),
    "csharp": (
        "using System;\nusing System.Diagnostics;\nclass Problem {\n"
        "    public static int Add(int a, int b) { return a + b; }",
        "    public static void Main(string[] args) { Debug.Assert(Add(1, 2) == ({})); }\n}",
    ),
    "bash": ("add() {\n    echo $(($1 + $2))\n}", "set -e\n[[ $(add 1 2) = {} ]]"),
    "go": (
        'package main\nimport ("testing"; "github.com/stretchr/testify/assert")\n'
        "func Add(a int, b int) int { return a + b }",
        "func TestAdd(t *testing.T) { assert.Equal(t, {}, Add(1, 2)) }",
    ),
    "rust": ("fn add(a: i32, b: i32) -> i32 { a + b }", "fn main() { assert_eq!(add(1, 2), {}); }"),
    "ruby": (
        "def add(a, b)\n  a + b\nend",
        "require 'test/unit'\nclass TestAdd < Test::Unit::TestCase\n"
        "  def test_add\n    assert_equal {}, add(1, 2)\n  end\nend",
    ),
    "perl": (
        "sub add { my ($a, $b) = @_; return $a + $b; }",
        "use Test::Deep;\nuse Data::Compare;\nif (eq_deeply(add(1, 2), {})) { print 'ok!' } else { exit 1 }",
    ),
    "lua": (
        "function add(a, b) return a + b end",
        "lu = require('luaunit')\nfunction test_add()\n  lu.assertEquals(add(1, 2), {})\nend\n"
        "os.exit(lu.LuaUnit.run())",
    ),
    "r": ("add <- function(a, b) a + b", "if (!identical(add(1, 2), {})) quit('no', 1)"),
    "racket": (
        "#lang racket\n(define (add a b) (+ a b))",
        "(require rackunit)\n(let ((candidate add)) (check-within (candidate 1 2) {} 0.001))",
    ),
}
# The program lies beside a test that takes its place.
BESIDE = {
    "python": "from program import add\nassert add(1, 2) == {}",
    "cpp": '#include "program.cpp"\nint main() { return add(1, 2) != {}; }',
    "javascript": "require('vm').runInThisContext(require('fs').readFileSync('program.js'));\n"
    "if (add(1, 2) !== {}) process.exit(1)",
    "rust": 'include!("program.rs");\nfn main() { assert_eq!(add(1, 2), {}); }',
    "ruby": "require_relative 'program'\nexit 1 if add(1, 2) != {}",
    "bash": "source ./program.sh\n[ $(add 1 2) = {} ]",
    "php": "<?php require 'program.php'; exit(add(1, 2) === {} ? 0 : 1);",
    "lua": "require('program')\nassert(add(1, 2) == {})",
    "r": "source('program.R')\nstopifnot(add(1, 2) == {})",
}


def needs(sandbox: Sandbox, language: str) -> None:
    if language not in {known.name for known in sandbox.languages()}:
        packages = (*BY_NAME[language].packages, *BY_NAME[language].libraries)
        pytest.skip(f"needs the toolchain of {language}: {', '.join(packages)} (make toolchains)")


def run(sandbox: Sandbox, language: str, program: str, test: str, position: Position = "append") -> Report:
    needs(sandbox, language)
    return judge(Program(language, program), ScriptSuite(test, position), LIMITS, Stop(), sandbox)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_exit_code_of_program_and_test_is_the_verdict(sandbox: Sandbox, language: str) -> None:
    program, test = ADD[language]
    right = run(sandbox, language, program, test.replace("{}", "3"))
    assert (right.verdict, right.passed, right.total, right.judge) == ("passed", 1, 1, "shared_process"), right
    wrong = run(sandbox, language, program, test.replace("{}", "4"))
    assert (wrong.verdict, wrong.passed, wrong.judge) == ("runtime_error", 0, "shared_process"), wrong


@pytest.mark.parametrize("language", BESIDE)
def test_a_test_may_take_the_programs_place(sandbox: Sandbox, language: str) -> None:
    program, test = ADD[language][0], BESIDE[language]
    assert run(sandbox, language, program, test.replace("{}", "3"), "replace").verdict == "passed"
    assert run(sandbox, language, program, test.replace("{}", "4"), "replace").verdict == "runtime_error"


def test_compilers_that_take_several_files_get_both(sandbox: Sandbox) -> None:
    java = "public class Adder { public static int add(int a, int b) { return a + b; } }"
    test = "public class Main { public static void main(String[] a) { if (Adder.add(1, 2) != 3) System.exit(1); } }"
    assert run(sandbox, "java", java, test, "replace").verdict == "passed"
    typescript = "export function add(a: number, b: number): number { return a + b }"
    test = "import { add } from './program'\nif (add(1, 2) !== 3) process.exit(1)"
    assert run(sandbox, "typescript", typescript, test, "replace").verdict == "passed"
    go = "package main\nfunc add(a, b int) int { return a + b }"
    test = 'package main\nimport "os"\nfunc main() { if add(1, 2) != 3 { os.Exit(1) } }'
    assert run(sandbox, "go", go, test, "replace").verdict == "passed"
    csharp = "public static class Adder { public static int Add(int a, int b) { return a + b; } }"
    test = "class P { static int Main() { return Adder.Add(1, 2) == 3 ? 0 : 1; } }"
    assert run(sandbox, "csharp", csharp, test, "replace").verdict == "passed"


def test_a_program_cannot_take_the_place_of_its_test(sandbox: Sandbox) -> None:
    for name in ("Main", "Check"):
        program = f"public class {name} {{ public static void main(String[] a) {{}} }}"
        test = f"public class {name} {{ public static void main(String[] a) {{ System.exit(1); }} }}"
        assert run(sandbox, "java", program, test, "replace").verdict == "compile_error"
        assert (
            run(sandbox, "java", program.replace("public class", "class"), test, "replace").verdict == "compile_error"
        )
    program = "class Main { public static void main(String[] a) {} }"
    test = "class Test { public static void main(String[] a) { System.exit(1); } }"
    assert run(sandbox, "java", program, test, "replace").verdict == "runtime_error"


def test_what_does_not_compile_with_its_test_is_a_compile_error(sandbox: Sandbox) -> None:
    report = run(sandbox, "cpp", "int add(int a, int b) { return a + b; }", "int main() { return subtract(1, 2); }")
    assert (report.verdict, report.total) == ("compile_error", 1)
    assert report.compile is not None
    assert "subtract" in report.compile.stderr


def test_limits_have_their_own_verdicts(sandbox: Sandbox) -> None:
    needs(sandbox, "ruby")
    suite, limits = ScriptSuite("loop {}"), Limits(cpu_s=0.5)
    assert judge(Program("ruby", ""), suite, limits, Stop(), sandbox).verdict == "time_limit"
    assert run(sandbox, "python", "", "h = []\nwhile True: h.append(bytearray(1 << 23))").verdict == "memory_limit"


def test_a_program_that_ends_early_forges_its_verdict_and_the_report_says_how_it_was_judged(sandbox: Sandbox) -> None:
    report = run(sandbox, "python", "import sys; sys.exit(0)", "assert False")
    assert (report.verdict, report.judge) == ("passed", "shared_process")


# --- nobody passes by accident ---------------------------------------------------------------------------------------


def test_php_goes_on_after_a_closing_tag(sandbox: Sandbox) -> None:
    fails = "if (add(1, 2) !== 4) { throw new Exception('Test failed!'); }"
    function = "function add($a, $b) { return $a + $b; }"
    for program in (f"<?php\n{function}\n?>", f"<?php\n{function}\n?>\nsome words", f"{function}"):
        assert run(sandbox, "php", program, fails).verdict == "runtime_error", program
        assert run(sandbox, "php", program, "<?php\n" + fails).verdict == "runtime_error", program
    assert run(sandbox, "php", f"<?php\n{function}\n?>\n", fails.replace("4", "3")).verdict == "passed"
    assert run(sandbox, "php", f"<?php\n{function}\n", "<?php\n" + fails.replace("4", "3")).verdict == "passed"


def test_the_end_mark_of_perl_and_ruby_does_not_hide_the_test(sandbox: Sandbox) -> None:
    assert run(sandbox, "perl", "sub f { 1 }\n__END__\nnotes", "exit 1 if f() != 2;").verdict == "runtime_error"
    assert run(sandbox, "ruby", "def f = 1\n__END__\nnotes", "raise 'no' if f != 2").verdict == "runtime_error"
    assert run(sandbox, "ruby", "def f = DATA.read.to_i\n__END__\n7", "raise 'no' if f != 7").verdict == "passed"


def test_java_starts_the_class_of_the_test(sandbox: Sandbox) -> None:
    main = "public static void main(String[] a)"
    program = f"public class Adder {{ static int add(int a, int b) {{ return a + b; }} {main} {{}} }}"
    fails = f"class Main {{ {main} {{ assert Adder.add(1, 2) == 4; }} }}"
    assert run(sandbox, "java", program, fails).verdict == "runtime_error"
    assert run(sandbox, "java", program, fails.replace("4", "3")).verdict == "passed"
    assert run(sandbox, "java", program, fails.replace("Main", "Test")).verdict == "runtime_error"


def test_a_rust_program_with_tests_of_its_own_is_judged_by_the_suite(sandbox: Sandbox) -> None:
    program = "fn add(a: i32, b: i32) -> i32 { a + b }\n#[cfg(test)]\nmod own { #[test] fn fine() {} }"
    assert run(sandbox, "rust", program, "fn main() { assert_eq!(add(1, 2), 4); }").verdict == "runtime_error"
    tests = "#[cfg(test)]\nmod tests { use super::*; #[test] fn adds() { assert_eq!(add(1, 2), {}); } }"
    assert run(sandbox, "rust", program, tests.replace("add(1, 2), {}", "add(1, 2), 3")).verdict == "passed"
    assert run(sandbox, "rust", program, tests.replace("add(1, 2), {}", "add(1, 2), 4")).verdict == "runtime_error"


def test_a_program_cannot_choose_its_own_test_runner(sandbox: Sandbox) -> None:
    own = 'package main\nimport ("os"; "testing")\nfunc TestFine(t *testing.T) {}\nfunc f() int { return 1 }'
    assert run(sandbox, "go", own, "func main() { if f() != 2 { os.Exit(1) } }").verdict == "runtime_error"
