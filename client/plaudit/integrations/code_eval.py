"""`code_eval` of Hugging Face's `evaluate`, as lm-evaluation-harness and bigcode-evaluation-harness call it.

The original runs a candidate and its tests in one process of the evaluating machine, so it asks for
`HF_ALLOW_CODE_EVAL=1`, and a candidate that ends its process or answers every comparison with True passes. Here both
run in the service's sandbox, the tests in a process of their own.
"""

from __future__ import annotations

import ast
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from plaudit.client import Client
from plaudit.errors import InfraError, Invalid
from plaudit.integrations.config import Misconfigured
from plaudit.labels import tests_of

ITEMS_AT_ONCE = 64
Results = dict[int, list[tuple[int, dict[str, Any]]]]


class CodeEval:
    """The metric `code_eval`.

    Args:
        url: Where the service listens.
        api_key: Key of the service, where it asks for one.
        timeout_s: Budget of one request in seconds, over all its attempts.

    Example:
        >>> from plaudit.integrations.code_eval import CodeEval
        >>> metric = CodeEval("http://127.0.0.1:8000")
        >>> programs = [["def add(a, b): return a + b", "def add(a, b): return a * b"]]
        >>> pass_at_k, results = metric.compute(predictions=programs, references=["assert add(2, 3) == 5"], k=[1, 2])
    """

    def __init__(self, url: str, api_key: str | None = None, *, timeout_s: float = 600.0) -> None:
        self._url, self._key, self._timeout_s = url, api_key, timeout_s

    def compute(
        self,
        *,
        predictions: Sequence[Sequence[str]],
        references: Sequence[str],
        k: Sequence[int] = (1, 10, 100),
        timeout: float = 3.0,
        num_workers: int | None = None,
    ) -> tuple[dict[str, float], Results]:
        """Run every candidate with its problem's tests.

        Args:
            predictions: Candidate programs of every problem.
            references: Tests of every problem: asserts, HumanEval's `check` with its call, or a test file.
            k: The k of pass@k. One that is larger than a problem's number of candidates is left out.
            timeout: CPU seconds of one test.
            num_workers: Taken for the original's sake; the service has its own.

        Returns:
            pass@k by name, and by problem a list of (candidate's index, what became of it).

        Raises:
            Misconfigured: A problem without candidates, or whose tests cannot be read.
            InfraError: A candidate that the service could not judge; it is never counted as failed.
            PlauditError: What the client raises.
        """
        if len(predictions) != len(references):
            raise Misconfigured(f"predictions: {len(predictions)} problems, and references has {len(references)}")
        items = [
            _item(at, programs, reference, timeout)
            for at, (programs, reference) in enumerate(zip(predictions, references, strict=True))
        ]
        results: Results = defaultdict(list)
        with Client(self._url, self._key, timeout_s=self._timeout_s) as client:
            for start in range(0, len(items), ITEMS_AT_ONCE):
                answer = client.execute(items[start : start + ITEMS_AT_ONCE])
                for task_id, result in enumerate(answer.results, start=start):
                    results[task_id] = [(at, _outcome(task_id, at, one)) for at, one in enumerate(result.programs)]
        counts = [(len(own), sum(one["passed"] for _, one in own)) for own in results.values()]
        usable = [size for size in k if counts and all(total >= size for total, _ in counts)]
        return {f"pass@{size}": _pass_at(size, counts) for size in usable}, dict(results)


def _item(at: int, programs: Sequence[str], reference: str, timeout: float) -> dict[str, Any]:
    if not programs:
        raise Misconfigured(f"predictions[{at}]: no candidate; a problem has at least one")
    try:
        tested = tests_of(_label(reference))
    except Invalid as error:
        raise Misconfigured(f"references[{at}]: {error.detail}") from None
    if tested is None:
        raise Misconfigured(
            f"references[{at}]: neither asserts, nor a `check` that is called, nor a file of tests, but "
            f"{reference[:80]!r}"
        )
    return {
        "language": tested.language or "python",
        "programs": list(programs),
        "tests": tested.tests,
        "limits": {"cpu_s": timeout},
        "stop": "first_failure",
    }


def _label(reference: str) -> Any:
    """The reference as a label: HumanEval's test with the name that its last line calls `check` with, or the text."""
    try:
        body = ast.parse(reference).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return reference
    last = body[-1] if body else None
    if (
        isinstance(last, ast.Expr)
        and isinstance(last.value, ast.Call)
        and isinstance(last.value.func, ast.Name)
        and last.value.func.id == "check"
        and len(last.value.args) == 1
        and isinstance(last.value.args[0], ast.Name)
    ):
        test = "".join(reference.splitlines(keepends=True)[: last.lineno - 1])
        return {"test": test, "entry_point": last.value.args[0].id}
    return reference


def _outcome(task_id: int, at: int, program: Any) -> dict[str, Any]:
    if program.status != "ok":
        reason = program.error.detail if program.error else program.status
        raise InfraError(f"predictions[{task_id}][{at}]: it could not be judged: {reason}")
    passed = program.pass_rate == 1.0
    told = next((test.detail for test in program.tests if test.detail), str(program.verdict))
    word = "passed" if passed else "timed out" if program.verdict == "time_limit" else f"failed: {told}"
    return {"task_id": task_id, "passed": passed, "result": word, "completion_id": at}


def _pass_at(size: int, counts: Sequence[tuple[int, int]]) -> float:
    """The mean over the problems of 1 - C(n - c, k) / C(n, k)."""
    return sum(1.0 - math.comb(n - c, size) / math.comb(n, size) for n, c in counts) / len(counts)
