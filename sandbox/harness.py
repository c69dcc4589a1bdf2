"""The harness: the files of ours that lie in a jail, compiled and copied once for each sandbox.

- Modules of `sandbox/inside`, and the codec of `sandbox/judge`, as flat modules (`HARNESS_FILES`).
- pytest with what it imports, from the executor's own environment (`PYTEST_FOLDER`).
- `/etc/passwd` and `/etc/group` with the uids of the jail.

Programs cannot read any of it but the last two.
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
HARNESS_FILES = {
    "zygote": "inside/zygote.py",
    "no_namespace": "inside/no_namespace.py",
    "reaper": "inside/reaper.py",
    "landlock": "inside/landlock.py",
    "candidate": "inside/candidate.py",
    "interpreter_exit": "inside/interpreter_exit.py",
    "exit_marks": "inside/exit_marks.py",
    "fresh_interpreter": "inside/fresh_interpreter.py",
    "audit": "inside/audit.py",
    "tests": "inside/tests.py",
    "test_runners": "inside/test_runners.py",
    "control_run": "inside/control_run.py",
    "in_process": "inside/in_process.py",
    "async_bridge": "inside/async_bridge.py",
    "rpc": "inside/rpc.py",
    "proxy": "inside/proxy.py",
    "class_mirrors": "inside/class_mirrors.py",
    "operations": "inside/operations.py",
    "shared_containers": "inside/shared_containers.py",
    "name_resolution": "inside/name_resolution.py",
    "framing": "inside/framing.py",
    "shared_state": "inside/shared_state.py",
    "program_environment": "inside/program_environment.py",
    "argument_forms": "inside/argument_forms.py",
    "shared_folder": "inside/shared_folder.py",
    "file_guard": "inside/file_guard.py",
    "mocks": "inside/mocks.py",
    "codec": "judge/codec.py",
    "codec_wire": "judge/codec_wire.py",
    "codec_decode": "judge/codec_decode.py",
    "bounds": "judge/bounds.py",
    "pandas_codec": "judge/pandas_codec.py",
}


def make_harness(folder: Path, uids: list[int]) -> None:
    """Fill the harness folder. `uids`: those that jailed processes run under."""
    folder.mkdir(mode=0o755, exist_ok=True)
    for module, source in HARNESS_FILES.items():
        target = folder / f"{module}.pyc"
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        text = Path(__file__).parent / source
        py_compile.compile(str(text), str(target), f"{module}.py", doraise=True, invalidation_mode=mode)
        target.chmod(0o644)
    write_accounts(folder, uids)
    copy_pytest(folder / PYTEST_FOLDER)


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
    """pytest and what it imports, from our own environment; without pytest there are no jails for test files."""
    if find_spec("pytest") is None:
        return
    for name in PYTEST_PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise SandboxError(f"pytest is installed, and {name}, which it needs, is not")
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
