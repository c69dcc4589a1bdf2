"""The table of languages, and what is read out of a program's text before it is compiled."""

from __future__ import annotations

import time

import pytest

from plaudit.languages import resolve
from sandbox import languages
from sandbox.judge.build import is_module, java_classes
from sandbox.judge.compile_cache import CompileJob
from sandbox.judge.script import appended, combined, program_name
from sandbox.language_specs import BY_NAME, LANGUAGE_SPECS, packages
from sandbox.types import ScriptSuite

SPELLINGS = {
    "python3": "python",
    "js": "javascript",
    "NodeJS": "javascript",
    "node": "javascript",
    "c++": "cpp",
    "cs": "csharp",
    "C#": "csharp",
    "sh": "bash",
    "ts": "typescript",
    "golang": "go",
    "go_test": "go_test",
    "rs": "rust",
    "rb": "ruby",
    "pl": "perl",
    "R": "r",
    "rkt": "racket",
    "lua": "lua",
    "php": "php",
    "C": "c",
    "java": "java",
    "c++17": "cpp",
    "cpp17": "cpp",
    "C++20": "c++20",
    "cpp20": "c++20",
    "c++2b": "c++23",
    "cpp11": "c++11",
    "gnu99": "c99",
    "c2x": "c23",
    "c17": "c",
    "gotest": "go_test",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_languages_have_the_names_people_use(spelling: str) -> None:
    assert resolve(spelling) == SPELLINGS[spelling]


def test_every_language_can_be_installed_found_and_started() -> None:
    for spec in LANGUAGE_SPECS[1:]:
        assert spec.packages
        assert spec.needs
        assert spec.version
        assert all(path.startswith(("/usr/", "/bin/")) for path in (*spec.needs, *spec.run[:1]))
        assert spec.run or spec.product == "main", "a product that nothing starts must be an executable"
        assert bool(spec.compile) == bool(spec.product)
        assert "script" in spec.kinds
        assert "stdio" in spec.kinds
    assert {"default-jdk-headless", "racket", "rustc-web|rustc"} <= set(packages())
    assert len(packages()) == len(set(packages()))


def test_a_language_without_its_toolchain_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setitem(languages.BY_NAME, "lua", replace(BY_NAME["lua"], needs=("/nowhere/lua",)))
    assert languages.version_of.__wrapped__("lua") == ""


def test_what_compilers_are_asked_is_told_apart() -> None:
    works = [
        CompileJob(("cc", "a"), (("f", b"x"),), ("main",)),
        CompileJob(("cc",), (("a", b""), ("f", b"x")), ("main",)),
        CompileJob(("cc", "a"), (("f", b"x"), ("g", b"")), ("main",)),
        CompileJob(("cc", "a"), (("f", b"y"),), ("main",)),
        CompileJob(("cc", "a"), (("fx", b""),), ("main",)),
        CompileJob(("cc", "a", "-O2"), (("f", b"x"),), ("main",)),
        CompileJob(("cc", "a"), (("f", b"x"),), ("out",)),
        CompileJob(("cc", "a", "", "main"), (("f", b"x"),), ()),
    ]
    assert len({work.key for work in works}) == len(works)
    assert works[0].key == CompileJob(("cc", "a"), (("f", b"x"),), ("main",)).key


MAIN = "public static void main(String[] a) {}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f"public class A {{ {MAIN} }}", ("A", "A")),
        (f"class A {{ {MAIN} }}", ("", "A")),
        (f"class Solution {{}}\npublic class Main {{ {MAIN} }}", ("Main", "Main")),
        (f"class A {{ {MAIN} }}\nclass Main {{ {MAIN} }}\nclass B {{ {MAIN} }}", ("", "Main")),
        (f"class A {{ {MAIN} }}\nclass B {{ {MAIN} }}", ("", "B")),
        (f"public class A {{ }}\nclass B {{ {MAIN} }}", ("A", "B")),
        (f"package x.y; public final class A {{ {MAIN} }}", ("A", "x.y.A")),
        (
            f'// public class No {{\n/* public class No2 */ public class A {{ String s = "{{ class"; {MAIN} }}',
            ("A", "A"),
        ),
        (f"public class A {{ char c = '{{', d = '\"'; {MAIN} }}", ("A", "A")),
        (f"class A {{ public static class In {{ {MAIN} }} }}\nclass B {{ {MAIN} }}", ("", "B")),
        (f'class A {{ String t = """\n}} class No {{ "quoted" \n"""; }}\nclass B {{ {MAIN} }}', ("", "B")),
        ("interface A {}\npublic enum E { X }\npublic record R(int x) {}", ("E", "E")),
        ("nothing at all", ("", "Main")),
    ],
)
def test_java_s_classes_are_found_in_its_text(source: str, expected: tuple[str, str]) -> None:
    found = java_classes(source.encode())
    assert (found.public, found.start()) == expected


@pytest.mark.parametrize(
    "unit",
    [
        b"\n",
        b" ",
        b"/*",
        b"//",
        b'"',
        b"'",
        b'"""',
        b"\\",
        b"{",
        b"public ",
        b"void ",
        b"class ",
        b"import",
        b"package ",
        b"__END__",
        b"<?php",
        b"?>",
        b"import\n",
        b"\t\n",
        b"export ",
        b"void main",
        b"/*\n",
    ],
)
def test_reading_a_hostile_text_takes_time_in_proportion_to_it(unit: bytes) -> None:
    """A mebibyte of it, in the process that no limit guards."""
    source = b"import \n" + unit * ((1 << 20) // len(unit))
    began = time.process_time()
    java_classes(source)
    is_module(source)
    languages.wants_numpy(source)
    for language in ("php", "perl", "rust", "go", "python", "java", "csharp"):
        appended(language, source, b"test")
        combined(language, source, ScriptSuite("test"))
    assert time.process_time() - began < 10


def test_javascript_modules_are_told_by_their_imports() -> None:
    assert is_module(b"import fs from 'fs'\n")
    assert is_module(b"const a = 1\nexport { a }\n")
    assert not is_module(b"const fs = require('fs')\n")
    assert not is_module(b"// import of a thing\nconst important = 1; exported = 2\n")


def test_the_test_is_put_where_it_is_read() -> None:
    assert appended("python", b"a", b"b") == b"a\nb"
    assert appended("python", b"@x\ndef f(): 1", b"b") == b"@x\ndef f(): 1\nb"
    assert appended("python", b"def f(): 1\n@x(\n1)", b"b") == b"def f(): 1\n@x(\n1)\npass\nb"
    assert appended("go", b"package p\nfunc f() {}", b'import "os"\nx') == b'package p; import ("os")\nfunc f() {}\n\nx'
    assert appended("javascript", b"const f = x => x +", b"b") == b"const f = x => x +\n;\nb"
    assert appended("perl", b"a\n__END__\nnotes", b"b") == b"a\n\nb\n__END__\nnotes"
    assert appended("php", b"<?php a", b"<?php b") == b"<?php a\n b"
    assert appended("php", b"<?php a ?>", b"b") == b"<?php a ?>\n<?php\nb"
    assert appended("php", b"<?php a ?>", b"<?php b") == b"<?php a ?>\n<?php b"


def test_only_the_test_s_text_asks_for_a_test_runner() -> None:
    def asks(language: str, program: str, test: str) -> bool:
        return combined(language, program.encode(), ScriptSuite(test)).runner

    assert asks("rust", "", "#[cfg(test)] mod tests { #[test] fn a() {} }")
    assert not asks("rust", "#[test] fn a() {}", "fn main() {}")
    assert not asks("rust", "", "#[test] fn a() {}\nfn main() {}")
    assert asks("go", "", "func TestA(t *testing.T) {}")
    assert not asks("go", "func TestA(t *testing.T) {}", "func main() {}")
    assert not asks("python", "", "#[test] func Test")


def test_the_program_beside_its_test_is_called_program() -> None:
    assert program_name(BY_NAME["rust"], b"") == "program.rs"
    assert program_name(BY_NAME["java"], b"public class Adder {}") == "Adder.java"
    assert program_name(BY_NAME["java"], b"class Adder {}") == "Program.java"
    assert program_name(BY_NAME["javascript"], b"import a from 'a'") == "program.mjs"
