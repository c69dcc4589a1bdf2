"""Best of N from any OpenAI-compatible server: sample completions of one prompt, and let plaudit pick.

    python examples/best_of_n.py --sampler http://127.0.0.1:8001/v1 --model Qwen/Qwen2.5-Coder-7B-Instruct \\
        --prompt 'Write a Python function fib(n). fib(0) is 0 and fib(1) is 1.' --test 'assert fib(10) == 55'

Without `--test` the prompt's own examples decide, or how the programs agree on inputs made for them.
"""

from __future__ import annotations

import argparse
import os
import sys

import httpx

import plaudit


def sample(url: str, model: str, prompt: str, num: int, temperature: float) -> list[str]:
    """Completions of one chat prompt. Servers that give one a request are asked as often as it takes."""
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    completions: list[str] = []
    with httpx.Client(base_url=url, headers=headers, timeout=300) as client:
        while len(completions) < num:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": prompt}],
                "n": num - len(completions),
                "temperature": temperature,
            }
            answer = client.post("chat/completions", json=body)
            answer.raise_for_status()
            completions += [choice["message"]["content"] for choice in answer.json()["choices"]]
    return completions[:num]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sampler", required=True, metavar="URL", help="base URL of the server, its version included")
    options.add_argument("--model", required=True, help="the model's name at the server")
    options.add_argument("--prompt", required=True)
    options.add_argument("--test", action="append", default=[], metavar="ASSERT", help="may be given several times")
    options.add_argument("-n", type=int, default=8, help="completions to sample (default: 8)")
    options.add_argument("--temperature", type=float, default=0.8)
    options.add_argument("--plaudit", default="http://127.0.0.1:8000", metavar="URL")
    arguments = options.parse_args()
    base = arguments.sampler.rstrip("/") + "/"
    completions = sample(base, arguments.model, arguments.prompt, arguments.n, arguments.temperature)
    tests = {"kind": "assert", "asserts": arguments.test} if arguments.test else None
    best = plaudit.best_of_n(arguments.plaudit, arguments.prompt, completions, tests, extract="last_fence")
    print(f"number {best.index} of {len(completions)}, decided by {best.decided_by}, margin {best.margin}\n")
    print(completions[best.index])
    return 0


if __name__ == "__main__":
    sys.exit(main())
