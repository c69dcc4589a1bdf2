"""The languages of this host: which of the table (`language_specs.py`) are installed, and in which version.

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
from typing import Literal

from plaudit.languages import ALIASES, base
from sandbox.errors import SandboxError
from sandbox.language_specs import BY_NAME, EXTRAS, LANGUAGE_SPECS, ONLINE_JUDGE, VARIANTS, VERSION, LanguageSpec

KINDS = {name: spec.kinds for name, spec in BY_NAME.items()}
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
    ONLINE_JUDGE: "1",
}

# What `make toolchains` installs for programs (`.ci/science.txt`); interpreters that programs start find it, too.
SCIENCE_PACKAGES = Path(EXTRAS, f"python{sys.version_info.major}.{sys.version_info.minor}")
if SCIENCE_PACKAGES.is_dir():
    ENVIRONMENT |= {"PYTHONPATH": str(SCIENCE_PACKAGES), "MPLBACKEND": "agg"}

# What the warm interpreter has imported before any program asks: what most programs of the contests and benchmarks do.
LIGHT_MODULES = (
    "bisect",
    "cmath",
    "collections",
    "copy",
    "datetime",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "string",
    "typing",
)
# What some of them import and all would pay for: each megabyte in a warm interpreter costs a run 0.03 to 0.05 ms.
USUAL_MODULES = ("ast", "statistics")
WARM_MODULES = {  # beside them, by what a jail is for
    "usual": USUAL_MODULES,
    "science": (*USUAL_MODULES, "numpy"),
    "pytest": ("pytest", "unittest", "unittest.mock", "asyncio", "inspect", "_pytest.unittest", "_pytest.python"),
}
SCIENCE = re.compile(  # in time proportional to the text, for any text: no blank that could be a line's end
    rb"^[ \t]*(?:import|from)[ \t]+(?:numpy|scipy|pandas|sklearn|sympy|networkx|matplotlib)\b", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Language:
    """A language as this host can run it."""

    name: str
    version: str
    aliases: tuple[str, ...]
    kinds: tuple[str, ...]
    variants: dict[str, tuple[str, ...]]  # names that mean another standard, or another way to run, and their spellings


def python_binary() -> Path:
    """The real interpreter binary, past virtual environments and version managers."""
    binary = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    if not binary.is_file():
        raise SandboxError(f"the base interpreter {binary} is not there")
    return binary


def python_home() -> Path:
    return Path(os.path.realpath(sys.base_prefix))


def python_packages() -> tuple[str, ...]:
    """Third-party packages as programs will find them: those of `make toolchains`, then the base interpreter's own."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = (str(SCIENCE_PACKAGES),) if SCIENCE_PACKAGES.is_dir() else ()
    places = (
        python_home() / "lib" / version / "site-packages",
        Path("/usr/local/lib") / version / "dist-packages",
        Path("/usr/lib/python3/dist-packages"),
    )
    base_places = places[: 1 if python_home() != Path("/usr") else 3]
    return (*own, *(str(place) for place in base_places if place.is_dir()))


@cache
def has_numpy() -> bool:
    return any(Path(place, "numpy").is_dir() for place in python_packages())


def wants_numpy(source: bytes) -> bool:
    """Whether a program is better started where numpy is imported already. A hint: it runs in either place."""
    return b"import" in source and has_numpy() and SCIENCE.search(source) is not None


def jail_kind_of(source: bytes) -> Literal["light", "usual", "science"]:
    """Where a Python program is best started, by what it imports. A hint like `wants_numpy`."""
    if b"import" not in source:
        return "light"
    if wants_numpy(source):
        return "science"
    return "usual" if b"statistics" in source or b"import ast" in source else "light"


@cache
def version_of(name: str) -> str:
    """The version of a language's toolchain; empty where it is not installed."""
    spec = BY_NAME[name]
    if not spec.version:
        return sys.version.split()[0]
    if not all(Path(path).exists() for path in spec.needs):
        return ""
    try:
        done = subprocess.run(spec.version, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = VERSION.search(done.stdout or done.stderr)
    return match[0] if done.returncode == 0 and match else ""


def installed() -> list[Language]:
    """The languages whose toolchain is on this host. Takes some 300 ms at the first call, nothing after it."""
    versions = [(spec, version_of(spec.name)) for spec in LANGUAGE_SPECS]
    return [
        Language(spec.name, version, ALIASES[spec.name], spec.kinds, variants_of(spec))
        for spec, version in versions
        if version
    ]


def is_installed(language: str) -> bool:
    """Whether the toolchain of a canonical name is on this host."""
    return bool(version_of(base(language)))


def variants_of(spec: LanguageSpec) -> dict[str, tuple[str, ...]]:
    return {name: ALIASES[name] for name, variant in VARIANTS.items() if variant.name == spec.name}


def settings_folders() -> list[str]:
    """Folders outside /usr that toolchains read: a JVM's security settings, R's profile."""
    patterns = [pattern for spec in LANGUAGE_SPECS for pattern in spec.settings]
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
    for made_by in (Path(EXTRAS, "made-by"), SCIENCE_PACKAGES / "made-by"):
        with suppress(FileNotFoundError):
            state.update(made_by.read_bytes())
    state.update(Path(__file__).with_name("judge").joinpath("testlib.h").read_bytes())  # what C++ checkers include
    versions = (f"{spec.name} {version_of(spec.name)} {spec}" for spec in LANGUAGE_SPECS)
    for text in (sys.version, *versions, *(f"{k}={v}" for k, v in sorted(ENVIRONMENT.items()))):
        state.update(text.encode() + b"\0")
    for part in parts:
        state.update(hashlib.sha256(part).digest())
    return f"sha256:{state.hexdigest()}"
