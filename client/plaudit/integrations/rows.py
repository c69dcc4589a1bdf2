"""A trainer's row as an item of `/reward`: prompts, completions and labels in the shapes that trainers have them in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plaudit import conversations
from plaudit.errors import Invalid
from plaudit.extract import answer, code_of, last_fence
from plaudit.graders import Grader
from plaudit.integrations.chat_markup import is_rendered, rendered_messages
from plaudit.integrations.config import BatcherConfig, Misconfigured, language_of
from plaudit.labels import Tested, required_tests, tests_of
from plaudit.schemas import ExecuteTerm, Message, RewardExtract, RewardItem


@dataclass(frozen=True, slots=True)
class TrainerRow:
    """One completion. `prompt` is text or chat messages; `label` is what the data set has beside it under `field`."""

    prompt: Any
    completion: str
    label: Any = None
    field: str = "label"


@dataclass(frozen=True, slots=True)
class RowItem:
    """A row as an item of one completion; rows of one `group` differ in their completion only."""

    index: int
    item: RewardItem
    group: str


def item_of(config: BatcherConfig, index: int, row: TrainerRow) -> RowItem:
    """The row as an item. Raises Misconfigured for a label without tests where they are needed."""
    spec = config.effective_spec
    tested: Tested | None = None
    language, extract, completion = config.language, config.extract, _encodable(row.completion)
    if spec.executes:
        tested = _tests(index, row)
        language = language_of("label", tested.language or config.language)
        only_tests = all(isinstance(term, ExecuteTerm) for term in spec.terms)
        extract, completion = _program(config.extract, completion, language, only_tests=only_tests)
    prompt = _prompt(index, row.prompt, is_scored=spec.scores)
    if spec.scores and isinstance(prompt, str) and is_rendered(prompt):
        raise Misconfigured(
            f"row {index}: the prompt was rendered by a chat template that is not known here ({prompt[:80]!r}), and a "
            "reward model would be asked under a template twice: pass messages or the plain question, or say "
            'reward="tests"'
        )
    item = RewardItem(
        prompt=prompt,
        completions=[completion],
        language=language,
        extract=extract,
        tests=tested.graded(language, Grader()) if tested else None,
        limits=config.limits,
        stop=config.stop,
    )
    return RowItem(index, item, item.model_dump_json(exclude={"completions"}))


def has_tests(label: Any) -> bool:
    """Whether a label holds tests, readable or not."""
    try:
        return tests_of(_plain(label)) is not None
    except Invalid:
        return True


def message_text(message: Mapping[str, Any]) -> str:
    """A message's text, whichever of the two ways it is written in."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def completion_text(completion: Any) -> str:
    """A completion's text: itself, or the last assistant message in it."""
    if isinstance(completion, str):
        return completion
    messages = [message for message in completion if message.get("role", "assistant") == "assistant"]
    return message_text(messages[-1]) if messages else ""


def prompt_messages(prompt: Any) -> Any:
    """Messages as a list, whatever array type a data frame made of them."""
    return prompt if prompt is None or isinstance(prompt, str | list) else list(prompt)


def _program(extract: RewardExtract, completion: str, language: str, *, only_tests: bool) -> tuple[RewardExtract, str]:
    """What is sent of a completion: the program alone where no other term looks at the text."""
    if extract != "last_fence":
        return extract, completion
    code = code_of(completion, language)
    if code is None:
        return "last_fence", "" if only_tests else answer(completion)
    program = code.text
    if only_tests:
        return "none", program
    text = answer(completion)
    return "last_fence", text if (last_fence(text) or "").strip() == program.strip() else _fenced(program)


def _tests(index: int, row: TrainerRow) -> Tested:
    """The tests of a row. Raises Misconfigured, naming row and field, where there are none that can be read."""
    try:
        return required_tests(_plain(row.label), row.field)
    except Invalid as error:
        way = 'To be rewarded by the model alone, say reward="model"'
        raise Misconfigured(f"row {index}: {error.detail}. {way}") from None


def _plain(label: Any) -> Any:
    """A label as lists and dicts, whatever array type a data frame made of them."""
    if callable(as_list := getattr(label, "tolist", None)):
        label = as_list()
    if isinstance(label, tuple):
        label = list(label)
    if isinstance(label, Mapping):
        return {name: _plain(value) for name, value in label.items()}
    return label


def _prompt(index: int, prompt: Any, *, is_scored: bool) -> str | list[Message]:
    """Text, or messages in the contract's types: of a rendered prompt the messages in it.

    Where no model scores it, only the texts of a conversation count. Raises Misconfigured for one that is to be scored
    and cannot be as it is.
    """
    if isinstance(prompt, str):
        text = _encodable(prompt)
        return rendered_messages(text) or text
    if prompt is None:
        return ""
    if is_scored:
        try:
            return conversations.messages_of(prompt, f"row {index}: prompt")
        except Invalid as error:
            raise Misconfigured(f'{error.detail}. To be rewarded by the tests alone, say reward="tests"') from None
    return [Message(role="user", content=_encodable(message_text(message))) for message in prompt]


def _fenced(program: str) -> str:
    """A program alone in its fence, for a completion in which other fences follow it."""
    longest = max(map(len, re.findall("`+", program)), default=0)
    mark = "`" * max(3, longest + 1)
    return f"{mark}\n{program.rstrip()}\n{mark}\n"


def _encodable(text: str) -> str:
    """Halves of surrogate pairs, which no encoding can write, become question marks."""
    return text.encode("utf-8", "replace").decode()
