"""What the language model reads: prompts with completions, and for each what there is to learn beside the next token.

- Documents are corpus functions, right programs of training problems, and references in other languages. None of them
  touches a held-out problem. With `tokenize.without_sampled` none touches a problem with independent samples either:
  cross-validation holds those out in turn, and all its fits begin from one language model.
- A row has the token ids. Where `tokenize.flawed` is set, each document has a flawed copy beside it, and both have the
  kind of the flaw, the numbers of the text's surface, and for each token whether it ends a name that nothing defines.
"""

from __future__ import annotations

import ast
import dataclasses
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from service.scoring.reward_model import Encoder
from service.scoring.surface import parsed, surface_of, undefined_names
from training.data.corpus import corpus_functions
from training.data.decontaminate import HeldOut
from training.data.other_languages import references
from training.data.programs import completion_of
from training.pipeline.config import Recipe
from training.pipeline.records import Problem, ProgramRecord
from training.reward_model.flaws import flawed

UNMARKED, DEFINED, UNDEFINED = -1, 0, 1  # what a token ends: no name, a name that is defined, one that is not


@dataclass(frozen=True, slots=True)
class Document:
    """A right completion of a prompt; `kind` says where it comes from."""

    prompt: str
    completion: str
    kind: str
    language: str = "python"


def documents_of(
    recipe: Recipe, problems: dict[str, Problem], programs: Sequence[ProgramRecord]
) -> tuple[list[Document], int]:
    """The documents in a seeded order, and how many corpus functions were dropped for touching a held-out problem."""
    sampled = {program.task_id for program in programs if program.iid_copies}
    bases = {problems[task_id].base_id for task_id in sampled} if recipe.tokenize.without_sampled else set()
    away = [p for p in problems.values() if p.fold != "train" or p.base_id in bases]
    held_out = HeldOut((dataclasses.replace(p, fold="test") for p in away), recipe.split.ngram)
    functions, dropped = corpus_functions(recipe.data, held_out)
    documents = [Document(f.prompt, f.completion, "corpus") for f in functions]
    names = {problem.task_id for problem in away}
    for program in programs:
        problem = problems[program.task_id]
        if program.task_id not in names and program.pass_rate == 1.0 and problem.language == "python":
            documents.append(Document(problem.prompt, program.completion, "solution"))
    for problem in problems.values():
        if problem.kind == "function" and problem.task_id not in names and problem.canonical is not None:
            text = completion_of(problem, problem.canonical)
            if not held_out.touches(problem.prompt + text):
                documents.append(Document(problem.prompt, text, "generated"))
    if recipe.collect.languages:
        for language, prompt, text in references(recipe.data, recipe.collect.languages, {p.base_id for p in away}):
            documents.append(Document(prompt, text, "translation", language))
    random.Random(recipe.seed).shuffle(documents)
    return documents, dropped


def rows_of(documents: Sequence[Document], encoder: Encoder, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """A row per document: `kind`, `ids`; with `tokenize.flawed` also one per flawed copy, and the targets of both."""
    if not recipe.tokenize.flawed:
        for document in documents:
            ids = encoder.encode(document.prompt, document.completion, "truncate_left").ids
            yield {"kind": document.kind, "ids": list(ids)}
        return
    by_language: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        by_language[document.language].append(document.completion)
    draw = random.Random(recipe.seed)
    for document in documents:
        yield _row(document, document.completion, 0, encoder, recipe)
        copy, flaw = flawed(document.completion, by_language[document.language], draw)
        if flaw:
            row = _row(document, copy, flaw, encoder, recipe)
            if "flaw" in row:  # a copy that is cut says nothing about its flaw
                yield {**row, "kind": "flawed"}


def _row(document: Document, completion: str, flaw: int, encoder: Encoder, recipe: Recipe) -> dict[str, Any]:
    ids = list(encoder.encode(document.prompt, completion, "truncate_left").ids)
    row: dict[str, Any] = {"kind": document.kind, "ids": ids}
    if len(ids) > recipe.pretrain.sequence_tokens:
        return row
    module = parsed(document.prompt + completion) if document.language == "python" else None
    row |= {"flaw": flaw, "surface": surface_of(document.prompt, completion, module)}
    marks = name_marks(document.prompt, completion, module, encoder) if module else []
    if marks and len(marks) + 1 < len(ids):
        row["names"] = [UNMARKED] * (len(ids) - len(marks) - 1) + marks + [UNMARKED]
    return row


def name_marks(prompt: str, completion: str, module: ast.Module, encoder: Encoder) -> list[int]:
    """For every token of the completion, `DEFINED` or `UNDEFINED` where it ends a name, `UNMARKED` elsewhere.

    Args:
        prompt: what the completion continues.
        completion: Python.
        module: both, parsed.
        encoder: of the checkpoint.
    """
    text = prompt + completion
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    places, at = {}, 0  # byte → character of the completion
    for number, character in enumerate(completion):
        places[at] = number
        at += len(character.encode())
    undefined = {id(node) for node in undefined_names(module)}
    ends = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Name):
            start = places.get(starts[node.lineno - 1] + node.col_offset - len(prompt.encode()))
            if start is not None:
                ends[start + len(node.id) - 1] = UNDEFINED if id(node) in undefined else DEFINED
    spans = encoder.tokenizer(completion, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [max((ends.get(at, UNMARKED) for at in range(low, high)), default=UNMARKED) for low, high in spans]
