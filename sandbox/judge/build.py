"""Turns a program's text into the job that runs it, and compiles it first if its language is compiled.

- An interpreter gets the text as a file in /tmp of the jail, written again for each run.
- The compiler's products are copied from its jail into sealed files in memory. An executable is started from such a
  file. What a virtual machine loads (a jar, an assembly, emitted JavaScript) is copied from it for each run.

So a run cannot change what the next one starts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sandbox import languages
from sandbox.jail_job import JailJob
from sandbox.judge.compile_cache import CompileCache, CompileJob
from sandbox.judge.python_jobs import script_job
from sandbox.judge.request import JudgeRequest
from sandbox.judge.source_files import free_name, further, needed
from sandbox.judge.working_files import FOLDER, File, placed
from sandbox.language_specs import BY_NAME, LanguageSpec
from sandbox.limits import MB, run_limits
from sandbox.types import CompileReport

# Of Java, read from the text outside the jail: every pattern takes time in proportion to the text. A text that fools
# them (there is a `main` where none is) is not started, which is that program's own loss.
JAVA_QUIET = re.compile(
    r"//[^\n]*"
    r"|/\*(?:.*?\*/|.*)"
    r'|"""(?:\\.|[^\\])*?(?:"""|\Z)'
    r'|"(?:\\.|[^"\\\n])*"?'
    r"|'(?:\\.|[^'\\\n])*'?",
    re.DOTALL,
)  # comments and literals
JAVA_WORD = re.compile(r"[{};]|\bpublic\b|\b(?:class|interface|enum|record)\s+(\w+)|\bvoid\s+(main)\s*\(")
JAVA_PACKAGE = re.compile(r"\s*package\s+([\w.]+)\s*;")
MODULE = re.compile(rb"^[ \t]*(?:import[ \t{*\"']|export[ \t{*])", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ProgramText:
    """A program as texts: the main file, the files beside it, and whether it contains a test."""

    main: bytes
    beside: tuple[File, ...] = ()  # for the compiler, and where there is none for the run
    at_run: tuple[File, ...] = ()
    script: bool = False  # assertions count
    given: tuple[File, ...] = ()  # lie there at run time in any case; the compiler gets those that concern it
    starts: tuple[str, ...] = ()  # Java: the classes of the test that can be started; they go before the program's own
    runner: bool = False  # the main file holds tests for the language's own runner, and no main function


@contextmanager
def ready(request: JudgeRequest, text: ProgramText) -> Iterator[tuple[JailJob | None, CompileReport | None]]:
    """The job that runs `text`, or None if it does not compile; and the compiler's report, if there is one.

    Of the request only sandbox, language, limits and options are read.
    """
    if request.language == "python":
        job = script_job(text.main, request.limits, request.options)
        yield replace(job, files=(*job.files, *placed(text.beside))) if text.beside else job, None
        return
    spec = BY_NAME[request.language]
    if spec.variant and spec.variant == spec.test_name:
        text = replace(text, runner=True)
    jail_limits = run_limits(request.limits, native=not spec.run, managed=spec.managed)
    jail_limits = replace(jail_limits, open_files=spec.open_files)
    source, start = main_file(spec, text)
    source = free_name(source, text.given)
    files = ((source, text.main), *text.beside)
    run = languages.filled(
        start_command(spec, text, files),
        source=source,
        main=start,
        heap_mb=str(2 * jail_limits.memory_bytes // MB),
    )
    if not spec.compile:
        yield (
            JailJob(role="exec", argv=run, limits=jail_limits, fds={}, files=placed((*files, *text.at_run))),
            None,
        )
        return
    files = (*files, *needed(text.given, files))
    command = languages.filled(spec.test_compile if text.runner else spec.compile, source=source)
    compile_job = CompileJob(with_others(command, spec, files), files, products(spec, files))
    with request.sandbox.cached(CompileCache).products_of(compile_job, request.sandbox, request.limits) as (
        made,
        report,
    ):
        if made is None:
            yield None, report
        elif not run:
            yield (
                JailJob(role="exec", argv=(f"{FOLDER}main",), limits=jail_limits, fds={}, program=made[0]),
                report,
            )
        else:
            contents = [os.pread(fd, os.fstat(fd).st_size, 0) for fd in made]
            names_there = [product.removeprefix("out/") for product in compile_job.products]
            there = zip(names_there, contents, strict=True)
            yield (
                JailJob(role="exec", argv=run, limits=jail_limits, fds={}, files=placed((*there, *text.at_run))),
                report,
            )


def start_command(spec: LanguageSpec, text: ProgramText, files: tuple[File, ...]) -> tuple[str, ...]:
    if text.script and spec.script_run:
        return spec.script_run
    if spec.plain_run and not any(re.search(spec.not_plain.encode(), content) for _, content in files):
        return spec.plain_run
    return spec.run


def main_file(spec: LanguageSpec, text: ProgramText) -> tuple[str, str]:
    """The name of the main file, and for Java that of the class to start."""
    if text.runner:
        return spec.test_source, ""
    if spec.name == "java":
        classes = java_classes(text.main)
        return f"{classes.public or 'Main'}.java", classes.start(*text.starts)
    if spec.name == "javascript" and is_module(text.main):
        return "main.mjs", ""
    return spec.source, ""


def is_module(source: bytes) -> bool:
    """Whether this JavaScript uses module imports or exports, so that Node needs a file name ending in `.mjs`."""
    return MODULE.search(source) is not None and b"require(" not in source


def with_others(command: tuple[str, ...], spec: LanguageSpec, files: tuple[File, ...]) -> tuple[str, ...]:
    """A compiler's command with the further source files that it is to take, where it takes any."""
    return tuple(word for part in command for word in (further(spec.name, files) if part == "{others}" else (part,)))


def products(spec: LanguageSpec, files: tuple[File, ...]) -> tuple[str, ...]:
    """What the compiler will leave: TypeScript a file for each text, the others one for all."""
    if spec.name == "typescript":
        names = (files[0][0], *further(spec.name, files))
        return tuple(f"out/{name.removesuffix('.ts')}.js" for name in names)
    return (spec.product,)


@dataclass(frozen=True, slots=True)
class JavaClasses:
    """What a text says of its top-level classes: the first public one, and those that have a `main`, in order."""

    public: str
    startable: tuple[str, ...]
    package: str

    def start(self, *preferred: str) -> str:
        """The class to start, package included: the first of `preferred` that can be; else the public one, else `Main`,
        else the last. Where none has a `main`, it is the public one, or `Main`."""
        wanted = [name for name in (*preferred, self.public, "Main") if name in self.startable]
        name = (*wanted[:1], *self.startable[-1:], self.public or "Main")[0]
        return f"{self.package}.{name}" if self.package else name


def java_classes(source: bytes) -> JavaClasses:
    text = JAVA_QUIET.sub(" ", source.decode("utf-8", "replace"))
    depth, public, current = 0, False, ""
    public_class = ""
    startable: list[str] = []
    for match in JAVA_WORD.finditer(text):
        word = match[0]
        if word == "{":
            depth += 1
        elif word == "}":
            depth -= 1
            public = False
        elif word == ";":
            public = False
        elif word == "public":
            public = True
        elif match[2]:
            if depth == 1:
                startable.append(current)
        elif depth == 0:
            current = match[1]
            if public and not public_class:
                public_class = current
    package = JAVA_PACKAGE.match(text)
    return JavaClasses(public_class, tuple(startable), package[1] if package else "")
