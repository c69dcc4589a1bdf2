"""What a prompt says by itself, for ranking samples: the examples that they pass, and what they answer to more inputs.

The reading, the inputs, the runs and the formulas are those of `/rank` without tests; here a problem's samples are
observed once, and every drawn subset of them is ranked on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from plaudit.grading import Verdict
from sandbox.types import Limits, ObservedCall, ObserveSuite, Program, Stop
from service.evidence.examples import Reading, read_examples
from service.evidence.inputs import mutated_inputs
from service.evidence.rounds import ObservationRounds, Round, default_budget_s
from training.data.judge_local import local_sandbox

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox


@dataclass(slots=True)
class ProgramObservation:
    """A program's share of the prompt's examples that it passes, and its outcome on each further input."""

    example_rate: float = 0.0
    passes: list[bool] = field(default_factory=list)  # of the examples
    answers: list[str] = field(default_factory=list)
    cpu_ms: float = 0.0  # what observing it cost: the program, its jail, the judge


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

    def observe(
        self, solutions: Sequence[str], sandbox: Sandbox, *, complete: bool = True
    ) -> dict[str, ProgramObservation]:
        """Run each different program in rounds, within the budget that a request of as many has; by its text.

        `complete`: all on all inputs, as where subsets are ranked later; else only those that can still be best.
        """
        from sandbox.judge import judge

        examples = self.reading.examples
        calls = [ObservedCall(e.arguments or "", e.expected, tolerance=e.tolerance) for e in examples]
        calls += [ObservedCall(source) for source in self.inputs]
        programs = list(dict.fromkeys(solutions))
        observations = {solution: ProgramObservation() for solution in programs}
        if not calls:
            return observations
        rounds = ObservationRounds(
            [solutions.count(program) for program in programs],
            len(examples),
            len(self.inputs),
            is_stdio=False,
            budget_cpu_s=default_budget_s(len(programs)),
            complete=complete,
        )
        current: Round | None = rounds.first()
        while current is not None:
            chosen = tuple(calls[at] for at in current.calls)
            suite = ObserveSuite(self.entry_point, chosen, call_cpu_s=current.call_cpu_s, budget_cpu_s=current.share_s)
            for program in current.programs:
                report = judge(Program("python", programs[program]), suite, Limits(), Stop(), sandbox)
                rounds.add(current, program, report)
                observations[programs[program]].cpu_ms += report.cpu_ms
            current = rounds.next()
        for program, solution in enumerate(programs):
            tests = rounds.known(program)
            passed = [test.verdict is Verdict.PASSED for test in tests[: len(examples)]]
            observations[solution].passes = passed
            observations[solution].example_rate = sum(passed) / len(passed) if passed else 0.0
            observations[solution].answers = [test.outcome for test in tests[len(examples) :]]
        return observations


@dataclass(frozen=True, slots=True)
class EvidenceRequest:
    """A problem's samples to observe: `solutions[i]` is the program of `completions[i]`."""

    prompt: str
    entry_point: str
    completions: tuple[str, ...]
    solutions: tuple[str, ...]


class ObservedSamples(NamedTuple):
    """Of each sample its share of the examples and its answers; of each different program what it cost."""

    example_rates: list[float]
    answers: list[list[str]]
    cpu_s: list[float]


@contextmanager
def evidence_sandbox(num_inputs: int) -> Iterator[Callable[[Sequence[EvidenceRequest]], list[ObservedSamples]]]:
    """A sandbox of this process in which samples are observed. Raises `HostLacks` where there is none."""
    with local_sandbox() as sandbox:

        def observe(request: EvidenceRequest) -> ObservedSamples:
            evidence = PromptEvidence.of(
                request.prompt, request.entry_point, request.completions, num_inputs=num_inputs
            )
            observed = evidence.observe(request.solutions, sandbox)
            return ObservedSamples(
                [observed[text].example_rate for text in request.solutions],
                [observed[text].answers for text in request.solutions],
                [program.cpu_ms / 1000 for program in observed.values()],
            )

        yield lambda requests: list(map(observe, requests))
