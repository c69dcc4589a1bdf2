"""What is refused before any work: too many, too big, unknown. Each error names the field, the value and the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plaudit.errors import BrokerUnavailable, Invalid, InvalidTests, NotFound, NoWorker, TooLarge
from plaudit.languages import UnsupportedLanguage, resolve
from plaudit.schemas import (
    ExecuteRequest,
    InlineTests,
    LimitsSpec,
    ModelInfo,
    RefTests,
    RewardRequest,
    ScoreRequest,
    StdioTests,
    Tests,
)
from sandbox.errors import InvalidSuite
from sandbox.judge.stdio_cases import check_cases
from sandbox.judge.suite_checks import suite_flaw
from sandbox.limits import MAX_FILES, MAX_FILES_BYTES
from sandbox.types import Limits, StdioSuite
from service import metrics
from service.api.dispatch.fleet import Fleet
from service.api.handlers.execute import to_suite
from service.api.handlers.run import Order
from service.settings import Settings


def _at_most(field: str, value: float, limit: float, setting: str) -> None:
    if value > limit:
        metrics.rejected.labels("too_large").inc()
        raise TooLarge(f"{field}: {value:g} is more than {limit:g} ({setting})")


@dataclass(frozen=True, slots=True)
class Door:
    settings: Settings
    fleet: Fleet

    def check_score(self, request: ScoreRequest) -> None:
        self._counts([item.completions for item in request.items], "completions")

    def check_execute(self, request: ExecuteRequest) -> None:
        self._counts([item.programs for item in request.items], "programs")
        for at, item in enumerate(request.items):
            self._code(f"items.{at}.programs", item.programs)
            self._limits(f"items.{at}.limits", item.limits)
            self.check_tests(f"items.{at}.tests", item.tests, item.language, limits=item.limits)

    def check_orders(self, orders: Sequence[Order]) -> None:
        _at_most("programs", len(orders), self.settings.max_completions, "max_completions")
        self._code("programs", [order.source for order in orders])
        for at, order in enumerate(orders):
            self._limits(f"programs.{at}.limits", order.limits)
            size = len(order.stdin.encode()) + sum(len(content) for _, content in order.files)
            size += sum(len(argument.encode()) for argument in order.args)
            _at_most(f"programs.{at}: stdin, args and files", size, self.settings.max_stdin_bytes, "max_stdin_bytes")

    def check_reward(self, request: RewardRequest) -> None:
        self._counts([item.completions for item in request.items], "completions")
        for at, item in enumerate(request.items):
            self._limits(f"items.{at}.limits", item.limits)
            if item.tests is not None:
                self._code(f"items.{at}.completions", item.completions)
                self.check_tests(f"items.{at}.tests", item.tests, item.language, limits=item.limits)

    def check_tests(self, field: str, tests: Tests, language: str = "", *, limits: LimitsSpec | None = None) -> None:
        """Raises TooLarge, and InvalidTests for what can assert nothing under any program."""
        if isinstance(tests, RefTests):
            return
        _at_most(field, num_tests(tests), self.settings.max_tests, "max_tests")
        if isinstance(tests, StdioTests):
            self._stdio(field, tests, limits)
        elif (flaw := suite_flaw(to_suite(tests), canonical(language))) is not None:
            raise InvalidTests(f"{field}.{flaw}")

    def _stdio(self, field: str, tests: StdioTests, limits: LimitsSpec | None) -> None:
        most = self.settings.max_stdin_bytes
        for at, case in enumerate(tests.cases):
            _at_most(f"{field}.cases.{at}.stdin", len(case.stdin.encode()), most, "max_stdin_bytes")
            if case.files:
                _at_most(f"{field}.cases.{at}.files", len(case.files), MAX_FILES, "files of a case")
                size = sum(map(len, case.files.values()))
                _at_most(f"{field}.cases.{at}.files: bytes", size, min(most, MAX_FILES_BYTES), "max_stdin_bytes")
        for name, helper in (("checker", tests.checker), ("interactor", tests.interactor)):
            if helper is not None:
                size = len(helper.source.encode())
                _at_most(f"{field}.{name}.source", size, self.settings.max_code_bytes, "max_code_bytes")
                try:
                    resolve(helper.language)
                except UnsupportedLanguage as error:
                    raise Invalid(f"{field}.{name}.language: {error}") from None
        suite = to_suite(tests)
        assert isinstance(suite, StdioSuite)
        try:  # a stored suite is for any limits: what is too long for some of them is found when they are known
            check_cases(suite, Limits(output_kb=self.settings.max_output_kb if limits is None else limits.output_kb))
        except InvalidSuite as error:
            raise InvalidTests(f"{field}.{error}") from None

    def model(self, name: str) -> ModelInfo:
        """The model as its live workers announce it. Raises NotFound, NoWorker or BrokerUnavailable."""
        self._broker()
        models = self.fleet.models
        if name in models:
            return models[name]
        if name in self.fleet.active:
            raise NoWorker(f"no scoring worker that serves {name!r} is alive", retry_after_s=2.0)
        if self.fleet.of_kind("score"):
            raise NotFound(f"model {name!r} is not served here; there are {', '.join(sorted(models))}")
        raise NoWorker("no scoring worker is alive", retry_after_s=2.0)

    def executors(self) -> None:
        """Raises NoWorker or BrokerUnavailable where nothing could run a program."""
        self._broker()
        if not self.fleet.of_kind("execute"):
            raise NoWorker("no executing worker is alive", retry_after_s=2.0)
        if self.fleet.isolation == "none" and not self.settings.loopback:
            raise NoWorker(
                "the executors run programs without walls (isolation none), which is for loopback only, and "
                f"this API listens on {self.settings.host}",
                retry_after_s=60.0,
            )

    def _broker(self) -> None:
        if not self.fleet.broker:
            raise BrokerUnavailable("the queue does not answer", retry_after_s=1.0)

    def _counts(self, groups: Sequence[Sequence[str]], name: str) -> None:
        settings = self.settings
        _at_most("items", len(groups), settings.max_items, "max_items")
        for at, group in enumerate(groups):
            _at_most(f"items.{at}.{name}", len(group), settings.max_completions, "max_completions")
        total = sum(map(len, groups))
        _at_most(f"items.*.{name}", total, settings.max_total_completions, "max_total_completions")

    def _code(self, field: str, programs: Sequence[str]) -> None:
        for at, program in enumerate(programs):
            _at_most(f"{field}.{at}", len(program.encode()), self.settings.max_code_bytes, "max_code_bytes")

    def _limits(self, field: str, limits: LimitsSpec) -> None:
        for name in ("cpu_s", "wall_s", "memory_mb", "output_kb", "processes"):
            value, ceiling = getattr(limits, name), getattr(self.settings, f"max_{name}")
            if value is not None and value > ceiling:
                raise Invalid(f"{field}.{name}: {value:g} is more than {ceiling:g} (max_{name})")


def canonical(language: str) -> str:
    """A language's canonical name; empty for one that nobody knows, which is told elsewhere."""
    try:
        return resolve(language) if language else ""
    except UnsupportedLanguage:
        return ""


def num_tests(tests: InlineTests) -> int:
    """How many tests a suite counts as, in the words of a request."""
    if hasattr(tests, "asserts"):
        return len(tests.asserts)
    return len(tests.cases) if hasattr(tests, "cases") else 1
