"""The harness: plaudit's own files inside a jail, compiled and copied once per sandbox.

- The package `sandbox.inside` and the codec of `sandbox.judge`, compiled; scripts lie beside them (`SCRIPTS`).
- pytest with what it imports, from the executor's own environment (`PYTEST_FOLDER`).
- `/etc/passwd` and `/etc/group` with the uids of the jail.

Programs can read only the last two.
"""

from __future__ import annotations

import hashlib
import py_compile
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from sandbox.errors import SandboxError

HARNESS = "/harness"  # where the zygote and the roles lie inside a jail
PYTEST_FOLDER = "lib"  # folder of the harness with pytest
PYTEST_PACKAGES = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments")
PYGMENTS = (  # the few files of it that pytest imports, of some 9 MB
    "*.py",
    "filters/*.py",
    "formatters/__init__.py",
    "formatters/_mapping.py",
    "formatters/terminal.py",
    "lexers/__init__.py",
    "lexers/_mapping.py",
    "lexers/diff.py",
    "lexers/python.py",
    "styles/__init__.py",
    "styles/_mapping.py",
)
SCRIPTS = ("zygote", "fresh_interpreter", "reaper")  # of `inside`, which are started by their paths
FROM_JUDGE = ("bounds", "codec", "codec_decode", "codec_wire", "pandas_codec")


def make_harness(folder: Path, uids: list[int]) -> None:
    """Fill the harness folder. `uids`: those that jailed processes run under."""
    folder.mkdir(mode=0o755, exist_ok=True)
    compile_package(folder)
    write_accounts(folder, uids)
    copy_pytest(folder / PYTEST_FOLDER)


def compile_package(folder: Path) -> None:
    """Compile `inside`, and what it needs of `judge`, as a package `sandbox` of its own; scripts lie beside it."""
    package = Path(__file__).parent
    inside, empty = package / "inside", package / "inside" / "__init__.py"
    sources = {f"sandbox/inside/{source.stem}": source for source in sorted(inside.glob("*.py"))}
    sources |= {f"sandbox/judge/{name}": package / "judge" / f"{name}.py" for name in FROM_JUDGE}
    sources |= {"sandbox/__init__": empty, "sandbox/judge/__init__": empty}
    sources |= {name: inside / f"{name}.py" for name in SCRIPTS}
    for room in ("sandbox", "sandbox/inside", "sandbox/judge"):
        (folder / room).mkdir(exist_ok=True)
        (folder / room).chmod(0o755)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for module, source in sources.items():
        target = folder / f"{module}.pyc"
        py_compile.compile(str(source), str(target), source.name, doraise=True, invalidation_mode=mode)
        target.chmod(0o644)


def write_accounts(folder: Path, uids: list[int]) -> None:
    """Entries for the uids of a jail: a program that asks for its user's name or home finds one."""
    accounts = {0: "root", **{uid: f"user{number or ''}" for number, uid in enumerate(uids) if uid}}
    passwd = "".join(f"{name}:x:{uid}:{uid}:{name}:/tmp:/bin/sh\n" for uid, name in accounts.items())
    for name, text in (
        ("passwd", passwd),
        ("group", "".join(f"{name}:x:{uid}:\n" for uid, name in accounts.items())),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)


def pytest_version() -> bytes:
    """The version of pytest that test files are run by; empty where there is none."""
    return version("pytest").encode() if find_spec("pytest") is not None else b""


def copy_pytest(folder: Path) -> None:
    """Copy pytest and what it imports from this environment. Without pytest there are no jails for test files."""
    if find_spec("pytest") is None:
        return
    for name in PYTEST_PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise SandboxError(f"pytest is installed without {name}, which it needs: install {name} as well")
        if spec.submodule_search_locations is None:  # a single file
            folder.mkdir(exist_ok=True)
            shutil.copy2(spec.origin, folder)
            continue
        source = Path(spec.origin).parent
        if name != "pygments":
            shutil.copytree(source, folder / name, dirs_exist_ok=True)
            continue
        for part in PYGMENTS:
            compiled = Path(part).parent / "__pycache__" / f"{Path(part).stem}.*.pyc"
            for file in [*source.glob(part), *source.glob(str(compiled))]:
                target = folder / name / file.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def code_digest() -> bytes:
    """A digest of every file of this package: each of them can change some verdict."""
    here, state = Path(__file__).parent, hashlib.sha256()
    for path in sorted(here.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            state.update(f"{path.relative_to(here)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return state.digest()
