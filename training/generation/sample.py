"""`sample`: n candidates of every problem from the recipe's `sampler`.

Each reply is on disk before the next is waited for, so a killed run asks only for what was in flight; the seed of an
ask is a hash of the recipe's seed and the problem, so what comes after a kill is what would have come without it
(as far as the source repeats itself: a batching GPU server may differ in the last bits, and then in a token).

Problems are dealt into shards by a hash of their name. One shard (`--shard 3/16`) is a piece of work for one machine;
the command without `--shard` does what is left and ends the stage. Equal programs of a problem become one row with
`copies`. Train a reward model on what its own backbone samples: AceCoder does, and finds other models' samples worse.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from plaudit.errors import UsageError
from plaudit.extract import answer, closed, code_of
from training.generation.batch import ask_all
from training.generation.sources import Ask, Reply, Usage, seed_of
from training.pipeline import config
from training.pipeline.config import Recipe
from training.pipeline.records import Problem, Program, program_of, read_problems, row
from training.pipeline.run import Run, write_jsonl

REQUEST = (
    "Solve the task below in {language}. Answer with one complete program in a single ```{language} code block: all"
    " imports and helpers it needs, no example calls, nothing read or printed that the task does not ask for.\n\n"
    "{prompt}"
)

GREEDY = "#greedy"  # ends the sample_id of a problem's greedy program, which is no independent sample


def sample(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `samples/SHARD.jsonl`: distinct programs of every problem, problems in their order."""
    problems = list(read_problems(run.path("problems.jsonl")).values())
    numbers = shards_of(recipe)
    usage, counts = Usage(), {"candidates": 0, "distinct": 0, "no_code": 0}
    for number in numbers:
        mine = [p for p in problems if shard_of(p.task_id, recipe.sample.shards) == number]
        name = f"samples/{number:05}-of-{recipe.sample.shards:05}.replies.jsonl"
        replies = ask_all(run, name, recipe.sampler, [ask_of(problem, recipe) for problem in mine], usage)
        greedy = greedy_replies(recipe, run, name, mine, usage)
        programs = []
        for problem in mine:
            found = programs_of(problem, replies[problem.task_id], recipe.sampler, greedy.get(problem.task_id))
            programs += found
            counts["candidates"] += sum(program.iid_copies for program in found)
            counts["no_code"] += sum(program.iid_copies for program in found if not program.solution)
        counts["distinct"] += len(programs)
        write_jsonl(shard_path(run, "samples", number, recipe), map(row, programs))
    return {
        "problems": len(problems),
        **counts,
        "cut": usage.cut,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost": round(usage.cost(recipe.sampler), 4),
        "complete": len(numbers) == recipe.sample.shards,
    }


def ask_of(problem: Problem, recipe: Recipe) -> Ask:
    """The problem as the sampler is asked for it."""
    seed = seed_of(recipe.seed, problem.task_id)
    if not recipe.sampler.chat:
        return Ask(problem.task_id, problem.prompt, recipe.sample.n, seed)
    content = REQUEST.format(language=problem.language, prompt=problem.prompt)
    return Ask(problem.task_id, (("user", content),), recipe.sample.n, seed)


def greedy_replies(recipe: Recipe, run: Run, name: str, problems: Sequence[Problem], usage: Usage) -> dict[str, Reply]:
    """The one greedy completion of each problem, if the recipe wants it."""
    if not recipe.sample.greedy:
        return {}
    settings = dataclasses.replace(recipe.sampler, temperature=0.0, top_p=1.0)
    asks = [dataclasses.replace(ask_of(problem, recipe), n=1) for problem in problems]
    return ask_all(run, name.replace(".replies.", ".greedy."), settings, asks, usage)


def programs_of(problem: Problem, reply: Reply, sampler: config.Source, greedy: Reply | None = None) -> list[Program]:
    """Distinct programs of a reply in the order they first came; a completion without code is an empty program.

    The greedy program stands last, or is one of the others; its sample_id ends with `GREEDY`.
    """
    label = sampler.model or sampler.path
    texts = [(f"{problem.task_id}#{at}", text) for at, text in enumerate(reply.texts)]
    if greedy is not None:
        texts.append((problem.task_id + GREEDY, greedy.texts[0]))
    made = [
        (solution_of(problem, text, sampler.chat), answer(text) if sampler.chat else closed(text), name, label, None)
        for name, text in texts
    ]
    return merged(problem, made, "")


Made = tuple[str, str, str, str, float | None]  # solution, completion, sample_id, source, shipped pass rate


def merged(problem: Problem, made: Sequence[Made], license_: str, *, independent: bool = True) -> list[Program]:
    """One program for equal solutions, with the first one's completion and the number of copies.

    `independent`: the samples were drawn independently of each other, so best-of-N may be measured on them.
    """
    found: dict[str, list[Made]] = {}
    for one in made:
        found.setdefault(one[0], []).append(one)
    programs = []
    for solution, same in found.items():
        _, completion, _, source, rate = same[0]
        program = program_of(problem, solution, "sample", source, license_, completion=completion, pass_rate=rate)
        programs.append(
            dataclasses.replace(
                program,
                sample_ids=tuple(name for _, _, name, _, _ in same),
                copies=len(same),
                iid_copies=sum(not name.endswith(GREEDY) for _, _, name, _, _ in same) if independent else 0,
            )
        )
    return programs


def solution_of(problem: Problem, text: str, chat: bool) -> str:
    """The program that runs: the prompt continued, or the answer's code under the imports that the prompt shows."""
    if not chat:
        return problem.prompt + closed(text)
    code = code_of(text, problem.language)
    if code is None:
        return ""
    return imports_of(problem.prompt) + code.text if problem.language == "python" else code.text


def imports_of(prompt: str) -> str:
    """The import lines of a prompt that is code; models often answer without repeating them."""
    try:
        module = ast.parse(prompt)
    except (SyntaxError, ValueError):
        return ""
    lines = [ast.unparse(node) for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(lines) + "\n" if lines else ""


def shard_of(task_id: str, shards: int) -> int:
    """Which shard a problem belongs to: by its name alone, so that every stage and machine says the same."""
    return int.from_bytes(hashlib.sha256(task_id.encode()).digest()[:8]) % shards


def shards_of(recipe: Recipe) -> Sequence[int]:
    """The shards to work on: all, or the one of `--shard`. Raises `UsageError` for one that there is not."""
    shards = recipe.sample.shards if "sample" in recipe.stages else 1
    if not recipe.shard:
        return range(shards)
    number, _, total = recipe.shard.partition("/")
    if not (number.isdigit() and total == str(shards) and int(number) < shards):
        raise UsageError(f"shard must be one of 0/{shards} to {shards - 1}/{shards}, not {recipe.shard!r}")
    return [int(number)]


def shard_path(run: Run, folder: str, number: int, recipe: Recipe) -> Path:
    return run.path(f"{folder}/{number:05}-of-{recipe.sample.shards:05}.jsonl")
