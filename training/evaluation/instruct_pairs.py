"""Samples of held-out problems as assistants answer: code in a fence, with prose around it, in several languages.

The programs are those of the data that were not drawn independently: greedy and repaired programs of instruct models in
Python, and CodeLlama-Instruct's in C++, Java and JavaScript. The words around them are not those of training
(`template.REQUESTS`), and are drawn without a look at the verdict.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.data.preferences import qualifies
from training.pipeline import config
from training.pipeline.metrics import pair_accuracy
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


@dataclass(frozen=True, slots=True)
class InstructAnswer:
    """A request and an answer to it, as `/score` would get them."""

    program: ProgramRecord
    language: str
    base_id: str
    prompt: str
    completion: str


def instruct_answers(problems: dict[str, Problem], programs: Iterable[ProgramRecord]) -> list[InstructAnswer]:
    """The test problems' samples that are not independent, each in an assistant's answer."""
    answers = []
    for program in programs:
        problem = problems[program.task_id]
        if problem.fold != "test" or program.origin != "sample" or program.iid_copies or program.pass_rate is None:
            continue
        _, fenced = presented(program, problem.prompt, problem.entry_point, "fenced", problem.language)
        words = {"language": NAMES[problem.language], "fence": problem.language}
        request = random.Random(problem.task_id).choice(ASKED).format(prompt=problem.prompt.rstrip(), **words)
        draw = random.Random(program.program_id)
        text = draw.choice(BEFORE).format(**words) + fenced + draw.choice(AFTER)
        answers.append(InstructAnswer(program, problem.language, problem.base_id, request, text))
    return answers


def instruct_accuracy(
    answers: Sequence[InstructAnswer], scores: Sequence[float], rule: config.PairConfig
) -> dict[str, tuple[str, str, float]]:
    """Pair accuracy of each problem that has pairs: task id → language, base problem, accuracy."""
    by_task: dict[str, list[int]] = {}
    for at, answer in enumerate(answers):
        by_task.setdefault(answer.program.task_id, []).append(at)
    accuracies = {}
    for task_id, places in by_task.items():
        rates = {at: answers[at].program.pass_rate or 0.0 for at in places}
        pairs = [(i, j) for i in places for j in places if qualifies(rates[i], rates[j], rule)]
        if pairs:
            first = answers[places[0]]
            accuracies[task_id] = (first.language, first.base_id, pair_accuracy(scores, pairs))
    return accuracies
