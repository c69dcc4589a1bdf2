"""The languages of this host: which of the table (`recipes.py`) are installed, and in which version.

A toolchain lies in directories that are bound read-only into every jail. Python is the interpreter that this process's
own environment was made from (never the environment itself), started without `site` so that nothing of the host runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sandbox.errors import SandboxError, UnsupportedLanguage
from sandbox.recipes import BY_NAME, EXTRAS, RECIPES

ALIASES = {recipe.name: recipe.aliases for recipe in RECIPES}
KINDS = {recipe.name: recipe.kinds for recipe in RECIPES}
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NODE_PATH": f"{EXTRAS}/node_modules",
    "GO111MODULE": "off",  # no network: packages are Debian's
    "GOPATH": "/usr/share/gocode",
    "GOTELEMETRY": "off",
}
VERSION = re.compile(r"\d+(?:\.\d+)+")

# What the warm interpreter has imported before any program asks: what most programs of the contests and benchmarks do.
LIGHT_MODULES = (
    "ast", "bisect", "cmath", "collections", "copy", "datetime", "functools", "heapq", "itertools", "json", "math",
    "operator", "random", "re", "string", "typing",
)  # fmt: skip
WARM_MODULES = {  # beside them, by what a jail is for
    "science": ("numpy",),
    "pytest": ("pytest", "unittest", "unittest.mock", "asyncio", "inspect", "_pytest.unittest", "_pytest.python"),
}
SCIENCE = re.compile(  # in time proportional to the text, whoever wrote it: no blank that could be a line's end
    rb"^[ \t]*(?:import|from)[ \t]+(?:numpy|scipy|pandas|sklearn|sympy|networkx|matplotlib)\b", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Language:
    """A language as this host can run it."""

    name: str
    version: str
    aliases: tuple[str, ...]
    kinds: tuple[str, ...]


def resolve(name: str) -> str:
    """The canonical name behind any spelling. Raises UnsupportedLanguage; knows nothing of what is installed."""
    wanted = name.strip().lower()
    for canonical, aliases in ALIASES.items():
        if wanted == canonical or wanted in aliases:
            return canonical
    raise UnsupportedLanguage(f"language {name!r} is not one of {', '.join(ALIASES)}")


def python_binary() -> Path:
    """The real interpreter binary, past virtual environments and version managers."""
    binary = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    if not binary.is_file():
        raise SandboxError(f"the base interpreter {binary} is not there")
    return binary


def python_home() -> Path:
    return Path(os.path.realpath(sys.base_prefix))


def python_packages() -> tuple[str, ...]:
    """Third-party packages of the base interpreter (numpy, where the image has it) as programs will find them."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = (
        python_home() / "lib" / version / "site-packages",
        Path("/usr/local/lib") / version / "dist-packages",
        Path("/usr/lib/python3/dist-packages"),
    )
    return tuple(str(place) for place in places[: 1 if python_home() != Path("/usr") else 3] if place.is_dir())


@cache
def has_numpy() -> bool:
    return any(Path(place, "numpy").is_dir() for place in python_packages())


def wants_numpy(source: bytes) -> bool:
    """Whether a program is better started where numpy is imported already. A hint: it runs in either place."""
    return b"import" in source and has_numpy() and SCIENCE.search(source) is not None


@cache
def version_of(name: str) -> str:
    """The version of a language's toolchain; empty where it is not installed."""
    recipe = BY_NAME[name]
    if not recipe.version:
        return sys.version.split()[0]
    if not all(Path(path).exists() for path in recipe.needs):
        return ""
    try:
        done = subprocess.run(recipe.version, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = VERSION.search(done.stdout or done.stderr)
    return found[0] if done.returncode == 0 and found else ""


def installed() -> list[Language]:
    """The languages whose toolchain is on this host. Takes some 300 ms at the first call, nothing after it."""
    found = [(recipe, version_of(recipe.name)) for recipe in RECIPES]
    return [Language(recipe.name, version, recipe.aliases, recipe.kinds) for recipe, version in found if version]


def settings_folders() -> list[str]:
    """Folders outside /usr that toolchains read: a JVM's security settings, R's profile."""
    patterns = [pattern for recipe in RECIPES for pattern in recipe.settings]
    return sorted(str(path) for pattern in patterns for path in Path("/").glob(pattern.lstrip("/")))


def filled(command: tuple[str, ...], **words: str) -> tuple[str, ...]:
    """A command of the table with its words in place: {source}, {main}, {heap_mb}, {python}."""
    words["python"] = str(python_binary())
    for word, value in words.items():
        command = tuple(part.replace(f"{{{word}}}", value) for part in command)
    return command


def toolchain_digest(*parts: bytes) -> str:
    """What a cached result depends on besides its inputs: versions, the table, the environment and `parts`."""
    state = hashlib.sha256()
    with suppress(FileNotFoundError):
        state.update(Path(EXTRAS, "made-by").read_bytes())
    versions = (f"{recipe.name} {version_of(recipe.name)} {recipe}" for recipe in RECIPES)
    for text in (sys.version, *versions, *(f"{k}={v}" for k, v in sorted(ENVIRONMENT.items()))):
        state.update(text.encode() + b"\0")
    for part in parts:
        state.update(hashlib.sha256(part).digest())
    return f"sha256:{state.hexdigest()}"
