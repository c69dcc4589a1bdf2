"""Every language of the table: right, wrong, broken, endless and greedy programs, and what they may not reach.

A language whose toolchain is not on this host skips its tests and says which packages it lacks.
"""

from __future__ import annotations

import pytest

from plaudit.languages import UnsupportedLanguage
from sandbox import languages
from sandbox.judge import judge
from sandbox.judge.compile_cache import CompileCache
from sandbox.language_specs import BY_NAME, LANGUAGE_SPECS
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Program, Report, RunSuite, StdioCase, StdioSuite, Stop

LIMITS = Limits(cpu_s=5, memory_mb=256)
LANGUAGES = [spec.name for spec in LANGUAGE_SPECS]
COMPILED = [spec.name for spec in LANGUAGE_SPECS if spec.compile]

# Reads two numbers, prints their sum.
SUM = {
    "python": "a, b = map(int, input().split())\nprint(a + b)",
    "cpp": "#include <bits/stdc++.h>\nusing namespace std;\nint main() { long a, b; cin >> a >> b; cout << a + b; }",
    "c": '#include <stdio.h>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }',
    "java": "import java.util.*;\n// class Decoy { void main( }\npublic class Sum {\n"
    "  public static void main(String[] a) {\n"
    "    Scanner s = new Scanner(System.in);\n    System.out.println(s.nextInt() + s.nextInt());\n  }\n}",
    "javascript": "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number);\nconsole.log(a + b)",
    "typescript": "import * as fs from 'fs';\n"
    "const [a, b]: number[] = fs.readFileSync(0, 'utf8').split(' ').map(Number);\nconsole.log(a + b)",
    "php": "<?php fscanf(STDIN, '%d %d', $a, $b); echo $a + $b;",
    "csharp": "using System; using System.Linq;\n"
    "class P { static void Main() { Console.WriteLine(Console.ReadLine().Split(' ').Select(int.Parse).Sum()); } }",
    "bash": "read a b; echo $((a + b))",
    "go": 'package main\nimport "fmt"\nfunc main() { var a, b int; fmt.Scan(&a, &b); fmt.Println(a + b) }',
    "rust": "fn main() { let mut s = String::new(); std::io::stdin().read_line(&mut s).unwrap();\n"
    'println!("{}", s.split_whitespace().map(|x| x.parse::<i64>().unwrap()).sum::<i64>()); }',
    "ruby": "a, b = gets.split.map(&:to_i)\nputs a + b",
    "perl": "my ($a, $b) = split ' ', <STDIN>; print $a + $b, \"\\n\";",
    "lua": "local a, b = io.read('n', 'n')\nprint(a + b)",
    "r": 'x <- scan(file("stdin"), quiet = TRUE)\ncat(sum(x), "\\n")',
    "racket": "#lang racket\n(displayln (+ (read) (read)))",
}
# Ends with exit code 3.
EXIT_3 = {
    "python": "import sys; sys.exit(3)",
    "cpp": "int main() { return 3; }",
    "c": "int main() { return 3; }",
    "java": "class A { public static void main(String[] a) { System.exit(3); } }",
    "javascript": "process.exit(3)",
    "typescript": "process.exit(3)",
    "php": "<?php exit(3);",
    "csharp": "class P { static int Main() { return 3; } }",
    "bash": "exit 3",
    "go": 'package main\nimport "os"\nfunc main() { os.Exit(3) }',
    "rust": "fn main() { std::process::exit(3) }",
    "ruby": "exit 3",
    "perl": "exit 3",
    "lua": "os.exit(3)",
    "r": "quit(status = 3)",
    "racket": "#lang racket\n(exit 3)",
}
LOOP = {
    "python": "while True: pass",
    "cpp": "int main() { for (volatile int i = 0;; i++); }",
    "c": "int main() { for (volatile int i = 0;; i++); }",
    "java": "class A { public static void main(String[] a) { while (true); } }",
    "javascript": "for (;;);",
    "typescript": "for (;;);",
    "php": "<?php for (;;);",
    "csharp": "class P { static void Main() { for (;;); } }",
    "bash": "while :; do :; done",
    "go": "package main\nfunc main() { for {} }",
    "rust": "fn main() { loop {} }",
    "ruby": "loop {}",
    "perl": "while (1) {}",
    "lua": "while true do end",
    "r": "repeat {}",
    "racket": "#lang racket\n(let loop () (loop))",
}
HOARD = {
    "python": "hoard = []\nwhile True: hoard.append(bytearray(1 << 23))",
    "cpp": "#include <vector>\nint main() { std::vector<std::vector<char>> h; for (;;) h.emplace_back(1 << 23, 1); }",
    "c": "#include <stdlib.h>\n#include <string.h>\n"
    "int main() { for (;;) { volatile char *p = malloc(1 << 23); memset((void *)p, 1, 1 << 23); } }",
    "java": "import java.util.*;\nclass A { public static void main(String[] a) {\n"
    "List<int[]> h = new ArrayList<>(); while (true) h.add(new int[1 << 20]); } }",
    "javascript": "const h = []; for (;;) h.push(new Array(1 << 20).fill(h.length))",
    "typescript": "const h: number[][] = []; for (;;) h.push(new Array(1 << 20).fill(h.length))",
    "php": "<?php $h = []; for (;;) $h[] = str_repeat('x', 1 << 23);",
    "csharp": "using System.Collections.Generic; class P { static void Main() { var h = new List<byte[]>();\n"
    "for (;;) { var b = new byte[1 << 23]; for (int i = 0; i < b.Length; i += 4096) b[i] = 1; h.Add(b); } } }",
    "bash": "s=0123456789; while :; do s=$s$s; done",
    "go": "package main\nfunc main() { h := [][]byte{}\n"
    "for { b := make([]byte, 1<<23); for i := range b { b[i] = 1 }; h = append(h, b) } }",
    "rust": "fn main() { let mut h = Vec::new(); loop { h.push(vec![h.len() as u8 | 1; 1 << 23]); } }",
    "ruby": "h = []\nloop { h << 'x' * (1 << 23) }",
    "perl": "my @h; push @h, 'x' x (1 << 23) while 1;",
    "lua": "local h = {} while true do h[#h + 1] = string.rep(tostring(#h), 1 << 23) end",
    "r": "h <- list()\nrepeat h[[length(h) + 1]] <- rep(length(h), 1e6)",
    "racket": "#lang racket\n(let loop ([h '()]) (loop (cons (make-vector 1000000 (length h)) h)))",
}
# Tries to reach the network and prints what came of it.
NETWORK = {
    "python": "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 80))\n    print('open')\n"
    "except OSError:\n    print('denied')",
    "javascript": "const s = require('net').connect(80, '127.0.0.1'); s.on('error', e => console.log('denied'));\n"
    "s.on('connect', () => console.log('open'))",
    "bash": "if (exec 3<>/dev/tcp/127.0.0.1/80) 2>/dev/null; then echo open; else echo denied; fi",
    "perl": "use IO::Socket::INET;\nprint IO::Socket::INET->new('127.0.0.1:80') ? 'open' : 'denied';",
    "ruby": "require 'socket'\nbegin; TCPSocket.new('127.0.0.1', 80); puts 'open'\n"
    "rescue SystemCallError; puts 'denied'; end",
    "php": "<?php echo @fsockopen('127.0.0.1', 80) ? 'open' : 'denied';",
    "java": "import java.net.*;\nclass A { public static void main(String[] a) throws Exception {\n"
    'try { new Socket("127.0.0.1", 80); System.out.println("open"); }\n'
    'catch (java.io.IOException e) { System.out.println("denied"); } } }',
    "go": 'package main\nimport ("fmt"; "net")\nfunc main() {\n'
    'if _, e := net.Dial("tcp", "127.0.0.1:80"); e != nil { fmt.Println("denied") } else { fmt.Println("open") } }',
}


def needs(sandbox: Sandbox, language: str) -> None:
    if language not in {known.name for known in sandbox.languages()}:
        spec = BY_NAME[language]
        pytest.skip(f"needs the toolchain of {language}: {', '.join(spec.packages)} (make toolchains)")


def run(sandbox: Sandbox, language: str, source: str, *cases: tuple[str, str], limits: Limits = LIMITS) -> Report:
    needs(sandbox, language)
    suite = StdioSuite(tuple(StdioCase(*case) for case in cases or [("", "")]))
    return judge(Program(language, source), suite, limits, Stop(), sandbox)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_right_program_passes_and_a_wrong_answer_is_one(sandbox: Sandbox, language: str) -> None:
    report = run(sandbox, language, SUM[language], ("3 4\n", "7"), ("20 22\n", "42"), ("1 1\n", "3"))
    assert [test.verdict for test in report.tests] == ["passed", "passed", "wrong_answer"], report
    assert report.judge == "bytes"
    assert (report.compile is not None) == (language in COMPILED)


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_exit_code_is_told(sandbox: Sandbox, language: str) -> None:
    report = run(sandbox, language, EXIT_3[language])
    assert (report.verdict, report.tests[0].detail) == ("runtime_error", "exit code 3"), report


@pytest.mark.parametrize("language", COMPILED)
def test_what_does_not_compile_says_why(sandbox: Sandbox, language: str) -> None:
    report = run(sandbox, language, SUM[language] + "\n) nonsense", ("3 4\n", "7"))
    assert report.verdict == "compile_error", report
    assert report.compile is not None
    assert not report.compile.ok
    assert "main" in report.compile.stderr + report.compile.stdout or "Sum.java" in report.compile.stderr


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_program_without_end_is_out_of_time(sandbox: Sandbox, language: str) -> None:
    report = run(sandbox, language, LOOP[language], limits=Limits(cpu_s=1, wall_s=90))
    assert (report.verdict, report.tests[0].detail[:4]) == ("time_limit", "cpu:"), report


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_program_that_hoards_is_out_of_memory(sandbox: Sandbox, language: str) -> None:
    report = run(sandbox, language, HOARD[language], limits=Limits(cpu_s=20, memory_mb=128))
    assert report.verdict == "memory_limit", report


@pytest.mark.parametrize("language", NETWORK)
def test_there_is_no_network(sandbox: Sandbox, language: str) -> None:
    report = run(sandbox, language, NETWORK[language], ("", "denied"))
    assert report.verdict == "passed", report


def test_a_missing_toolchain_is_no_verdict(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "is_installed", lambda language: False)
    with pytest.raises(UnsupportedLanguage, match="the toolchain of ruby is not installed"):
        judge(Program("rb", SUM["ruby"]), StdioSuite((StdioCase("1 2", "3"),)), LIMITS, Stop(), sandbox)


def test_the_fork_bomb_of_bash_leaves_nothing_behind(sandbox: Sandbox) -> None:
    report = run(sandbox, "bash", ":(){ :|:& };:\nsleep 5", limits=Limits(cpu_s=1, processes=32))
    assert report.verdict in ("time_limit", "runtime_error", "wrong_answer", "passed")
    assert {"process_limit", "orphans_killed"} & set(report.flags), report
    assert run(sandbox, "bash", SUM["bash"], ("1 2", "3")).verdict == "passed"


def test_a_managed_runtime_has_room_for_its_threads_at_the_least_limits(sandbox: Sandbox) -> None:
    for language in ("java", "javascript", "go", "csharp"):
        report = run(sandbox, language, SUM[language], ("1 2", "3"), limits=Limits(cpu_s=5, memory_mb=16, processes=1))
        assert report.verdict == "passed", (language, report)


def test_a_compiler_sees_nothing_of_the_host(sandbox: Sandbox) -> None:
    for language, source in (
        ("c", '#include "/etc/shadow"\nint main() {}'),
        ("rust", 'fn main() { print!("{}", include_str!("/etc/shadow")); }'),
        ("c", '#include "/dev/zero"\nint main() {}'),
    ):
        report = run(sandbox, language, source)
        assert report.verdict == "compile_error", report


# Small texts that keep a compiler busy, or make it write without end.
BOMBS = {
    "cpp": "template<int N, int M> struct F { static const long v = F<N - 1, M>::v + F<N - 1, M + 1>::v; };\n"
    "template<int M> struct F<0, M> { static const long v = 1; };\nint main() { return F<800, 0>::v; }",
    "c": "#define A(x) x x x x x x x x x x\n#define B(x) A(A(A(x)))\nint a[] = { B(B(B(1,))) };\nint main() {}",
    "java": "class A { Object f() { return " + "(Runnable & java.io.Serializable) () -> " * 3000 + "{}; } }",
    "rust": "macro_rules! m { ($($x:tt)*) => { m!($($x)* $($x)* a) } }\nfn main() { m!(a); }",
    "typescript": "type T<N extends any[]> = N['length'] extends 1e9 ? N : T<[...N, 1]>;\nlet x: T<[]> = 1;",
    "go": "package main\nvar x = [1 << 33]int{1}\nfunc main() { println(x[0]) }",
    "csharp": "class P { static int F() { return " + "(" * 200000 + "1" + ")" * 200000 + "; } static void Main() {} }",
}


@pytest.mark.parametrize(
    "language", [pytest.param(one, marks=pytest.mark.extended if one == "rust" else ()) for one in BOMBS]
)
def test_a_compiler_that_is_bombed_is_stopped_and_the_next_one_works(sandbox: Sandbox, language: str) -> None:
    report = run(sandbox, language, BOMBS[language])
    assert report.verdict == "compile_error", report
    assert report.compile is not None
    assert report.compile.wall_ms < 60_000
    assert run(sandbox, language, SUM[language], ("3 4\n", "7")).verdict == "passed"


def test_a_feigned_system_call_changes_nothing(sandbox: Sandbox) -> None:
    source = """
import os, time
child = os.fork()
if child == 0:
    time.sleep(5)
    os._exit(0)
os.sched_setscheduler(child, os.SCHED_IDLE, os.sched_param(0))
print(os.sched_getscheduler(child) == os.SCHED_OTHER)
try:
    os.sched_setaffinity(1, {0})
except PermissionError:
    print("refused")
os.kill(child, 9)
"""
    assert run(sandbox, "python", source, ("", "True\nrefused")).verdict == "passed"


@pytest.mark.parametrize("language", ["ruby", "perl", "javascript", "csharp"])
def test_a_run_without_a_test_finds_its_files_and_leaves_some(sandbox: Sandbox, language: str) -> None:
    needs(sandbox, language)
    source = {
        "ruby": "File.write('out.txt', File.read('data/in.txt').upcase)",
        "perl": "open(I, 'data/in.txt'); open(O, '>out.txt'); print O uc(<I>);",
        "javascript": "const fs = require('fs');\n"
        "fs.writeFileSync('out.txt', fs.readFileSync('data/in.txt', 'utf8').toUpperCase())",
        "csharp": "using System.IO; class P { static void Main() {\n"
        'File.WriteAllText("out.txt", File.ReadAllText("data/in.txt").ToUpper()); } }',
    }[language]
    suite = RunSuite(files=(("data/in.txt", b"abc"),), fetch=("out.txt",))
    report = judge(Program(language, source), suite, LIMITS, Stop(), sandbox)
    assert report.output is not None
    assert report.output.files == {"out.txt": b"ABC"}, report


def test_javascript_may_be_a_module(sandbox: Sandbox) -> None:
    source = "import fs from 'fs';\nconsole.log(fs.readFileSync(0, 'utf8').trim() + '!')"
    assert run(sandbox, "javascript", source, ("hi", "hi!")).verdict == "passed"


def test_java_is_found_whatever_its_classes_are_called(sandbox: Sandbox) -> None:
    main = 'public static void main(String[] a) { System.out.println("hi"); }'
    for source in (
        f"package a.b;\npublic class X {{ {main} }}",
        f'class Other {{ static void f() {{ String s = "class Y {{ void main("; }} }}\nfinal class Z {{ {main} }}',
        f"interface I {{}}\nenum E {{ A }}\nclass Main {{ class Inner {{}} {main} }}\nclass Last {{ int x; }}",
    ):
        assert run(sandbox, "java", source, ("", "hi")).verdict == "passed", source


# --- what one run may do to the next ---------------------------------------------------------------------------------

VANDAL_C = """
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/mman.h>
int main() {
    int n = 0, fd = open("/proc/self/exe", O_RDWR);
    if (fd >= 0) { n += write(fd, "broken", 6) > 0; n += ftruncate(fd, 0) == 0; }
    n += truncate("/proc/self/exe", 0) == 0;
    for (int fd = 3; fd < 256; fd++) n += write(fd, "broken", 6) > 0;
    printf("%d\\n", n);
}
"""
VANDAL_JAVA = """
import java.nio.file.*;
public class A {
    public static void main(String[] a) throws Exception {
        System.out.println(new java.util.Scanner(System.in).nextInt());
        System.out.flush();
        Files.write(Paths.get("/tmp/main.jar"), "broken".getBytes());
        Runtime.getRuntime().halt(0);
    }
}
"""


def test_a_run_cannot_alter_the_executable_of_the_next(sandbox: Sandbox) -> None:
    report = run(sandbox, "c", VANDAL_C, ("", "0"), ("", "0"))
    assert [test.verdict for test in report.tests] == ["passed", "passed"], report


def test_a_run_that_breaks_its_jar_breaks_it_for_itself(sandbox: Sandbox) -> None:
    report = run(sandbox, "java", VANDAL_JAVA, ("1", "1"), ("2", "2"))
    assert [test.verdict for test in report.tests] == ["passed", "passed"], report


def test_a_kept_artefact_outlives_a_vandal(sandbox: Sandbox) -> None:
    first = run(sandbox, "c", SUM["c"], ("3 4", "7"))
    vandal = (
        "for f in /proc/[0-9]*/exe /proc/[0-9]*/fd/* /tmp/* /usr/local/lib/plaudit/*; do echo broken > $f; done\ntrue"
    )
    needs(sandbox, "bash")
    judge(Program("bash", vandal), RunSuite(), LIMITS, Stop(), sandbox)
    kept = len(sandbox.cached(CompileCache))
    again = run(sandbox, "c", SUM["c"], ("3 4", "7"))
    assert (again.verdict, len(sandbox.cached(CompileCache))) == ("passed", kept)
    assert again.compile == first.compile


def test_flags_and_language_are_part_of_what_is_remembered(sandbox: Sandbox) -> None:
    source = '#include <stdio.h>\nint main() { puts(sizeof(\'a\') == 1 ? "C++" : "C"); }'
    assert run(sandbox, "c", source, ("", "C")).verdict == "passed"
    assert run(sandbox, "cpp", source, ("", "C++")).verdict == "passed"


def test_toolchains_cannot_be_written_to(sandbox: Sandbox) -> None:
    source = "for d in /usr/lib /usr/local/lib/plaudit /usr/local/lib/plaudit/node_modules; do\n"
    source += "[ -d $d ] && touch $d/x 2>/dev/null && echo $d\ndone\ntrue"
    assert run(sandbox, "bash", source, ("", "")).verdict == "passed"
