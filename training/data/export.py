"""`plaudit-train export RUN FORMAT --out FILE`: a run's pairs or problems as a trainer's own file.

| format | rows | file |
|---|---|---|
| trl | pairs: prompt, chosen, rejected as messages (`RewardTrainer`, `DPOTrainer`) | JSONL |
| llama-factory | pairs: instruction, input, chosen, rejected (`ranking: true`; the paper's form) | JSON |
| openrlhf-pairs | pairs: prompt, chosen, rejected as texts (`train_rm`, `train_dpo`) | JSONL |
| openrlhf | problems: prompt and tests (`--data.input_key prompt --data.label_key tests`) | JSONL |
| verl | problems: data_source, prompt, ability, reward_model, extra_info | Parquet |

Problems carry their tests as labels that the service and the plug-ins read. `--hard` keeps AceCoder's hard problems
(arXiv 2502.01718, section 3.4, by the authors' script): mean pass rate up to the median, and of those the ones whose
standard deviation is at least the median.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from plaudit.errors import UsageError
from training.data.programs import chat_question
from training.data.test_formats import label_of
from training.pipeline.files import read_jsonl, write_jsonl, write_text
from training.pipeline.records import Problem, ProgramRecord, read_problems, read_programs

R1_SYSTEM = (
    "You answer questions about code. First think about the question, between <think> and </think>; then give the "
    "answer, between <answer> and </answer>."
)
Rows = Iterator[dict[str, Any]]


def export_command(arguments: Sequence[str]) -> None:
    """Run the command. Raises `UsageError` for a run that lacks what the format needs."""
    parser = argparse.ArgumentParser(
        prog="plaudit-train export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder after `pair`, or for problems after `collect`")
    parser.add_argument("format", choices=sorted(FORMATS))
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--fold", choices=("train", "validation", "test"), default="train")
    parser.add_argument("--hard", action="store_true", help="AceCoder's hard problems only; after `verify`")
    parser.add_argument("--system", help="a system message; `r1` for one that asks for thoughts first (base models)")
    options = parser.parse_args(arguments)
    problems = {name: p for name, p in _problems(options.run).items() if p.fold == options.fold}
    if options.hard:
        chosen = hard_problems(read_programs(_file(options.run, "verified.jsonl", "verify")))
        problems = {name: problem for name, problem in problems.items() if name in chosen}
    system = R1_SYSTEM if options.system == "r1" else options.system
    num = FORMATS[options.format](options.run, problems, system, options.out)
    if not num:
        raise UsageError(f"{options.run}: nothing to export: no {options.fold} problem or pair is left")
    print(json.dumps({"format": options.format, "rows": num, "problems": len(problems), "file": options.out.name}))


def hard_problems(programs: Sequence[ProgramRecord]) -> set[str]:
    """Task ids of the problems that are hard and not hopeless for who wrote these samples."""
    rates: dict[str, list[float]] = {}
    for program in programs:
        if program.origin == "sample" and program.pass_rate is not None:
            rates.setdefault(program.task_id, []).extend([program.pass_rate] * program.copies)
    means = {name: sum(values) / len(values) for name, values in rates.items()}
    if not means:
        return set()
    half = median(means.values())
    spread = {
        name: math.sqrt(sum((rate - means[name]) ** 2 for rate in rates[name]) / len(rates[name]))
        for name in means
        if means[name] <= half
    }
    bound = median(spread.values())
    return {name for name, value in spread.items() if value >= bound}


def _pairs(run: Path, problems: Mapping[str, Problem]) -> Iterator[tuple[Problem, ProgramRecord, ProgramRecord]]:
    programs = {program.program_id: program for program in read_programs(_file(run, "verified.jsonl", "verify"))}
    for pair in read_jsonl(_file(run, "pairs.jsonl", "pair")):
        if pair["task_id"] in problems:
            yield problems[pair["task_id"]], programs[pair["chosen"]], programs[pair["rejected"]]


def _messages(system: str | None, *turns: tuple[str, str]) -> list[dict[str, str]]:
    said = ([("system", system)] if system else []) + list(turns)
    return [{"role": role, "content": content} for role, content in said]


def _trl(run: Path, problems: Mapping[str, Problem], system: str | None, out: Path) -> int:
    return write_jsonl(
        out,
        (
            {
                "prompt": _messages(system, ("user", problem.prompt)),
                "chosen": _messages(None, ("assistant", chosen.completion)),
                "rejected": _messages(None, ("assistant", rejected.completion)),
            }
            for problem, chosen, rejected in _pairs(run, problems)
        ),
    )


def _llama_factory(run: Path, problems: Mapping[str, Problem], system: str | None, out: Path) -> int:
    rows = [
        {"instruction": problem.prompt, "input": "", "chosen": chosen.completion, "rejected": rejected.completion}
        | ({"system": system} if system else {})
        for problem, chosen, rejected in _pairs(run, problems)
    ]
    write_text(out, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    return len(rows)


def _openrlhf_pairs(run: Path, problems: Mapping[str, Problem], system: str | None, out: Path) -> int:
    return write_jsonl(
        out,
        (
            {
                "prompt": _messages(system, ("user", problem.prompt)) if system else problem.prompt,
                "chosen": chosen.completion,
                "rejected": rejected.completion,
            }
            for problem, chosen, rejected in _pairs(run, problems)
        ),
    )


def _openrlhf(run: Path, problems: Mapping[str, Problem], system: str | None, out: Path) -> int:
    return write_jsonl(
        out,
        (
            {
                "prompt": _messages(system, ("user", chat_question(problem))) if system else chat_question(problem),
                "tests": label_of(problem),
                "task_id": problem.task_id,
            }
            for problem in problems.values()
            if problem.tests
        ),
    )


def _verl(run: Path, problems: Mapping[str, Problem], system: str | None, out: Path) -> int:
    from datasets import Dataset

    rows = [
        {
            "data_source": problem.source,
            "prompt": _messages(system, ("user", chat_question(problem))),
            "ability": "code",
            "reward_model": {"style": "rule", "ground_truth": label_of(problem)},
            "extra_info": {
                "index": at,
                "split": problem.fold,
                "task_id": problem.task_id,
                "prompt": _messages(system, ("user", chat_question(problem))),
            },
        }
        for at, problem in enumerate(problem for problem in problems.values() if problem.tests)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows).to_parquet(str(out))
    return len(rows)


FORMATS: dict[str, Callable[[Path, Mapping[str, Problem], str | None, Path], int]] = {
    "trl": _trl,
    "llama-factory": _llama_factory,
    "openrlhf-pairs": _openrlhf_pairs,
    "openrlhf": _openrlhf,
    "verl": _verl,
}


def _problems(run: Path) -> dict[str, Problem]:
    return read_problems(_file(run, "problems.jsonl", "collect"))


def _file(run: Path, name: str, stage: str) -> Path:
    if not (run / name).is_file():
        raise UsageError(f"{run} has no {name}: run plaudit-train {stage} first")
    return run / name
