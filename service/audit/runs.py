"""What an audit has run so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from plaudit.schemas import ProgramResult


@dataclass(slots=True)
class AuditRuns:
    """What was run, and how it was judged. `mutant_texts` and `mutants` go together; the rest is None if not run."""

    silent: ProgramResult | None = None
    reference: ProgramResult | None = None
    seeded: list[ProgramResult] = field(default_factory=list)
    hack: str | None = None
    hacked: ProgramResult | None = None
    given: list[ProgramResult] = field(default_factory=list)
    printed: str = ""
    mutant_texts: list[str] = field(default_factory=list)
    mutants: list[ProgramResult] = field(default_factory=list)
    num_planned: int = 0

    def all(self) -> list[ProgramResult]:
        once = [result for result in (self.silent, self.reference, self.hacked) if result is not None]
        return [*once, *self.seeded, *self.given, *self.mutants]

    @property
    def spent_cpu_ms(self) -> float:
        return sum(test.cpu_ms for result in self.all() for test in result.tests)
