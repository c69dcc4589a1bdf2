"""Which of the files beside a program its compiler may read, and which of them it compiles.

A compiler runs once for all tests of a program, so it gets only files that can change its product: source files, by
their suffix, and files that a source includes, embeds or imports by name. Input files that differ from test to test are
not among them. All patterns take time in proportion to the texts.
"""

from __future__ import annotations

import re

from sandbox.judge.working_files import File

SOURCES = frozenset(
    {
        "c",
        "cc",
        "cpp",
        "cxx",
        "c++",
        "h",
        "hh",
        "hpp",
        "hxx",
        "h++",
        "inc",
        "inl",
        "ipp",
        "tcc",
        "tpp",
        "java",
        "go",
        "rs",
        "cs",
        "ts",
        "mts",
        "js",
        "mjs",
        "cjs",
        "json",
        "s",
        "asm",
    }
)
TAKING = re.compile(rb"^[^\n]*(?:include|embed|incbin|import|require|reference)[^\n]*$", re.MULTILINE)
INCLUDED = re.compile(rb"^[ \t]*#[ \t]*include[ \t]*[<\"]([^>\"\n]*)[>\"]", re.MULTILINE)
MAIN = re.compile(rb"\bmain[ \t\r\n]*\(")
FURTHER = {
    "c": (".c",),
    "cpp": (".cpp", ".cc", ".cxx", ".c++"),
    "typescript": (".ts",),
}


def suffix(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2].lower()


def needed(given: tuple[File, ...], texts: tuple[File, ...]) -> tuple[File, ...]:
    """The given files that a compiler of `texts` may read."""
    sources = tuple(file for file in given if suffix(file[0]) in SOURCES)
    others = [file for file in given if suffix(file[0]) not in SOURCES]
    if not others:
        return sources
    lines = b"\n".join(line for _, content in (*texts, *sources) for line in TAKING.findall(content))
    return (*sources, *(file for file in others if file[0].rpartition("/")[2].encode() in lines))


def further(language: str, files: tuple[File, ...]) -> tuple[str, ...]:
    """The source files beside the first that are compiled with it.

    Of C and C++ not those that bring a main function of their own, nor those that another text includes.
    """
    beside = [file for file in files[1:] if file[0].endswith(FURTHER.get(language, ())) and not file[0].startswith("-")]
    if language == "typescript":
        return tuple(name for name, _ in beside if not name.endswith(".d.ts"))
    included = {name.rpartition(b"/")[2] for _, content in files for name in INCLUDED.findall(content)}
    return tuple(
        name
        for name, content in beside
        if name.rpartition("/")[2].encode() not in included and not MAIN.search(content)
    )


def free_name(name: str, given: tuple[File, ...]) -> str:
    """The main file's name, or one like it where a given file has that name already."""
    taken = {other for other, _ in given}
    stem, _, kind = name.rpartition(".")
    while name in taken:
        stem += "_"
        name = f"{stem}.{kind}"
    return name
