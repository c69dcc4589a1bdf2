"""One completion's reward in dialects that send a prompt, a completion and a data set's label: tests or the model.

These clients send nothing else, so what is asked for is in the URL that the user pastes: `?reward=tests` (the default,
also spelled `auto`) or `model`, `&model=NAME`, `&policy=pass_rate | all_or_nothing`, `&language=cpp`. A label without
tests is an error unless the URL asks for the model: pass rates and logits must not share a column. How a label's inputs
and outputs are compared: `client/plaudit/graders.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import AfterValidator, ValidationError

from plaudit.errors import Invalid
from plaudit.extract import code_of
from plaudit.graders import Grader
from plaudit.labels import Tested, required_tests
from plaudit.options import known_language, nearest
from plaudit.schemas import ExecuteItem, Prompt, ScoreItem
from service.api.compat.base import CompatCall, judged


class GradeOptions(Grader):
    """What the URL's query asks for."""

    reward: Literal["auto", "tests", "model"] = "auto"
    policy: Literal["pass_rate", "all_or_nothing"] = "pass_rate"
    model: str | None = None
    language: Annotated[str, AfterValidator(known_language)] = "python"

    @classmethod
    def of(cls, request: Request, *more: str) -> GradeOptions:
        """The options in a URL; `more` are parameters of the dialect itself. Raises Invalid, for a typo too."""
        known = {*cls.model_fields, *more}
        if unknown := next((name for name in request.query_params if name not in known), None):
            raise Invalid(f"URL parameter {unknown}: there is none of this name; {nearest(unknown, known)}")
        try:
            return cls.model_validate(dict(request.query_params))
        except ValidationError as error:
            first = error.errors()[0]
            message = first["msg"].removeprefix("Value error, ")
            raise Invalid(f"URL parameter {'.'.join(map(str, first['loc']))}: {message}") from None


@dataclass(frozen=True, slots=True)
class Grade:
    """`reward` is the raw logit or the pass rate; `score` is the same on [0, 1]."""

    reward: float
    score: float
    pass_rate: float | None = None
    rm: float | None = None
    truncated: bool = False

    def columns(self) -> dict[str, float]:
        """Always the same keys, and numbers only: trainers build columns of them."""
        return {
            "score": self.score,
            "reward_ok": 1.0,
            "pass_rate": self.pass_rate or 0.0,
            "rm": self.rm or 0.0,
            "tested": float(self.pass_rate is not None),
            "truncated": float(self.truncated),
        }


def columns_without_grade(score: float) -> dict[str, float]:
    """The same keys where there is no grade."""
    return {"score": score, "reward_ok": 0.0, "pass_rate": 0.0, "rm": 0.0, "tested": 0.0, "truncated": 0.0}


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def tests_of(label: Any, options: GradeOptions, field: str) -> Tested | None:
    """The tests in a label; None where the URL asks for the model. Raises Invalid where there are none."""
    if options.reward == "model":
        return None
    try:
        return required_tests(label, field)
    except Invalid as error:
        raise Invalid(f"{error.detail}. To be scored by the model instead, put ?reward=model into the URL") from None


async def grade_by_tests(call: CompatCall, completion: str, tested: Tested, options: GradeOptions) -> Grade:
    """Run the completion's program; one without code fails every test."""
    language = tested.language or options.language
    code = code_of(completion, language)
    if code is None:
        return Grade(0.0, 0.0, pass_rate=0.0)
    item = ExecuteItem(
        language=language, programs=[code.text], tests=tested.graded(language, options), limits=call.limits()
    )
    program = judged(await call.judge(item))
    pass_rate = program.pass_rate or 0.0
    value = pass_rate if options.policy == "pass_rate" else float(program.passed == program.total)
    return Grade(value, value, pass_rate=pass_rate)


async def grade_by_model(call: CompatCall, prompt: Prompt | None, completion: str, options: GradeOptions) -> Grade:
    """Score a completion under its prompt, or a whole text. What is too long loses its beginning, and says so."""
    item = ScoreItem(prompt="" if prompt is None else prompt, completions=[completion])
    model = call.model_name(options.model)
    (score,) = await call.score(model, [item], on_overflow="truncate_left", whole_texts=prompt is None)
    assert score.score is not None
    return Grade(score.score, sigmoid(score.score), rm=score.score, truncated=score.truncated)
