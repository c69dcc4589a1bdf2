"""Tests, by kind: what a program is judged by."""

from __future__ import annotations

import base64
from keyword import iskeyword
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Base64Encoder, BeforeValidator, EncodedBytes, Field, model_validator
from pydantic_core import PydanticCustomError

from plaudit.grading import Compare, Position
from plaudit.schemas.base import MAX_FIELDS, MAX_TESTS, Exact, Strict, Text


class TestsBase(Strict):
    prelude: Annotated[Text, Field(description="text that the program sees before its own first line")] = ""


class StrictBase64(Base64Encoder):
    """Line breaks aside, every character counts: malformed base64 is an error, not other bytes."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        try:
            return base64.b64decode(b"".join(data.split()), validate=True)
        except ValueError as error:
            raise PydanticCustomError("base64_decode", "not base64: {error}", {"error": str(error)}) from None


def _few_entries(given: Any) -> Any:
    if isinstance(given, dict) and len(given) > MAX_FIELDS:
        raise ValueError(f"{len(given)} entries are more than {MAX_FIELDS}")
    return given


FewEntries = BeforeValidator(_few_entries)  # before the entries are looked at one by one
File = Annotated[bytes, EncodedBytes(encoder=StrictBase64), Field(description="base64")]
FileName = Annotated[str, Field(min_length=1, max_length=255)]
Files = Annotated[dict[FileName, File], FewEntries]


def _entry_point(name: str) -> str:
    parts = name.split(".")
    if all(part.isidentifier() and not iskeyword(part) for part in parts):
        return name
    bare = name.replace("()", "")
    if bare != name and all(part.isidentifier() for part in bare.split(".")):
        raise ValueError(f"{name!r} is a call and not a name; write {bare!r}: the method of a fresh instance")
    raise ValueError(f"{name!r} is not a name that a program can define; write 'f' or 'Class.method'")


def _entry_points(names: str) -> str:
    return "|".join(_entry_point(name) for name in names.split("|"))


EntryPoint = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_entry_point)]
EntryPoints = Annotated[
    str,
    Field(min_length=1, max_length=500, description="`f`, `Class.method`, or `Class.f|f`: the first that is defined"),
    AfterValidator(_entry_points),
]


class AssertTests(TestsBase):
    kind: Literal["assert"]
    asserts: Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_TESTS, fail_fast=True)
    ]
    setup: Text = ""
    entry_point: EntryPoint | None = None


class FunctionCase(Strict):
    args: Annotated[list[Exact], Field(fail_fast=True)] = []
    kwargs: Annotated[dict[Text, Exact], FewEntries] = {}
    expected: Exact
    also: Annotated[
        list[Exact], Field(max_length=64, fail_fast=True, description="other values that are right, too")
    ] = []


class FunctionTests(TestsBase):
    kind: Literal["function"]
    entry_point: EntryPoints
    cases: Annotated[list[FunctionCase], Field(min_length=1, max_length=MAX_TESTS, fail_fast=True)]
    rel_tol: Annotated[float | None, Field(ge=0, lt=1)] = None


class CheckTests(TestsBase):
    kind: Literal["check"]
    test: Annotated[str, Field(min_length=1, description="Python source that defines check(candidate)")]
    entry_point: EntryPoint
    prompt: Text = ""


class PytestTests(TestsBase):
    kind: Literal["pytest"]
    source: Annotated[Text, Field(min_length=1, description="a test file: functions, classes, fixtures")]
    files: Annotated[Files, Field(description="beside the test file, by name")] = {}
    entry_point: Annotated[EntryPoint | None, Field(description="a name that the program must have")] = None


class UnittestTests(TestsBase):
    kind: Literal["unittest"]
    source: Annotated[Text, Field(min_length=1, description="a test file: TestCase classes")]
    files: Annotated[Files, Field(description="beside the test file, by name")] = {}
    entry_point: Annotated[EntryPoint | None, Field(description="a name that the program must have")] = None


class HelperProgram(Strict):
    language: Annotated[str, Field(min_length=1, max_length=64)]
    source: Annotated[Text, Field(min_length=1)]


class StdioTestCase(Strict):
    stdin: Text = ""
    stdout: Annotated[
        Text | Annotated[list[Text], Field(min_length=1, max_length=16, fail_fast=True)],
        Field(description="the right answer, or several; with a checker or an interactor what its answer file holds"),
    ] = ""
    files: Annotated[Files, Field(description="in the program's working folder, by name")] = {}


class StdioTests(TestsBase):
    kind: Literal["stdio"]
    cases: Annotated[list[StdioTestCase], Field(min_length=1, max_length=MAX_TESTS, fail_fast=True)]
    compare: Compare = "rstrip"
    rel_tol: Annotated[float | None, Field(ge=0, lt=1)] = None
    checker: Annotated[
        HelperProgram | None, Field(description="reads input, output and answer; accepts, scores or refuses")
    ] = None
    interactor: Annotated[HelperProgram | None, Field(description="a program joined to the judged one by pipes")] = None

    @model_validator(mode="after")
    def _one_decides(self) -> StdioTests:
        """A comparison, a checker or an interactor: only the last two can do without an answer, and take one."""
        if self.checker is not None and self.interactor is not None:
            raise ValueError("checker and interactor: a suite takes one of them, not both")
        who = "checker" if self.checker is not None else "interactor" if self.interactor is not None else None
        for field in ("compare", "rel_tol") if who is not None else ():
            if field in self.model_fields_set:
                raise ValueError(f"{field}: the {who} decides, so nothing is compared; leave out one of the two")
        for at, case in enumerate(self.cases):
            if who is None and "stdout" not in case.model_fields_set:
                raise ValueError(f"cases.{at}.stdout: missing; only with a checker or an interactor can it be left out")
            if who is not None and not isinstance(case.stdout, str):
                raise ValueError(f"cases.{at}.stdout: the {who} reads one answer, not a list of {len(case.stdout)}")
        return self


class ScriptTests(TestsBase):
    kind: Literal["script"]
    source: Annotated[Text, Field(min_length=1, description="run with the program; exit code 0 is passed")]
    position: Annotated[
        Position,
        Field(description="append: after the program, one text; replace: alone, the program beside it as `program.*`"),
    ] = "append"


class RefTests(Strict):
    kind: Literal["ref"]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


InlineTests = Annotated[
    AssertTests | FunctionTests | CheckTests | PytestTests | UnittestTests | StdioTests | ScriptTests,
    Field(discriminator="kind"),
]
Tests = Annotated[
    AssertTests | FunctionTests | CheckTests | PytestTests | UnittestTests | StdioTests | ScriptTests | RefTests,
    Field(discriminator="kind"),
]
