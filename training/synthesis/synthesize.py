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
from pathlib import Path
from typing import Any

from plaudit.errors import HostLacks
from training.data.adapters import evaluation_texts
from training.data.collect import assign_folds, near_pairs
from training.data.decontaminate import Contamination, normal
from training.data.test_formats import entry_point_of
from training.generation.batch import ask_all
from training.generation.sources import Ask, Usage, seed_of
from training.pipeline.config import Recipe
from training.pipeline.records import row
from training.pipeline.run import Run, digest, read_jsonl, write_jsonl, write_text
from training.synthesis.filters import Account, Draft, extend, is_weak, measured, sifted
from training.synthesis.prompts import oracle_messages, oracle_program, seed_messages, written_of
from training.synthesis.report import markdown

LICENSE = "written by a model; see the licence of its seed"


def synthesize(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `problems.jsonl` and `suites.jsonl`, and under `synthesis/` what was dropped and a report."""
    account, spent = Account(), {"writer": Usage(), "oracle": Usage()}
    drafts = written(recipe, run, account, spent["writer"])
    drafts = uncontaminated(recipe, drafts, account)
    drafts = solved(recipe, run, drafts, account, spent["oracle"])
    judged = sifted(recipe, run, drafts, account)
    kept = {draft.task_id for draft in judged}
    for draft in drafts:
        if draft.task_id not in kept:
            account.drop(draft.task_id, "not_judged")
    drafts = judged
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
        "seeds": account.counts["seeds"],
        "problems": len(drafts),
        "tests": sum(len(d.tests) for d in drafts),
        **{key: value for key, value in sorted(account.counts.items()) if key.startswith("dropped_")},
        "weak": sum(is_weak(draft, recipe) for draft in drafts),
        "repaired": account.counts["repaired"],
        "cost": report["cost"],
    }


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


def enough(recipe: Recipe, drafts: Sequence[Draft], account: Account) -> list[Draft]:
    """The drafts with enough tests, and with strong ones if only those are wanted."""
    kept = []
    for draft in drafts:
        if len(draft.tests) < recipe.synthesize.min_tests:
            account.drop(draft.task_id, "too_few_tests", str(len(draft.tests)))
        elif is_weak(draft, recipe) and not recipe.synthesize.keep_weak:
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


def _suite_row(draft: Draft, recipe: Recipe) -> dict[str, Any]:
    found = draft.strength
    return {
        "task_id": draft.task_id,
        "tests": len(draft.tests),
        "mutants": found.num_mutants if found else 0,
        "killed": round(found.killed, 4) if found else None,
        "weak": is_weak(draft, recipe),
        "extended": draft.extended,
    }


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
                "before": account.before[source],
                "before_tests": account.before_tests[source],
                "after": after[source],
                "after_tests": after_tests[source],
            }
            for source in sorted(account.before)
        },
        "killed": sum(killed) / len(killed) if killed else None,
        "weak": sum(is_weak(draft, recipe) for draft in drafts),
        "models": {"writer": recipe.writer.model, "oracle": recipe.oracle.model},
        "evaluation": [Path(entry.rpartition("=")[2]).name for entry in recipe.synthesize.evaluation],
        "tokens": {name: [usage.prompt_tokens, usage.completion_tokens] for name, usage in spent.items()},
        "cost": round(sum(map(cost, spent)), 4),
        "examples": _examples(account),
    }


def _examples(account: Account) -> list[dict[str, str]]:
    """The first three of every reason."""
    seen: Counter[str] = Counter()
    found = []
    for one in account.dropped:
        seen[one["reason"]] += 1
        if seen[one["reason"]] <= 3:
            found.append(one)
    return found
