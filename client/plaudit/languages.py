"""The names of languages in the contract: the one table of spellings. How each is run is `sandbox.language_specs`.

A variant is another standard of a language, or another way to run it, under a name of its own (`c++20`, `go_test`).
"""

from __future__ import annotations

# Canonical name -> other spellings, in lower case.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "python": ("python3", "py", "py3", "python-3"),
    "cpp": ("c++", "cc", "cxx", "g++", "c++17", "cpp17", "c++1z", "gnu++17"),
    "c": ("gcc", "c17", "c18", "gnu17"),
    "java": ("jdk", "openjdk", "java17"),
    "javascript": ("js", "node", "nodejs", "node.js"),
    "typescript": ("ts", "tsc"),
    "php": ("php8", "php-cli"),
    "csharp": ("cs", "c#", "mono", "mcs"),
    "bash": ("sh", "shell"),
    "go": ("golang",),
    "rust": ("rs", "rustc"),
    "ruby": ("rb",),
    "perl": ("pl", "perl5"),
    "lua": ("lua5.4",),
    "r": ("rscript", "rlang"),
    "racket": ("rkt",),
}
# Variant -> its language, and other spellings.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "c++98": ("cpp", ("cpp98", "c++03", "cpp03", "gnu++98")),
    "c++11": ("cpp", ("cpp11", "c++0x", "gnu++11")),
    "c++14": ("cpp", ("cpp14", "c++1y", "gnu++14")),
    "c++20": ("cpp", ("cpp20", "c++2a", "cpp2a", "gnu++20")),
    "c++23": ("cpp", ("cpp23", "c++2b", "cpp2b", "gnu++23")),
    "c89": ("c", ("c90", "ansi-c", "gnu89")),
    "c99": ("c", ("gnu99",)),
    "c11": ("c", ("gnu11",)),
    "c23": ("c", ("c2x", "gnu2x", "gnu23")),
    "go_test": ("go", ("gotest", "go-test")),
}
ALIASES = SPELLINGS | {variant: spellings for variant, (_, spellings) in VARIANTS.items()}


class UnsupportedLanguage(Exception):
    """The language is unknown, or its toolchain is not installed on this host; the message says which."""


class UnsupportedKind(UnsupportedLanguage):
    """Programs of this language cannot be judged by suites of this kind."""


def resolve(name: str) -> str:
    """The canonical name of a language or variant.

    Args:
        name: Any spelling; case and surrounding spaces do not matter.

    Raises:
        UnsupportedLanguage: No language has that name. Whether a host has it installed is another question.
    """
    wanted = name.strip().lower()
    for canonical, spellings in ALIASES.items():
        if wanted == canonical or wanted in spellings:
            return canonical
    raise UnsupportedLanguage(f"language {name!r} is not one of {', '.join(ALIASES)}")


def base(name: str) -> str:
    """The language of a canonical name that may be a variant's."""
    return VARIANTS[name][0] if name in VARIANTS else name
