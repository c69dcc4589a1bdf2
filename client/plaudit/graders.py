"""How the graders of data sets treat a label's inputs and outputs: their prelude of imports, their comparison.

Data sets with `inputs` and `outputs` (APPS, TACO, LiveCodeBench, NeMo-Gym, verl, open-instruct) are written for graders
that put imports before every Python program and compare line by line, numbers by value. A URL may ask for another way:
`?compare=lines | tokens | float | rstrip | exact`, `&rel_tol=1e-6`, `&prelude=imports | none`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plaudit.errors import Invalid
from plaudit.grading import Compare
from plaudit.languages import UnsupportedLanguage, base, resolve
from plaudit.schemas import FunctionTests, StdioTests, Tests

if TYPE_CHECKING:
    from fastapi import Request

# In the order in which these graders have them: first what the modules hold, then what must not be hidden by it.
STARS = (
    "string",
    "re",
    "datetime",
    "collections",
    "heapq",
    "bisect",
    "copy",
    "math",
    "random",
    "statistics",
    "itertools",
    "functools",
    "operator",
    "io",
    "sys",
    "json",
    "builtins",
    "typing",
)
MODULES = tuple(name for name in STARS if name not in ("builtins", "typing"))
IMPORTS = (
    "".join(f"from {name} import *\n" for name in STARS)
    + "".join(f"import {name}\n" for name in MODULES)
    + "sys.setrecursionlimit(50000)\n"
)
TOLERANT = ("lines", "float")


class Grader(BaseModel):
    """How answers are compared, and what Python programs see before their first line."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    compare: Compare | None = None
    rel_tol: Annotated[float | None, Field(ge=0, lt=1)] = None
    prelude: Literal["imports", "none"] = "imports"

    @model_validator(mode="after")
    def _tolerance_is_used(self) -> Grader:
        if self.rel_tol is not None and self.compare not in (None, *TOLERANT):
            raise ValueError(f"rel_tol: only with compare={' or '.join(TOLERANT)}, not {self.compare}")
        return self

    @classmethod
    def of(cls, request: Request) -> Grader:
        """What a URL asks for. Raises Invalid."""
        given = dict(request.query_params)
        if unknown := next((name for name in given if name not in cls.model_fields), None):
            raise Invalid(f"URL parameter {unknown}: there are {', '.join(cls.model_fields)}")
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "compare"
            raise Invalid(f"URL parameter {where}: {first['msg']}") from None

    def suite(self, tests: Tests, language: str, rel_tol: float | None = None) -> Tests:
        """A label's pairs as this grader takes them; `rel_tol` is the dialect's own where the URL has none."""
        tolerance = rel_tol if self.rel_tol is None and self.compare in (None, *TOLERANT) else self.rel_tol
        more: dict[str, Any] = {"rel_tol": tolerance}
        if self.prelude == "imports" and is_python(language):
            more["prelude"] = IMPORTS
        if isinstance(tests, StdioTests):
            return tests.model_copy(update={**more, "compare": self.compare or "lines"})
        if isinstance(tests, FunctionTests):
            return tests.model_copy(update=more)
        return tests


def is_python(language: str) -> bool:
    try:
        return base(resolve(language)) == "python"
    except UnsupportedLanguage:
        return False
