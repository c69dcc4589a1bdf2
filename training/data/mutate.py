"""`mutate`: near misses of the training problems' reference solutions.

Most problems of the public data come with a handful of model samples. A reference solution with one operator, constant,
name or statement changed reads like a correct program and mostly is not one: a scorer must learn that difference.
Beside them stand rewrites and the right programs of other problems (`rewrites`). Nothing here has a label; `verify`
runs all of it. Only training problems are mutated, and strangers come from training problems. A problem with
independent samples lends none, so that cross-validation may hold any of those out.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from service.audit.mutants import mutants_of
from training.data.programs import program_of
from training.data.rewrites import as_answer, parameters_of, renamed
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, as_row, read_problems, read_programs
from training.pipeline.run import Run


def mutate_solutions(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `mutants.jsonl`: unlabelled programs, distinct from each other and from every known program."""
    problems = read_problems(run.path("problems.jsonl"))
    programs = read_programs(run.path("programs.jsonl"))
    known = {program.program_id for program in programs}
    sampled = {program.task_id for program in programs if program.iid_copies}
    sources = [p for p in problems.values() if p.fold == "train" and p.canonical is not None and p.language == "python"]
    by_arity = by_parameters([p for p in sources if p.task_id not in sampled]) if recipe.mutate.strangers else {}
    rows = []
    for problem in sources:
        draw = random.Random(f"{recipe.seed}:{problem.task_id}")
        solutions = mutants(problem, recipe.mutate.per_problem, draw)
        solutions += rewrites(problem, recipe.mutate.rewrites, draw)
        solutions += strangers(problem, by_arity, recipe.mutate.strangers, draw)
        for solution in solutions:
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


def rewrites(problem: Problem, count: int, draw: random.Random) -> list[str]:
    """Up to `count` copies of the reference solution with other local names."""
    assert problem.canonical is not None
    copies = [renamed(problem.canonical, draw) for _ in range(count)]
    return [copy for copy in dict.fromkeys(copies) if copy is not None]


def by_parameters(problems: Sequence[Problem]) -> dict[int, list[Problem]]:
    """The problems with a reference by its number of parameters."""
    by_number: dict[int, list[Problem]] = defaultdict(list)
    for problem in problems:
        names = parameters_of(problem.canonical or "", problem.entry_point)
        if names is not None:
            by_number[len(names)].append(problem)
    return by_number


def strangers(problem: Problem, by_arity: dict[int, list[Problem]], count: int, draw: random.Random) -> list[str]:
    """Up to `count` reference solutions of other problems under this one's signature."""
    names = parameters_of(problem.canonical or "", problem.entry_point)
    others = [other for other in by_arity.get(len(names or ()), ()) if other.base_id != problem.base_id]
    if names is None or not others:
        return []
    drawn = draw.sample(others, min(count, len(others)))
    answers = [as_answer(other.canonical or "", other.entry_point, names, problem.entry_point) for other in drawn]
    return [answer for answer in answers if answer is not None]
