"""From a program's text to the job that runs it, whatever the language: compiled first where its recipe says so.

An interpreter gets the text as a file in /tmp of the jail, written anew for each run. A compiled executable is started
from the sealed file in memory that the compiler's jail was emptied into; what a virtual machine loads (a jar, an
assembly, emitted JavaScript) is copied from such a file for each run. So whatever a run does to its files, the next one
begins with what the compiler made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sandbox import languages
from sandbox import limits as fences
from sandbox.jail import Job
from sandbox.judge.compile_cache import Artifacts, Work
from sandbox.judge.java import classes
from sandbox.judge.source_files import free_name, further, needed
from sandbox.judge.stdio import script_job
from sandbox.language_specs import BY_NAME, Recipe
from sandbox.run import Starter
from sandbox.types import CompileReport, Limits, Options

FOLDER = "/tmp/"
MODULE = re.compile(rb"^[ \t]*(?:import[ \t{*\"']|export[ \t{*])", re.MULTILINE)

File = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Text:
    """A program as texts: the main file, what lies beside it, and whether it is a test that is run."""

    main: bytes
    beside: tuple[File, ...] = ()  # for the compiler, and where there is none for the run
    at_run: tuple[File, ...] = ()
    script: bool = False  # assertions count
    given: tuple[File, ...] = ()  # lie there at run time in any case; the compiler gets those that concern it
    starts: tuple[str, ...] = ()  # Java: the classes of the test that can be started; they go before the program's own
    runner: bool = False  # the main file holds tests for the language's own runner, and no main function


@contextmanager
def ready(
    language: str, text: Text, limits: Limits, starter: Starter, artifacts: Artifacts, options: Options
) -> Iterator[tuple[Job | None, CompileReport | None]]:
    """The job that runs the program, or None if it does not compile; and what the compiler said, if there is one."""
    if language == "python":
        job = script_job(text.main, limits, options)
        yield replace(job, files=(*job.files, *placed(text.beside))) if text.beside else job, None
        return
    recipe = BY_NAME[language]
    if recipe.variant and recipe.variant == recipe.test_name:
        text = replace(text, runner=True)
    fence = fences.for_run(limits, native=not recipe.run, managed=recipe.managed)
    fence = replace(fence, open_files=recipe.open_files)
    source, start = main_file(recipe, text)
    source = free_name(source, text.given)
    files = ((source, text.main), *text.beside)
    run = languages.filled(
        start_command(recipe, text, files),
        source=source,
        main=start,
        heap_mb=str(2 * fence.memory_bytes // fences.MB),
    )
    if not recipe.compile:
        yield Job(role="exec", argv=run, fence=fence, fds={}, files=placed((*files, *text.at_run))), None
        return
    files = (*files, *needed(text.given, files))
    command = languages.filled(recipe.test_compile if text.runner else recipe.compile, source=source)
    work = Work(with_others(command, recipe, files), files, products(recipe, files))
    with artifacts.of(work, starter, limits) as (made, report):
        if made is None:
            yield None, report
        elif not run:
            yield Job(role="exec", argv=(f"{FOLDER}main",), fence=fence, fds={}, program=made[0]), report
        else:
            contents = [os.pread(fd, os.fstat(fd).st_size, 0) for fd in made]
            names_there = [product.removeprefix("out/") for product in work.products]
            there = zip(names_there, contents, strict=True)
            yield Job(role="exec", argv=run, fence=fence, fds={}, files=placed((*there, *text.at_run))), report


def start_command(recipe: Recipe, text: Text, files: tuple[File, ...]) -> tuple[str, ...]:
    if text.script and recipe.script_run:
        return recipe.script_run
    if recipe.plain_run and not any(re.search(recipe.not_plain.encode(), content) for _, content in files):
        return recipe.plain_run
    return recipe.run


def main_file(recipe: Recipe, text: Text) -> tuple[str, str]:
    """The name of the main file, and for Java that of the class to start."""
    if text.runner:
        return recipe.test_source, ""
    if recipe.name == "java":
        found = classes(text.main)
        return f"{found.public or 'Main'}.java", found.start(*text.starts)
    if recipe.name == "javascript" and is_module(text.main):
        return "main.mjs", ""
    return recipe.source, ""


def is_module(source: bytes) -> bool:
    """Whether Node has to be told, by the file's name, that this JavaScript imports and exports as modules do."""
    return MODULE.search(source) is not None and b"require(" not in source


def with_others(command: tuple[str, ...], recipe: Recipe, files: tuple[File, ...]) -> tuple[str, ...]:
    """A compiler's command with the further source files that it is to take, where it takes any."""
    return tuple(word for part in command for word in (further(recipe.name, files) if part == "{others}" else (part,)))


def products(recipe: Recipe, files: tuple[File, ...]) -> tuple[str, ...]:
    """What the compiler will leave: TypeScript a file for each text, the others one for all."""
    if recipe.name == "typescript":
        names = (files[0][0], *further(recipe.name, files))
        return tuple(f"out/{name.removesuffix('.ts')}.js" for name in names)
    return (recipe.product,)


def placed(files: tuple[File, ...]) -> tuple[File, ...]:
    return tuple((FOLDER + name, content) for name, content in files)
