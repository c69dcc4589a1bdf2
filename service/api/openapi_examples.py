"""Requests that work as they are, by path and by what they show. The tests send each to a service."""

from __future__ import annotations

from typing import Any

PROMPT = "Write a function add(a, b) that returns the sum of two numbers."
RIGHT, WRONG = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"
ASSERTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]
TESTS = {"kind": "assert", "asserts": ASSERTS}
GROUP = {"prompt": PROMPT, "completions": [WRONG, RIGHT], "tests": TESTS}
FENCED = f"```python\n{RIGHT}```"
TRIPLE = 'def triple(n: int) -> int:\n    """Return n times three.\n    >>> triple(2)\n    6\n    """\n'
DOUBLE = "print(int(input()) * 2)"
MESSAGES = [{"role": "user", "content": "What is 1 + 2?"}]
SPEC = {
    "terms": [
        {"name": "tests", "type": "execute", "policy": "pass_rate"},
        {"name": "fence", "type": "format", "weight": 0.1},
    ],
    "combine": "weighted_sum",
}

NATIVE: dict[str, dict[str, Any]] = {
    "/score": {
        "two completions of one prompt": {"items": [{"prompt": PROMPT, "completions": [WRONG, RIGHT]}]},
        "a conversation": {"items": [{"messages": MESSAGES, "completions": ["It is 3.", "It is 4."]}]},
        "too long is cut, not rejected": {
            "items": [{"prompt": PROMPT, "completions": [RIGHT]}],
            "on_overflow": "truncate_left",
            "deadline_ms": 20_000,
        },
    },
    "/execute": {
        "asserts": {"items": [{"language": "python", "programs": [WRONG, RIGHT], "tests": TESTS}]},
        "calls of a function": {
            "items": [
                {
                    "language": "python",
                    "programs": [RIGHT],
                    "tests": {
                        "kind": "function",
                        "entry_point": "add",
                        "cases": [{"args": [1, 2], "expected": 3}, {"args": [0.1, 0.2], "expected": 0.3}],
                        "rel_tol": 1e-6,
                    },
                }
            ]
        },
        "stdin and stdout, with limits": {
            "items": [
                {
                    "language": "python",
                    "programs": [DOUBLE],
                    "tests": {"kind": "stdio", "cases": [{"stdin": "21\n", "stdout": "42\n"}], "compare": "tokens"},
                    "limits": {"cpu_s": 2, "memory_mb": 256},
                }
            ]
        },
        "the last fenced block of a completion": {
            "items": [{"language": "python", "programs": [FENCED], "extract": "last_fence", "tests": TESTS}]
        },
    },
    "/reward": {
        "tests first, then the model": {"items": [GROUP]},
        "terms of your own": {"spec": SPEC, "items": [GROUP]},
    },
    "/rank": {
        "by tests": {"items": [GROUP]},
        "by the prompt's own examples": {
            "items": [
                {
                    "prompt": TRIPLE,
                    "completions": ["    return n + 3\n", "    return n * 3\n"],
                }
            ]
        },
    },
    "/audit": {
        "a suite with one test that checks nothing": {
            "items": [
                {
                    "language": "python",
                    "tests": {"kind": "assert", "asserts": [*ASSERTS, "assert add is not None"]},
                    "reference": RIGHT,
                    "programs": [{"source": WRONG, "right": False}],
                }
            ]
        }
    },
}
SCORED = {"query": PROMPT, "documents": [WRONG, RIGHT]}
ROLL_TASK = {"prompt": PROMPT, "response": FENCED, "reward_info": TESTS}
POOLED = {"model": "default", "input": [PROMPT + RIGHT]}
DIALECTS: dict[str, dict[str, Any]] = {
    "/get_reward": {
        "one row": {"query": [f"{PROMPT}\n{FENCED}"], "prompts": [f"{PROMPT}\n"], "labels": [ASSERTS]},
    },
    "/slime": {"one sample": {"prompt": PROMPT, "response": FENCED, "label": '["assert add(1, 2) == 3"]'}},
    "/classify": {"texts": POOLED},
    "/v1/classify": {"texts": POOLED},
    "/pooling": {"texts": POOLED},
    "/v1/pooling": {"texts": POOLED},
    "/v1/embeddings": {"texts": POOLED},
    "/v1/score": {"a query and its texts": {"text_1": PROMPT, "text_2": [WRONG, RIGHT]}},
    "/rerank": {"documents": SCORED, "text-embeddings-inference": {"query": PROMPT, "texts": [RIGHT]}},
    "/v1/rerank": {"documents": SCORED},
    "/v2/rerank": {"the best one": {**SCORED, "model": "default", "top_n": 1}},
    "/execute_batch": {
        "a script whose last line is the reward": {
            "scripts": ["passed = 1\npassed / 2"],
            "languages": ["python"],
            "timeout": 30,
            "request_timeout": 28,
        }
    },
    "/run_code": {
        "a program with its input": {
            "language": "python",
            "code": DOUBLE,
            "stdin": "21\n",
            "compile_timeout": 10,
            "run_timeout": 10,
        }
    },
    "/run_jupyter": {"two cells": {"cells": ["x = 20", "print(x + 1)"], "total_timeout": 20}},
    "/submit": {
        "a completion with its data": {
            "dataset": "own",
            "id": 1,
            "completion": f"```python\n{DOUBLE}\n```",
            "config": {
                "dataset_type": "CommonOJDataset",
                "language": "python",
                "provided_data": {
                    "id": 1,
                    "content": "Double it.",
                    "test": [{"input": {"stdin": "1\n"}, "output": {"stdout": "2\n"}}],
                },
            },
        }
    },
    "/verify": {
        "an answer with unit tests": {
            "responses_create_params": {"input": [{"role": "user", "content": "Double it."}]},
            "response": {
                "id": "r",
                "object": "response",
                "output": [
                    {
                        "id": "m",
                        "type": "message",
                        "role": "assistant",
                        "content": [
                            {"type": "output_text", "text": f"```python\n{DOUBLE}\n```", "annotations": []},
                        ],
                    }
                ],
            },
            "verifier_metadata": {"unit_tests": {"inputs": ["1\n"], "outputs": ["2\n"], "fn_name": None}},
        }
    },
    "/test_program": {
        "a program with asserts": {"program": RIGHT, "tests": ASSERTS, "max_execution_time": 1.0},
    },
    "/test_program_stdio": {
        "a program with inputs and outputs": {
            "program": DOUBLE,
            "tests": [{"input": "21", "output": "42"}],
            "max_execution_time": 1.0,
        }
    },
    "/submit_task": {"one task": ROLL_TASK},
    "/roll/submit_task": {"one task": ROLL_TASK},
    "/v1/score/evaluation": {
        "whole texts": {"model": "model", "messages": [f"<|prompt|>{PROMPT}<|completion|>{RIGHT}<|end|>"]}
    },
    "/api/v2/execute": {
        "one file": {
            "language": "python",
            "version": "*",
            "files": [{"name": "main.py", "content": DOUBLE}],
            "stdin": "21",
            "run_timeout": 3000,
        }
    },
}
EXAMPLES = NATIVE | DIALECTS
