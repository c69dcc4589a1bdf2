"""`synthesize`: seed programs → questions with tests that an oracle's program passes and wrong programs fail.

The method is AceCoder's (arXiv 2502.01718, section 2.2): a writer rewrites each seed into a question with about 20
tests, an oracle writes one greedy program per question, tests that it fails are dropped, and so are questions with
fewer than five tests left. Not in the paper:

- Questions that touch an evaluation problem are dropped before anything is spent on them.
- Every program runs under three hash seeds; a test that it passes under one and fails under another is flaky, and
  dropped.
- Mutants of the oracle's program measure what a suite can tell apart (`mutation_score.py`). A test that no wrong
  program fails is dropped, and a weak suite is extended with the programs that it passes in view.

The seed is a hint to the writer: it is not a solution, and is not kept. Replies and runs are journals under
`synthesis/`, so a killed stage repeats only what was in flight. A run that the sandbox could not make is tried again,
and is never a failed test.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import HostLacks
from training.data.adapters import evaluation_texts
from training.data.decontaminate import ContaminationIndex
from training.data.folds import assign_folds
from training.data.near_duplicates import near_duplicates
from training.data.test_formats import entry_point_of
from training.data.tokens import words_of
from training.generation.batch import complete_all
from training.generation.sources.base import CompletionRequest, TokenUsage, request_seed
from training.pipeline.config import Recipe
from training.pipeline.digests import content_key
from training.pipeline.files import read_jsonl, write_jsonl, write_text
from training.pipeline.records import as_row
from training.pipeline.run import Run
from training.synthesis.filters import (
    ProblemDraft,
    SynthesisLog,
    extend_weak_suites,
    filter_tests,
    is_weak,
    measure_suites,
)
from training.synthesis.prompts import oracle_messages, oracle_program, parse_writer_reply, seed_messages
from training.synthesis.report import report_markdown

LICENSE = "written by a model; see the licence of its seed"


def synthesize_problems(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `problems.jsonl` and `suites.jsonl`, and under `synthesis/` what was dropped and a report."""
    log, usage = SynthesisLog(), {"writer": TokenUsage(), "oracle": TokenUsage()}
    drafts = write_drafts(recipe, run, log, usage["writer"])
    drafts = drop_contaminated(recipe, drafts, log)
    drafts = solve_drafts(recipe, run, drafts, log, usage["oracle"])
    judged = filter_tests(recipe, run, drafts, log)
    judged_ids = {draft.task_id for draft in judged}
    for draft in drafts:
        if draft.task_id not in judged_ids:
            log.drop(draft.task_id, "not_judged")
    drafts = judged
    measure_suites(recipe, run, drafts, log)
    for turn in range(1, recipe.synthesize.extend + 1):
        extend_weak_suites(recipe, run, drafts, log, usage["writer"], turn)
    drafts = drop_small_suites(recipe, drafts, log)
    drafts = drop_duplicates(recipe, drafts, log)

    problems = assign_folds([draft.problem() for draft in drafts], recipe.split, recipe.seed)
    write_jsonl(run.path("problems.jsonl"), map(as_row, problems))
    write_jsonl(run.path("suites.jsonl"), (_suite_row(draft, recipe) for draft in drafts))
    write_jsonl(run.path("synthesis/dropped.jsonl"), log.dropped)
    report = _report(recipe, drafts, log, usage)
    write_text(run.path("synthesis/report.json"), json.dumps(report, indent=1) + "\n")
    write_text(run.path("synthesis/report.md"), report_markdown(report))
    return {
        "seeds": log.counts["seeds"],
        "problems": len(drafts),
        "tests": sum(len(d.tests) for d in drafts),
        **{key: value for key, value in sorted(log.counts.items()) if key.startswith("dropped_")},
        "weak": sum(is_weak(draft, recipe) for draft in drafts),
        "repaired": log.counts["repaired"],
        "cost": report["cost"],
    }


def write_drafts(recipe: Recipe, run: Run, log: SynthesisLog, usage: TokenUsage) -> list[ProblemDraft]:
    """A draft for every seed whose reply holds a question and tests."""
    requests = (
        CompletionRequest(key, seed_messages(seed, recipe.synthesize.tests), 1, request_seed(recipe.seed, key))
        for key, seed in read_seeds(recipe.synthesize.seeds)
    )
    replies = complete_all(recipe, run, "synthesis/written.jsonl", recipe.writer, requests, usage)
    drafts = []
    for key, seed in read_seeds(recipe.synthesize.seeds):
        log.counts["seeds"] += 1
        reply = parse_writer_reply(replies[key].texts[0])
        if reply is None:
            log.drop(key, "unreadable", replies[key].endings[0])
            continue
        source = str(seed.get("source", "seeds"))
        log.counts["repaired"] += reply.repaired
        log.counts["tests_no_single_assert"] += reply.dropped
        log.before[source] += 1
        log.before_tests[source] += len(reply.tests) + reply.dropped
        entry_point = entry_point_of(reply.tests)
        if not entry_point:
            log.drop(key, "no_function")
            continue
        license_ = str(seed.get("license") or LICENSE)
        drafts.append(ProblemDraft(key, source, license_, reply.question, list(reply.tests), entry_point))
    return drafts


def read_seeds(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The seed programs by id, of equal ids the first; a row without an id is named by its program."""
    if not path or not Path(path).is_file():
        raise HostLacks(f"no seed programs at {path!r}: set synthesize.seeds to a JSONL file of them")
    seen = set[str]()
    for seed in read_jsonl(Path(path)):
        key = str(seed["id"]) if "id" in seed else f"seed-{content_key(seed['program'])}"
        if key not in seen:
            seen.add(key)
            yield key, seed


def drop_contaminated(recipe: Recipe, drafts: Sequence[ProblemDraft], log: SynthesisLog) -> list[ProblemDraft]:
    """The drafts that touch no evaluation problem, by their question or any of their tests."""
    settings = recipe.synthesize
    texts = (pair for entry in settings.evaluation for pair in evaluation_texts(entry))
    index = ContaminationIndex(texts, settings.ngram)
    log.counts["evaluation_problems"] = index.size
    kept = []
    for draft in drafts:
        hit = next((hit for text in (draft.question, *draft.tests) if (hit := index.hit(text))), None)
        if hit is None:
            kept.append(draft)
        else:
            log.drop(draft.task_id, f"evaluation_{hit.how}", f"{hit.task_id}: {hit.run}")
    return kept


def solve_drafts(
    recipe: Recipe, run: Run, drafts: Sequence[ProblemDraft], log: SynthesisLog, usage: TokenUsage
) -> list[ProblemDraft]:
    """The drafts with the oracle's program, those without one dropped."""
    requests = (
        CompletionRequest(
            draft.task_id,
            oracle_messages(draft.question, tuple(draft.tests)),
            1,
            request_seed(recipe.seed, draft.task_id),
        )
        for draft in drafts
    )
    replies = complete_all(recipe, run, "synthesis/solved.jsonl", recipe.oracle, requests, usage, total=len(drafts))
    kept = []
    for draft in drafts:
        draft.program = oracle_program(replies[draft.task_id].texts[0]) or ""
        if draft.program:
            kept.append(draft)
        else:
            log.drop(draft.task_id, "no_oracle_program")
    return kept


def drop_small_suites(recipe: Recipe, drafts: Sequence[ProblemDraft], log: SynthesisLog) -> list[ProblemDraft]:
    """The drafts with enough tests."""
    kept = []
    for draft in drafts:
        if len(draft.tests) < recipe.synthesize.min_tests:
            log.drop(draft.task_id, "too_few_tests", str(len(draft.tests)))
        else:
            kept.append(draft)
    return kept


def drop_duplicates(recipe: Recipe, drafts: Sequence[ProblemDraft], log: SynthesisLog) -> list[ProblemDraft]:
    """The first of several questions that are the same, word for word or nearly."""
    words = (frozenset(words_of(draft.question)) for draft in drafts)
    dropped: set[int] = set()
    for earlier, later in near_duplicates(words, recipe.synthesize.near_duplicate):
        if earlier not in dropped and later not in dropped:
            dropped.add(later)
            same = words_of(drafts[earlier].question) == words_of(drafts[later].question)
            log.drop(drafts[later].task_id, "duplicate" if same else "near_duplicate", drafts[earlier].task_id)
    return [draft for at, draft in enumerate(drafts) if at not in dropped]


def _suite_row(draft: ProblemDraft, recipe: Recipe) -> dict[str, Any]:
    strength = draft.strength
    return {
        "task_id": draft.task_id,
        "tests": len(draft.tests),
        "mutants": strength.num_mutants if strength else 0,
        "killed": round(strength.killed, 4) if strength else None,
        "weak": is_weak(draft, recipe),
        "extended": draft.extended,
    }


def _report(
    recipe: Recipe, drafts: Sequence[ProblemDraft], log: SynthesisLog, usage: dict[str, TokenUsage]
) -> dict[str, Any]:
    after, after_tests = Counter(d.source for d in drafts), Counter[str]()
    for draft in drafts:
        after_tests[draft.source] += len(draft.tests)
    cost: Callable[[str], float] = lambda name: usage[name].cost(getattr(recipe, name))  # noqa: E731
    killed = [draft.strength.killed for draft in drafts if draft.strength]
    return {
        "counts": dict(sorted(log.counts.items())),
        "sources": {
            source: {
                "before": log.before[source],
                "before_tests": log.before_tests[source],
                "after": after[source],
                "after_tests": after_tests[source],
            }
            for source in sorted(log.before)
        },
        "killed": sum(killed) / len(killed) if killed else None,
        "weak": sum(is_weak(draft, recipe) for draft in drafts),
        "models": {"writer": recipe.writer.model, "oracle": recipe.oracle.model},
        "evaluation": [Path(entry.rpartition("=")[2]).name for entry in recipe.synthesize.evaluation],
        "tokens": {name: [tokens.prompt_tokens, tokens.completion_tokens] for name, tokens in usage.items()},
        "cost": round(sum(map(cost, usage)), 4),
        "examples": _examples(log),
    }


def _examples(log: SynthesisLog) -> list[dict[str, str]]:
    """The first three of every reason."""
    seen: Counter[str] = Counter()
    examples = []
    for row in log.dropped:
        seen[row["reason"]] += 1
        if seen[row["reason"]] <= 3:
            examples.append(row)
    return examples
