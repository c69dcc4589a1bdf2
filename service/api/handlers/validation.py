"""What is rejected before any work: too many, too large, unknown. An error names the field, the value and the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from plaudit.errors import Invalid, InvalidTests, TooLarge
from plaudit.languages import UnsupportedLanguage, resolve
from plaudit.schemas import (
    AuditRequest,
    ExecuteRequest,
    LimitsSpec,
    Prompt,
    PytestTests,
    RefTests,
    RewardItem,
    RewardRequest,
    ScoreItem,
    ScoreRequest,
    StdioTests,
    Tests,
    UnittestTests,
)
from sandbox.errors import InvalidSuite
from sandbox.judge.stdio_cases import check_cases
from sandbox.judge.suite_checks import suite_flaw
from sandbox.limits import MAX_FILES, MAX_FILES_BYTES
from sandbox.types import Limits, StdioSuite
from service import metrics
from service.api.handlers.run import RunRequest
from service.jobs import num_tests
from service.judging import to_suite
from service.settings import Settings


def _at_most(field: str, value: float, limit: float, setting: str) -> None:
    if value > limit:
        metrics.rejected.labels("too_large").inc()
        raise TooLarge(f"{field}: {value:g} is more than {limit:g} ({setting})")


@dataclass(frozen=True, slots=True)
class RequestValidator:
    """Checks requests against the settings' bounds. Its methods raise TooLarge, Invalid or InvalidTests."""

    settings: Settings

    def check_score(self, request: ScoreRequest) -> None:
        self._check_counts([item.num_scores for item in request.items], "completions")
        self._check_texts(request.items)

    def check_execute(self, request: ExecuteRequest) -> None:
        self._check_counts([len(item.programs) for item in request.items], "programs")
        for index, item in enumerate(request.items):
            self._check_code(f"items.{index}.programs", item.programs)
            self._check_limits(f"items.{index}.limits", item.limits)
            self.check_tests(f"items.{index}.tests", item.tests, item.language, limits=item.limits)

    def check_audit(self, request: AuditRequest) -> None:
        """Check all but the suites: one that can assert nothing is a finding."""
        references = [[] if item.reference is None else [item.reference] for item in request.items]
        given = [[program.source for program in item.programs] for item in request.items]
        self._check_counts(list(map(len, given)), "programs")
        for index, item in enumerate(request.items):
            self._check_code(f"items.{index}.reference", references[index])
            self._check_code(f"items.{index}.programs", given[index])
            self._check_limits(f"items.{index}.limits", item.limits)
            num_bytes, limit = len(item.prompt.encode()), self.settings.max_text_bytes
            _at_most(f"items.{index}.prompt", num_bytes, limit, "max_text_bytes")

    def check_runs(self, run_requests: Sequence[RunRequest]) -> None:
        settings = self.settings
        _at_most("programs", len(run_requests), settings.max_completions, "max_completions")
        self._check_code("programs", [run_request.source for run_request in run_requests])
        for index, run_request in enumerate(run_requests):
            self._check_limits(f"programs.{index}.limits", run_request.limits)
            num_bytes = len(run_request.stdin.encode()) + sum(len(content) for _, content in run_request.files)
            num_bytes += sum(len(argument.encode()) for argument in run_request.args)
            _at_most(f"programs.{index}: stdin, args and files", num_bytes, settings.max_stdin_bytes, "max_stdin_bytes")

    def check_reward(self, request: RewardRequest) -> None:
        self._check_counts([len(item.completions) for item in request.items], "completions")
        self._check_texts(request.items)
        for index, item in enumerate(request.items):
            self._check_limits(f"items.{index}.limits", item.limits)
            if item.tests is not None or request.spec_of(index).observes:
                self._check_code(f"items.{index}.completions", item.completions)
            if item.tests is not None:
                self.check_tests(f"items.{index}.tests", item.tests, item.language, limits=item.limits)

    def check_tests(self, field: str, tests: Tests, language: str = "", *, limits: LimitsSpec | None = None) -> None:
        """Check a suite; one that can assert nothing under any program is InvalidTests.

        Args:
            field: where the suite stands in the request, for the error's detail.
            tests: the suite. A reference was checked when its suite was stored.
            language: of the programs; empty while unknown.
            limits: of the runs; None for a stored suite, which may be used under any.
        """
        if isinstance(tests, RefTests):
            return
        _at_most(field, _num_bytes(tests), self.settings.max_suite_bytes, "max_suite_bytes")
        suite = to_suite(tests)
        if not isinstance(tests, PytestTests | UnittestTests):  # what a test file holds is known once it has run
            _at_most(field, num_tests(suite), self.settings.max_tests, "max_tests")
        if isinstance(suite, StdioSuite):
            assert isinstance(tests, StdioTests)
            self._check_stdio(field, tests, suite, limits)
        elif (flaw := suite_flaw(suite, _canonical(language))) is not None:
            raise InvalidTests(f"{field}.{flaw}")

    def _check_stdio(self, field: str, tests: StdioTests, suite: StdioSuite, limits: LimitsSpec | None) -> None:
        max_bytes = self.settings.max_stdin_bytes
        for index, case in enumerate(tests.cases):
            _at_most(f"{field}.cases.{index}.stdin", len(case.stdin.encode()), max_bytes, "max_stdin_bytes")
            if case.files:
                _at_most(f"{field}.cases.{index}.files", len(case.files), MAX_FILES, "files of a case")
                num_bytes, limit = sum(map(len, case.files.values())), min(max_bytes, MAX_FILES_BYTES)
                _at_most(f"{field}.cases.{index}.files: bytes", num_bytes, limit, "max_stdin_bytes")
        for name, helper in (("checker", tests.checker), ("interactor", tests.interactor)):
            if helper is not None:
                num_bytes = len(helper.source.encode())
                _at_most(f"{field}.{name}.source", num_bytes, self.settings.max_code_bytes, "max_code_bytes")
                try:
                    resolve(helper.language)
                except UnsupportedLanguage as error:
                    raise Invalid(f"{field}.{name}.language: {error}") from None
        try:  # a stored suite is checked again once the limits of a run are known
            check_cases(suite, Limits(output_kb=self.settings.max_output_kb if limits is None else limits.output_kb))
        except InvalidSuite as error:
            raise InvalidTests(f"{field}.{error}") from None

    def _check_counts(self, counts: Sequence[int], name: str) -> None:
        settings = self.settings
        _at_most("items", len(counts), settings.max_items, "max_items")
        for index, count in enumerate(counts):
            _at_most(f"items.{index}.{name}", count, settings.max_completions, "max_completions")
        _at_most(f"items.*.{name}", sum(counts), settings.max_total_completions, "max_total_completions")

    def _check_texts(self, items: Sequence[ScoreItem | RewardItem]) -> None:
        limit = self.settings.max_text_bytes
        for index, item in enumerate(items):
            _at_most(f"items.{index}.prompt", _text_bytes(item.prompt), limit, "max_text_bytes")
            for number, completion in enumerate(item.completions):
                _at_most(f"items.{index}.completions.{number}", _text_bytes(completion), limit, "max_text_bytes")
            for number, ids in enumerate((isinstance(item, ScoreItem) and item.token_ids) or []):
                _at_most(f"items.{index}.token_ids.{number}: tokens", len(ids), limit, "max_text_bytes")

    def _check_code(self, field: str, programs: Sequence[str]) -> None:
        for index, program in enumerate(programs):
            _at_most(f"{field}.{index}", len(program.encode()), self.settings.max_code_bytes, "max_code_bytes")

    def _check_limits(self, field: str, limits: LimitsSpec) -> None:
        for name in ("cpu_s", "wall_s", "memory_mb", "output_kb", "processes"):
            value, ceiling = getattr(limits, name), getattr(self.settings, f"max_{name}")
            if value is not None and value > ceiling:
                raise Invalid(f"{field}.{name}: {value:g} is more than {ceiling:g} (max_{name})")


def _text_bytes(text: Prompt) -> int:
    """The size of a text, or of all that the messages of a conversation say."""
    return len(text.encode()) if isinstance(text, str) else sum(_num_bytes(message) for message in text)


def _num_bytes(tests: Any) -> int:
    """The size of the texts and files of a suite, or of the texts of a message."""
    num_bytes, left = 0, [tests]
    while left:
        part = left.pop()
        if isinstance(part, str):
            num_bytes += len(part.encode())
        elif isinstance(part, bytes):
            num_bytes += len(part)
        elif isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, BaseModel):
            left += [value for _, value in part]
    return num_bytes


def _canonical(language: str) -> str:
    """A language's canonical name; empty for an unknown one, which gets its own error elsewhere."""
    try:
        return resolve(language) if language else ""
    except UnsupportedLanguage:
        return ""
