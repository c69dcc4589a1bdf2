"""A tokenizer's chat template: which one it is, and what it is told beside the conversation.

Templates of Llama 3.1 and later, Granite and others print today's date (`strftime_now`). A score would then change
every day under one revision, and the golden set of yesterday would fail. So the date is part of the spec, and a
template that asks for it is refused without.
"""

from __future__ import annotations

import json
from typing import Any

from plaudit.errors import UsageError
from service.scoring.foreign_errors import one_line
from service.scoring.spec import SPEC_FILE, RewardModelSpec

CLOCK = "strftime_now"  # the one function of transformers' templates that reads a clock
DEFAULT = "default"
LETTERS = "aAwdbBmyYHIMSpfjUWcxXGuVeFTDRrhnt"  # of strftime's directives
PERCENT = "\x1f"  # stands for a percent sign while directives are replaced
MACRO = (
    "{%- macro strftime_now(format) -%}{%- set text = namespace(value=format) -%}"
    "{%- for directive, value in REPLACEMENTS.items() -%}"
    "{%- set text.value = text.value | replace(directive, value) -%}"
    "{%- endfor -%}{{- text.value -}}{%- endmacro %}\n"  # the line's end is not printed (`trim_blocks`)
)


def text(tokenizer: Any) -> str:
    """The template that is used for scoring.

    Raises:
        UsageError: there is none, or there are several and none of them is the default.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise UsageError(f"{SPEC_FILE} names the chat template, and the tokenizer has none")
    if not isinstance(template, dict):
        return str(template)
    if DEFAULT not in template:
        raise UsageError(
            f"the tokenizer has {len(template)} chat templates ({', '.join(sorted(template))}) and none is named "
            f"{DEFAULT!r}: rename the one that the model was trained with in tokenizer_config.json"
        )
    return str(template[DEFAULT])


def asks_for_date(tokenizer: Any) -> bool:
    """Whether the template reads the clock."""
    return CLOCK in text(tokenizer)


def pinned(tokenizer: Any, spec: RewardModelSpec) -> str | None:
    """The template with its clock stopped at the date of the spec; None: it has no clock, and is used as it is.

    transformers gives templates its own `strftime_now` and turns everything that a caller passes into plain data. So
    the template is put behind a macro of that name, which replaces every directive of a format.

    Raises:
        UsageError: it asks for the date, and the spec does not pin it; or it is not a template.
    """
    _check_syntax(tokenizer)
    if not asks_for_date(tokenizer):
        return None
    clock = spec.clock()
    if clock is None:
        raise UsageError(
            f"the chat template asks for today's date ({CLOCK}), so scores would change every day; pin the date that "
            f'the model was trained with: "date": "YYYY-MM-DD" in {SPEC_FILE}, which without that is '
            f"{spec.as_json()}"
        )
    directives = {f"%{flag}{letter}": clock.strftime(f"%{flag}{letter}") for letter in LETTERS for flag in ("", "-")}
    replacements = {"%%": PERCENT, **directives, PERCENT: "%"}
    return MACRO.replace("REPLACEMENTS", json.dumps(replacements, ensure_ascii=False)) + text(tokenizer)


def _check_syntax(tokenizer: Any) -> None:
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}], chat_template=text(tokenizer), tokenize=False)
    except TemplateSyntaxError as error:
        raise UsageError(f"the chat template is not a template: {one_line(error)}") from error
    except TemplateError:  # it rejects this conversation, and may take others
        return
    except template_errors() as error:
        raise UsageError(f"the chat template fails on one user's turn: {type(error).__name__}: {error}") from error


def template_errors() -> tuple[type[Exception], ...]:
    """What a template may raise: a refusal of its own, or what a filter or a method says of what it was given."""
    from jinja2 import TemplateError

    return (TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)
