"""Whether what was read can be an example of this function: by its annotations, and by what the prompt says of it.

A function that returns nothing, draws at random, may answer in several ways or takes nodes of a list or a tree has no
examples that a literal call could show. A value of another family than its annotation was read from something else.
"""

from __future__ import annotations

import ast
import re

from service.evidence.examples.signature import Signature
from service.evidence.examples.types import Example

_NO_VALUE = re.compile(r"None\Z|(?:typing\.|collections\.abc\.)?(?:Async)?(?:Iterator|Iterable|Generator)\b")
_NODES = re.compile(r"\b(?:ListNode|TreeNode|Node)\b")
_RETURNS_NOTHING = re.compile(
    r"\b(?:(?:does not|doesn't|must not|should not|shouldn't|do not|don't|without) return(?:ing|s)? "
    r"(?:anything|a value|any(?: value)?)|return(?:s|ing)? nothing|nothing (?:is|to be) returned)\b",
    re.IGNORECASE,
)
_RANDOM = re.compile(
    r"\bin (?:a )?random order\b"
    r"|\brandom(?:ly)? (?:number|integer|item|element|choice|order|permutation|shuffled?|sample|pick)"
    r"|\.seed\(|\bshuffles?\b",
    re.IGNORECASE,
)
_ANY_ORDER = re.compile(
    r"\b(?:in|the) any order\b|\bin no (?:particular|specific|special) order\b|\border (?:of [^.\n]{0,60})?"
    r"(?:does not|doesn't|doesn’t|need not|may not) (?:matter|be)|\b(?:regardless|irrespective) of (?:the )?order\b"
    r"|\border (?:of [^.\n]{0,60})?(?:is|are) (?:not important|irrelevant|unimportant)|\bany order (?:is|will|of)\b",
    re.IGNORECASE,
)
_SEVERAL_ANSWERS = re.compile(
    r"\bany (?:one )?of (?:them|these|those)\b"
    r"|\breturn any (?:one|of|valid|such|correct|solution|answer|order|possible|longest|shortest|element|pair|index)\b"
    r"|\bany (?:valid|correct|such|one|possible|other)\b[^.\n]{0,60}(?:accept|allowed|fine|ok\b)"
    r"|\bmultiple (?:valid |correct |possible |optimal )?(?:answers|solutions|outputs|results)\b|\banother valid\b"
    r"|\b(?:is|are|would be|be) also (?:a |an )?(?:valid|correct|accepted|acceptable|possible|right|ok(?:ay)?)\b"
    r"|\b(?:is|are) (?:all |both )?(?:accepted|acceptable)\b",
    re.IGNORECASE,
)
_ASKS_FOR_HELP = re.compile(
    r"\bwhat(?:'s| is| am I doing) wrong\b|\bhow (?:do|can|should) I fix\b|\bmy code\b"
    r"|\bwhere is the (?:bug|mistake)\b",
    re.IGNORECASE,
)
_FAMILIES = {
    "str": "text",
    **dict.fromkeys(("int", "float", "bool", "complex"), "number"),
    **dict.fromkeys(("list", "tuple", "sequence"), "row"),
    **dict.fromkeys(("set", "frozenset"), "set"),
    **dict.fromkeys(("dict", "mapping"), "mapping"),
}


def has_examples(prompt: str, signature: Signature) -> bool:
    """Whether literal calls can show what this function does: it returns a value, the same one each time."""
    if _NO_VALUE.match((signature.returns or "").strip()) or _RETURNS_NOTHING.search(prompt):
        return False
    if any(_NODES.search(parameter.annotation or "") for parameter in signature.parameters):
        return False
    return _RANDOM.search(prompt) is None and _SEVERAL_ANSWERS.search(prompt) is None


def is_plausible(example: Example, prompt: str, signature: Signature) -> bool:
    """Whether values are of their annotations' families, no operations of a class, no output that is asked about."""
    definition = signature.definition
    is_written = definition is not None and not definition.unfinished
    if is_written and example.style in ("comment", "doctest") and _ASKS_FOR_HELP.search(prompt):
        return False  # what the asker's own program does
    owner = (signature.entry_point or "").rpartition(".")[0]
    if owner and re.match(rf"\[['\"]{re.escape(owner)}['\"]", example.arguments or ""):
        return False
    expected = ast.parse(example.expected or "None", mode="eval").body
    if not _is_of(expected, signature.returns) or (_is_row_of_several(expected) and _ANY_ORDER.search(prompt)):
        return False
    call = ast.parse(f"f({example.arguments})", mode="eval").body
    assert isinstance(call, ast.Call)
    annotations = {parameter.name: parameter.annotation for parameter in signature.parameters}
    by_place = [p.annotation for p in signature.parameters if not p.name.startswith("*")]
    if any(name.startswith("*") and not name.startswith("**") for name in annotations):
        by_place = []
    given = [*zip(call.args, by_place, strict=False), *((k.value, annotations.get(k.arg or "")) for k in call.keywords)]
    return all(_is_of(value, annotation) for value, annotation in given)


def _is_row_of_several(value: ast.expr) -> bool:
    """Whether a literal has an order that another right answer may not have."""
    return any(isinstance(node, ast.List | ast.Tuple) and len(node.elts) > 1 for node in ast.walk(value))


def _is_of(value: ast.expr, annotation: str | None) -> bool:
    wanted, found = _family(annotation), _family_of(value)
    return wanted is None or found is None or wanted == found


def _family(annotation: str | None) -> str | None:
    """The family of a plain annotation; None for a union, a name of the program's own or none."""
    bare = (annotation or "").strip().strip("'\"")
    optional = re.fullmatch(r"(?:typing\.)?Optional\[(.*)\]", bare)
    bare = optional[1] if optional else bare
    return None if "|" in bare else _FAMILIES.get(bare.split("[")[0].removeprefix("typing.").lower())


def _family_of(value: ast.expr) -> str | None:
    """The family of a literal; None for None, and what is no literal alone."""
    if isinstance(value, ast.UnaryOp):
        value = value.operand
    if isinstance(value, ast.Constant):
        return _FAMILIES.get(type(value.value).__name__)
    kinds = {ast.List: "row", ast.Tuple: "row", ast.Set: "set", ast.Dict: "mapping"}
    return kinds.get(type(value))
