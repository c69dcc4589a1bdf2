"""The running half of `synthesize`: which tests of a draft stay, how strong they are, and what is asked for more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from plaudit.errors import InfraError
from training.data.verify import Task, judge_all
from training.generation.batch import ask_all
from training.generation.sources import Ask, Usage, seed_of
from training.pipeline.config import Recipe
from training.pipeline.records import Problem, example_prompt
from training.pipeline.run import Run, digest
from training.synthesis.mutation_score import Strength, strength, wrong_programs
from training.synthesis.prompts import more_messages, written_of


@dataclass(slots=True)
class Draft:
    """A question on its way. `tests` shrinks and grows; `program` is the oracle's."""

    task_id: str
    source: str
    license: str
    question: str
    tests: list[str]
    entry_point: str
    program: str = ""
    strength: Strength | None = None
    extended: int = 0

    def problem(self) -> Problem:
        prompt = example_prompt(self.question, self.tests[0]) if self.tests else self.question
        return Problem(
            task_id=self.task_id,
            base_id=self.task_id,
            prompt=prompt,
            entry_point=self.entry_point,
            canonical=self.program,
            test_setup="",
            tests=tuple(self.tests),
            source=self.source,
            license=self.license,
        )


@dataclass(slots=True)
class Account:
    """What became of everything: counts, and a row for every question that was dropped."""

    counts: Counter[str] = field(default_factory=Counter)
    dropped: list[dict[str, str]] = field(default_factory=list)
    before: Counter[str] = field(default_factory=Counter)
    before_tests: Counter[str] = field(default_factory=Counter)

    def drop(self, task_id: str, reason: str, detail: str = "") -> None:
        self.counts[f"dropped_{reason}"] += 1
        self.dropped.append({"task_id": task_id, "reason": reason, "detail": detail})


def sifted(recipe: Recipe, run: Run, drafts: Sequence[Draft], account: Account) -> list[Draft]:
    """The drafts with the tests that the oracle's program passes, twice; those that could not be run are left out."""
    kept = list(drafts)
    for turn, count in ((1, "tests_failed_by_oracle"), (2, "tests_flaky")):
        wanted = [(draft, draft.program) for draft in kept]
        found = passes(recipe, run, wanted, f"synthesis/oracle-{turn}.jsonl", recipe.synthesize.cpu_s)
        for draft, verdicts in zip(kept, found, strict=True):
            if verdicts is not None:
                account.counts[count] += verdicts.count(False)
                draft.tests = [test for test, ok in zip(draft.tests, verdicts, strict=True) if ok]
        kept = [draft for draft, verdicts in zip(kept, found, strict=True) if verdicts is not None]
    return kept


def measured(recipe: Recipe, run: Run, drafts: Sequence[Draft], account: Account) -> list[Draft]:
    """The drafts with the strength of their suites, and without the tests that no wrong program fails."""
    wanted: list[tuple[Draft, str]] = []
    wrong = []
    for draft in drafts:
        found, stub = wrong_programs(draft.problem(), recipe.synthesize.mutants, recipe.seed)
        wrong.append((found, stub))
        wanted += [(draft, program) for program in (*found, stub)]
    verdicts = iter(passes(recipe, run, wanted, "synthesis/wrong.jsonl", recipe.synthesize.mutant_cpu_s))
    for draft, (found, _) in zip(drafts, wrong, strict=True):
        by_mutant = {program: next(verdicts) for program in found}
        draft.strength = strength(by_mutant, next(verdicts))
        account.counts["tests_nothing_fails"] += len(draft.tests) - len(draft.strength.useful)
        draft.tests = [draft.tests[at] for at in draft.strength.useful]
    return list(drafts)


def extend(recipe: Recipe, run: Run, drafts: Sequence[Draft], account: Account, usage: Usage, turn: int) -> None:
    """Ask for more tests where a suite is weak, and sift and measure those suites again, in place."""
    weak = [draft for draft in drafts if draft.tests and is_weak(draft, recipe)]
    asks = [
        Ask(
            f"{draft.task_id}+{turn}",
            more_messages(draft.question, tuple(draft.tests), _survivors(draft)),
            1,
            seed_of(recipe.seed, f"{draft.task_id}+{turn}"),
        )
        for draft in weak
    ]
    replies = ask_all(run, "synthesis/extended.jsonl", recipe.writer, asks, usage)
    grown = []
    for draft in weak:
        found = written_of(replies[f"{draft.task_id}+{turn}"].texts[0], question=draft.question)
        fresh = [test for test in (found.tests if found else ()) if test not in draft.tests]
        if fresh:
            grown.append((draft, list(draft.tests)))
            draft.tests += fresh
    judged = sifted(recipe, run, [draft for draft, _ in grown], account)
    for draft, before in grown:
        if not any(draft is one for one in judged):
            draft.tests = before  # the new ones are not known to be right
            continue
        draft.extended = turn
        account.counts["suites_extended"] += 1
        account.counts["tests_asked_later"] += len(draft.tests) - len(before)
    measured(recipe, run, judged, account)


def passes(
    recipe: Recipe, run: Run, wanted: Sequence[tuple[Draft, str]], journal: str, cpu_s: float
) -> list[tuple[bool, ...] | None]:
    """Which of its draft's tests each program passes; None where it could not be judged.

    Raises `InfraError` when that happens to more than the recipe's share of them.
    """
    settings = recipe.synthesize
    tasks = [
        Task(
            key=digest(program, draft.tests, draft.entry_point, cpu_s),
            program_id=draft.task_id,
            solution=program,
            setup="",
            tests=tuple(draft.tests),
            entry_point=draft.entry_point,
            cpu_s=cpu_s,
        )
        if draft.tests
        else None
        for draft, program in wanted
    ]
    real = [task for task in tasks if task is not None]
    results = judge_all(real, run, recipe.verify.processes, name=journal, settings=recipe.verify)
    failed = [result for result in results.values() if result["status"] != "ok"]
    if len(failed) > settings.max_infra_errors * max(1, len(results)):
        raise InfraError(f"{len(failed)} of {len(results)} programs could not be judged; first: {failed[0]['detail']}")
    return [() if task is None else _passed(results[task.key], len(task.tests)) for task in tasks]


def _passed(result: dict[str, Any], num_tests: int) -> tuple[bool, ...] | None:
    if result["status"] != "ok":
        return None
    verdicts = tuple(verdict == "passed" for verdict in result["verdicts"])
    return verdicts if len(verdicts) == num_tests else (False,) * num_tests  # it never came to the tests


def _survivors(draft: Draft) -> list[str]:
    return list(draft.strength.survivors) if draft.strength else []


def is_weak(draft: Draft, recipe: Recipe) -> bool:
    """Whether the suite kills fewer mutants than the recipe wants."""
    return draft.strength is not None and draft.strength.killed < recipe.synthesize.min_killed
