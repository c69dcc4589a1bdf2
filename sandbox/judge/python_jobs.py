"""The jobs of Python programs: as a script, in a fresh interpreter, or as a module that answers calls."""

from __future__ import annotations

from dataclasses import replace

from sandbox import languages
from sandbox.harness import HARNESS
from sandbox.jail_job import JailJob
from sandbox.judge.prelude import parted
from sandbox.judge.request import JudgeRequest
from sandbox.limits import run_limits
from sandbox.types import Limits, Options

# Sets the hash seed, which an interpreter reads as it starts, and becomes the interpreter of the program.
SEEDED = "import os, sys; os.environ['PYTHONHASHSEED'] = sys.argv[1]; os.execv(sys.argv[2], sys.argv[2:])"


def script_job(source: bytes, limits: Limits, options: Options) -> JailJob:
    """A program that is run, as `python3 main.py` would run it."""
    name = "main" if options.run_main is False else "__main__"
    if options.fresh_interpreter:
        role = "audited_script" if options.audit else "script" if name == "main" else None
        return fresh_interpreter_job(role, source, limits, name, options.hash_seed)
    prelude, program = parted(source)
    return JailJob(
        role="audited_script" if options.audit else "script",
        name=name,
        argv=("/tmp/main.py",),
        limits=run_limits(limits),
        fds={},
        source=source,
        main=not prelude,
        files=(("/tmp/main.py", program),) if prelude else (),
        piped=True,
        jail_kind=languages.jail_kind_of(source),
    )


def fresh_interpreter_job(
    role: str | None, source: bytes, limits: Limits, name: str = "__main__", hash_seed: int | None = None
) -> JailJob:
    """A Python program in an interpreter started for it: in a role of the harness, or for None just `python3 main.py`.

    The latter includes all that this host's `site` does, which may take longer than the program.
    """
    python = str(languages.python_binary())
    prelude, program = parted(source)
    if prelude:
        role = role or "script"
    in_role = (python, "-S", f"{HARNESS}/fresh_interpreter.pyc", str(role), name, *languages.python_packages())
    argv = (python, "/tmp/main.py") if role is None else in_role
    if hash_seed is not None:
        argv = (python, "-SE", "-c", SEEDED, str(hash_seed), *argv)
    return JailJob(
        role="exec",
        argv=argv,
        limits=run_limits(limits),
        fds={},
        files=(("/tmp/main.py", program), *([("/tmp/.prelude", source)] if prelude else [])),
        piped=True,
    )


def serve_job(request: JudgeRequest, num_tests: int, wire: int) -> JailJob:
    """A program that is loaded as a module and answers calls over the descriptor `wire`."""
    source, limits, options = request.source, request.limits, request.options
    name = "__main__" if options.run_main else "main"
    if options.fresh_interpreter:
        role = "audited_serve" if options.audit else "serve"
        fresh = fresh_interpreter_job(role, source, limits, name, options.hash_seed)
        return replace(fresh, fds={3: wire}, num_budgets=num_tests + 1)
    prelude, program = parted(source)
    return JailJob(
        role="audited_serve" if options.audit else "serve",
        name=name,
        argv=("/tmp/main.py",),
        limits=run_limits(limits),
        fds={3: wire},
        source=source,
        main=not prelude,
        files=(("/tmp/main.py", program),) if prelude else (),
        jail_kind=languages.jail_kind_of(source),
        num_budgets=num_tests + 1,
    )
