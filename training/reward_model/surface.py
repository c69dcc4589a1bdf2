"""Numbers that describe the surface of a completion: what a model should see at a glance, in any language.

They are the targets of an auxiliary loss. The last token's state learns to sum a text up long before there are labels.
"""

from __future__ import annotations

import ast
import builtins
import math
import re
import warnings

COUNTED = (
    r"\breturn\b",
    r"\bif\b",
    r"\belse\b|\belif\b",
    r"\bfor\b",
    r"\bwhile\b",
    r"\bdef\b|\bfunction\b",
    r"\bprint\b|\bconsole\b|\bcout\b",
    r"\bpass\b|\bTODO\b|NotImplemented|\.\.\.",
    r"\bassert\b",
    r"\bNone\b|\bnull\b",
    r"\bTrue\b|\bFalse\b|\btrue\b|\bfalse\b",
    r"(?<![=!<>])=(?!=)",
    r"==|!=|<|>",
    r"[+*/%-]",
    r"\(",
    r"\[",
    r"#|//|\"\"\"",
    r"\blen\b|\bsize\b|\blength\b",
    r"\brange\b",
    r"\bin\b",
    r"\bnot\b|!",
    r"\band\b|\bor\b|&&|\|\|",
    r"\d+",
    r"\braise\b|\bthrow\b",
    r"\btry\b",
)
PATTERNS = tuple(re.compile(pattern) for pattern in COUNTED)
WORDS = re.compile(r"[A-Za-z]+")
PARAMETERS = re.compile(r"\(([^()]*)\)[^()\n]*[:{]\s*(?:\n|$)")
NUM_NUMBERS = len(COUNTED) + 21
UNKNOWN = math.nan  # a number that this text does not have: the loss leaves it out
BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__"}


def surface_of(prompt: str, completion: str, module: ast.Module | None) -> list[float]:
    """`NUM_NUMBERS` numbers about a completion, each of the order of one.

    Args:
        prompt: what the completion continues.
        completion: in any language.
        module: prompt and completion, parsed, where they are Python; without it the last numbers are `UNKNOWN`.
    """
    lines = completion.splitlines()
    full = [line for line in lines if line.strip()]
    indents = [len(line) - len(line.lstrip()) for line in full] or [0]
    words = WORDS.findall(completion.lower())
    asked = set(WORDS.findall(prompt.lower()))
    headers = PARAMETERS.findall(prompt)
    parameters = re.findall(r"(\w+)\s*(?=[:,=]|$)", headers[0]) if headers else []
    used = [bool(re.search(rf"\b{re.escape(name)}\b", completion)) for name in parameters]
    last = full[-1].strip() if full else ""
    return [
        *(math.log1p(len(pattern.findall(completion))) for pattern in PATTERNS),
        math.log1p(len(completion)) / 3,
        math.log1p(len(full)),
        math.log1p(max(indents)),
        math.log1p(indents[-1]),
        float(completion.endswith("\n")),
        float("return" in last),
        len({line.strip() for line in full}) / len(full) if full else 0.0,
        math.log1p(len(set(words))) / 2,
        sum(word in asked for word in words) / len(words) if words else 0.0,
        sum(used) / len(used) if used else 1.0,
        sum(indent <= min(indents) for indent in indents) / len(indents),
        float(module is not None),
        *_tree_numbers(module),
    ]


def _tree_numbers(module: ast.Module | None) -> list[float]:
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef)] if module else []
    if module is None or not functions:
        return [UNKNOWN] * 9
    nodes = list(ast.walk(module))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    first = functions[0]
    return [
        math.log1p(len(undefined_names(module))),
        math.log1p(len(stored - loaded)),
        math.log1p(len(nodes)) / 2,
        math.log1p(sum(isinstance(node, ast.Name) for node in nodes)) / 2,
        math.log1p(len(module.body)),
        float(isinstance(first.body[-1], ast.Return)),
        math.log1p(_depth(first)),
        float(isinstance(first.body[-1], ast.For | ast.While | ast.If)),
        math.log1p(sum(isinstance(node, ast.Call) for node in nodes)),
    ]


def undefined_names(module: ast.Module) -> list[ast.Name]:
    """Every use of a name that the module neither binds anywhere nor finds among Python's own."""
    bound: set[str] = set(BUILTINS)
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound.add(node.name)
    return [node for node in ast.walk(module) if isinstance(node, ast.Name) and node.id not in bound]


def _depth(node: ast.AST) -> int:
    level, depth = [node], 0
    while level:
        level = [child for parent in level for child in ast.iter_child_nodes(parent)]
        depth += 1
    return depth


def parsed(text: str) -> ast.Module | None:
    """The text as Python, None where it is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
