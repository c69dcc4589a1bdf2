"""Which runner a suite is written for: test functions and classes that are only defined are run by pytest or unittest.

A text that runs its tests itself (`unittest.main()`, `pytest.main()`, a call of the test function) stays what it is.
"""

from __future__ import annotations

import ast
from functools import lru_cache

from sandbox.types import AssertSuite, CheckSuite, PytestSuite, ScriptSuite, Suite, UnittestSuite

MAX_TEXT = 1_000_000
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NAMESPACES = ("globals", "locals", "vars")  # through which a text may find and call its tests
RUNNERS = frozenset({"main", "run", "TextTestRunner", "run_module", "console_main", "testmod"})
RUN_CLASSES = (
    "\nimport unittest as _unittest\n"
    "for _case in ({names},):\n"
    "    _result = _unittest.TestResult()\n"
    "    _unittest.defaultTestLoader.loadTestsFromTestCase(_case).run(_result)\n"
    "    for _test, _text in _result.failures + _result.errors:\n"
    "        raise AssertionError(f'{{_test}}: {{_text[-1500:]}}')\n"
    "    for _test in _result.unexpectedSuccesses:\n"
    "        raise AssertionError(f'{{_test}}: it passes, and was expected to fail')\n"
)


@lru_cache(maxsize=128)
def parsed(text: str) -> ast.Module | None:
    if len(text) > MAX_TEXT:
        return None
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_case(node: ast.stmt) -> bool:
    """A class that unittest would run: it has test methods, and a base named like a TestCase, or unittest's own."""
    if not isinstance(node, ast.ClassDef):
        return False
    bases = {base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases}
    named = any(base.endswith(("TestCase", "AsyncioTestCase")) for base in bases)
    return named and (has_methods(node) or any(base not in ("TestCase", "IsolatedAsyncioTestCase") for base in bases))


def has_methods(node: ast.ClassDef) -> bool:
    return any(isinstance(one, FUNCTIONS) and one.name.startswith("test") for one in node.body)


def is_pytest_class(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and node.name.startswith("Test") and has_methods(node) and not is_case(node)


def is_test_function(node: ast.stmt) -> bool:
    """A function that pytest would collect; one that wants a candidate is something else's."""
    if not isinstance(node, FUNCTIONS) or any(argument.arg == "candidate" for argument in node.args.args):
        return False
    rest = node.name.removeprefix("test")
    return rest != node.name and (not rest or rest[0] in "_0123456789" or rest[0].isupper())


def has_tests(tree: ast.Module) -> bool:
    """Whether it defines tests and runs none of them itself."""
    return kind_of(tree) is not None


def kind_of(tree: ast.Module) -> type[PytestSuite | UnittestSuite] | None:
    """The runner that these definitions wait for; None if they are no tests, or are run by the text itself."""
    functions = [node for node in tree.body if is_test_function(node)]
    cases = [node for node in tree.body if is_case(node)]
    classes = [node for node in tree.body if is_pytest_class(node)]
    if not (functions or cases or classes):
        return None
    names = {node.name for node in (*functions, *cases, *classes) if isinstance(node, (*FUNCTIONS, ast.ClassDef))}
    if runs_itself([node for node in tree.body if node not in functions + cases + classes], names):
        return None
    return UnittestSuite if cases and not functions and not classes else PytestSuite


def runs_itself(body: list[ast.stmt], names: set[str]) -> bool:
    """Whether statements outside the tests call them, by name or through a runner."""
    for top in body:
        if isinstance(top, (*FUNCTIONS, ast.ClassDef)) and not any(
            isinstance(node, ast.Name) and node.id in names for node in ast.walk(top)
        ):
            continue
        for node in ast.walk(top):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
                return True
            if isinstance(node, ast.Attribute) and node.attr in RUNNERS and root_of(node) in ("unittest", "pytest"):
                return True
            if isinstance(node, ast.Name) and node.id in ("TextTestRunner", "TestLoader", "TestSuite"):
                return True
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMESPACES:
                return True
    return False


def root_of(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def recognised(suite: Suite, language: str) -> Suite:
    """The suite as the runner's own kind where it is written for one."""
    if language != "python":
        return suite
    if isinstance(suite, ScriptSuite):
        tree = parsed(suite.source)
        kind = None if tree is None else kind_of(tree)
        return suite if kind is None else kind(suite.source, prelude=suite.prelude)
    if isinstance(suite, CheckSuite):
        tree = parsed(suite.test)
        kind = None if tree is None or defines_check(tree) else kind_of(tree)
        return suite if kind is None else kind(suite.test, (), suite.entry_point, suite.prelude)
    return of_asserts(suite) if isinstance(suite, AssertSuite) else suite


def defines_check(tree: ast.Module) -> bool:
    return any(isinstance(node, FUNCTIONS) and node.name == "check" for node in tree.body)


@lru_cache(maxsize=64)
def of_asserts(suite: AssertSuite) -> Suite:
    """Entries that only define tests: all of them as one test file, or, among others, each with a call at its end."""
    trees = [parsed(text) for text in suite.asserts]
    if any(tree is None for tree in trees):
        return suite
    kinds = [None if tree is None else kind_of(tree) for tree in trees]
    if not any(kinds):
        return suite
    quiet = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.ClassDef, *FUNCTIONS)
    if all(
        kind is not None or all(isinstance(node, quiet) for node in tree.body)
        for kind, tree in zip(kinds, trees, strict=True)
        if tree is not None
    ):
        kind = UnittestSuite if all(kind in (None, UnittestSuite) for kind in kinds) else PytestSuite
        return kind("\n".join([suite.setup, *suite.asserts]), (), suite.entry_point, suite.prelude)
    entries = tuple(
        text if kind is None or tree is None else text + calls_of(tree)
        for text, kind, tree in zip(suite.asserts, kinds, trees, strict=True)
    )
    return AssertSuite(entries, suite.setup, suite.entry_point, suite.prelude)


def calls_of(tree: ast.Module) -> str:
    """Calls of the tests that a text defines, for a place where no runner runs."""
    functions = [node.name for node in tree.body if is_test_function(node) and isinstance(node, ast.FunctionDef)]
    waiting = [node.name for node in tree.body if is_test_function(node) and isinstance(node, ast.AsyncFunctionDef)]
    cases = [node.name for node in tree.body if is_case(node) and isinstance(node, ast.ClassDef)]
    classes = [node for node in tree.body if is_pytest_class(node) and isinstance(node, ast.ClassDef)]
    text = "".join(f"\n{name}()" for name in functions)
    text += "".join(f"\n__import__('asyncio').run({name}())" for name in waiting)
    for node in classes:
        text += "".join(
            f"\n{node.name}().{one.name}()"
            for one in node.body
            if isinstance(one, ast.FunctionDef) and one.name.startswith("test")
        )
    return text + (RUN_CLASSES.format(names=", ".join(cases)) if cases else "\n")
