"""A row of each data set of the hub, in its own schema, written by us; with programs that solve them."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any

DOUBLE = "def double(x):\n    return 2 * x\n"
ACECODE = {
    "id": "oss_7",
    "source": "oss",
    "question": "Write `double(x)`, twice x.",
    "test_cases": ["assert double(1) == 2", "assert double(-2) == -4"],
    "inferences": [
        {"model_name": "m", "completion_id": 0, "completion": f"Sure:\n```python\n{DOUBLE}```", "pass_rate": 0.9},
        {"model_name": "m", "completion_id": 1, "completion": f"```python\n{DOUBLE}```\nDone.", "pass_rate": 0.9},
        {"model_name": "m", "completion_id": 2, "completion": "def double(x):\n    return x\n", "pass_rate": 0.0},
    ],
    "context_messages": [[{"role": "user", "content": "Write `double(x)`, twice x."}]],
}
LCB_STDIN = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
LCB_CALLS = [{"input": "[1, 2]\n1", "output": "true", "testtype": "functional"}]
HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": 'def double(x):\n    """Twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}
MBPP = {
    "task_id": 900,
    "text": "Write a function to double x.",
    "code": DOUBLE,
    "test_setup_code": "import math",
    "test_list": ["assert double(2) == 4"],
    "challenge_test_list": [],
}
MULTIPL_E = {
    "name": "HumanEval_900_double",
    "language": "cpp",
    "doctests": "transform",
    "stop_tokens": ["\n}"],
    "prompt": "// Twice x.\nlong twice(long x) {\n",
    "tests": "}\nint main() { return twice(2) == 4 ? 0 : 1; }\n",
}


def lcb(name: str, public: list[dict[str, str]], private: str, metadata: dict[str, str]) -> dict[str, Any]:
    return {
        "question_id": name,
        "question_title": "t",
        "question_content": "Do it.",
        "starter_code": "",
        "public_test_cases": json.dumps(public),
        "private_test_cases": private,
        "metadata": json.dumps(metadata),
    }


def packed(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


MBPP_PLUS = {key: MBPP[key] for key in ("task_id", "code", "test_list")} | {
    "prompt": "Double x.",
    "test_imports": [],
    "test": "def assertion(out, exp):\n    assert out == exp\n\nfor x in (3, -1):\n    assertion(double(x), x + x)\n",
}
MBPP_SANITIZED = {key: MBPP[key] for key in ("task_id", "code", "test_list")} | {
    "prompt": "Double x.",
    "test_imports": ["import math"],
}
HAS = "class Solution:\n    def has(self, xs: list[int], x: int) -> bool:\n        return x in xs\n"
ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
# adapter, row, a program that passes, and one that does not
SOLVED: list[tuple[str, dict[str, Any], str, str]] = [
    ("acecode-87k", ACECODE, DOUBLE, "def double(x):\n    return 2\n"),
    ("humaneval", HUMANEVAL, DOUBLE, "def double(x):\n    return x\n"),
    ("mbpp", MBPP, DOUBLE, "def double(x):\n    return x\n"),
    ("mbpp+", MBPP_PLUS, DOUBLE, "def double(x):\n    return abs(2 * x)\n"),
    ("multipl-e", MULTIPL_E, MULTIPL_E["prompt"] + "    return 2 * x;\n", MULTIPL_E["prompt"] + "    return x;\n"),
    ("livecodebench", lcb("1", LCB_STDIN, packed(json.dumps(LCB_STDIN)), {}), ADD, ADD.replace("+", "-")),
    ("livecodebench", lcb("2", LCB_CALLS, "[]", {"func_name": "has"}), HAS, HAS.replace("x in", "x is")),
]
