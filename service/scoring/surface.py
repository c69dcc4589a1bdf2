"""The surface of a completion: numbers that are counted in its text, and a linear head on them.

- A model of a few million parameters counts badly. How many names nothing defines, whether the parameters are used and
  where a program returns are better counted than learnt.
- `SurfaceHead` reads the text from the token ids that the model reads, so a score still depends on its tokens alone,
  whichever way they came in.
- The text is parsed, never run. Texts are as long as the model's limit allows; every number takes linear time.
- Training has the numbers as targets of an auxiliary loss, too: the last token's state learns to sum a text up.
"""

from __future__ import annotations

import ast
import builtins
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plaudit.errors import UsageError
from plaudit.extract import code_of

COUNTED = {
    "returns": r"\breturn\b",
    "ifs": r"\bif\b",
    "elses": r"\belse\b|\belif\b",
    "fors": r"\bfor\b",
    "whiles": r"\bwhile\b",
    "functions": r"\bdef\b|\bfunction\b",
    "prints": r"\bprint\b|\bconsole\b|\bcout\b",
    "stubs": r"\bpass\b|\bTODO\b|NotImplemented|\.\.\.",
    "asserts": r"\bassert\b",
    "nones": r"\bNone\b|\bnull\b",
    "truths": r"\bTrue\b|\bFalse\b|\btrue\b|\bfalse\b",
    "assignments": r"(?<![=!<>])=(?!=)",
    "comparisons": r"==|!=|<|>",
    "arithmetic": r"[+*/%-]",
    "parentheses": r"\(",
    "brackets": r"\[",
    "comments": r"#|//|\"\"\"",
    "lengths": r"\blen\b|\bsize\b|\blength\b",
    "ranges": r"\brange\b",
    "ins": r"\bin\b",
    "nots": r"\bnot\b|!",
    "ands_ors": r"\band\b|\bor\b|&&|\|\|",
    "integers": r"\d+",
    "raises": r"\braise\b|\bthrow\b",
    "tries": r"\btry\b",
}
PATTERNS = tuple(re.compile(pattern) for pattern in COUNTED.values())
WORDS = re.compile(r"[A-Za-z]+")
IDENTIFIERS = re.compile(r"\w+")
PARAMETERS = re.compile(r"\(([^()]*)\)[^()\n]*[:{]\s*(?:\n|$)")
TEXT_NUMBERS = (
    "characters",
    "lines",
    "deepest_indent",
    "last_indent",
    "ends_with_newline",
    "last_line_returns",
    "distinct_lines",
    "distinct_words",
    "words_of_the_prompt",
    "parameters_used",
    "lines_at_least_indent",
    "is_python",
)
TREE_NUMBERS = (
    "undefined_names",
    "unused_names",
    "nodes",
    "names",
    "statements",
    "ends_with_return",
    "depth",
    "ends_with_block",
    "calls",
)
NUMBERS = (*COUNTED, *TEXT_NUMBERS, *TREE_NUMBERS)
NUM_NUMBERS = len(NUMBERS)
CLAMP = 4.0  # standard deviations from which a number counts no further
UNKNOWN = math.nan  # a number that this text does not have: the loss leaves it out
BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__"}


def surface_of(prompt: str, completion: str, module: ast.Module | None) -> list[float]:
    """The `NUMBERS` of a completion, each of the order of one.

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
    identifiers = set(IDENTIFIERS.findall(completion))
    used = [name in identifiers for name in parameters]
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
        return [UNKNOWN] * len(TREE_NUMBERS)
    nodes = list(ast.walk(module))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    first = functions[0]
    return [
        math.log1p(len(_undefined(nodes))),
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
    return _undefined(list(ast.walk(module)))


def _undefined(nodes: Sequence[ast.AST]) -> list[ast.Name]:
    bound: set[str] = set(BUILTINS)
    for node in nodes:
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound.add(node.name)
    return [node for node in nodes if isinstance(node, ast.Name) and node.id not in bound]


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


@dataclass(frozen=True, slots=True)
class SurfaceWeight:
    """One number's part in a score: weight · (value − mean) / scale, within `CLAMP` standard deviations."""

    name: str
    weight: float
    mean: float
    scale: float

    def __post_init__(self) -> None:
        if self.name not in NUMBERS:
            raise UsageError(f"surface: {self.name!r} is not counted here; known are {', '.join(NUMBERS)}")
        if not self.scale > 0 or not all(map(math.isfinite, (self.weight, self.mean, self.scale))):
            raise UsageError(f"surface: {self.name}: takes finite numbers, and a scale above 0")


class SurfaceHead:
    """What the surface of a text adds to its score: a weighted sum of its numbers. An unknown number adds nothing.

    Args:
        tokenizer: whose ids are read.
        template: text with `{prompt}` and `{completion}`.
        weights: of the numbers that count.
    """

    def __init__(self, tokenizer: Any, template: str, weights: Sequence[SurfaceWeight]) -> None:
        self._tokenizer = tokenizer
        self._weights = [(NUMBERS.index(weight.name), weight) for weight in weights]
        self._before, rest = template.split("{prompt}")
        self._between, self._after = rest.split("{completion}")

    def __call__(self, ids: Sequence[int]) -> float:
        """What is added to the score of a text with these ids."""
        values = self.numbers(ids)
        total = 0.0
        for at, weight in self._weights:
            deviation = (values[at] - weight.mean) / weight.scale
            if not math.isnan(deviation):
                total += weight.weight * min(max(deviation, -CLAMP), CLAMP)
        return total

    def numbers(self, ids: Sequence[int]) -> list[float]:
        """The `NUMBERS` of a text in the template; all of a text that is not is completion."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        prompt, between, completion = text.removeprefix(self._before).partition(self._between)
        if not between:
            prompt, completion = "", prompt
        completion = completion.removesuffix(self._after)
        fenced = code_of(completion, "python")
        code = completion if fenced is None else fenced.text
        return surface_of(prompt, code, _module(prompt, code))


def _module(prompt: str, code: str) -> ast.Module | None:
    """The code as Python: behind its prompt, which may hold the function's header and imports, or by itself. Of several
    functions of one name, as a prompt's stub and its whole function, only the last is there."""
    module = parsed(prompt + code) or parsed(f"{prompt}\n{code}") or parsed(code)
    if module is not None:
        last = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
        module.body = [node for node in module.body if not isinstance(node, ast.FunctionDef) or last[node.name] is node]
    return module
