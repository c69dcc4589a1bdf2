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
MINUS = ADD.replace("+", "-")
TWICE = "class Solution:\n    def twice(self, x):\n        return 2 * x\n"
PAIRS = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7.0\n"]}  # 7 for 7.0 is right
CALLS = {"fn_name": "twice", "inputs": [[1], [4]], "outputs": [[2], 8]}  # APPS: a list of one for a value
APPS = {
    "problem_id": 4,
    "question": "Add two numbers.",
    "solutions": json.dumps([ADD, ADD + "\n"]),
    "input_output": json.dumps(PAIRS),
    "difficulty": "introductory",
    "url": "",
    "starter_code": "",
}
APPS_CALL = APPS | {"problem_id": 5, "starter_code": "class Solution:\n    ", "input_output": json.dumps(CALLS)}
TACO = {
    "question": "Add two numbers.",
    "solutions": json.dumps([ADD]),
    "starter_code": "",
    "input_output": json.dumps(PAIRS),
    "difficulty": "EASY",
    "raw_tags": "[]",
    "name": None,
    "source": "codechef",
}
CODECONTESTS = {
    "name": "1_A. Sum",
    "description": "Add two numbers.",
    "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
    "private_tests": {"input": [], "output": []},
    "generated_tests": {"input": ["3 4\n"], "output": ["7\n"]},
    "source": 2,
    "difficulty": 7,
    "solutions": {"language": [2, 3], "solution": ["int main() {}", ADD]},
    "incorrect_solutions": {"language": [3, 1], "solution": [MINUS, "print 1"]},
    "time_limit": {"seconds": 2, "nanos": 0},
}
CHECKER = """from __future__ import annotations

import sys


def main():
    given, answer, output = (open(name).read().split() for name in sys.argv[1:4])
    print(1 if sorted(output) == sorted(answer) else 0)


main()
"""
CODEFORCES = {
    "id": "852/A",
    "aliases": None,
    "title": "Words",
    "description": "Print the two words in any order.",
    "input_format": "Two words.",
    "output_format": "The words.",
    "interaction_format": None,
    "note": None,
    "examples": [{"input": "a b\n", "output": "a b\n"}],
    "official_tests": [{"input": "a b\n", "output": "a b\n"}, {"input": "x y\n", "output": "x y\n"}],
    "official_tests_complete": True,
    "input_mode": "stdio",
    "generated_checker": CHECKER,
    "executable": True,
}
DEEPCODER_LCB = {
    "problem": "Twice x.",
    "starter_code": "class Solution:\n    def twice(self, x):\n        ",
    "tests": json.dumps([{"input": "3", "output": "6", "testtype": "functional", "metadata": {"func_name": "twice"}}]),
    "metadata": {"func_name": "twice"},
}
DEEPCODER_PRIME = {
    "problem": "Add two numbers.",
    "tests": json.dumps([{"type": "stdin_stdout", "input": "1 2\n", "output": "3\n"}]),
    "solutions": [f"```python\n{ADD}```"],
}
DEEPCODER_TACO = {"problem": "Add two.", "tests": json.dumps(PAIRS), "solutions": [ADD]}
PRIME = {
    "data_source": "taco",
    "ability": "code",
    "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "Add two numbers."}],
    "reward_model": {"ground_truth": json.dumps(PAIRS), "style": "rule"},
    "extra_info": {"index": 0, "split": "train"},
}
SYNTHETIC_1 = {
    "source": "apps",
    "task_type": "verifiable_code",
    "in_source_id": "1",
    "prompt": "Add two numbers.",
    "gold_standard_solution": f"```python\n{ADD}```",
    "verification_info": json.dumps(
        {
            "language": "python",
            "test_cases": [{"fn_name": None, "input": "1 2\n", "output": "3\n", "type": "stdin_stdout"}],
        }
    ),
    "metadata": "{}",
    "problem_id": "vcp_1",
}
SYNTHETIC_1_CALL = SYNTHETIC_1 | {
    "problem_id": "vcp_2",
    "gold_standard_solution": None,
    "verification_info": {
        "language": "python",
        "test_cases": [{"fn_name": "twice", "input": [3], "output": [6], "type": "function_call"}],
    },
}
KODCODE = {
    "style": "instruct",
    "subset": "Prefill",
    "question_id": "Prefill_1_I",
    "question": "Write double(x).",
    "solution": DOUBLE,
    "test": (
        "from solution import double\n\ndef test_two():\n    assert double(2) == 4\n\n"
        "def test_less():\n    assert double(-1) == -2\n"
    ),
    "test_info": [{"docstring": "Twice x.", "function_name": "double", "parameter_list": "(x)"}],
}
LEETCODE = {
    "task_id": "two-times",
    "question_id": 1,
    "difficulty": "Easy",
    "tags": ["Math"],
    "problem_description": "Twice every x.",
    "starter_code": "class Solution:\n    def twice(self, xs: List[int]) -> List[int]:\n        ",
    "prompt": "from typing import *\nimport math\n\n",
    "completion": (
        "class Solution:\n    def twice(self, xs: List[int]) -> List[int]:\n        return [2 * x for x in xs]\n"
    ),
    "entry_point": "Solution().twice",
    "test": "def check(candidate):\n    assert candidate(xs=[1, 2]) == [2, 4]\n    assert candidate(xs=[]) == []\n",
    "input_output": [{"input": "xs = [1, 2]", "output": "[2, 4]"}],
}
BIGCODEBENCH = {
    "task_id": "BigCodeBench/900",
    "complete_prompt": (
        'import math\n\ndef task_func(x):\n    """Square root of x.\n\n    Requirements:\n    - math\n    """\n'
    ),
    "instruct_prompt": (
        "Square root of x. You should write self-contained code starting with:\n"
        "```\nimport math\ndef task_func(x):\n```"
    ),
    "canonical_solution": "    if x < 0:\n        raise ValueError('x')\n    return math.sqrt(x)\n",
    "code_prompt": "import math\ndef task_func(x):\n",
    "test": (
        "import unittest\n\nclass TestCases(unittest.TestCase):\n"
        "    def test_root(self):\n        self.assertAlmostEqual(task_func(4), 2)\n"
        "    def test_negative(self):\n        with self.assertRaises(ValueError):\n            task_func(-1)\n"
    ),
    "entry_point": "task_func",
    "doc_struct": "{}",
    "libs": "['math']",
}
CLASSEVAL = {
    "task_id": "ClassEval_900",
    "skeleton": "class Counter:\n    def add(self, n):\n        pass\n",
    "solution_code": (
        "class Counter:\n    def __init__(self):\n        self.total = 0\n\n"
        "    def add(self, n):\n        self.total += n\n        return self.total\n"
    ),
    "test": (
        "import unittest\n\nclass CounterTestAdd(unittest.TestCase):\n    def test_add(self):\n"
        "        counter = Counter()\n        self.assertEqual(counter.add(2), 2)\n"
        "        self.assertEqual(counter.add(3), 5)\n"
    ),
    "class_name": "Counter",
    "test_classes": ["CounterTestAdd"],
    "methods_info": [],
}
# adapter, row, a program that passes, and one that does not
SOLVED: list[tuple[str, dict[str, Any], str, str]] = [
    ("acecode-87k", ACECODE, DOUBLE, "def double(x):\n    return 2\n"),
    ("humaneval", HUMANEVAL, DOUBLE, "def double(x):\n    return x\n"),
    ("mbpp", MBPP, DOUBLE, "def double(x):\n    return x\n"),
    ("mbpp+", MBPP_PLUS, DOUBLE, "def double(x):\n    return abs(2 * x)\n"),
    ("multipl-e", MULTIPL_E, MULTIPL_E["prompt"] + "    return 2 * x;\n", MULTIPL_E["prompt"] + "    return x;\n"),
    ("livecodebench", lcb("1", LCB_STDIN, packed(json.dumps(LCB_STDIN)), {}), ADD, ADD.replace("+", "-")),
    ("livecodebench", lcb("2", LCB_CALLS, "[]", {"func_name": "has"}), HAS, HAS.replace("x in", "x is")),
    ("apps", APPS, ADD, MINUS),
    ("apps", APPS_CALL, TWICE, TWICE.replace("2", "3")),
    ("taco", TACO, ADD, MINUS),
    ("codecontests", CODECONTESTS, ADD, MINUS),
    ("codeforces", CODEFORCES, "a, b = input().split()\nprint(b, a)\n", "a, b = input().split()\nprint(b, b)\n"),
    ("deepcoder", DEEPCODER_LCB, TWICE, TWICE.replace("2", "3")),
    ("deepcoder", DEEPCODER_PRIME, ADD, MINUS),
    ("deepcoder", DEEPCODER_TACO, ADD, MINUS),
    ("prime", PRIME, ADD, MINUS),
    ("synthetic-1", SYNTHETIC_1, ADD, MINUS),
    ("synthetic-1", SYNTHETIC_1_CALL, DOUBLE.replace("double", "twice"), "def twice(x):\n    return x\n"),
    ("kodcode", KODCODE, DOUBLE, "def double(x):\n    return 4\n"),
    ("leetcode", LEETCODE, LEETCODE["completion"], LEETCODE["completion"].replace("2 * x", "x")),
    (
        "bigcodebench",
        BIGCODEBENCH,
        BIGCODEBENCH["complete_prompt"] + BIGCODEBENCH["canonical_solution"],
        BIGCODEBENCH["complete_prompt"] + "    return 2\n",
    ),
    (
        "bigcodebench-instruct",
        BIGCODEBENCH,
        BIGCODEBENCH["code_prompt"] + BIGCODEBENCH["canonical_solution"],
        "def task_func(x):\n    return 2\n",
    ),
    ("classeval", CLASSEVAL, CLASSEVAL["solution_code"], CLASSEVAL["solution_code"].replace("+= n", "= n")),
]
