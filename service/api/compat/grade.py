"""One completion's reward in dialects that send a prompt, a completion and a data set's label: tests or the model.

What is asked for rides in the URL that the user pastes, because these clients send nothing else: `?reward=tests` (the
default, also spelled `auto`) or `model`, `&model=NAME`, `&policy=pass_rate | all_or_nothing`, `&language=cpp`. A label
without tests is an error unless the URL asks for the model by name: pass rates and logits do not mix in one column.
How a label's inputs and outputs are taken: `client/plaudit/graders.py`.
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
from plaudit.schemas import ExecuteItem, ExecuteRequest, Prompt, ScoreItem, ScoreRequest
from service.api.compat.base import Visit, judged, raise_for
from service.api.handlers.score import WholeTexts


class Options(Grader):
    """What the URL's query asks for."""

    reward: Literal["auto", "tests", "model"] = "auto"
    policy: Literal["pass_rate", "all_or_nothing"] = "pass_rate"
    model: str | None = None
    language: Annotated[str, AfterValidator(known_language)] = "python"

    @classmethod
    def of(cls, request: Request, *more: str) -> Options:
        """What the URL says; `more` are parameters that the dialect itself has. Raises Invalid, for a typo too."""
        known = {*cls.model_fields, *more}
        if unknown := next((name for name in request.query_params if name not in known), None):
            raise Invalid(f"URL parameter {unknown}: there is none of this name; {nearest(unknown, known)}")
        try:
            return cls.model_validate(dict(request.query_params))
        except ValidationError as error:
            first = error.errors()[0]
            words = first["msg"].removeprefix("Value error, ")
            raise Invalid(f"URL parameter {'.'.join(map(str, first['loc']))}: {words}") from None


@dataclass(frozen=True, slots=True)
class Grade:
    """`reward` is the raw logit or the pass rate; `score` is the same on [0, 1]."""

    reward: float
    score: float
    pass_rate: float | None = None
    rm: float | None = None
    truncated: bool = False

    def numbers(self) -> dict[str, float]:
        """Always the same keys, and numbers only: trainers build columns of them."""
        return {
            "score": self.score,
            "reward_ok": 1.0,
            "pass_rate": self.pass_rate or 0.0,
            "rm": self.rm or 0.0,
            "tested": float(self.pass_rate is not None),
            "truncated": float(self.truncated),
        }


def no_numbers(score: float) -> dict[str, float]:
    """The same keys where there is no grade."""
    return {"score": score, "reward_ok": 0.0, "pass_rate": 0.0, "rm": 0.0, "tested": 0.0, "truncated": 0.0}


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def tested_by(label: Any, options: Options, field: str) -> Tested | None:
    """The tests to grade by; None where the URL asks for the model. Raises Invalid where there are none."""
    if options.reward == "model":
        return None
    try:
        return required_tests(label, field)
    except Invalid as error:
        raise Invalid(f"{error.detail}. To be scored by the model instead, put ?reward=model into the URL") from None


async def by_tests(visit: Visit, completion: str, tested: Tested, options: Options) -> Grade:
    """Run the completion's program; one without code fails every test."""
    language = tested.language or options.language
    code = code_of(completion, language)
    if code is None:
        return Grade(0.0, 0.0, pass_rate=0.0)
    item = ExecuteItem(
        language=language, programs=[code.text], tests=tested.graded(language, options), limits=visit.limits()
    )
    answer = await visit.execute(ExecuteRequest(items=[item]))
    program = judged(answer.results[0].programs[0])
    rate = program.pass_rate or 0.0
    value = rate if options.policy == "pass_rate" else float(program.passed == program.total)
    return Grade(value, value, pass_rate=rate)


async def by_model(visit: Visit, prompt: Prompt | None, completion: str, options: Options) -> Grade:
    """Score a completion under its prompt, or a whole text. What is too long loses its beginning, and says so."""
    texts = [completion]
    item = WholeTexts(completions=texts) if prompt is None else ScoreItem(prompt=prompt, completions=texts)
    ask = ScoreRequest(model=visit.model(options.model), items=[item], on_overflow="truncate_left")
    one = (await visit.score(ask)).results[0].completions[0]
    raise_for(one.status, one.error)
    assert one.score is not None
    return Grade(one.score, sigmoid(one.score), rm=one.score, truncated=one.truncated)
