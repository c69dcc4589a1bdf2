"""`plaudit-train seeds FORM FILE --out seeds.jsonl`: seed programs for `synthesize`, from code data.

| form | a row's fields | a seed is |
|---|---|---|
| evol | instruction, response (Magicoder-Evol-Instruct) | the response's first python block, if it defines something |
| oss | lang, problem, solution (Magicoder-OSS-Instruct) | the solution's first python block, of Python rows |
| functions | content (Stack functions) | the function, if it is longer than `--min-chars` |
| files | text or content, path (whole files) | each top-level function with a docstring of `--min-doc` characters |

The first three are AceCoder's (arXiv 2502.01718, by the authors' scripts), which also remove every line that begins
with `print`; `files` is plaudit's own. Equal seeds are kept once. The file is read and written row by row.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from training.pipeline.files import read_jsonl, write_jsonl

PYTHON_BLOCK = re.compile(r"```python[^\n]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
DEFINES = re.compile(r"^\s*(?:def|class) ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SeedRules:
    """What a seed must have; lengths in characters."""

    min_chars: int
    min_doc: int
    most: int


def seeds_command(arguments: Sequence[str]) -> None:
    """Run the command. Raises `UsageError` for a file that cannot be read or holds no seed."""
    parser = argparse.ArgumentParser(
        prog="plaudit-train seeds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("form", choices=sorted(FORMS))
    parser.add_argument("file", type=Path, help="JSON lines, gzipped or not")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", default="", help="what `source` says of each seed; by default the form")
    parser.add_argument("--license", default="", help="of seeds whose row does not say it")
    parser.add_argument("--most", type=int, default=50_000, help="seeds to keep; 0: all")
    parser.add_argument("--min-chars", type=int, default=100)
    parser.add_argument("--min-doc", type=int, default=40)
    options = parser.parse_args(arguments)
    if not options.file.is_file():
        raise UsageError(f"no file {options.file}")
    counts: Counter[str] = Counter()
    rules = SeedRules(options.min_chars, options.min_doc, options.most)
    rows = seeds(options.form, read_jsonl(options.file), rules, counts)
    named = ({"source": options.source or options.form, "license": options.license, **row} for row in rows)
    if not write_jsonl(options.out, named):
        raise UsageError(f"{options.file}: no seed in it: {dict(counts)}; the form {options.form} reads other fields?")
    print(json.dumps({"form": options.form, **counts, "file": options.out.name}))


def seeds(
    form: str, rows: Iterator[dict[str, Any]], rules: SeedRules, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Seeds as `synthesize` reads them; `counts` learns of rows, seeds, and why there is none of a row."""
    seen: set[bytes] = set()
    for row in rows:
        counts["rows"] += 1
        found = 0
        for seed in FORMS[form](row, rules):
            found += 1
            program = without_prints(seed["program"])
            digest = hashlib.sha256(program.encode()).digest()
            if not program.strip() or digest in seen:
                counts["repeated_or_empty"] += 1
                continue
            seen.add(digest)
            counts["seeds"] += 1
            yield {"id": f"seed-{digest.hex()[:16]}", **seed, "program": program}
            if rules.most and counts["seeds"] >= rules.most:
                return
        counts["rows_without"] += not found


def without_prints(program: str) -> str:
    """The program without the lines that begin with `print`, as AceCoder's script has it."""
    return "".join(line for line in program.splitlines(keepends=True) if not line.lstrip().startswith("print"))


Form = Callable[[Mapping[str, Any], SeedRules], Iterator[dict[str, Any]]]


def _evol(row: Mapping[str, Any], rules: SeedRules) -> Iterator[dict[str, Any]]:
    blocks = (found[1] for found in PYTHON_BLOCK.finditer(row["response"]))
    first = next(blocks, "")
    if DEFINES.search(first):
        yield {"program": first, "instruction": row["instruction"]}


def _oss(row: Mapping[str, Any], rules: SeedRules) -> Iterator[dict[str, Any]]:
    block = PYTHON_BLOCK.search(row["solution"])
    if str(row.get("lang", "")).lower() == "python" and block is not None:
        yield {"program": block[1], "instruction": row["problem"]}


def _functions(row: Mapping[str, Any], rules: SeedRules) -> Iterator[dict[str, Any]]:
    if len(row["content"]) > rules.min_chars:
        yield {"program": row["content"]}


def _files(row: Mapping[str, Any], rules: SeedRules) -> Iterator[dict[str, Any]]:
    text = row.get("text") or row.get("content") or ""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in module.body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith(("_", "test")):
            continue
        source = ast.get_source_segment(text, node) or ""
        if len(source) > rules.min_chars and len(ast.get_docstring(node) or "") >= rules.min_doc:
            named = {name: row[name] for name in ("license", "path") if row.get(name)}
            yield {"program": f"{source}\n", **named}


FORMS: dict[str, Form] = {"evol": _evol, "oss": _oss, "functions": _functions, "files": _files}
