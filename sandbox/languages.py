"""The languages: names people use for them, where their toolchain is, how a program is compiled and started.

A toolchain lies in directories that are bound read-only into every jail. Python is the interpreter that this process's
own environment was made from (never the environment itself), started without `site` so that nothing of the host runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sandbox.errors import SandboxError, UnsupportedLanguage

ALIASES: dict[str, tuple[str, ...]] = {
    "python": ("python3", "py", "py3", "python-3"),
    "cpp": ("c++", "cc", "cxx", "g++", "c++17", "c++20", "cpp17", "cpp20"),
}
KINDS: dict[str, tuple[str, ...]] = {
    "python": ("assert", "function", "check", "stdio"),
    "cpp": ("stdio",),
}
CXX_FLAGS = ("-O2", "-std=gnu++17", "-pipe", "-w")
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

# What the warm interpreter has imported before any program asks: what most programs of the contests and benchmarks do.
LIGHT_MODULES = (
    "bisect", "cmath", "collections", "copy", "datetime", "functools", "heapq", "itertools", "json", "math",
    "operator", "random", "re", "string", "typing",
)  # fmt: skip
SCIENCE = re.compile(rb"^\s*(?:import|from)\s+(?:numpy|scipy|pandas|sklearn|sympy|networkx|matplotlib)\b", re.MULTILINE)


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
def cxx_binary() -> Path | None:
    path = Path("/usr/bin/g++")
    return path if path.exists() else None


@cache
def cxx_version() -> str:
    binary = cxx_binary()
    if binary is None:
        return ""
    done = subprocess.run([str(binary), "-dumpfullversion"], capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip()


def installed() -> list[Language]:
    """The languages whose toolchain is on this host. Cheap after the first call."""
    versions = {"python": sys.version.split()[0], "cpp": cxx_version()}
    return [Language(name, version, ALIASES[name], KINDS[name]) for name, version in versions.items() if version]


def compile_command() -> tuple[str, ...]:
    return (str(cxx_binary()), *CXX_FLAGS, "-o", "/tmp/main", "/tmp/main.cpp")


def toolchain_digest(*parts: bytes) -> str:
    """What a cached result depends on besides its inputs: versions, flags, environment and `parts`."""
    state = hashlib.sha256()
    for text in (sys.version, cxx_version(), *CXX_FLAGS, *(f"{k}={v}" for k, v in sorted(ENVIRONMENT.items()))):
        state.update(text.encode() + b"\0")
    for part in parts:
        state.update(hashlib.sha256(part).digest())
    return f"sha256:{state.hexdigest()}"
