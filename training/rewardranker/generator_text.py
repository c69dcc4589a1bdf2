"""How a generator reads a prompt and writes a completion: as token ids, under its own tokenizer.

- `OwnText`: a generator of this run. It shares the reranker's template; a completion is everything up to the
  template's closing token.
- `PretrainedText`: a causal language model from the hub or a folder, with its own tokenizer. Where it has a chat
  template and the prompt is a question in words, the question is asked as a message; code that has begun is continued
  as plain text. A completion ends with the end token, which the fine-tuning teaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from service.scoring.reward_model import Encoder
from service.scoring.tokenizer import load_tokenizer
from training.data.programs import opens_program
from training.pipeline.records import Problem


class GeneratorText(Protocol):
    """Token ids of prompts and completions. `end` ends a completion."""

    tokenizer: Any
    end: int

    def prompt_ids(self, problem: Problem) -> list[int]:
        """The token ids that a completion follows."""

    def document_ids(self, problem: Problem, completion: str) -> list[int]:
        """Prompt, completion and end token, to be fine-tuned on."""


class OwnText:
    """The reranker's own template."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.tokenizer: Any = encoder.tokenizer
        self.end = int(encoder.tokenizer.eos_token_id)

    def prompt_ids(self, problem: Problem) -> list[int]:
        return list(self.tokenizer.encode(self._encoder.head_text(problem.prompt), add_special_tokens=False))

    def document_ids(self, problem: Problem, completion: str) -> list[int]:
        return list(self._encoder.encode(problem.prompt, completion).ids)


class PretrainedText:
    """A pretrained generator's own tokenizer, in this folder."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = load_tokenizer(folder)
        self.end = int(self.tokenizer.eos_token_id)

    def prompt_ids(self, problem: Problem) -> list[int]:
        if getattr(self.tokenizer, "chat_template", None) and not opens_program(problem):
            messages = [{"role": "user", "content": problem.prompt}]
            text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        bos = [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]
        return bos + list(self.tokenizer.encode(problem.prompt, add_special_tokens=False))

    def document_ids(self, problem: Problem, completion: str) -> list[int]:
        written = self.tokenizer.encode(completion, add_special_tokens=False)
        return [*self.prompt_ids(problem), *written, self.end]


def completion_text(text: GeneratorText, ids: Sequence[int]) -> str:
    """The completion's text, without its end token."""
    return str(text.tokenizer.decode(ids, skip_special_tokens=True))
