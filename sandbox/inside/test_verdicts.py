"""From an exception of a test to its verdict."""

from __future__ import annotations

import functools
import sys

from sandbox.inside import test_runners
from sandbox.inside.control_run import ControlEndpoint, ControlRefusal
from sandbox.inside.framing import BeyondValues, Lost, Unsplittable, attempt
from sandbox.inside.program_modules import PROGRAM_MODULES, ProgramModule
from sandbox.judge import bounds, codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Unusable(Exception):
    """The tests themselves cannot be used, whatever the program does."""


def imports(texts: list[str]) -> set[str]:
    """The modules that the tests name in import statements: whether those are here no program can decide."""
    import ast

    modules: set[str] = set()
    for text in texts:
        tree, _ = attempt(functools.partial(ast.parse, text))
        for node in ast.walk(tree or ast.Module([], [])):
            if isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module)
    return modules | {name.partition(".")[0] for name in modules}


def judge(endpoint: Any, text: str, work: Any, texts: list[str]) -> tuple[str, str]:
    """Do `work` and put what comes of it into a verdict and a reason, which is cut here."""
    if endpoint.state is not None:
        endpoint.state.problems.clear()
    _, error = attempt(work)
    if endpoint.broken is not None:  # whatever the test made of it
        return ("lost" if isinstance(endpoint.broken, Lost) else "invalid_result"), bounds.text(str(endpoint.broken))
    if error is None and endpoint.failed_assertion is not None:
        error = endpoint.failed_assertion  # raised in a function of the tests that the program called
    if error is None:
        return "passed", ""
    if isinstance(error, ControlRefusal):
        return "refused", bounds.text(str(error))
    if isinstance(error, (Unsplittable, BeyondValues)) and not endpoint.is_remote_error(error):
        return "invalid_result", bounds.text(str(error))
    if isinstance(error, test_runners.Skipped):
        return "skipped", bounds.text(str(error))
    if endpoint.state is not None and endpoint.state.problems:
        unseen = bounds.text("; ".join(endpoint.state.problems))
        return "invalid_result", f"the test did not see all that the program did: {unseen}"
    printed = bounds.text(attempt(lambda: str(error))[0] or "", bounds.MAX_ERROR)
    reason = f"{bounds.text(type(error).__name__, bounds.MAX_NAME)}: {printed}"
    if isinstance(error, codec.CodecError):
        return "invalid_result", bounds.text(printed)
    if endpoint.is_remote_error(error):
        if isinstance(error, SystemExit):
            return "no_result", "the program exits instead of answering"
        return ("memory_limit" if isinstance(error, MemoryError) else "runtime_error"), reason
    if isinstance(error, ImportError):
        if error.name in PROGRAM_MODULES and isinstance(sys.modules.get(error.name), ProgramModule):
            return "runtime_error", reason
        absent = isinstance(error, ModuleNotFoundError) or printed.startswith("cannot import name")
        fault = isinstance(endpoint, ControlEndpoint) or (absent and error.name in imports(texts))
        return ("invalid" if fault else "invalid_result"), reason
    if isinstance(error, Unusable):
        return ("invalid" if isinstance(endpoint, ControlEndpoint) else "invalid_result"), reason
    if isinstance(error, AssertionError):
        return "wrong_answer", (printed or text.strip())[: bounds.MAX_REASON]
    if isinstance(error, NameError):
        return "runtime_error", reason
    return "wrong_answer", f"the test stumbles over the answer: {reason}"


def not_loaded(hello: dict[str, Any]) -> list[str]:
    """The verdict on a program that fails before it has been asked anything."""
    described = hello["error"] if type(hello["error"]) is dict else {}
    name = bounds.text(described.get("name"), bounds.MAX_NAME)
    reason = f"{name}: {bounds.text(described.get('message'), bounds.MAX_ERROR)}"
    if hello.get("parsed") is False:
        return ["compile_error", reason]
    return ["memory_limit" if described.get("base") == "MemoryError" else "runtime_error", reason]
