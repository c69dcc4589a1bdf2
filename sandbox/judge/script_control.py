"""The control run of scripts: the test runs once with a program that answers nothing. Exit code 0: it checks nothing.

- Python: the program defines the names that the test asks for, and answers by the rules of `inside/control_run.py`.
- Other languages: the program is empty. A test that uses a name of its program fails; a test that only defines tests
  and does not run them passes. A compiled language is tried only if nothing in the test's text looks like an assertion.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
from collections.abc import Callable
from functools import lru_cache

from plaudit.grading import Verdict
from sandbox.errors import InvalidSuite
from sandbox.judge.assertion_analysis import bound, looks_at_raised, surely_asserts
from sandbox.judge.control_run import ControlResult, ControlResults
from sandbox.language_specs import BY_NAME
from sandbox.types import ScriptSuite, TestReport

ANSWERS = ("None", "True", "False", "987654321", "'plaudit control'", "[987654321, 'plaudit']")
QUICK = frozenset({"javascript", "ruby", "perl", "php", "lua", "bash"})  # start in some ten milliseconds
ASSERTION = re.compile(
    r"assert|expect|check|should|verif|fail|panic|abort|exit|throw|raise|error|die|require|\bis\b|equal|test|"
    r"return [1-9]",
    re.IGNORECASE,
)
NOTHING_LOOKED_AT = (
    "the script passes for a program that answers nothing; let it fail for a wrong answer, or call the tests that it "
    "defines, or set options.control to false"
)
PROGRAM = """
class _Refused(BaseException):
    pass


def _refuse(*args, **kwargs):
    raise _Refused("the test looks at the answer")


class _Answer:
    __slots__ = ()
    __getattribute__ = __setattr__ = __delattr__ = __call__ = _refuse


class _Named:
    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return {answer}

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return _Named()

    def __mro_entries__(self, bases):
        return (_Named,)


for _name in ("repr str bytes format lt le eq ne gt ge bool len getitem setitem delitem iter next reversed contains "
              "int float complex index abs neg pos invert round enter exit add radd sub rsub mul rmul truediv rtruediv "
              "floordiv rfloordiv mod rmod pow rpow and rand or ror xor rxor matmul rmatmul lshift rshift").split():
    setattr(_Answer, "__%s__" % _name, _refuse)
    setattr(_Named, "__%s__" % _name, _refuse)
_Answer.__hash__ = _refuse
"""
ECHO = """
class _Echo(_Named):
    truth, left = {truth}, 2000

    def echo(self, *args, **kwargs):
        for value in (*args, *kwargs.values()):
            if type(value) in (list, dict, set, bytearray):
                value.clear()
        _Echo.left -= 1
        if not _Echo.left:
            raise _Refused("the test goes on until the answer pleases it")
        return self

    def said(self, *args):
        self.echo()
        return self.truth

    __call__ = __enter__ = echo

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self.echo()


for _name in "lt le eq ne gt ge contains bool".split():
    setattr(_Echo, "__%s__" % _name, _Echo.said)
for _name in ("getitem abs neg pos invert round add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv "
              "mod rmod pow rpow and rand or ror xor rxor matmul rmatmul lshift rshift").split():
    setattr(_Echo, "__%s__" % _name, _Echo.echo)
for _name, _said in [("len", 2), ("int", 2), ("index", 2), ("float", 2.0), ("hash", 2), ("repr", "plaudit"),
                     ("str", "plaudit"), ("format", "plaudit"), ("exit", False), ("setitem", None)]:
    setattr(_Echo, "__%s__" % _name, lambda self, *args, _said=_said: _said)


def _end(self, *args):
    raise StopIteration(self.echo())


_Echo.send = _Echo.__next__ = _end
__import__("collections.abc").abc.Coroutine.register(_Echo)
_Echo.__iter__ = _Echo.__reversed__ = lambda self: iter([self, self])
"""


@lru_cache(maxsize=128)
def asked_names(source: str) -> tuple[str, ...]:
    """The names that a Python test uses and does not define: those of the program."""
    tree = ast.parse(source)
    defined = bound(tree.body) | {child.arg for child in ast.walk(tree) if isinstance(child, ast.arg)}
    used = {child.id for child in ast.walk(tree) if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load)}
    imported = {
        alias.name
        for child in ast.walk(tree)
        if isinstance(child, ast.ImportFrom) and child.module in ("program", "main", "solution")
        for alias in child.names
    }
    handled = {child.name for child in ast.walk(tree) if isinstance(child, ast.ExceptHandler) and child.name}
    names = (used - defined - handled) | imported
    return tuple(sorted(name for name in names if name.isidentifier() and not hasattr(builtins, name)))


def control_programs(suite: ScriptSuite, language: str) -> list[str]:
    """The programs to try, in order; the script is vacuous if all pass. None if there is nothing to try."""
    if language == "python":
        try:
            names = asked_names(suite.source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []
        if looks_at_raised(suite.source, ""):
            return []
        named = "".join(f"{name} = _Named()\n" for name in names)
        answers = [PROGRAM.replace("{answer}", answer) + named for answer in ANSWERS]
        echoes = "".join(f"{name} = _Echo()\n" for name in names)
        whole = PROGRAM.replace("{answer}", "None") + ECHO
        answers = [*(whole.replace("{truth}", truth) + echoes for truth in ("False", "True")), *answers]
        if surely_asserts(suite.source, ""):
            answers.insert(0, PROGRAM.replace("{answer}", "_Answer()") + named)
        return answers
    if language in QUICK or not (BY_NAME[language].compile and ASSERTION.search(suite.source)):
        return [""]
    return []


def check_script(
    results: ControlResults, suite: ScriptSuite, language: str, run: Callable[[str], TestReport | None]
) -> None:
    """Raises InvalidSuite for a script that passes for every control program. `run` gives one a report."""
    key = hashlib.sha256(repr((language, suite)).encode("utf-8", "surrogatepass")).hexdigest()
    control = results.get(key)
    if control is None:
        programs = control_programs(suite, language)
        vacuous = bool(programs)
        for program in programs:
            report = run(program)
            if report is None or report.verdict is not Verdict.PASSED:
                vacuous = False
                break
        control = ControlResult(invalid=NOTHING_LOOKED_AT if vacuous else "")
        results.put(key, control)
    if control.invalid:
        raise InvalidSuite(control.invalid)
