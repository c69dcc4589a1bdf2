"""Inputs on which candidates can be compared: variants of the prompt's examples, of the same types and shapes.

- Typed mutation, as EvalPlus does it (Liu et al. 2023, arXiv 2305.01210): a number becomes one nearby, a text is made
  of the characters of the examples' texts, a list loses, repeats or reorders items, and so on inside.
- Without examples the types come from annotations, defaults, the prompt's nouns and the parameters' names
  (`input_types`), and typical values of them are the examples.
- Deterministic for a seed, bounded in number, size and depth. Nothing is evaluated but literals.
"""

from __future__ import annotations

import ast
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.evidence.examples import Example, Reading
from service.evidence.input_types import typical_arguments
from service.evidence.stdin_inputs import mutated_stdin

MAX_INPUTS = 200
MAX_ITEMS = 60  # of a mutated list, and characters of a mutated text beyond those of the examples
MAX_DEPTH = 8
MAX_CHARACTERS = 20_000  # of an example's arguments that are mutated
ATTEMPTS = 12  # per input: a mutation may give an input that is there already


@dataclass(frozen=True, slots=True)
class Call:
    """The values of one call, and the names of the last of them."""

    values: tuple[Any, ...]
    names: tuple[str, ...] = ()

    def source(self) -> str:
        """The arguments as Python source."""
        texts = [literal_source(value) for value in self.values]
        num_plain = len(texts) - len(self.names)
        named = [f"{name}={text}" for name, text in zip(self.names, texts[num_plain:], strict=True)]
        return ", ".join([*texts[:num_plain], *named])


@dataclass(slots=True)
class Pool:
    """What the examples have at one place, such as an argument or the items of a list that is one."""

    ints: list[int] = field(default_factory=list)
    floats: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    lengths: set[int] = field(default_factory=set)
    items: Pool | None = None

    def add(self, value: Any, depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            return
        if type(value) is int:
            self.ints.append(value)
        elif type(value) is float:
            if math.isfinite(value):
                self.floats.append(value)
        elif type(value) is str:
            self.texts.append(value)
        elif isinstance(value, list | tuple | set | frozenset | dict):
            self.lengths.add(len(value))
            self.items = self.items or Pool()
            for item in value.values() if isinstance(value, dict) else value:
                self.items.add(item, depth + 1)
            if isinstance(value, dict):
                for key in value:
                    self.items.add(key, depth + 1)


def mutated_inputs(
    reading: Reading, completions: Sequence[str] = (), *, prompt: str = "", count: int = 30, seed: int = 0
) -> list[str]:
    """Make inputs of the kind that the prompt asks a program for.

    Args:
        reading: what the prompt says by example.
        completions: of the group; asked for hints of types where there are no examples.
        prompt: its nouns are asked where there are no examples.
        count: how many inputs, at most `MAX_INPUTS`.
        seed: the same seed gives the same inputs.

    Returns:
        Sources of arguments ("[1, 2], k=3"), or texts for stdin; each once, and none of the examples'. Fewer than
        `count` where there is not so much to vary, none where nothing is known. Short ones come first: they are quick,
        and a program that spends its budget has then answered most.
    """
    count = min(count, MAX_INPUTS)
    draw = random.Random(f"plaudit inputs {seed}")
    if reading.kind == "stdio":
        samples = [example.stdin for example in reading.examples if example.stdin is not None]
        return _distinct(mutated_stdin(samples, draw), set(samples), count)
    if reading.kind != "function":
        return []
    calls = [call for example in reading.examples if (call := _call(example)) is not None]
    known = {call.source() for call in calls}
    if not calls:
        calls = [Call(values) for values in typical_arguments(reading, prompt, completions)]
        known = set()
    if not calls or not any(call.values for call in calls):
        return []
    fresh = [] if known else [call.source() for call in calls]
    return _distinct(_mutated_calls(calls, fresh, draw), known, count)


def _distinct(inputs: Iterator[str], known: set[str], count: int) -> list[str]:
    """The first inputs that are new; the search for more of them is bounded."""
    chosen: dict[str, None] = {}
    for _, source in zip(range(count * ATTEMPTS), inputs, strict=False):
        if source not in known:
            chosen[source] = None
        if len(chosen) >= count:
            break
    return sorted(chosen, key=len)


def _call(example: Example) -> Call | None:
    """The values of an example's arguments; None for what is too long to be varied."""
    if example.arguments is None or len(example.arguments) > MAX_CHARACTERS:
        return None
    try:
        node = ast.parse(f"f({example.arguments}\n)", mode="eval").body
        if not isinstance(node, ast.Call):
            return None
        names = tuple(keyword.arg for keyword in node.keywords if keyword.arg)
        parts = [*node.args, *(keyword.value for keyword in node.keywords)]
        return Call(tuple(ast.literal_eval(part) for part in parts), names)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _mutated_calls(calls: Sequence[Call], fresh: Sequence[str], draw: random.Random) -> Iterator[str]:
    yield from fresh
    pools = [Pool() for _ in range(max(len(call.values) for call in calls))]
    for call in calls:
        for pool, value in zip(pools, call.values, strict=False):
            pool.add(value)
    while True:
        call = draw.choice(calls)
        if not call.values:
            continue
        values = list(call.values)
        changed = draw.sample(range(len(values)), draw.randint(1, len(values)))
        for at in changed:
            for _ in range(draw.choice((1, 1, 2, 3))):
                values[at] = mutated(values[at], pools[at], draw)
        yield Call(tuple(values), call.names).source()


def mutated(value: Any, pool: Pool, draw: random.Random, depth: int = 0) -> Any:
    """Another value of the same type, like those of the pool."""
    if depth > MAX_DEPTH:
        return value
    match value:
        case bool():
            return draw.random() < 0.5
        case int():
            return _int(value, pool, draw)
        case float():
            return _float(value, pool, draw)
        case str():
            return text_like(value, pool.texts, draw)
        case bytes():
            return bytes(draw.sample(list(value), len(value)))
        case list():
            return _sequence(value, pool, draw, depth)
        case tuple():
            is_fixed = len(pool.lengths) <= 1
            return tuple(_items(value, pool, draw, depth) if is_fixed else _sequence([*value], pool, draw, depth))
        case set() | frozenset():
            ordered = sorted(value, key=repr)
            return type(value)(_hashable(_sequence(ordered, pool, draw, depth)))
        case dict():
            return _dict(value, pool, draw, depth)
    return value


def _int(value: int, pool: Pool, draw: random.Random) -> int:
    low, high = min([value, *pool.ints]), max([value, *pool.ints])
    spread = max(3, high - low, abs(high) // 2)
    least = low if low <= 1 else max(1, low - spread)
    choices = (
        value + draw.choice((-2, -1, 1, 2)),
        draw.randint(least, high + spread),
        draw.randint(least, high + 2),
        draw.choice(pool.ints or [value]),
        value * 2,
    )
    chosen = draw.choice(choices)
    if low >= 0 and chosen < 0:
        return -chosen
    return max(chosen, 1) if low >= 1 and draw.random() < 0.8 else chosen


def _float(value: float, pool: Pool, draw: random.Random) -> float:
    if not math.isfinite(value):
        return value
    seen = [value, *pool.floats]
    low, high = min(seen), max(seen)
    spread = max(1.0, high - low)
    chosen = draw.choice(
        (
            value + draw.choice((-1.0, -0.5, 0.5, 1.0)),
            draw.uniform(low, high + spread / 2),
            draw.choice(seen),
            float(round(value)),
        )
    )
    return round(-chosen if low >= 0 > chosen else chosen, draw.choice((1, 1, 2)))


def text_like(value: str, texts: Sequence[str], draw: random.Random) -> str:
    """Another text: of the characters and words of these texts, mostly of the same form."""
    alphabet = sorted({character for text in (value, *texts) for character in text[:1000]}) or ["a", "b", "c"]
    words = [word for text in (value, *texts) for word in text[:1000].split()]
    at = draw.randrange(len(value) + 1)
    ways = ["same_form", "same_form", "drop", "insert", "repeat", "shuffle", "reverse", "join", "case", "half"]
    if " " in value:
        ways += ["words", "words", "words"]
    if any(character.isalpha() for character in alphabet):
        ways.append("letter")
    match draw.choice(ways):
        case "same_form":
            chosen = "".join(_same_class(character, draw) if draw.random() < 0.4 else character for character in value)
        case "drop":
            chosen = value[:at] + value[at + 1 :]
        case "insert":
            chosen = value[:at] + draw.choice(alphabet) + value[at:]
        case "repeat":
            chosen = value[:at] + value[max(0, at - 2) : at] + value[at:]
        case "shuffle":
            chosen = "".join(draw.sample(value, len(value)))
        case "reverse":
            chosen = value[::-1]
        case "join":
            chosen = value + draw.choice([*texts, value])
        case "case":
            chosen = value.swapcase() if draw.random() < 0.5 else value.title()
        case "half":
            chosen = value[: len(value) // 2]
        case "words":
            own = [draw.choice(words) if draw.random() < 0.4 else word for word in value.split(" ")]
            chosen = " ".join(draw.sample(own, draw.randint(max(1, len(own) - 2), len(own))))
        case _:
            chosen = value[:at] + draw.choice("aeioubcdxyzAEZ") + value[at:]
    longest = max(map(len, (value, *texts)))
    return chosen[: 2 * longest + MAX_ITEMS]


def _same_class(character: str, draw: random.Random) -> str:
    """Another digit for a digit, another letter for a letter; other characters stay."""
    if character.isdigit():
        return draw.choice("0123456789")
    if character.isalpha() and character.isascii():
        return draw.choice("abcdefghijklmnopqrstuvwxyz" if character.islower() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return character


def _items(values: Sequence[Any], pool: Pool, draw: random.Random, depth: int) -> list[Any]:
    """The items, some of them mutated."""
    items, inside = list(values), pool.items or Pool()
    if items:
        for at in draw.sample(range(len(items)), draw.randint(1, min(3, len(items)))):
            items[at] = mutated(items[at], inside, draw, depth + 1)
    return items


def _sequence(values: list[Any], pool: Pool, draw: random.Random, depth: int) -> list[Any]:
    inside = pool.items or Pool()
    if not values:
        seen = [*inside.ints, *inside.floats, *inside.texts]
        return draw.sample(seen, draw.randint(1, min(4, len(seen)))) if seen else values
    at = draw.randrange(len(values))
    match draw.choice(("items", "items", "items", "drop", "repeat", "more", "more", "shuffle", "sort", "part", "few")):
        case "items":
            chosen = _items(values, pool, draw, depth)
        case "drop":
            chosen = values[:at] + values[at + 1 :]
        case "repeat":
            chosen = [*values[:at], values[at], *values[at:]]
        case "more":
            extra = [mutated(draw.choice(values), inside, draw, depth + 1) for _ in range(draw.randint(1, 3))]
            chosen = values[:at] + extra + values[at:]
        case "shuffle":
            chosen = draw.sample(values, len(values))
        case "sort":
            chosen = sorted(values, key=_order, reverse=draw.random() < 0.5)
        case "part":
            chosen = values[: at + 1]
        case _:
            chosen = [values[at]] * draw.randint(0, 2)
    return chosen[: max(MAX_ITEMS, len(values))]


def _order(value: Any) -> tuple[str, Any]:
    return ("", value) if isinstance(value, int | float) else ("s", repr(value))


def _dict(value: dict[Any, Any], pool: Pool, draw: random.Random, depth: int) -> dict[Any, Any]:
    inside = pool.items or Pool()
    keys = list(value)
    if not keys:
        return value
    key = draw.choice(keys)
    changed = dict(value)
    match draw.choice(("value", "value", "drop", "key", "more")):
        case "value":
            changed[key] = mutated(value[key], inside, draw, depth + 1)
        case "drop":
            del changed[key]
        case "key":
            changed = {
                (_hashable([mutated(k, inside, draw, depth + 1)]) or [k])[0] if k == key else k: item
                for k, item in value.items()
            }
        case _:
            for new in _hashable([mutated(key, inside, draw, depth + 1)]):
                changed[new] = mutated(value[key], inside, draw, depth + 1)
    return changed


def _hashable(values: Sequence[Any]) -> list[Any]:
    kept = []
    for value in values:
        try:
            hash(value)
        except TypeError:
            continue
        kept.append(value)
    return kept


def literal_source(value: Any) -> str:
    """A value as a literal that `ast.literal_eval` reads back: infinity as 1e999."""
    match value:
        case float() if math.isinf(value):
            return "1e999" if value > 0 else "-1e999"
        case list():
            return f"[{', '.join(map(literal_source, value))}]"
        case tuple():
            inside = ", ".join(map(literal_source, value))
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        case dict():
            return (
                "{" + ", ".join(f"{literal_source(key)}: {literal_source(item)}" for key, item in value.items()) + "}"
            )
        case set() if value:
            return "{" + ", ".join(sorted(map(literal_source, value))) + "}"
    return repr(value)
