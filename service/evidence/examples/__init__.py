"""The examples that a prompt shows, read into calls with expected values or into stdin and stdout.

- Precision first: where a text may mean something else, nothing is read.
- Texts are untrusted and may be megabytes: every pattern is anchored and bounded, all literals share one budget, and
  nothing of a prompt is evaluated.
- `signature` finds the function that is asked for; `calls`, `blocks`, `tables` and `samples` read one family of forms
  each; `render` writes what was read as tests and as data for an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.evidence.examples.blocks import labelled_examples, sentence_examples
from service.evidence.examples.calls import call_examples
from service.evidence.examples.signature import (
    Definition,
    Signature,
    definitions_of,
    signature_of,
    signature_of_completions,
)
from service.evidence.examples.source import MAX_EXAMPLES, Source, same
from service.evidence.examples.tables import table_examples
from service.evidence.examples.types import Example, Parameter, Reading

__all__ = ["Example", "Parameter", "Reading", "read_examples"]


def read_examples(prompt: str, *, entry_point: str | None = None, completions: Sequence[str] = ()) -> Reading:
    """Read what a prompt says by example about the program that it asks for.

    Args:
        prompt: text; chat messages are joined before.
        entry_point: the function's name, "f" or "Class.method", where the caller knows it.
        completions: code; asked only for what the prompt does not say: the entry point and its parameters.

    Returns:
        The examples in the order of the prompt, at most `MAX_EXAMPLES` of them.
    """
    definitions = definitions_of(prompt)
    signature = _signature(prompt, definitions, entry_point, completions)
    if signature.entry_point is None:
        return Reading()
    source = Source.of(prompt, signature, definitions)
    examples: list[Example] = []
    for form in (call_examples, table_examples, labelled_examples, sentence_examples):
        for example in form(source):
            if source.free(example.start, example.end):
                source.add(examples, example)
    return Reading("function", signature.entry_point, signature.parameters, without_conflicts(examples)[:MAX_EXAMPLES])


def _signature(
    prompt: str, definitions: Sequence[Definition], entry_point: str | None, completions: Sequence[str]
) -> Signature:
    name = entry_point.rpartition(".")[2] if entry_point else None
    if entry_point is None:
        signature = signature_of(prompt, definitions)
    else:
        own = [d for d in definitions if d.name.rpartition(".")[2] == name]
        signature = Signature(entry_point)
        if own:
            signature = Signature(entry_point, own[-1].parameters, own[-1].returns, own[-1])
    if not signature.parameters and completions and signature.definition is None:
        given = signature_of_completions(completions, prompt, name or signature.entry_point)
        signature = Signature(signature.entry_point or given.entry_point, given.parameters, given.returns)
    return signature


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
