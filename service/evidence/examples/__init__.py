"""The examples that a prompt shows, read into calls with expected values or into stdin and stdout.

- Precision first: where a text may mean something else, nothing is read.
- Texts are untrusted and may be megabytes: every pattern is anchored and bounded, all literals share one budget, and
  nothing of a prompt is evaluated.
- `signature` finds the function that is asked for; `calls`, `blocks`, `tables` and `samples` read one family of forms
  each; `render` writes what was read as tests and as data for an answer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from service.evidence.examples.blocks import labelled_examples, sentence_examples
from service.evidence.examples.calls import bare_call_examples, call_examples
from service.evidence.examples.misnamed import misnamed
from service.evidence.examples.plausible import has_examples, is_plausible
from service.evidence.examples.records import record_examples
from service.evidence.examples.render import ExplainedExample, as_assert, as_case, explain
from service.evidence.examples.sample_blocks import STDIN
from service.evidence.examples.samples import cell_samples, sample_examples
from service.evidence.examples.signature import (
    Definition,
    Signature,
    definitions_of,
    quoted_signature,
    signature_of,
    signature_of_completions,
)
from service.evidence.examples.source import MAX_EXAMPLES, Source, same
from service.evidence.examples.tables import sample_rows, table_examples
from service.evidence.examples.types import Example, Parameter, Reading

__all__ = ["Example", "ExplainedExample", "Parameter", "Reading", "as_assert", "as_case", "explain", "read_examples"]

MAX_PROMPT = 200_000  # characters that are read

_READS_STDIN = re.compile(
    rf"{STDIN}|inputcopy|-----\s?(?:sample )?input|sample input|first line|input format"
    r"|read(?:s|ing)? (?:from )?(?:the )?input"
    r"|\binput file|per test|from the keyboard"
    r"|entrée standard|standardeingabe|entrada est[áa]ndar|entrada padr[ãa]o|стандартного ввода|标准输入|標準入力",
    re.IGNORECASE,
)

_SAYS_STDIN = re.compile(rf"\b{STDIN}\b", re.IGNORECASE)
_INPUT_CALL = re.compile(r"\binput\(|\bsys\.stdin\b|\bopen\(0")


def read_examples(prompt: str, *, entry_point: str | None = None, completions: Sequence[str] = ()) -> Reading:
    """Read what a prompt says by example about the program that it asks for.

    Args:
        prompt: text; chat messages are joined before.
        entry_point: the function's name, "f" or "Class.method", where the caller knows it.
        completions: code; asked only for what the prompt does not say: the entry point and its parameters.

    Returns:
        The examples in the order of the prompt, at most `MAX_EXAMPLES` of them. Of a prompt with more than `MAX_PROMPT`
        characters the end is read, where the task stands.
    """
    offset = max(0, len(prompt) - MAX_PROMPT)
    reading = _read(prompt[offset:], entry_point, completions)
    if not offset:
        return reading
    moved = (replace(e, start=e.start + offset, end=e.end + offset) for e in reading.examples)
    return replace(reading, examples=tuple(moved))


def _read(prompt: str, entry_point: str | None, completions: Sequence[str]) -> Reading:
    definitions = definitions_of(prompt)
    signature = _signature(prompt, definitions, entry_point)
    if entry_point is None and signature.entry_point == "main":
        signature = Signature(None)  # the program itself
    elif entry_point is None and (other := _other_function(prompt, signature, completions)) is not None:
        signature = _signature(prompt, definitions, other)
    samples: tuple[Example, ...] = ()
    reads_stdin = _READS_STDIN.search(prompt) is not None
    unsure = entry_point is None and not signature.parameters and _SAYS_STDIN.search(prompt) is not None
    if signature.entry_point is None or unsure:
        samples = _samples(Source.of(prompt, signature, definitions), reads_stdin=reads_stdin)
        if samples and (reads_stdin or not completions or _most_read_stdin(completions)):
            return Reading("stdio", None, (), samples)
    if not signature.parameters and completions and signature.definition is None:
        signature = _completed(prompt, signature, completions)
        if signature.entry_point is None:
            return Reading("stdio", None, (), samples) if samples else Reading()
    if signature.entry_point is None:
        return Reading()
    if not has_examples(prompt, signature):
        return Reading("function", signature.entry_point, signature.parameters)
    source = Source.of(prompt, signature, definitions)
    examples = _examples(source) or list(bare_call_examples(source))
    if not examples:
        defined = [definition.name.rpartition(".")[2] for definition in definitions]
        source.called = misnamed(prompt, source.name, defined) or ""
        examples = _examples(source) if source.called else []
    kept = without_conflicts([example for example in examples if is_plausible(example, prompt, signature)])
    return Reading("function", signature.entry_point, signature.parameters, kept[:MAX_EXAMPLES])


def _examples(source: Source) -> list[Example]:
    """What all forms read; of what two forms read, the first one's."""
    examples: list[Example] = []
    for form in (record_examples, call_examples, table_examples, labelled_examples, sentence_examples):
        for example in itertools.islice(form(source), MAX_EXAMPLES):
            if source.free(example.start, example.end):
                source.add(examples, example)
    return examples


def _samples(source: Source, *, reads_stdin: bool) -> tuple[Example, ...]:
    samples = list(itertools.islice(sample_examples(source, reads_stdin=reads_stdin), MAX_EXAMPLES))
    rows = cell_samples(source, sample_rows(source), reads_stdin=reads_stdin)
    return without_conflicts(samples or list(itertools.islice(rows, MAX_EXAMPLES)))


def _most_read_stdin(completions: Sequence[str]) -> bool:
    return 2 * sum(_INPUT_CALL.search(text) is not None for text in completions) > len(completions)


def _signature(prompt: str, definitions: Sequence[Definition], entry_point: str | None) -> Signature:
    if entry_point is None:
        return signature_of(prompt, definitions)
    own = [d for d in definitions if d.name.rpartition(".")[2] == entry_point.rpartition(".")[2]]
    if own:
        return Signature(entry_point, own[-1].parameters, own[-1].returns, own[-1])
    return Signature(entry_point, *quoted_signature(prompt, entry_point.rpartition(".")[2]))


def _other_function(prompt: str, signature: Signature, completions: Sequence[str]) -> str | None:
    """The function that the completions define and the prompt names, where it is not the one that was found."""
    name = (signature.entry_point or "").rpartition(".")[2]
    if not name or not completions or signature_of_completions(completions, prompt, name).definition is not None:
        return None
    other = (signature_of_completions(completions, prompt, None).entry_point or "").rpartition(".")[2]
    return other if other and re.search(rf"\b{re.escape(other)}\b", prompt) else None


def _completed(prompt: str, signature: Signature, completions: Sequence[str]) -> Signature:
    """The signature with what the completions say of it: its name where the prompt has none, and its parameters."""
    name = signature.entry_point.rpartition(".")[2] if signature.entry_point else None
    given = signature_of_completions(completions, prompt, name)
    return Signature(signature.entry_point or given.entry_point, given.parameters, given.returns)


def without_conflicts(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The examples in order, each once, without those that give one call two values."""
    by_input: dict[tuple[str | None, str | None], list[Example]] = {}
    for example in sorted(examples, key=lambda example: example.start):
        by_input.setdefault((example.arguments, example.stdin), []).append(example)
    return tuple(same_input[0] for same_input in by_input.values() if _agree(same_input))


def _agree(examples: Sequence[Example]) -> bool:
    first = examples[0]
    return all(
        example.stdout == first.stdout
        and (example.expected is None or first.expected is None or same(example.expected, first.expected))
        for example in examples
    )
