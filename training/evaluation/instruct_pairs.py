"""Samples of held-out problems as assistants answer: code in a fence, with prose around it, in several languages.

The programs are those of the data that were not drawn independently: greedy and repaired programs of instruct models in
Python, and CodeLlama-Instruct's in C++, Java and JavaScript. The words around them are not those of training
(`template.REQUESTS`), and are drawn without a look at the verdict.
"""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from training.evaluation.rankers import estimate
from training.pipeline import config
from training.pipeline.metrics import mean
from training.pipeline.records import Problem, ProgramRecord
from training.reward_model.template import NAMES, presented

ASKED = (
    "I need help with some {language} code. This is what I have so far:\n\n{prompt}\n\nCan you write the rest?",
    "Implement this in {language}:\n\n```{fence}\n{prompt}\n```",
    "{prompt}\n\nReturn only working {language} code, and explain it briefly.",
)
BEFORE = (
    "Of course. The idea is to handle the input directly and build the answer as we go.\n\n",
    "**Solution**\n\n",
    "Certainly! Below is a complete implementation in {language}.\n\n",
)
AFTER = (
    "\n### How it works\n\nThe code follows the specification; edge cases are handled by the conditions above.\n",
    "\nI hope this helps.\n",
    "\nYou can test it with the examples from the description.\n",
)


def instruct_answers(
    problems: Mapping[str, Problem], programs: Iterable[ProgramRecord]
) -> tuple[dict[str, Problem], list[ProgramRecord]]:
    """The test problems' samples that are not independent, each in an assistant's answer.

    Returns:
        the problems with the request as their prompt, and the programs with the answer as their completion.
    """
    requests, answers = dict[str, Problem](), []
    for program in programs:
        problem = problems[program.task_id]
        if problem.fold != "test" or program.origin != "sample" or program.iid_copies or program.pass_rate is None:
            continue
        _, fenced = presented(program, problem.prompt, problem.entry_point, "fenced", problem.language)
        words = {"language": NAMES.get(problem.language, problem.language), "fence": problem.language}
        request = random.Random(problem.task_id).choice(ASKED).format(prompt=problem.prompt.rstrip(), **words)
        requests[problem.task_id] = dataclasses.replace(problem, prompt=request)
        draw = random.Random(program.program_id)
        text = draw.choice(BEFORE).format(**words) + fenced + draw.choice(AFTER)
        answers.append(dataclasses.replace(program, completion=text))
    return requests, answers


def by_base(values: Mapping[str, float], problems: Mapping[str, Problem]) -> dict[str, float]:
    """The means of these tasks' values by the problem that they translate: translations depend on each other."""
    groups: dict[str, list[float]] = defaultdict(list)
    for task_id, value in values.items():
        groups[problems[task_id].base_id].append(value)
    return {base: mean(members) for base, members in groups.items()}


def by_language(
    values: Mapping[str, float], problems: Mapping[str, Problem], settings: config.EvaluateConfig, seed: int
) -> dict[str, Any]:
    """Means with intervals of all languages, under `all`, and of each.

    Args:
        values: by task id.
        problems: of these tasks.
        settings: the resamples of the bootstrap over problems, `by_base`.
        seed: of the bootstrap.
    """
    found = {"all": estimate(list(by_base(values, problems).values()), settings, seed)}
    for language in dict.fromkeys(problems[task_id].language for task_id in values):
        own = [value for task_id, value in values.items() if problems[task_id].language == language]
        found[language] = estimate(own, settings, seed)
    return found
