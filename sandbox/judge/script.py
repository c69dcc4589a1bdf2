"""The `script` kind: program and test share a process, as in MultiPL-E's suites, and the exit code is the verdict.

The program can exit with code 0 before the test has run: this is the one kind whose verdict a program can forge, and
the report says so with `judge: "shared_process"`. This module only prevents accidental passes: the test's text is put
where the language runs it, and assertions that would not reach the exit code (Java's and C#'s are off, RackUnit's only
print) are made to.
"""

from __future__ import annotations

import re

from sandbox.errors import InvalidSuite
from sandbox.judge.build import ProgramText, is_module, java_classes
from sandbox.judge.import_hoisting import with_hoisted_imports
from sandbox.judge.node_tests import with_runner
from sandbox.judge.prelude import parted
from sandbox.judge.working_files import File
from sandbox.language_specs import BY_NAME, LanguageSpec
from sandbox.types import ScriptSuite

END = re.compile(rb"^__(?:END|DATA)__[ \t\r]*$", re.MULTILINE)  # Perl and Ruby read no further
CSHARP_ASSERTIONS = (
    b"public sealed class PlauditAssertions : System.Diagnostics.TraceListener {\n"
    b"  public override void Write(string text) { System.Console.Error.Write(text); }\n"
    b"  public override void WriteLine(string text) { System.Console.Error.WriteLine(text); }\n"
    b"  public override void Fail(string text) { Fail(text, null); }\n"
    b"  public override void Fail(string text, string more) {\n"
    b'    WriteLine("assertion failed " + text + " " + more + "\\n" + System.Environment.StackTrace);\n'
    b"    System.Environment.Exit(134);\n"
    b"  }\n"
    b"}\n"
)
CSHARP_CONFIGURATION = (
    b"<configuration><system.diagnostics><trace><listeners><clear/>"
    b'<add name="plaudit" type="PlauditAssertions, main"/>'
    b"</listeners></trace></system.diagnostics></configuration>\n"
)
RACKUNIT_EXIT = b"\n(require rackunit/log)\n(test-log #:display? #f #:exit? #t)\n"


def combined(language: str, program: bytes, suite: ScriptSuite) -> ProgramText:
    """Program and test as what is compiled and run."""
    spec = BY_NAME[language]
    test = with_runner(language, suite.source).encode("utf-8", "surrogatepass")
    beside: tuple[File, ...] = ()
    at_run: tuple[File, ...] = ()
    if suite.position == "replace" and parted(program)[0]:
        raise InvalidSuite("prelude: not with position 'replace', where the test imports the program")
    if suite.position == "replace":
        name = program_name(spec, program)
        if spec.name == "java" and name == f"{java_classes(test).public or 'Main'}.java":
            name = "Program.java"  # it would lie where the test lies; so the compiler sees both and refuses
        main, beside = test, ((name, program),)
    else:
        main = appended(spec.name, program, test)
    if language == "racket" and b"rackunit" in test:
        main += RACKUNIT_EXIT
    if language == "csharp":
        beside = (*beside, ("PlauditAssertions.cs", CSHARP_ASSERTIONS))
        at_run = (("main.exe.config", CSHARP_CONFIGURATION),)
    starts = java_classes(test).startable if language == "java" else ()
    return ProgramText(main, beside, at_run, script=True, starts=starts, runner=wants_runner(spec, suite.source))


def appended(language: str, program: bytes, test: bytes) -> bytes:
    """The test after the program, where it is read as code."""
    if language in ("perl", "ruby"):
        end = END.search(program)
        if end:
            return program[: end.start()] + b"\n" + test + b"\n" + program[end.start() :]
    if language == "php":
        inside = max(program.rfind(b"<?php"), program.rfind(b"<?=")) > program.rfind(b"?>")
        test = test.lstrip()
        if inside:
            return program + b"\n" + test.removeprefix(b"<?php")
        return program + (b"\n" if test.startswith(b"<?") else b"\n<?php\n") + test
    if language in ("go", "java", "csharp"):  # whose imports stand before everything else
        program, test = with_hoisted_imports(language, program, test)
    if language == "python" and unfinished(program):  # it would take the test's first line for its own
        return program + b"\npass\n" + test
    if language in ("javascript", "typescript"):  # or an unfinished line would take the test for its end, and run none
        return program + b"\n;\n" + test
    return program + b"\n" + test


def unfinished(program: bytes) -> bool:
    """Whether a Python text ends in a decorator, or in a line that goes on."""
    lines = program.split(b"\n")
    for line in reversed(lines):
        words = line.split(None, 1)
        if words and words[0] in (b"def", b"class", b"async"):
            break
        if line.lstrip().startswith(b"@"):
            return True
    return program.rstrip().endswith(b"\\")


def program_name(spec: LanguageSpec, program: bytes) -> str:
    """The program's file name when it lies beside its test."""
    if spec.name == "java":
        return f"{java_classes(program).public or 'Program'}.java"
    if spec.name == "javascript" and is_module(program):
        return "program.mjs"
    return "program." + spec.source.rpartition(".")[2]


def wants_runner(spec: LanguageSpec, test: str) -> bool:
    """Whether the test is written for the language's own test runner: only the test's text decides, not the program's.

    (A program may have tests and a main function of its own; the suite's text decides.)
    """
    if spec.variant and spec.variant == spec.test_name:
        if not re.search(spec.tests, test, re.MULTILINE):
            raise InvalidSuite(f"source: no tests that {spec.variant} would run, so every program would pass")
        return True
    return bool(spec.tests and re.search(spec.tests, test, re.MULTILINE) and not re.search(spec.no_tests, test))
