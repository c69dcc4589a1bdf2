"""`mutate`: near misses of the training problems' reference solutions.

Most problems of the public data come with a handful of model samples. A reference solution with one operator, constant,
name or statement changed reads like a correct program and mostly is not one: a scorer must learn that difference.
Mutants have no label; `verify` runs them. Only training problems are mutated.
"""

from __future__ import annotations

import random

from service.audit.mutants import mutants_of
from training.data.programs import program_of
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, as_row, read_problems, read_programs
from training.pipeline.run import Run


def mutate_solutions(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `mutants.jsonl`: unlabelled programs, distinct from each other and from every known program."""
    problems = read_problems(run.path("problems.jsonl"))
    known = {program.program_id for program in read_programs(run.path("programs.jsonl"))}
    rows = []
    for problem in problems.values():
        if problem.fold != "train" or problem.canonical is None:
            continue
        for solution in mutants(problem, recipe.mutate.per_problem, random.Random(f"{recipe.seed}:{problem.task_id}")):
            program = program_of(problem, solution, "mutant", problem.source, problem.license)
            if program.program_id not in known:
                known.add(program.program_id)
                rows.append(as_row(program))
    write_jsonl(run.path("mutants.jsonl"), rows)
    return {"mutants": len(rows), "problems": len({r["task_id"] for r in rows})}


def mutants(problem: Problem, count: int, draw: random.Random) -> list[str]:
    """The reference solution as it is printed, and up to `count` mutants of it (`mutants_of`)."""
    assert problem.canonical is not None
    return mutants_of(problem.canonical, count, draw)
