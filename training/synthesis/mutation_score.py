"""How strong a suite is: which wrong programs it tells from the right one.

- The wrong programs are mutants of the oracle's program, and one stub that answers nothing.
- A test that none of them fails is useless.
- The suite's strength is the share of the mutants that fail a test. A mutant may be equivalent to the original, so the
  share is a lower bound, and 1.0 cannot always be reached.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.data.mutate import mutants
from training.pipeline.records import Problem


@dataclass(frozen=True, slots=True)
class SuiteStrength:
    """`useful`: places of the tests that some wrong program fails; `survivors`: mutants that pass every test."""

    useful: tuple[int, ...]
    survivors: tuple[str, ...]
    num_mutants: int

    @property
    def killed(self) -> float:
        """Share of the mutants that fail a test; 1.0 where none could be made."""
        return 1 - len(self.survivors) / self.num_mutants if self.num_mutants else 1.0


def wrong_programs(problem: Problem, count: int, seed: int) -> tuple[list[str], str]:
    """Mutants of the problem's reference solution, and a stub of its entry point."""
    wrong = mutants(problem, count, random.Random(f"{seed}:{problem.task_id}"))[1:]
    return wrong, f"def {problem.entry_point}(*args, **kwargs):\n    return NotImplemented\n"


def suite_strength(mutant_verdicts: Mapping[str, Sequence[bool] | None], stub: Sequence[bool] | None) -> SuiteStrength:
    """Strength from the tests that each mutant and the stub pass, in the tests' order; None: could not be judged."""
    judged = {program: passes for program, passes in mutant_verdicts.items() if passes is not None}
    rows = [*judged.values(), *([stub] if stub is not None else [])]
    num_tests = max(map(len, rows), default=0)
    useful = tuple(at for at in range(num_tests) if any(not passes[at] for passes in rows))
    return SuiteStrength(useful, tuple(program for program, passes in judged.items() if all(passes)), len(judged))
