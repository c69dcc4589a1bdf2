"""The running half of `synthesize`: which tests of a draft stay, how strong they are, and where more are requested."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from plaudit.errors import InfraError
from training.data.judge_task import MUTANT_CPU_S, JudgeTask
from training.data.judging import judge_all, judge_of
from training.data.programs import example_prompt
from training.generation.batch import complete_all
from training.generation.sources.base import CompletionRequest, TokenUsage, request_seed
from training.pipeline.config import Recipe
from training.pipeline.digests import content_key
from training.pipeline.records import Problem
from training.pipeline.run import Run
from training.synthesis.mutation_score import SuiteStrength, suite_strength, wrong_programs
from training.synthesis.prompts import more_messages, parse_writer_reply

HASH_SEEDS = (None, 1, 2)


@dataclass(slots=True)
class ProblemDraft:
    """A question before it is a problem. `tests` shrinks and grows; `program` is the oracle's."""

    task_id: str
    source: str
    license: str
    question: str
    tests: list[str]
    entry_point: str
    program: str = ""
    strength: SuiteStrength | None = None
    extended: int = 0

    def problem(self) -> Problem:
        """The problem as it would be kept now."""
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
class SynthesisLog:
    """Counts of everything that `synthesize` did, and a row for every question that it dropped."""

    counts: Counter[str] = field(default_factory=Counter)
    dropped: list[dict[str, str]] = field(default_factory=list)
    before: Counter[str] = field(default_factory=Counter)
    before_tests: Counter[str] = field(default_factory=Counter)

    def drop(self, task_id: str, reason: str, detail: str = "") -> None:
        """Record that a question was dropped; `reason` is a key of `report.DROP_REASONS`."""
        self.counts[f"dropped_{reason}"] += 1
        self.dropped.append({"task_id": task_id, "reason": reason, "detail": detail})


def filter_tests(recipe: Recipe, run: Run, drafts: Sequence[ProblemDraft], log: SynthesisLog) -> list[ProblemDraft]:
    """The drafts with the tests that the oracle's program passes under every hash seed; those not run are left out.

    A program that prints a set in its order passes under one seed and fails under another: such a test is flaky.
    """
    kept = list(drafts)
    for turn, seed in enumerate(HASH_SEEDS, start=1):
        count = "tests_failed_by_oracle" if turn == 1 else "tests_flaky"
        programs = [(draft, draft.program) for draft in kept]
        journal = f"synthesis/oracle-{turn}.jsonl"
        cpu_s = recipe.synthesize.cpu_s
        passes = passed_tests(recipe, run, programs.__iter__, journal, cpu_s, hash_seed=seed, total=len(programs))
        results = [passed for _, _, passed in passes]
        for draft, passed in zip(kept, results, strict=True):
            if passed is not None:
                log.counts[count] += passed.count(False)
                draft.tests = [test for test, ok in zip(draft.tests, passed, strict=True) if ok]
        kept = [draft for draft, passed in zip(kept, results, strict=True) if passed is not None]
    return kept


def measure_suites(recipe: Recipe, run: Run, drafts: Sequence[ProblemDraft], log: SynthesisLog) -> None:
    """Set the strength of each draft's suite, and remove the tests that no wrong program fails."""

    def wrong() -> Iterator[tuple[ProblemDraft, str]]:  # made twice: 1.6 million mutants are not kept in memory
        for draft in drafts:
            mutants, stub = wrong_programs(draft.problem(), recipe.synthesize.mutants, recipe.seed)
            yield from ((draft, program) for program in (*mutants, stub))

    most = len(drafts) * (recipe.synthesize.mutants + 1)
    passes = passed_tests(recipe, run, wrong, "synthesis/wrong.jsonl", MUTANT_CPU_S, total=most)
    for _, of_draft in itertools.groupby(passes, key=lambda row: id(row[0])):
        *mutants, (draft, _, stub) = of_draft
        draft.strength = suite_strength({program: passed for _, program, passed in mutants}, stub)
        log.counts["tests_nothing_fails"] += len(draft.tests) - len(draft.strength.useful)
        draft.tests = [draft.tests[at] for at in draft.strength.useful]


def extend_weak_suites(
    recipe: Recipe, run: Run, drafts: Sequence[ProblemDraft], log: SynthesisLog, usage: TokenUsage, turn: int
) -> None:
    """Request more tests where a suite is weak, and filter and measure those suites again, in place."""
    weak = {f"{draft.task_id}+{turn}": draft for draft in drafts if draft.tests and is_weak(draft, recipe)}
    requests = [
        CompletionRequest(
            key,
            more_messages(draft.question, tuple(draft.tests), _survivors(draft)),
            1,
            request_seed(recipe.seed, key),
        )
        for key, draft in weak.items()
    ]
    replies = complete_all(recipe, run, "synthesis/extended.jsonl", recipe.writer, requests, usage)
    grown = []
    for key, draft in weak.items():
        reply = parse_writer_reply(replies[key].texts[0], question=draft.question)
        fresh = [test for test in (reply.tests if reply else ()) if test not in draft.tests]
        if fresh:
            grown.append((draft, list(draft.tests)))
            draft.tests += fresh
    judged = filter_tests(recipe, run, [draft for draft, _ in grown], log)
    for draft, before in grown:
        if not any(draft is other for other in judged):
            draft.tests = before  # the new tests are not known to be right
            continue
        draft.extended = turn
        log.counts["suites_extended"] += 1
        log.counts["tests_asked_later"] += len(draft.tests) - len(before)
    measure_suites(recipe, run, judged, log)


def passed_tests(
    recipe: Recipe,
    run: Run,
    programs: Callable[[], Iterable[tuple[ProblemDraft, str]]],
    journal: str,
    cpu_s: float,
    *,
    hash_seed: int | None = None,
    total: int = 0,
) -> Iterator[tuple[ProblemDraft, str, tuple[bool, ...] | None]]:
    """Which tests of its draft each program passes.

    Args:
        recipe: its engine and its `verify` section say where programs run.
        run: holds the journal.
        programs: makes a draft and a program that answers it, each in its turn; it is called twice.
        journal: file of the run in which the results are kept.
        cpu_s: limit of one test.
        hash_seed: PYTHONHASHSEED of the programs; None: 0, as everywhere.
        total: how many programs there are, for the progress.

    Returns:
        Draft, program and a verdict per test, in the programs' order; None where the program could not be judged.

    Raises:
        InfraError: where more than `synthesize.max_infra_errors` of the programs could not be judged.
    """

    def task_of_draft(draft: ProblemDraft, program: str) -> JudgeTask | None:
        if not draft.tests:
            return None
        seeded = () if hash_seed is None else (hash_seed,)
        return JudgeTask(
            key=content_key(program, draft.tests, draft.entry_point, cpu_s, *seeded),
            program_id=draft.task_id,
            solution=program,
            setup="",
            tests=tuple(draft.tests),
            entry_point=draft.entry_point,
            cpu_s=cpu_s,
            hash_seed=hash_seed,
        )

    tasks = (task for draft, program in programs() if (task := task_of_draft(draft, program)))
    results = judge_all(tasks, run, judge_of(recipe), name=journal, total=total)
    failed = results.not_judged
    if len(failed) > recipe.synthesize.max_infra_errors * max(1, results.num_tasks):
        raise InfraError(
            f"{len(failed)} of {results.num_tasks} programs could not be judged, more than "
            f"synthesize.max_infra_errors allows; the first: {failed[0]['detail']}"
        )
    for draft, program in programs():
        task = task_of_draft(draft, program)
        yield draft, program, () if task is None else _passed(results[task.key], len(task.tests))


def is_weak(draft: ProblemDraft, recipe: Recipe) -> bool:
    """Whether the suite kills fewer mutants than the recipe wants."""
    return draft.strength is not None and draft.strength.killed < recipe.synthesize.min_killed


def _passed(result: dict[str, Any], num_tests: int) -> tuple[bool, ...] | None:
    if result["status"] != "ok":
        return None
    passed = tuple(verdict == "passed" for verdict in result["verdicts"])
    return passed if len(passed) == num_tests else (False,) * num_tests  # the program ended before its tests


def _survivors(draft: ProblemDraft) -> list[str]:
    return list(draft.strength.survivors) if draft.strength else []
