"""Inspect AI's own `eval` around `code_scorer`, in an environment that has Inspect; prints what it logged as JSON.

Arguments: the service's URL, and a file of Python that defines `task` (the page's block).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ModelAPI, ModelOutput, get_model, modelapi
from inspect_ai.scorer import Scorer, mean, scorer
from inspect_ai.solver import generate

from plaudit.integrations.inspect_ai import code_scorer

GOOD = "Sure:\n```python\ndef add(a, b):\n    return a + b\n```"
BAD = "```python\ndef add(a, b):\n    return a - b\n```"
NONE = "I would rather not."
TESTS = ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(0, 0) == 0\n"
KEY = "a-key-that-no-log-shows"
ASKED = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content="Write add(a, b).")]
PROBLEMS = [
    Sample("Write add(a, b).", target=TESTS),  # as MBPP
    Sample("Write add(a, b).", target="pass", metadata={"test": CHECK, "entry_point": "add"}),  # as HumanEval
    Sample(ASKED, target="", metadata={"tests": TESTS}),
]
BROKEN = Sample("Write add(a, b).", target="no tests here")


@modelapi(name="scripted")
class ScriptedModel(ModelAPI):  # type: ignore[misc]
    """Answers one text after the other. Inspect's own mock counts tokens by a vocabulary that it downloads."""

    def __init__(self, model_name: str, answers: list[str], **_: Any) -> None:
        super().__init__(model_name)
        self.answers = iter(answers)

    async def generate(self, *_: Any, **__: Any) -> ModelOutput:
        if (answer := next(self.answers, None)) is None:
            raise ConnectionError("no answer is left")
        return ModelOutput.from_content(self.model_name, answer)


def evaluated(task: Task, answers: list[str], **options: Any) -> Any:
    """The log of an evaluation in which the model answers one after the other."""
    model = get_model("scripted/model", answers=answers, memoize=False)
    with tempfile.TemporaryDirectory() as folder:
        (log,) = inspect_ai.eval(
            task, model=model, log_dir=folder, display="none", max_samples=1, max_connections=1, **options
        )
        (file,) = Path(folder).glob("*")
        return inspect_ai.log.read_eval_log(str(file)) if log else log


def told(log: Any) -> dict[str, Any]:
    """What matters of a log."""
    results = log.results.scores if log.results else []
    return {
        "status": log.status,
        "error": log.error.message if log.error else None,
        "metrics": [{name: one.value for name, one in score.metrics.items()} for score in results],
        "scorers": [score.name for score in results],
        "samples": [
            {
                "error": sample.error.message if sample.error else None,
                "scores": {name: score.model_dump() for name, score in (sample.scores or {}).items()},
            }
            for sample in log.samples
        ],
        "key": KEY in log.model_dump_json(),
    }


@scorer(metrics=[mean()])
def mine(url: str) -> Scorer:
    return code_scorer(url, KEY)


def main(url: str, page: str) -> None:
    spaces: dict[str, Any] = {}
    exec(compile(Path(page).read_text("utf-8"), page, "exec"), spaces)

    def task(problems: list[Sample], judge: Scorer, **options: Any) -> Task:
        return Task(dataset=problems, solver=generate(), scorer=judge, **options)

    answers = [GOOD, BAD, NONE]
    passed = evaluated(task(PROBLEMS, code_scorer(url, KEY)), answers)
    gone = code_scorer("http://127.0.0.1:9", timeout_s=1.0)
    silent = evaluated(task(PROBLEMS[:2], code_scorer(url)), [GOOD], fail_on_error=False)
    twice = inspect_ai.Epochs(2, "pass_at_2")
    logs = {
        "passed": passed,
        "reward": evaluated(task(PROBLEMS, code_scorer(url, value="reward", name="graded")), answers),
        "page": evaluated(spaces["task"](PROBLEMS), answers),
        "epochs": evaluated(task(PROBLEMS[:1], code_scorer(url), epochs=twice), [GOOD, BAD]),
        "own": evaluated(task(PROBLEMS, mine(url)), answers),
        "again": inspect_ai.score(passed, code_scorer(url, value="reward"), action="overwrite", display="none"),
        "silent": inspect_ai.score(silent, code_scorer(url), action="overwrite", display="none"),
        "broken": evaluated(task([PROBLEMS[0], BROKEN], code_scorer(url)), [GOOD, GOOD], fail_on_error=False),
        "outage": evaluated(task(PROBLEMS[:1], gone), [GOOD]),
        "outage, going on": evaluated(task(PROBLEMS[:1], gone), [GOOD], fail_on_error=False),
    }
    print(json.dumps({name: told(log) for name, log in logs.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
