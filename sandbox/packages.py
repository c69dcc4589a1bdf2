"""What programs can import on this host beside their language's standard library, and whether a module is missing.

Both are read from the folders that every jail sees and that a program's imports search. A module is missing only if
neither the standard library nor any of these folders has it.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

from sandbox.language_specs import EXTRAS
from sandbox.languages import python_home, python_packages

NODE_MODULES = Path(EXTRAS, "node_modules")


@cache
def packages(language: str) -> tuple[tuple[str, str], ...]:
    """Name and version of each package that programs of the language can import, sorted; those that are listed."""
    if language == "python":
        versions = {
            str(distribution.metadata["Name"]): distribution.version
            for distribution in importlib.metadata.distributions(path=[*reversed(python_packages())])
            if distribution.metadata["Name"]
        }
        return tuple(sorted(versions.items(), key=lambda pair: pair[0].lower()))
    if language in ("javascript", "typescript"):
        return node_packages()
    return ()


@cache
def node_packages() -> tuple[tuple[str, str], ...]:
    entries = []
    for file in sorted(NODE_MODULES.glob("*/package.json")):
        about = json.loads(file.read_text("utf-8"))
        entries.append((str(about["name"]), str(about["version"])))
    return tuple(entries)


@lru_cache(maxsize=1024)
def python_lacks(module: str) -> bool:
    """Whether no Python program of this host can import a top-level module, if it brings none of that name itself."""
    if module in sys.stdlib_module_names or module in sys.builtin_module_names:
        return False
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = python_home() / "lib" / version
    return PathFinder.find_spec(module, [str(library), str(library / "lib-dynload"), *python_packages()]) is None


@lru_cache(maxsize=1024)
def node_lacks(module: str) -> bool:
    return not (NODE_MODULES / module).exists()
