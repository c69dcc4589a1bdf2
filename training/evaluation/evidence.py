"""What a prompt says by itself, for ranking samples: the examples that they pass, and what they answer to more inputs.

The reading, the inputs, the runs and the formulas are those of `/rank` without tests; here a problem's samples are
observed once, and every drawn subset of them is ranked on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from plaudit.grading import Verdict
from sandbox.types import Limits, ObservedCall, ObserveSuite, Program, Stop
from service.evidence.examples import Reading, read_examples
from service.evidence.inputs import mutated_inputs

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox


@dataclass(slots=True)
class ProgramObservation:
    """A program's share of the prompt's examples that it passes, and its outcome on each further input."""

    example_rate: float = 0.0
    answers: list[str] = field(default_factory=list)
    cpu_ms: float = 0.0  # of its calls


@dataclass(frozen=True, slots=True)
class PromptEvidence:
    """What the samples of a problem are observed on: the prompt's examples, then inputs like them."""

    entry_point: str
    reading: Reading
    inputs: Sequence[str]

    @classmethod
    def of(
        cls, prompt: str, entry_point: str, completions: Sequence[str], *, num_inputs: int, use_examples: bool = True
    ) -> PromptEvidence:
        """Read a prompt of a Python function.

        Args:
            prompt: as the sampler saw it.
            entry_point: the function that it asks for.
            completions: samples; they say what types they take where the prompt does not.
            num_inputs: how many inputs to make.
            use_examples: False: as if the prompt had none.
        """
        reading = read_examples(prompt, entry_point=entry_point)
        if not use_examples:
            reading = Reading(reading.kind, reading.entry_point, reading.parameters)
        return cls(entry_point, reading, mutated_inputs(reading, completions, prompt=prompt, count=num_inputs))

    def observe(self, solutions: Sequence[str], sandbox: Sandbox) -> dict[str, ProgramObservation]:
        """Run each different program once; by its text."""
        from sandbox.judge import judge

        examples = self.reading.examples
        calls = [ObservedCall(example.arguments or "", example.expected) for example in examples]
        calls += [ObservedCall(source) for source in self.inputs]
        if not calls:
            return {solution: ProgramObservation() for solution in solutions}
        suite = ObserveSuite(self.entry_point, tuple(calls))
        observations = {}
        for solution in dict.fromkeys(solutions):
            tests = judge(Program("python", solution), suite, Limits(), Stop(), sandbox).tests
            passed = [test.verdict is Verdict.PASSED for test in tests[: len(examples)]]
            observations[solution] = ProgramObservation(
                sum(passed) / len(passed) if passed else 0.0,
                [test.outcome for test in tests[len(examples) :]],
                sum(test.cpu_ms for test in tests),
            )
        return observations
