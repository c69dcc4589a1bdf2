"""What a language's name, files and arguments promise: standards, `go test`, files for compilers, ONLINE_JUDGE."""

from __future__ import annotations

import pytest

from plaudit.languages import base, resolve
from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Program, Report, RunSuite, ScriptSuite, StdioCase, StdioSuite, Stop

LIMITS = Limits(cpu_s=10)


def needs(sandbox: Sandbox, language: str) -> None:
    if base(resolve(language)) not in {known.name for known in sandbox.languages()}:
        pytest.skip(f"needs the toolchain of {language} (make toolchains)")


def prints(sandbox: Sandbox, language: str, source: str, expected: str) -> Report:
    needs(sandbox, language)
    return judge(Program(language, source), StdioSuite((StdioCase("", expected),)), LIMITS, Stop(), sandbox)


def run(
    sandbox: Sandbox, language: str, source: str, *, files: dict[str, bytes] | None = None, args: tuple[str, ...] = ()
) -> Report:
    needs(sandbox, language)
    suite = RunSuite(files=tuple((files or {}).items()), args=args)
    return judge(Program(language, source), suite, LIMITS, Stop(), sandbox)


def printed(report: Report) -> str:
    assert report.output is not None, report
    return report.output.stdout.decode().strip()


# --- standards -------------------------------------------------------------------------------------------------------

CPP = '#include <cstdio>\nint main() { std::printf("%ld", __cplusplus); }'
C = '#include <stdio.h>\nint main(void) { printf("%ld", __STDC_VERSION__); return 0; }'
VERSIONS = {
    "c++": "201703",
    "c++17": "201703",
    "cpp17": "201703",
    "c++98": "199711",
    "c++11": "201103",
    "cpp14": "201402",
    "c++20": "202002",
    "cpp20": "202002",
    "C++23": "202100",
    "c": "201710",
    "c99": "199901",
    "c11": "201112",
    "c17": "201710",
    "c23": "202000",
    "c2x": "202000",
}


@pytest.mark.parametrize("name", VERSIONS)
def test_a_standard_in_a_name_is_the_compiler_s(sandbox: Sandbox, name: str) -> None:
    report = prints(sandbox, name, CPP if "+" in name or "p" in name else C, VERSIONS[name])
    assert report.verdict == "passed", report


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (
            "c++20",
            "#include <ranges>\n#include <iostream>\nint main(){ for(int i: std::views::iota(3,4)) std::cout<<i; }",
        ),
        (
            "cpp20",
            "#include <compare>\nstruct A { int x; auto operator<=>(const A&) const = default; };\n"
            '#include <cstdio>\nint main() { if (A{1} < A{2}) puts("3"); }',
        ),
        (
            "c++20",
            "#include <concepts>\n#include <cstdio>\ntemplate<std::integral T> T f(T x) { return x; }\n"
            'int main() { printf("%d", f(3)); }',
        ),
        ("c++23", '#include <cstdio>\nint main() { if consteval { puts("0"); } else { puts("3"); } }'),
        ("c2x", '#include <stdio.h>\nint main() {\n#ifdef NO\n#elifdef __STDC__\nputs("3");\n#endif\n}'),
    ],
)
def test_what_only_the_newer_standard_has_compiles_in_it(sandbox: Sandbox, name: str, source: str) -> None:
    assert prints(sandbox, name, source, "3").verdict == "passed"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("c++17", "#include <ranges>\nint main(){ for(int i: std::views::iota(3,4)) return i; }"),
        ("c++11", "#include <memory>\nint main() { return *std::make_unique<int>(0); }"),
        ("c++14", "#include <optional>\nint main() { std::optional<int> x; return x.has_value(); }"),
        ("c89", "int main() { for (int i = 0; i < 3; i++); return 0; }"),
    ],
)
def test_what_an_older_standard_lacks_does_not_compile(sandbox: Sandbox, name: str, source: str) -> None:
    report = prints(sandbox, name, source, "")
    assert report.verdict == "compile_error", report


# --- go test ---------------------------------------------------------------------------------------------------------

GO_TESTS = [
    'package add\nimport "testing"\nfunc Add(a, b int) int { return a + b }\n'
    'func TestAdd(t *testing.T) { if Add(1, 2) != %d { t.Fatal("no") } }',
    'package main\nimport "testing"\nfunc Add(a, b int) int { return a + b }\nfunc main() {}\n'
    'func TestAdd(t *testing.T) { if Add(1, 2) != %d { t.Errorf("no") } }',
    'package main\nimport ("testing"; "github.com/stretchr/testify/assert")\n'
    "func TestAdd(t *testing.T) { assert.Equal(t, %d, 1 + 2) }",
    'package main\nimport "testing"\nfunc TestAll(t *testing.T) { for _, x := range []int{3} {\n'
    't.Run("one", func(t *testing.T) { if x != %d { t.Fail() } }) } }',
]


@pytest.mark.parametrize("source", GO_TESTS)
def test_go_test_runs_the_tests_of_a_file(sandbox: Sandbox, source: str) -> None:
    right, wrong = (run(sandbox, "go_test", source % number) for number in (3, 4))
    assert (right.verdict, printed(right).splitlines()[-1]) == ("passed", "PASS")
    assert wrong.verdict == "runtime_error"
    assert "FAIL" in printed(wrong)


def test_go_test_finds_the_package_in_files_beside_it(sandbox: Sandbox) -> None:
    test = 'package main\nimport "testing"\nfunc TestAdd(t *testing.T) { if Add(1, 2) != 3 { t.Fatal("no") } }'
    for body, verdict in (("a + b", "passed"), ("a - b", "runtime_error")):
        file = f"package main\nfunc Add(a, b int) int {{ return {body} }}\nfunc main() {{}}\n".encode()
        assert run(sandbox, "go_test", test, files={"add.go": file}).verdict == verdict
    assert run(sandbox, "go_test", test).verdict == "compile_error"


def test_a_script_of_go_test_has_tests(sandbox: Sandbox) -> None:
    program, test = "package main\nfunc Add(a, b int) int { return a + b }", GO_TESTS[1].split("func main() {}\n")[1]
    needs(sandbox, "go")
    for number, verdict in ((3, "passed"), (4, "runtime_error")):
        suite = ScriptSuite('import "testing"\n' + test % number)
        assert judge(Program("go_test", program), suite, LIMITS, Stop(), sandbox).verdict == verdict
    with pytest.raises(InvalidSuite, match="no tests"):
        judge(Program("go_test", program), ScriptSuite("func helper() {}"), LIMITS, Stop(), sandbox)


# --- an appended test with imports -----------------------------------------------------------------------------------

APPENDED = {
    "go": [
        (
            "package main\nfunc Add(a, b int) int { return a + b }",
            'import "testing"\nfunc TestAdd(t *testing.T) { if Add(1, 2) != %d { t.Fatal("no") } }',
        ),
        (
            'package main\nimport "fmt"\nfunc Add(a, b int) int { fmt.Sprint(a); return a + b }',
            '// a test\nimport (\n\t"fmt"\n\t"testing"\n)\n'
            'func TestAdd(t *testing.T) { if fmt.Sprint(Add(1, 2)) != "%d" { t.Fail() } }',
        ),
        (
            "// main\npackage main\n\nfunc Add(a, b int) int { return a + b }",
            'package main\nimport str "strconv"\nfunc main() { if str.Itoa(Add(1, 2)) != "%d" { panic("no") } }',
        ),
        (
            "package main\nfunc Add(a, b int) int { return a + b }",
            'import "os"; import ("fmt")\nfunc main() { fmt.Print(); if Add(1, 2) != %d { os.Exit(1) } }',
        ),
    ],
    "java": [
        (
            "class P { static int add(int a, int b) { return a + b; } }",
            "import java.util.*;\nimport static java.lang.Math.abs;\nclass T { public static void main(String[] a) {\n"
            "assert List.of(abs(P.add(1, 2))).equals(List.of(%d)); } }",
        ),
        (
            "package p;\nimport java.util.List;\nclass P { static List<Integer> f() { return List.of(3); } }",
            "import java.util.List;\n"
            "class T { public static void main(String[] a) { assert P.f().equals(List.of(%d)); } }",
        ),
    ],
    "csharp": [
        (
            "using System;\nclass P { public static int Add(int a, int b) { return a + b; } }",
            "using System;\nusing System.Diagnostics;\n"
            "class T { static void Main() { Debug.Assert(P.Add(1, 2) == %d); } }",
        ),
        (
            "class P { public static int Add(int a, int b) { return a + b; } }",
            "using D = System.Diagnostics.Debug;\nclass T { static void Main() { D.Assert(P.Add(1, 2) == %d); } }",
        ),
    ],
}


@pytest.mark.parametrize(
    ("language", "program", "test"), [(name, *pair) for name, pairs in APPENDED.items() for pair in pairs]
)
def test_imports_of_an_appended_test_are_put_where_they_belong(
    sandbox: Sandbox, language: str, program: str, test: str
) -> None:
    needs(sandbox, language)
    for number, verdict in ((3, "passed"), (4, "runtime_error")):
        report = judge(Program(language, program), ScriptSuite(test % number), LIMITS, Stop(), sandbox)
        assert report.verdict == verdict, report


def test_hoisted_imports_leave_the_program_s_line_numbers(sandbox: Sandbox) -> None:
    needs(sandbox, "go")
    program, test = "package main\n\nfunc Add(a int) int { return b }", 'import "os"\nfunc main() { os.Exit(Add(1)) }'
    report = judge(Program("go", program), ScriptSuite(test), LIMITS, Stop(), sandbox)
    assert report.verdict == "compile_error"
    assert report.compile is not None
    assert "main.go:3:30" in report.compile.stderr


# --- files for compilers ---------------------------------------------------------------------------------------------

WITH_FILES: dict[str, tuple[str, str, dict[str, bytes]]] = {
    "a header": (
        "cpp",
        '#include "testlib.h"\n#include <cstdio>\nint main() { printf("%d", seven()); }',
        {"testlib.h": b"inline int seven() { return 7; }\n"},
    ),
    "a header in a folder": (
        "c",
        '#include "lib/h.h"\n#include <stdio.h>\nint main() { printf("%d", SEVEN); }',
        {"lib/h.h": b"#define SEVEN 7\n"},
    ),
    "a second source": (
        "cpp",
        '#include <cstdio>\nint seven();\nint main() { printf("%d", seven()); }',
        {"seven.cpp": b"int seven() { return 7; }", "other.cpp": b"int main() { return 1; }"},
    ),
    "an included source": (
        "c",
        '#include <stdio.h>\n#include "seven.c"\nint main() { printf("%d", seven()); }',
        {"seven.c": b"int seven() { return 7; }"},
    ),
    "data that is included": (
        "cpp",
        '#include <cstdio>\nint x[] = {\n#include "data.txt"\n};\nint main() { printf("%d", x[1]); }',
        {"data.txt": b"5, 7"},
    ),
    "a package": (
        "java",
        "import util.Seven;\npublic class Main { public static void main(String[] a) {\n"
        "System.out.println(Seven.f() + Zero.f()); } }",
        {
            "util/Seven.java": b"package util; public class Seven { public static int f() { return 7; } }",
            "Zero.java": b"class Zero { static int f() { return 0; } }",
        },
    ),
    "a second file of Go": (
        "go",
        'package main\nimport "fmt"\nfunc main() { fmt.Println(Seven()) }',
        {"seven.go": b"package main\nfunc Seven() int { return 7 }"},
    ),
    "a module of Rust": (
        "rust",
        'mod seven;\nfn main() { println!("{}", seven::f()); }',
        {"seven.rs": b"pub fn f() -> i32 { 7 }"},
    ),
    "text that Rust includes": (
        "rust",
        'fn main() { println!("{}", include_str!("data.txt").trim()); }',
        {"data.txt": b"7\n"},
    ),
    "a second class of C#": (
        "csharp",
        "class P { static void Main() { System.Console.WriteLine(Seven.F()); } }",
        {"seven.cs": b"class Seven { public static int F() { return 7; } }"},
    ),
    "a module of TypeScript": (
        "typescript",
        'import { seven } from "./lib/seven";\nconsole.log(seven())',
        {"lib/seven.ts": b"export function seven(): number { return 7 }", "notes.txt": b"x"},
    ),
    "a module of Python": ("python", "from seven import f\nprint(f())", {"seven.py": b"def f():\n    return 7\n"}),
    "the main file's own name": (
        "cpp",
        '#include <cstdio>\n#include "main.cpp"\nint main() { printf("%d", seven()); }',
        {"main.cpp": b"int seven() { return 7; }"},
    ),
}


@pytest.mark.parametrize("case", WITH_FILES)
def test_files_are_there_when_the_compiler_runs(sandbox: Sandbox, case: str) -> None:
    language, source, files = WITH_FILES[case]
    report = run(sandbox, language, source, files=files)
    assert (report.verdict, printed(report)) == ("passed", "7"), report


def test_a_file_of_input_costs_no_second_compilation(sandbox: Sandbox) -> None:
    source = '#include <cstdio>\nint main() { freopen("in.txt", "r", stdin); int x; scanf("%d", &x); printf("%d", x); }'
    first = run(sandbox, "cpp", source, files={"in.txt": b"1"})
    second = run(sandbox, "cpp", source, files={"in.txt": b"2"})
    assert (printed(first), printed(second)) == ("1", "2")
    assert first.compile == second.compile


def test_a_broken_file_is_the_compiler_s_complaint(sandbox: Sandbox) -> None:
    report = run(sandbox, "cpp", '#include "h.h"\nint main() {}', files={"h.h": b"nonsense"})
    assert report.verdict == "compile_error"
    assert report.compile is not None
    assert "h.h" in report.compile.stderr


# --- arguments, and the sign of a judge ------------------------------------------------------------------------------

ARGUMENTS = {
    "python": "import sys\nprint('|'.join(sys.argv[1:]))",
    "cpp": '#include <cstdio>\nint main(int n, char** v) { printf("%s|%s", v[1], v[2]); }',
    "java": 'class M { public static void main(String[] a) { System.out.println(String.join("|", a)); } }',
    "javascript": "console.log(process.argv.slice(2).join('|'))",
    "go": 'package main\nimport ("fmt"; "os"; "strings")\nfunc main() { fmt.Println(strings.Join(os.Args[1:], "|")) }',
    "ruby": "puts ARGV.join('|')",
    "bash": 'echo "$1|$2"',
}


@pytest.mark.parametrize("language", ARGUMENTS)
def test_a_program_gets_its_arguments(sandbox: Sandbox, language: str) -> None:
    report = run(sandbox, language, ARGUMENTS[language], args=("a b", "é"))
    assert printed(report) == "a b|é"


@pytest.mark.parametrize("args", [("x\0y",), ("x" * 100_000,), ("x",) * 300])
def test_arguments_have_bounds_that_are_named(sandbox: Sandbox, args: tuple[str, ...]) -> None:
    with pytest.raises(InvalidSuite, match="args: "):
        run(sandbox, "python", "", args=args)


JUDGES = {
    "cpp": '#include <cstdio>\nint main() {\n#ifdef ONLINE_JUDGE\nputs("1");\n#endif\n}',
    "c++20": "#include <bits/stdc++.h>\nint main() {\n#ifndef ONLINE_JUDGE\n"
    'freopen("in.txt", "r", stdin);\n#endif\nputs("1"); }',
    "c": '#include <stdio.h>\nint main() {\n#ifdef ONLINE_JUDGE\nputs("1");\n#endif\n}',
    "python": "import os\nprint(os.environ.get('ONLINE_JUDGE'))",
    "java": 'class M { public static void main(String[] a) { if (System.getProperty("ONLINE_JUDGE") != null)\n'
    "System.out.println(1); } }",
    "javascript": "console.log(process.env.ONLINE_JUDGE)",
    "csharp": "class P { static void Main() {\n#if ONLINE_JUDGE\nSystem.Console.WriteLine(1);\n#endif\n} }",
    "rust": 'fn main() { if cfg!(ONLINE_JUDGE) { println!("1"); } }',
    "bash": "echo $ONLINE_JUDGE",
}


@pytest.mark.parametrize("language", JUDGES)
def test_a_program_can_tell_that_a_judge_runs_it(sandbox: Sandbox, language: str) -> None:
    assert prints(sandbox, language, JUDGES[language], "1").verdict == "passed"
