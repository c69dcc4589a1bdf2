"""`synthesize`: seed programs → questions with tests that an oracle's program passes and wrong programs fail.

The way of AceCoder (arXiv 2502.01718, section 2.2): a writer rewrites each seed into a question with about 20 tests,
an oracle writes one greedy program a question, tests that it fails are dropped, questions with fewer than five left
too. Beyond the paper: questions that touch an evaluation problem go before anything is spent on them; every program
runs twice, and a test that changes its mind is flaky and goes; mutants of the oracle's program measure what a suite
can tell apart (`strength.py`), a test that no wrong program fails goes, and a weak suite is extended with the programs
it let through in view. The seed is a hint to the writer: it is no solution here and is not kept.

Replies and runs are journals under `synthesis/`: a killed stage asks and runs only what was in flight. A run that the
sandbox could not make is retried, and never counts as a failed test.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import HostLacks, InfraError
from training.adapters import evaluation_texts
from training.asking import ask_all
from training.config import Recipe
from training.decontaminate import Contamination, normal
from training.records import Problem, example_prompt, row
from training.run import Run, digest, read_jsonl, write_jsonl, write_text
from training.sources import Ask, Usage, seed_of
from training.split import assign_folds, near_pairs
from training.strength import Strength, strength, wrong_programs
from training.suites import entry_point_of
from training.synthesis_report import markdown
from training.verify import Task, judge_all
from training.writing import more_messages, oracle_messages, oracle_program, seed_messages, written_of

LICENSE = "written by a model; see the licence of its seed"


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
            task_id=self.task_id, base_id=self.task_id, prompt=prompt, entry_point=self.entry_point,
            canonical=self.program, test_setup="", tests=tuple(self.tests), source=self.source, license=self.license,
        )  # fmt: skip


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


def synthesize(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `problems.jsonl` and `suites.jsonl`, and under `synthesis/` what was dropped and a report."""
    account, spent = Account(), {"writer": Usage(), "oracle": Usage()}
    drafts = written(recipe, run, account, spent["writer"])
    drafts = uncontaminated(recipe, drafts, account)
    drafts = solved(recipe, run, drafts, account, spent["oracle"])
    drafts = sifted(recipe, run, drafts, account)
    drafts = measured(recipe, run, drafts, account)
    for turn in range(1, recipe.synthesize.extend + 1):
        extend(recipe, run, drafts, account, spent["writer"], turn)
    drafts = enough(recipe, drafts, account)
    drafts = distinct(recipe, drafts, account)

    problems = assign_folds([draft.problem() for draft in drafts], recipe.split, recipe.seed)
    write_jsonl(run.path("problems.jsonl"), map(row, problems))
    write_jsonl(run.path("suites.jsonl"), (_suite_row(draft, recipe) for draft in drafts))
    write_jsonl(run.path("synthesis/dropped.jsonl"), account.dropped)
    report = _report(recipe, drafts, account, spent)
    write_text(run.path("synthesis/report.json"), json.dumps(report, indent=1) + "\n")
    write_text(run.path("synthesis/report.md"), markdown(report))
    return {
        "seeds": account.counts["seeds"], "problems": len(drafts), "tests": sum(len(d.tests) for d in drafts),
        **{key: value for key, value in sorted(account.counts.items()) if key.startswith("dropped_")},
        "weak": sum(_weak(draft, recipe) for draft in drafts), "repaired": account.counts["repaired"],
        "cost": report["cost"],
    }  # fmt: skip


def written(recipe: Recipe, run: Run, account: Account, usage: Usage) -> list[Draft]:
    """A draft for every seed whose reply holds a question and tests."""
    seeds = {str(seed["id"]): seed for seed in read_seeds(recipe.synthesize.seeds)}
    asks = [
        Ask(key, seed_messages(seed, recipe.synthesize.tests), 1, seed_of(recipe.seed, key))
        for key, seed in seeds.items()
    ]
    replies = ask_all(run, "synthesis/written.jsonl", recipe.writer, asks, usage)
    drafts = []
    for key, seed in seeds.items():
        account.counts["seeds"] += 1
        found = written_of(replies[key].texts[0])
        if found is None:
            account.drop(key, "unreadable", replies[key].endings[0])
            continue
        source = str(seed.get("source", "seeds"))
        account.counts["repaired"] += found.repaired
        account.counts["tests_no_single_assert"] += found.dropped
        account.before[source] += 1
        account.before_tests[source] += len(found.tests) + found.dropped
        name = entry_point_of(found.tests)
        if not name:
            account.drop(key, "no_function")
            continue
        license_ = str(seed.get("license") or LICENSE)
        drafts.append(Draft(key, source, license_, found.question, list(found.tests), name))
    return drafts


def read_seeds(path: str) -> list[dict[str, Any]]:
    """The seed programs; a row without an id is named by its program."""
    if not path or not Path(path).is_file():
        raise HostLacks(f"no seed programs at {path!r}: synthesize.seeds names a JSONL file of them")
    return [{"id": f"seed-{digest(seed['program'])}", **seed} for seed in read_jsonl(Path(path))]


def uncontaminated(recipe: Recipe, drafts: Sequence[Draft], account: Account) -> list[Draft]:
    """The drafts that touch no evaluation problem, by their question or any of their tests."""
    settings = recipe.synthesize
    texts = (pair for entry in settings.evaluation for pair in evaluation_texts(entry))
    index = Contamination(texts, settings.ngram)
    account.counts["evaluation_problems"] = index.size
    kept = []
    for draft in drafts:
        hit = next((hit for text in (draft.question, *draft.tests) if (hit := index.hit(text))), None)
        if hit is None:
            kept.append(draft)
        else:
            account.drop(draft.task_id, f"evaluation_{hit.how}", f"{hit.task_id}: {hit.run}")
    return kept


def solved(recipe: Recipe, run: Run, drafts: Sequence[Draft], account: Account, usage: Usage) -> list[Draft]:
    """The drafts with the oracle's program, those without one dropped."""
    asks = [
        Ask(draft.task_id, oracle_messages(draft.question, tuple(draft.tests)), 1, seed_of(recipe.seed, draft.task_id))
        for draft in drafts
    ]
    replies = ask_all(run, "synthesis/solved.jsonl", recipe.oracle, asks, usage)
    kept = []
    for draft in drafts:
        draft.program = oracle_program(replies[draft.task_id].texts[0]) or ""
        if draft.program:
            kept.append(draft)
        else:
            account.drop(draft.task_id, "no_oracle_program")
    return kept


def sifted(recipe: Recipe, run: Run, drafts: Sequence[Draft], account: Account) -> list[Draft]:
    """The drafts with the tests that the oracle's program passes, twice."""
    wanted = [(draft, draft.program) for draft in drafts]
    first = passes(recipe, run, wanted, "synthesis/oracle-1.jsonl")
    again = passes(recipe, run, wanted, "synthesis/oracle-2.jsonl")
    kept = []
    for draft, one, two in zip(drafts, first, again, strict=True):
        if one is None or two is None:
            account.drop(draft.task_id, "not_judged")
            continue
        account.counts["tests_flaky"] += sum(a != b for a, b in zip(one, two, strict=True))
        account.counts["tests_failed_by_oracle"] += sum(not a and not b for a, b in zip(one, two, strict=True))
        draft.tests = [test for test, a, b in zip(draft.tests, one, two, strict=True) if a and b]
        kept.append(draft)
    return kept


def measured(recipe: Recipe, run: Run, drafts: Sequence[Draft], account: Account) -> list[Draft]:
    """The drafts with the strength of their suites, and without the tests that no wrong program fails."""
    wanted: list[tuple[Draft, str]] = []
    wrong = []
    for draft in drafts:
        found, stub = wrong_programs(draft.problem(), recipe.synthesize.mutants, recipe.seed)
        wrong.append((found, stub))
        wanted += [(draft, program) for program in (*found, stub)]
    verdicts = iter(passes(recipe, run, wanted, "synthesis/wrong.jsonl"))
    for draft, (found, _) in zip(drafts, wrong, strict=True):
        by_mutant = {program: next(verdicts) for program in found}
        draft.strength = strength(by_mutant, next(verdicts))
        account.counts["tests_nothing_fails"] += len(draft.tests) - len(draft.strength.useful)
        draft.tests = [draft.tests[at] for at in draft.strength.useful]
    return list(drafts)


def extend(recipe: Recipe, run: Run, drafts: Sequence[Draft], account: Account, usage: Usage, turn: int) -> None:
    """Ask for more tests where a suite is weak, and sift and measure those suites again, in place."""
    weak = [draft for draft in drafts if draft.tests and _weak(draft, recipe)]
    asks = [
        Ask(f"{draft.task_id}+{turn}", more_messages(draft.question, tuple(draft.tests), _survivors(draft)), 1,
            seed_of(recipe.seed, f"{draft.task_id}+{turn}"))
        for draft in weak
    ]  # fmt: skip
    replies = ask_all(run, "synthesis/extended.jsonl", recipe.writer, asks, usage)
    grown = []
    for draft in weak:
        found = written_of(replies[f"{draft.task_id}+{turn}"].texts[0], question=draft.question)
        fresh = [test for test in (found.tests if found else ()) if test not in draft.tests]
        if fresh:
            before = len(draft.tests)
            draft.tests += fresh
            draft.extended = turn
            account.counts["suites_extended"] += 1
            account.counts["tests_asked_later"] += len(draft.tests) - before
            grown.append(draft)
    measured(recipe, run, sifted(recipe, run, grown, account), account)


def enough(recipe: Recipe, drafts: Sequence[Draft], account: Account) -> list[Draft]:
    """The drafts with enough tests, and with strong ones if only those are wanted."""
    kept = []
    for draft in drafts:
        if len(draft.tests) < recipe.synthesize.min_tests:
            account.drop(draft.task_id, "too_few_tests", str(len(draft.tests)))
        elif _weak(draft, recipe) and not recipe.synthesize.keep_weak:
            account.drop(draft.task_id, "weak_suite", f"{draft.strength.killed:.2f}" if draft.strength else "")
        else:
            kept.append(draft)
    return kept


def distinct(recipe: Recipe, drafts: Sequence[Draft], account: Account) -> list[Draft]:
    """The first of several questions that are the same, word for word or nearly."""
    words = [frozenset(normal(draft.question)) for draft in drafts]
    gone: set[int] = set()
    for earlier, later in near_pairs(words, recipe.synthesize.near_duplicate):
        if earlier not in gone and later not in gone:
            gone.add(later)
            same = normal(drafts[earlier].question) == normal(drafts[later].question)
            account.drop(drafts[later].task_id, "duplicate" if same else "near_duplicate", drafts[earlier].task_id)
    return [draft for at, draft in enumerate(drafts) if at not in gone]


def passes(
    recipe: Recipe, run: Run, wanted: Sequence[tuple[Draft, str]], journal: str
) -> list[tuple[bool, ...] | None]:  # fmt: skip
    """Which of its draft's tests each program passes; None where it could not be judged.

    Raises `InfraError` when that happens to more than the recipe's share of them.
    """
    settings = recipe.synthesize
    tasks = [
        Task(
            key=digest(program, draft.tests, draft.entry_point, settings.cpu_s), program_id=draft.task_id,
            solution=program, setup="", tests=tuple(draft.tests), entry_point=draft.entry_point, cpu_s=settings.cpu_s,
        ) if draft.tests else None
        for draft, program in wanted
    ]  # fmt: skip
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


def _weak(draft: Draft, recipe: Recipe) -> bool:
    return draft.strength is not None and draft.strength.killed < recipe.synthesize.min_killed


def _suite_row(draft: Draft, recipe: Recipe) -> dict[str, Any]:
    found = draft.strength
    return {
        "task_id": draft.task_id, "tests": len(draft.tests), "mutants": found.num_mutants if found else 0,
        "killed": round(found.killed, 4) if found else None, "weak": _weak(draft, recipe), "extended": draft.extended,
    }  # fmt: skip


def _report(recipe: Recipe, drafts: Sequence[Draft], account: Account, spent: dict[str, Usage]) -> dict[str, Any]:
    after, after_tests = Counter(d.source for d in drafts), Counter[str]()
    for draft in drafts:
        after_tests[draft.source] += len(draft.tests)
    cost: Callable[[str], float] = lambda name: spent[name].cost(getattr(recipe, name))  # noqa: E731
    killed = [draft.strength.killed for draft in drafts if draft.strength]
    return {
        "counts": dict(sorted(account.counts.items())),
        "sources": {
            source: {
                "before": account.before[source], "before_tests": account.before_tests[source],
                "after": after[source], "after_tests": after_tests[source],
            }
            for source in sorted(account.before)
        },
        "killed": sum(killed) / len(killed) if killed else None,
        "weak": sum(_weak(draft, recipe) for draft in drafts),
        "models": {"writer": recipe.writer.model, "oracle": recipe.oracle.model},
        "evaluation": [Path(entry.rpartition("=")[2]).name for entry in recipe.synthesize.evaluation],
        "tokens": {name: [usage.prompt_tokens, usage.completion_tokens] for name, usage in spent.items()},
        "cost": round(sum(map(cost, spent)), 4), "examples": _examples(account),
    }  # fmt: skip


def _examples(account: Account) -> list[dict[str, str]]:
    """The first three of every reason."""
    seen: Counter[str] = Counter()
    found = []
    for one in account.dropped:
        seen[one["reason"]] += 1
        if seen[one["reason"]] <= 3:
            found.append(one)
    return found
