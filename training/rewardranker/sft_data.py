"""What a generator is fine-tuned on before the loop: one right solution of each problem.

- The run's own: of training problems, the reference first.
- `iterate.sft = ["codecontests=FILE", "codeforces=open-r1/codeforces"]`: any adapter of `collect`, for the sets that
  RewardRanker's generators learn from. A problem that shares text with a held-out one of this run is left out, and so
  is one that the run has already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from plaudit.errors import UsageError
from training.data.adapters import ADAPTERS, entries
from training.data.decontaminate import HeldOut
from training.data.programs import completion_of, opens_program
from training.pipeline.config import HubConfig
from training.pipeline.digests import file_digest
from training.pipeline.records import Problem, ProgramRecord

Solutions = list[tuple[Problem, str]]  # a problem and the completion that solves it


def right_solutions(programs: Iterable[ProgramRecord], problems: dict[str, Problem]) -> Solutions:
    """One passing completion of each training problem, the reference before a sample."""
    chosen: dict[str, ProgramRecord] = {}
    for program in programs:
        if problems[program.task_id].fold != "train" or program.pass_rate != 1.0:
            continue
        if program.task_id not in chosen or program.origin == "canonical":
            chosen[program.task_id] = program
    return [(problems[task_id], program.completion) for task_id, program in chosen.items()]


def sft_solutions(sets: Sequence[str], problems: Iterable[Problem], ngram: int) -> Solutions:
    """The references of these sets' problems.

    Args:
        sets: `adapter=FILE`, or `adapter=NAME` of the hub.
        problems: of the run; what touches a held-out one of them is left out.
        ngram: a run of this many tokens in common is a touch.

    Raises:
        UsageError: an entry of another form, an unknown adapter, or a set without solutions.
        HostLacks: a set that cannot be loaded.
    """
    run = list(problems)
    held, known = HeldOut(run, ngram), {problem.task_id for problem in run}
    found: Solutions = []
    for entry in sets:
        own = list(_solutions_of(entry))
        if not own:
            raise UsageError(f"iterate.sft: {entry}: no problem of it has a right solution")
        found += [
            (problem, completion)
            for problem, completion in own
            if problem.task_id not in known and not held.touches(f"{problem.prompt}\n{completion}", problem.entry_point)
        ]
    return found


def _solutions_of(entry: str) -> Iterator[tuple[Problem, str]]:
    adapter, equals, path = entry.partition("=")
    if not equals or adapter not in ADAPTERS:
        raise UsageError(f"iterate.sft: {entry!r} is not adapter=FILE; adapters are {', '.join(ADAPTERS)}")
    for row in entries(HubConfig(adapter=adapter, path=path)):
        problem = row.problem
        if problem.canonical:
            yield problem, completion_of(problem, problem.canonical) if opens_program(problem) else problem.canonical


def sft_sets_key(sets: Sequence[str]) -> list[str]:
    """What tells these sets from others: their files' digests, or their names at the hub."""
    paths = [Path(entry.partition("=")[2]) for entry in sets]
    return [file_digest(path) if path.is_file() else str(path) for path in paths]


def generator_digest(folder: Path) -> list[str]:
    """What tells a generator's weights from others."""
    weights = sorted(path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    if not weights:
        raise UsageError(f"iterate.generator: {folder} has no weights (*.safetensors)")
    return [file_digest(path) for path in weights]
