"""`microworld`: a closed world of small Python tasks, made by a grammar, for trying the loops end to end on a CPU.

- A task is a chain of steps over a list of integers, and a last step that says what is returned. Its prompt says so in
  English, its reference is the chain in Python, and its tests are what the reference returns on random lists.
- The chain of step names is the task's *family*. Tasks of one family differ in wording only. Whole families are
  held out, so a model is asked about combinations that it has never seen.
- A step has one constant: a small model needs far more text to learn to copy numbers than to learn phrases.
- The generator's training text holds mistakes, as text by people does. Every step may be a slip: a wrong comparison,
  another constant, a step left out, two steps exchanged. A generator that imitates it fails often and in readable ways.
- Nothing is labelled by how it was made. A slip may be harmless; only the tests decide.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.data.programs import program_of
from training.pipeline import config
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.records import Fold, Problem, as_row
from training.pipeline.run import Run
from training.reward_model.template import load_encoder
from training.reward_model.tokenizer import train_tokenizer

LICENSE = "Apache-2.0"
CONSTANTS = (2, 3, 4, 5, 6, 7)
LOW, HIGH = -9, 20  # the numbers in the lists of the tests


@dataclass(frozen=True, slots=True)
class ChainStep:
    """One step: its phrases, its code, and wrong code for it. `{c}` is its constant."""

    name: str
    phrases: tuple[str, ...]
    code: str
    wrong: tuple[str, ...]
    c: int = 0


STEPS = tuple(
    ChainStep(*fields)
    for fields in (
        (
            "above",
            ("keep the numbers above {c}", "drop all numbers up to {c}"),
            "[x for x in xs if x > {c}]",
            ("[x for x in xs if x >= {c}]", "[x for x in xs if x < {c}]"),
            4,
        ),
        (
            "below",
            ("keep the numbers below {c}", "drop all numbers from {c} on"),
            "[x for x in xs if x < {c}]",
            ("[x for x in xs if x <= {c}]", "[x for x in xs if x > {c}]"),
            7,
        ),
        (
            "even",
            ("keep the even numbers", "drop the odd numbers"),
            "[x for x in xs if x % 2 == 0]",
            ("[x for x in xs if x % 2 == 1]", "[x for x in xs if x // 2 == 0]"),
        ),
        (
            "odd",
            ("keep the odd numbers", "drop the even numbers"),
            "[x for x in xs if x % 2 == 1]",
            ("[x for x in xs if x % 2 == 0]", "[x for x in xs if x % 2 == 2]"),
        ),
        (
            "multiples",
            ("keep the multiples of {c}", "drop what {c} does not divide"),
            "[x for x in xs if x % {c} == 0]",
            ("[x for x in xs if x % {c} != 0]", "[x for x in xs if x // {c} == 0]"),
            3,
        ),
        (
            "add",
            ("add {c} to each", "raise each by {c}"),
            "[x + {c} for x in xs]",
            ("[x - {c} for x in xs]", "xs + [{c}]"),
            5,
        ),
        (
            "times",
            ("multiply each by {c}", "take {c} times each"),
            "[x * {c} for x in xs]",
            ("[x + {c} for x in xs]", "xs * {c}"),
            3,
        ),
        (
            "minus",
            ("subtract {c} from each", "lower each by {c}"),
            "[x - {c} for x in xs]",
            ("[x + {c} for x in xs]", "[{c} - x for x in xs]"),
            2,
        ),
        (
            "square",
            ("square each", "replace each by its square"),
            "[x * x for x in xs]",
            ("[x + x for x in xs]", "[2 * x for x in xs]"),
        ),
        (
            "negate",
            ("negate each", "flip the sign of each"),
            "[-x for x in xs]",
            ("[abs(x) for x in xs]", "[1 - x for x in xs]"),
        ),
        (
            "absolute",
            ("take the absolute values", "drop the signs"),
            "[abs(x) for x in xs]",
            ("[-x for x in xs]", "[max(x, 0) for x in xs]"),
        ),
        (
            "remainder",
            ("take the remainders by {c}", "replace each by its remainder by {c}"),
            "[x % {c} for x in xs]",
            ("[x // {c} for x in xs]", "[{c} % x for x in xs]"),
            5,
        ),
        (
            "atmost",
            ("cap each at {c}", "let no number exceed {c}"),
            "[min(x, {c}) for x in xs]",
            ("[max(x, {c}) for x in xs]", "[x for x in xs if x <= {c}]"),
            6,
        ),
        (
            "atleast",
            ("lift each to at least {c}", "let no number be under {c}"),
            "[max(x, {c}) for x in xs]",
            ("[min(x, {c}) for x in xs]", "[x for x in xs if x >= {c}]"),
            2,
        ),
        ("reverse", ("reverse the list", "turn the list around"), "xs[::-1]", ("sorted(xs, reverse=True)", "xs[:-1]")),
        (
            "ascending",
            ("sort ascending", "order from small to large"),
            "sorted(xs)",
            ("sorted(xs, reverse=True)", "sorted(set(xs))"),
        ),
        (
            "descending",
            ("sort descending", "order from large to small"),
            "sorted(xs, reverse=True)",
            ("sorted(xs)", "xs[::-1]"),
        ),
        ("first", ("keep the first {c}", "cut the list after {c} items"), "xs[:{c}]", ("xs[{c}:]", "xs[-{c}:]"), 4),
        ("last", ("keep the last {c}", "keep the final {c} items"), "xs[-{c}:]", ("xs[{c}:]", "xs[:{c}]"), 3),
        ("skip", ("skip the first {c}", "drop the leading {c} items"), "xs[{c}:]", ("xs[:{c}]", "xs[:-{c}]"), 2),
        (
            "distinct",
            ("drop repeated numbers", "keep each number once"),
            "list(dict.fromkeys(xs))",
            ("sorted(set(xs))", "[x for x in xs if xs.count(x) == 1]"),
        ),
    )
)
ENDS = tuple(
    ChainStep(*fields)
    for fields in (
        ("list", ("return the list", "return the result"), "xs", ("len(xs)", "xs[0]")),
        ("sum", ("return the sum", "add up the rest"), "sum(xs)", ("len(xs)", "max(xs)")),
        ("count", ("return how many remain", "return the count"), "len(xs)", ("sum(xs)", "len(xs) - 1")),
        (
            "largest",
            ("return the largest or 0", "return the maximum or 0"),
            "max(xs, default=0)",
            ("min(xs, default=0)", "max(xs)"),
        ),
        (
            "smallest",
            ("return the smallest or 0", "return the minimum or 0"),
            "min(xs, default=0)",
            ("max(xs, default=0)", "min(xs)"),
        ),
        (
            "spread",
            ("return largest minus smallest or 0", "return the spread or 0"),
            "max(xs) - min(xs) if xs else 0",
            ("max(xs) - min(xs)", "max(xs) - len(xs) if xs else 0"),
        ),
    )
)


@dataclass(frozen=True, slots=True)
class MicroTask:
    """A chain: steps, end, and its prompt. `family` names the steps."""

    steps: tuple[ChainStep, ...]
    end: ChainStep
    prompt: str

    @property
    def family(self) -> str:
        return "-".join([*(step.name for step in self.steps), self.end.name])


def microworld(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `problems.jsonl`, `programs.jsonl` (the references), `tokenizer/` and `text.jsonl` for `pretrain`."""
    settings = recipe.world
    tasks = draw_tasks(settings, recipe.seed)
    problems = [microworld_problem(task, settings, recipe.seed) for task in tasks]
    pairs = list(zip(tasks, problems, strict=True))
    write_jsonl(run.path("problems.jsonl"), map(as_row, problems))
    write_jsonl(
        run.path("programs.jsonl"),
        (as_row(program_of(p, p.canonical or "", "canonical", p.source, p.license, pass_rate=1.0)) for p in problems),
    )
    rng = random.Random(f"{recipe.seed}:text")
    train = [(task, problem) for task, problem in pairs if problem.fold == "train"]
    documents = [
        (problem.prompt, write_with_slips(task, settings.slip, rng), "corpus")
        for _ in range(settings.programs)
        for task, problem in train
    ]
    rng.shuffle(documents)
    tokenizer = train_tokenizer([prompt + completion for prompt, completion, _ in documents], recipe)
    tokenizer.save_pretrained(run.path("tokenizer"))
    encoder = load_encoder(recipe, run.path("tokenizer"))
    rows: list[dict[str, Any]] = [
        {"kind": kind, "ids": list(encoder.encode(prompt, completion).ids)} for prompt, completion, kind in documents
    ]
    write_jsonl(run.path("text.jsonl"), rows)
    folds = {fold: sum(p.fold == fold for p in problems) for fold in ("train", "validation", "test")}
    return {
        "problems": len(problems),
        "families": len({task.family for task in tasks}),
        **folds,
        "texts": len(rows),
        "tokens": sum(len(r["ids"]) for r in rows),
        "vocabulary": len(tokenizer),
    }


def draw_tasks(settings: config.WorldConfig, seed: int) -> list[MicroTask]:
    """`problems` tasks with distinct prompts; chains of one to three steps, no step twice in a chain."""
    rng = random.Random(f"{seed}:tasks")
    tasks: dict[str, MicroTask] = {}
    while len(tasks) < settings.problems:
        steps, end = tuple(rng.sample(STEPS, rng.choice((1, 2, 2, 3)))), rng.choice(ENDS)
        phrases = [rng.choice(step.phrases).format(c=step.c) for step in steps]
        prompt = f'def f(xs):\n    """Take xs, {", then ".join(phrases)}, and {rng.choice(end.phrases)}."""\n'
        tasks.setdefault(prompt, MicroTask(steps, end, prompt))
    return list(tasks.values())


def fold_of(family: str, settings: config.WorldConfig, seed: int) -> Fold:
    """The fold of a whole family, by a hash of its name."""
    at = int.from_bytes(hashlib.sha256(f"{seed}:{family}".encode()).digest()[:4], "big") / 2**32
    if at < settings.test:
        return "test"
    return "validation" if at < settings.test + settings.validation else "train"


def microworld_problem(task: MicroTask, settings: config.WorldConfig, seed: int) -> Problem:
    """The task with its reference solution and its tests, one of them on the empty list."""
    canonical = task.prompt + function_body([step.code.format(c=step.c) for step in task.steps], task.end.code)
    rng = random.Random(f"{seed}:{task.prompt}")
    lists = [[], *([rng.randint(LOW, HIGH) for _ in range(rng.randint(5, 9))] for _ in range(settings.tests - 1))]
    namespace: dict[str, Any] = {}
    exec(canonical, namespace)  # the text of this grammar
    tests = tuple(f"assert f({xs!r}) == {namespace['f'](list(xs))!r}" for xs in lists)
    name = hashlib.sha256(task.prompt.encode()).hexdigest()[:10]
    return Problem(
        task_id=f"micro/{len(task.steps)}/{task.family}/{name}",
        base_id=f"micro/{task.family}",
        prompt=task.prompt,
        entry_point="f",
        canonical=canonical,
        test_setup="",
        tests=tests,
        source="microworld",
        license=LICENSE,
        fold=fold_of(task.family, settings, seed),
    )


def write_with_slips(task: MicroTask, slip: float, rng: random.Random) -> str:
    """The task's body with mistakes: each step is a slip with probability `slip`."""
    steps = [_line(step, slip, rng) for step in task.steps]
    if len(steps) > 1 and rng.random() < slip / 2:
        at = rng.randrange(len(steps) - 1)
        steps[at], steps[at + 1] = steps[at + 1], steps[at]
    if len(steps) > 1 and rng.random() < slip / 2:
        del steps[rng.randrange(len(steps))]
    return function_body(steps, _line(task.end, slip, rng))


def _line(step: ChainStep, slip: float, rng: random.Random) -> str:
    if rng.random() >= slip:
        return step.code.format(c=step.c)
    if step.c and rng.random() < 0.4:
        return step.code.format(c=rng.choice([other for other in CONSTANTS if other != step.c]))
    return rng.choice(step.wrong).format(c=step.c)


def function_body(steps: Sequence[str], end: str) -> str:
    """The indented body: one assignment per step, then the return."""
    return "".join(f"    xs = {code}\n" for code in steps) + f"    return {end}\n"
