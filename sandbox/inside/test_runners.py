"""Test files in the test process: unmodified pytest and unittest, driven one test at a time by the host.

- The file's text runs in the tests' own namespace, where a name that the tests do not define is asked of the program.
  Then the runner collects it as it would collect a module.
- The host names each test to run. The runner's fixtures are kept between two tests, as in a run of all of them.
- Coroutines are run to their end here, without a plugin.
"""

from __future__ import annotations

import os
import sys

from sandbox.inside.control_run import ControlName
from sandbox.inside.framing import attempt
from sandbox.inside.proxy import is_mirror, is_proxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = ("pytest", "unittest")
FILE = "test_suite.py"
MODULE = "test_suite"
OPTIONS = (
    "-q",
    "-s",
    "--tb=native",
    "--no-header",
    "--no-summary",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:faulthandler",
    "-p",
    "no:junitxml",
    "-p",
    "no:pastebin",
    "-p",
    "no:doctest",
    "-p",
    "no:stepwise",
    "-W",
    "ignore",
)
AWAITED = ("coroutine", "async_generator")


class Skipped(BaseException):
    """The suite skips this test."""


class Uncollected(Exception):
    """The runner failed before any test ran; the message is what it reported."""


def of_program(value: Any) -> bool:
    """Whether an object stands for one of the program's, which a runner must not collect."""
    return isinstance(value, ControlName) or is_proxy(value) or (isinstance(value, type) and is_mirror(value))


def make_module(namespace: Any) -> Any:
    """A module with the names of `namespace`. The runner does not see names that only the program has."""

    class TestModule(type(sys)):  # type: ignore[misc]
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            return {name: value for name, value in namespace.items() if not of_program(value)}

        def __getattr__(self, name: str) -> Any:
            if dict.__contains__(namespace, name):
                return dict.__getitem__(namespace, name)
            raise AttributeError(f"module {MODULE!r} has no attribute {name!r}")

        def __setattr__(self, name: str, value: Any) -> None:
            namespace[name] = value

        def __delattr__(self, name: str) -> None:
            if dict.pop(namespace, name, self) is self:
                raise AttributeError(name)

    return TestModule(MODULE)


class OwnFiles:
    """Finds the modules among a suite's files, as they were before the program wrote anything."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.texts: dict[str, bytes] = {}
        for folder, _, names in os.walk(root):
            for name in names:
                if name.endswith(".py") and name != FILE:
                    with open(f"{folder}/{name}", "rb") as file:
                        self.texts[f"{folder}/{name}"[len(root) + 1 : -3]] = file.read()
        self.folders = {name[:at] for name in self.texts for at in range(len(name)) if name[at] == "/"}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        place = name.replace(".", "/")
        inits = f"{place}/__init__" in self.texts
        if not (inits or place in self.texts or place in self.folders):
            return None
        from importlib.machinery import ModuleSpec

        is_package = inits or place not in self.texts
        location = f"{place}/__init__" if inits else place
        spec = ModuleSpec(name, OwnFile(self.texts.get(location, b""), location), is_package=is_package)  # type: ignore[arg-type]
        if location in self.texts:
            spec.origin, spec.has_location = f"{self.root}/{location}.py", True
        if is_package:
            spec.submodule_search_locations = [f"{self.root}/{place}"]
        return spec


class OwnFile:
    """Loads a module of a suite's files."""

    def __init__(self, text: bytes, place: str) -> None:
        self.text, self.place = text, place

    def create_module(self, spec: Any) -> None:
        """As usual."""

    def exec_module(self, module: Any) -> None:
        exec(compile(self.text, f"<{self.place}.py>", "exec", dont_inherit=True), module.__dict__)


class ModuleTests:
    """A test file: compiled, run once as a module, then collected by its runner."""

    def __init__(self, plan: dict[str, Any], endpoint: Any, namespace: Any) -> None:
        self.endpoint = endpoint
        self.kind: str = plan["kind"]
        self.source: str = plan["tests"][0]
        self.entry_point: str = plan["entry_point"]
        self.path = f"{os.getcwd()}/{FILE}"
        self.namespace = namespace
        self.namespace["__file__"] = self.path
        self.lost = False  # whether the runner's state is lost: another process has to go on
        self.code = compile(self.source, self.path, "exec", dont_inherit=True)
        self.module = make_module(namespace)
        sys.modules[MODULE] = self.module
        sys.path.insert(0, os.getcwd())
        if len(os.listdir(os.getcwd())) > 1:
            sys.meta_path.insert(0, OwnFiles(os.getcwd()))

    def prepare(self) -> None:
        if self.entry_point:
            self.endpoint.request("get", name=self.entry_point)
        if self.kind == "pytest":
            prepare_pytest()
        exec(self.code, self.namespace)

    def serve(self, serve: Any, judged: Any) -> None:
        run = serve_pytest if self.kind == "pytest" else serve_unittest

        def whole(number: int, text: str, work: Any) -> Any:
            return judged(number, text, lambda: self.watch(work))

        run(self.module, self.path, self.source, serve, whole)

    def watch(self, work: Any) -> None:
        """Do `work`. If an exception ends the runner itself, as a KeyboardInterrupt does, its state is lost."""
        _, error = attempt(work)
        if error is not None:
            self.lost = isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Exit"
            raise error


def prepare_pytest() -> None:
    """Provide the modules of common pytest plugins, with decorators that pytest itself has."""
    pytest = __import__("pytest")
    if "pytest_asyncio" not in sys.modules:
        module = type(sys)("pytest_asyncio")
        module.fixture = pytest.fixture  # type: ignore[attr-defined]
        sys.modules["pytest_asyncio"] = module


def place_of(error: BaseException, path: str, source: str) -> str:
    """The line of the tests that an exception came through last, as text."""
    number, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            number = trace.tb_lineno
        trace = trace.tb_next
    lines = source.splitlines()
    return f"line {number}: {lines[number - 1].strip()}" if 0 < number <= len(lines) else ""


def plain(error: BaseException, path: str, source: str) -> BaseException:
    """pytest's own outcomes as plain exceptions; an assert with its line."""
    outcomes = sys.modules.get("_pytest.outcomes")
    if outcomes is not None and isinstance(error, outcomes.OutcomeException):
        if isinstance(error, outcomes.Skipped):
            return Skipped(str(error))
        return AssertionError(f"{place_of(error, path, source)}: {error}")
    if type(error) is AssertionError and not error.args:
        return AssertionError(place_of(error, path, source))
    return error


def serve_unittest(module: Any, path: str, source: str, serve: Any, judged: Any) -> None:
    import unittest

    class Result(unittest.TestResult):
        def __init__(self) -> None:
            super().__init__()
            self._testRunEntered = True  # fixtures of classes and modules last from one test to the next
            self.began = False
            self.raised: list[BaseException] = []
            self.fixture: BaseException | None = None

        def startTest(self, test: Any) -> None:
            self.began = True
            super().startTest(test)

        def addError(self, test: Any, err: Any) -> None:
            self.raised.append(err[1])
            if not isinstance(test, unittest.TestCase):
                self.fixture = err[1]

        def addFailure(self, test: Any, err: Any) -> None:
            self.raised.append(err[1])

        def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
            if err is not None:
                self.raised.append(err[1])

        def addSkip(self, test: Any, reason: str) -> None:
            self.began = True
            self.raised.append(Skipped(reason))

        def addExpectedFailure(self, test: Any, err: Any) -> None:
            """As it was expected."""

        def addUnexpectedSuccess(self, test: Any) -> None:
            self.raised.append(AssertionError("it passes, and was expected to fail"))

    def flat(suite: Any) -> list[Any]:
        return [case for part in suite for case in (flat(part) if isinstance(part, unittest.TestSuite) else [part])]

    tests = flat(unittest.TestLoader().loadTestsFromModule(module))
    result = Result()

    def run(number: int) -> None:
        result.began, result.raised = False, []
        unittest.TestSuite([tests[number]]).run(result)
        errors = [error for error in result.raised if not isinstance(error, Skipped)] or result.raised
        if not result.began and not errors:
            errors = [result.fixture or AssertionError("the fixture of its class failed")]
        if errors:
            raise plain(errors[0], path, source)

    names = [test.id().removeprefix(f"{MODULE}.") for test in tests]
    skips = [number for number, test in enumerate(tests) if is_skipped(test)]
    serve(names, skips, lambda number: judged(number, "", lambda: run(number)))


def is_skipped(test: Any) -> bool:
    """Whether a decorator skips a test of unittest."""
    method = getattr(test, getattr(test, "_testMethodName", ""), None)
    return bool(getattr(type(test), "__unittest_skip__", False) or getattr(method, "__unittest_skip__", False))


def serve_pytest(module: Any, path: str, source: str, serve: Any, judged: Any) -> None:
    import pytest

    class Driver:
        """A plugin that gives pytest our module, and runs the tests that the host names."""

        def __init__(self) -> None:
            self.raised: list[BaseException] = []
            self.skipped = ""
            self.problems: list[str] = []
            self.loop: Any = None

        @pytest.hookimpl(tryfirst=True)
        def pytest_pycollect_makemodule(self, module_path: Any, parent: Any) -> Any:
            class File(pytest.Module):
                def _getobj(self) -> Any:
                    return module

            return File.from_parent(parent, path=module_path) if str(module_path) == path else None

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                self.problems.append(str(report.longrepr))

        def pytest_runtestloop(self, session: Any) -> bool:
            if self.problems:
                raise Uncollected(self.problems[0][-1000:])
            items = session.items
            names = [item.nodeid.partition("::")[2] for item in items]
            skips = [number for number, item in enumerate(items) if item.get_closest_marker("skip") is not None]
            serve(names, skips, lambda number: judged(number, "", lambda: self.run(items, number)))
            return True

        def run(self, items: list[Any], number: int) -> None:
            self.raised, self.skipped = [], ""
            item = items[number]
            following = items[number + 1] if number + 1 < len(items) else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.raised:
                raise plain(self.raised[0], path, source)
            if self.skipped:
                raise Skipped(self.skipped)

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
            report = yield
            if report.outcome == "failed":
                raised = call.excinfo.value if call.excinfo is not None else AssertionError(str(report.longrepr))
                self.raised.append(raised)
            elif report.outcome == "skipped" and (
                not hasattr(report, "wasxfail") or isinstance(call.excinfo.value, pytest.xfail.Exception)
            ):  # `pytest.xfail()`, called for what was answered, is a way to skip
                self.skipped = str(call.excinfo.value) if call.excinfo is not None else "skipped"
                self.skipped = self.skipped or "skipped"
            return report

        def complete(self, awaitable: Any) -> Any:
            import asyncio

            if self.loop is None:
                self.loop = asyncio.new_event_loop()
                asyncio.set_event_loop(self.loop)
            return self.loop.run_until_complete(awaitable)

        @pytest.hookimpl(tryfirst=True)
        def pytest_pyfunc_call(self, pyfuncitem: Any) -> Any:
            import inspect

            function = pyfuncitem.obj
            if not inspect.iscoroutinefunction(function):
                return None
            names = pyfuncitem._fixtureinfo.argnames
            self.complete(function(**{name: pyfuncitem.funcargs[name] for name in names}))
            return True

        @pytest.hookimpl(wrapper=True)
        def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
            import inspect

            function = fixturedef.func
            if inspect.isasyncgenfunction(function):

                def from_generator(*args: Any, **kwargs: Any) -> Any:
                    generator = function(*args, **kwargs)
                    yield self.complete(generator.__anext__())
                    _, end = attempt(lambda: self.complete(generator.__anext__()))
                    if not isinstance(end, StopAsyncIteration):
                        raise end or AssertionError("the fixture yields more than once")

                object.__setattr__(fixturedef, "func", from_generator)
            elif inspect.iscoroutinefunction(function):
                object.__setattr__(fixturedef, "func", lambda *a, **k: self.complete(function(*a, **k)))
            return (yield)

    driver = Driver()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    code = pytest.main([*OPTIONS, f"--rootdir={os.getcwd()}", path], plugins=[driver])
    raise Uncollected(driver.problems[0][-1000:] if driver.problems else f"pytest ends with {code!s}")
