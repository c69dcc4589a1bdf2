"""Python files as functions in the reward model's own form: a prompt that ends after the docstring, and a body.

So the language model is trained on the form that the reward model scores later: this body after this description.
Functions that touch a held-out problem are left out (`decontaminate.HeldOut`).
"""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from training.data.decontaminate import HeldOut
from training.data.public_data import data_file
from training.pipeline.files import read_jsonl

MAX_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class CorpusFunction:
    """One function of the corpus; `documented`: its prompt holds a docstring."""

    name: str
    prompt: str
    completion: str
    documented: bool
    source: str


def corpus_functions(data: str, held_out: HeldOut) -> tuple[list[CorpusFunction], int]:
    """Distinct functions of the corpus, and how many were dropped for touching a held-out problem."""
    kept: dict[str, CorpusFunction] = {}
    dropped = 0
    for r in read_jsonl(data_file(data, "corpus.python.jsonl.gz")):
        for function in functions_of(r["text"], r["source"]):
            text = function.prompt + function.completion
            if not function.documented and function.prompt.split("(", 1)[-1].startswith("self"):
                continue  # a method without a description teaches little about functions with one
            if held_out.touches(text, function.name):
                dropped += 1
            else:
                kept.setdefault(text, function)
    return list(kept.values()), dropped


def functions_of(text: str, source: str = "") -> Iterator[CorpusFunction]:
    """Every function and method of a module, dedented, with at least one statement of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # old corpus files hold invalid escapes
        try:
            module = ast.parse(text)
        except (SyntaxError, ValueError):
            return
    lines = text.splitlines(keepends=True)
    for node in ast.walk(module):
        if not isinstance(node, ast.FunctionDef) or node.end_lineno is None:
            continue
        documented = ast.get_docstring(node, clean=False) is not None
        body = node.body[1:] if documented else node.body
        if not body or body[0].lineno <= node.lineno:
            continue
        cut = (node.body[0].end_lineno or 0) if documented else body[0].lineno - 1
        whole = textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno]))
        if len(whole) > MAX_CHARACTERS or not whole.startswith("def "):
            continue
        parts = whole.splitlines(keepends=True)
        head = cut - (node.lineno - 1)
        yield CorpusFunction(
            node.name, "".join(parts[:head]), "".join(parts[head:]).rstrip() + "\n", documented, source
        )
