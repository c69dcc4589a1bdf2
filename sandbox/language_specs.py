"""The table of languages: what each is called, what a host needs for it, how a program is compiled and started.

One entry per language, plain values. Paths are fixed and lie under /usr, which every jail sees read-only; a toolchain
in a user's home is not used. Every command runs in /tmp of a jail. In a command `{source}` stands for the main file's
name, `{main}` for the Java class that is started (`judge/build.py`), `{python}` for our own interpreter, and
`{heap_mb}` for what a garbage-collected heap may grow to: twice the memory limit, so that the kernel enforces it, which
no program can feign.

A name that names a standard (`c++20`, `c99`) or a way of running (`go_test`) is a variant of its language: the same
entry with another command. `GET /languages` lists the variants beside the language.

`make toolchains` installs all of it, and puts under `EXTRAS` what Debian does not have or what only makes a compiler
faster: without it programs are compiled more slowly, and there is no TypeScript.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace

EXTRAS = "/usr/local/lib/plaudit"
TSC = f"{EXTRAS}/tsc"  # the native compiler, whatever the machine
JAVATUPLES = "/usr/share/java/javatuples.jar"
WARM_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
WARNINGS_OFF = "-w"
VERSION = re.compile(r"\d+(?:\.\d+)+")


def newest(version_flag: str, *places: str) -> str:
    """Of several places under /usr the one whose program is of the newest version; the last where there is none."""
    there = {os.path.realpath(place): place for place in places if os.path.exists(place)}
    there = {real: place for real, place in there.items() if real.startswith("/usr/")}  # what every jail sees
    if len(there) < 2:
        return next(iter(there.values()), places[-1])
    versions = {}
    for place in there.values():
        done = subprocess.run((place, version_flag), capture_output=True, text=True, timeout=60, check=False)
        match = VERSION.search(done.stdout) if done.returncode == 0 else None
        versions[place] = tuple(map(int, match[0].split("."))) if match else ()
    return max(versions, key=lambda place: versions[place])


GO = newest("version", "/usr/local/go/bin/go", f"{EXTRAS}/go/bin/go", "/usr/bin/go")
RUSTC = newest("--version", "/usr/local/bin/rustc", f"{EXTRAS}/rust/bin/rustc", "/usr/bin/rustc")
NODE = newest("--version", "/usr/local/bin/node", f"{EXTRAS}/node/bin/node", "/usr/bin/node")

# Kinds of suites. The ones that look into a program's values speak Python.
ANY = ("stdio", "script")
PYTHON = ("assert", "function", "check", "pytest", "unittest", "stdio", "script")


@dataclass(frozen=True, slots=True)
class LanguageSpec:
    """One language. `product` is the file that the compiler leaves; without one the source itself is started."""

    name: str
    packages: tuple[str, ...]  # Debian's names; of `a|b` the first that the release has
    needs: tuple[str, ...]  # files that must be there, or the language is not installed
    version: tuple[str, ...]  # a command that prints it
    source: str  # the name of the main file
    run: tuple[str, ...] = ()  # empty: the product is an executable of its own
    compile: tuple[str, ...] = ()
    product: str = ""
    libraries: tuple[str, ...] = ()  # Debian packages that test suites for this language are written with
    settings: tuple[str, ...] = ()  # folders of /etc that the toolchain reads
    kinds: tuple[str, ...] = ANY
    managed: bool = False  # its runtime reserves address space, and starts threads of its own
    open_files: int = 128
    # Where the test's source brings no main function but tests for the language's own test runner (`script` only):
    tests: str = ""  # what such a source matches,
    no_tests: str = ""  # and what a source with a main function matches
    test_source: str = ""
    test_compile: tuple[str, ...] = ()
    # Started in another way if the text does not match: quicker, and the same to such a program.
    plain_run: tuple[str, ...] = ()
    not_plain: str = ""
    script_run: tuple[str, ...] = ()  # `script` only: started so that assertions are on
    # Variants (name, what stands for `standard` in `compile`); `plaudit.languages` has their spellings.
    standard: str = ""
    standards: tuple[tuple[str, str], ...] = ()
    test_name: str = ""  # of the variant whose every main file is tests for the language's own runner
    variant: str = ""  # of a variant: the name that it is resolved to


ONLINE_JUDGE = "ONLINE_JUDGE"  # a macro, a property or a variable of the environment, by which programs know a judge


def _c(compiler: str, *flags: str) -> tuple[str, ...]:
    define = f"-D{ONLINE_JUDGE}"
    return (compiler, "-O2", "-pipe", WARNINGS_OFF, define, *flags, "-o", "main", "{source}", "{others}", "-lm")


def _java(*flags: str) -> tuple[str, ...]:
    jvm = (*WARM_JVM, "-Xshare:auto", "-Xlog:disable", "-Xss64m", "-Xms256m", "-Xmx{heap_mb}m")
    return ("/usr/bin/java", *jvm, f"-D{ONLINE_JUDGE}=true", *flags, "-cp", f"/tmp/main.jar:{JAVATUPLES}", "{main}")


# javac writes a file for each class: they leave the jail as one archive.
PACK = (
    "import os, zipfile\n"
    "with zipfile.ZipFile('main.jar', 'w') as jar:\n"
    "    for folder, _, names in os.walk('classes'):\n"
    "        for name in names:\n"
    "            jar.write(os.path.join(folder, name), os.path.relpath(os.path.join(folder, name), 'classes'))\n"
)
JAVAC_JVM = " ".join(
    f"-J{flag}" for flag in (*WARM_JVM, "-Xshare:auto", "-Xlog:disable", f"-XX:SharedArchiveFile={EXTRAS}/javac.jsa")
)
JAVAC = (
    f"/usr/bin/javac {JAVAC_JVM} -proc:none -nowarn -encoding UTF-8 -cp {JAVATUPLES}:. -d classes *.java"
    f' && exec {{python}} -I -S -c "{PACK}"'
)
# Go compiles what a program imports, unless it finds it compiled: the standard library beside the compiler (up to
# 1.19), the rest in a cache. It writes to the cache, so it gets a copy, which is dear where it is not needed.
GO_COMMAND = (
    f"if grep -q 'github.com' *.go || ! ls $(dirname $(realpath {GO}))/../pkg/linux_*/fmt.a >/dev/null 2>&1; then\n"
    f"  mkdir -p .cache; cp -r {EXTRAS}/go-cache .cache/go-build 2>/dev/null\n"
    "fi\n"
    f"exec {GO} {{verb}} -o main *.go"
)


def _go(verb: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", GO_COMMAND.replace("{verb}", verb))


def _rust(*flags: str) -> tuple[str, ...]:
    edition = ("--edition", "2021", "--cap-lints", "allow", "--cfg", ONLINE_JUDGE)
    return (RUSTC, "-O", *flags, *edition, "-o", "main", "{source}")


LANGUAGE_SPECS: tuple[LanguageSpec, ...] = (
    LanguageSpec(
        name="python",
        packages=(),
        needs=(),
        version=(),
        source="main.py",
        kinds=PYTHON,
    ),
    LanguageSpec(
        name="cpp",
        standard="-std=gnu++17",
        standards=(
            ("c++98", "-std=gnu++98"),
            ("c++11", "-std=gnu++11"),
            ("c++14", "-std=gnu++14"),
            ("c++20", "-std=gnu++20"),
            ("c++23", "-std=gnu++23"),
        ),
        packages=("g++",),
        needs=("/usr/bin/g++",),
        version=("/usr/bin/g++", "-dumpfullversion"),
        source="main.cpp",
        compile=_c("/usr/bin/g++", "-std=gnu++17", f"-I{EXTRAS}/include"),
        product="main",
    ),
    LanguageSpec(
        name="c",
        standard="-std=gnu17",
        standards=(
            ("c89", "-std=gnu89"),
            ("c99", "-std=gnu99"),
            ("c11", "-std=gnu11"),
            ("c23", "-std=gnu2x"),
        ),
        packages=("gcc", "libc6-dev"),
        needs=("/usr/bin/gcc", "/usr/include/stdio.h"),
        version=("/usr/bin/gcc", "-dumpfullversion"),
        source="main.c",
        compile=_c("/usr/bin/gcc", "-std=gnu17"),
        product="main",
    ),
    LanguageSpec(
        name="java",
        packages=("default-jdk-headless",),
        libraries=("libjavatuples-java",),
        needs=("/usr/bin/java", "/usr/bin/javac"),
        version=("/bin/sh", "-c", "cat $(dirname $(realpath /usr/bin/javac))/../release"),
        source="Main.java",
        compile=("/bin/sh", "-c", JAVAC),
        product="main.jar",
        run=_java(),
        script_run=_java("-ea"),
        settings=("/etc/java-*-openjdk",),
        managed=True,
    ),
    LanguageSpec(
        name="javascript",
        packages=("nodejs",),
        needs=(NODE,),
        version=(NODE, "--version"),
        source="main.js",
        run=(NODE, "--max-old-space-size={heap_mb}", "{source}"),
        managed=True,
    ),
    LanguageSpec(
        name="typescript",
        packages=("nodejs",),
        needs=(NODE, TSC),
        version=(TSC, "--version"),
        source="main.ts",
        compile=(
            TSC,
            "--target",
            "es2022",
            "--lib",
            "es2022",
            "--module",
            "commonjs",
            "--strict",
            "false",
            "--skipLibCheck",
            "--types",
            "node",
            "--typeRoots",
            f"{EXTRAS}/node_modules/@types",
            "--outDir",
            "out",
            "--rootDir",
            ".",
            "{source}",
            "{others}",
        ),
        product="out/main.js",
        run=(NODE, "--max-old-space-size={heap_mb}", "main.js"),
        managed=True,
    ),
    LanguageSpec(
        name="php",
        packages=("php-cli",),
        libraries=("php-mbstring",),
        needs=("/usr/bin/php",),
        version=("/usr/bin/php", "-r", "echo PHP_VERSION;"),
        source="main.php",
        run=("/usr/bin/php", "{source}"),
        settings=("/etc/php",),
    ),
    LanguageSpec(
        name="csharp",
        packages=("mono-mcs", "mono-runtime"),
        libraries=("libmono-system-numerics4.0-cil",),
        needs=("/usr/bin/mono", "/usr/bin/mcs"),
        version=("/usr/bin/mcs", "--version"),
        source="main.cs",
        compile=(
            "/bin/sh",
            "-c",
            f"exec /usr/bin/mcs -optimize+ -d:DEBUG -d:{ONLINE_JUDGE} -r:System.Numerics.dll -out:main.exe *.cs",
        ),
        product="main.exe",
        run=("/usr/bin/mono", "main.exe"),
        settings=("/etc/mono",),
        managed=True,
    ),
    LanguageSpec(
        name="bash",
        packages=("bash",),
        needs=("/bin/bash",),
        version=("/bin/bash", "--version"),
        source="main.sh",
        run=("/bin/bash", "{source}"),
    ),
    LanguageSpec(
        name="go",
        test_name="go_test",
        packages=("golang-go",),
        libraries=("golang-github-stretchr-testify-dev",),
        needs=(GO,),
        version=(GO, "version"),
        source="main.go",
        compile=_go("build"),
        product="main",
        managed=True,
        tests=r"^func\s+Test\w*\s*\(",
        no_tests=r"\bfunc\s+main\s*\(",
        test_source="main_test.go",
        test_compile=_go("test -c"),
    ),
    LanguageSpec(
        name="rust",
        packages=("rustc-web|rustc", "gcc", "libc6-dev"),
        needs=(RUSTC, "/usr/bin/gcc"),
        version=(RUSTC, "--version"),
        source="main.rs",
        compile=_rust(),
        product="main",
        tests=r"#\[test\]",
        no_tests=r"\bfn\s+main\s*\(",
        test_source="main.rs",
        test_compile=_rust("--test"),
    ),
    LanguageSpec(
        name="ruby",
        packages=("ruby",),
        libraries=("ruby-test-unit",),
        needs=("/usr/bin/ruby",),
        version=("/usr/bin/ruby", "--version"),
        source="main.rb",
        run=("/usr/bin/ruby", "{source}"),
        plain_run=("/usr/bin/ruby", "--disable=gems", "{source}"),
        not_plain=r"(?i)require|gem|load",
    ),
    LanguageSpec(
        name="perl",
        packages=("perl",),
        libraries=("libdata-compare-perl", "libtest-deep-perl"),
        needs=("/usr/bin/perl",),
        version=("/usr/bin/perl", "-e", "print substr($^V, 1)"),
        source="main.pl",
        run=("/usr/bin/perl", "{source}"),
    ),
    LanguageSpec(
        name="lua",
        packages=("lua5.4",),
        libraries=("lua-unit",),
        needs=("/usr/bin/lua5.4",),
        version=("/usr/bin/lua5.4", "-v"),
        source="main.lua",
        run=("/usr/bin/lua5.4", "{source}"),
    ),
    LanguageSpec(
        name="r",
        packages=("r-base-core",),
        needs=("/usr/bin/Rscript",),
        version=("/usr/bin/Rscript", "--version"),
        source="main.R",
        run=("/usr/bin/Rscript", "--vanilla", "{source}"),
        settings=("/etc/R",),
        open_files=512,  # it refuses to start with fewer than it has connections
    ),
    LanguageSpec(
        name="racket",
        packages=("racket",),
        needs=("/usr/bin/racket",),
        version=("/usr/bin/racket", "--version"),
        source="main.rkt",
        run=("/usr/bin/racket", "{source}"),
        settings=("/etc/racket",),
    ),
)


def variants(spec: LanguageSpec) -> Iterator[LanguageSpec]:
    """The entry under the names that mean another command than its own."""
    for name, flag in spec.standards:
        command = tuple(flag if word == spec.standard else word for word in spec.compile)
        yield replace(spec, variant=name, compile=command, standards=(), test_name="")
    if spec.test_name:
        yield replace(spec, variant=spec.test_name, standards=())


VARIANTS = {variant.variant: variant for spec in LANGUAGE_SPECS for variant in variants(spec)}
BY_NAME = {spec.name: spec for spec in LANGUAGE_SPECS} | VARIANTS


def packages() -> list[str]:
    """All Debian packages that the table names, each once."""
    return list(dict.fromkeys(name for spec in LANGUAGE_SPECS for name in (*spec.packages, *spec.libraries)))


if __name__ == "__main__":
    print(*packages())
