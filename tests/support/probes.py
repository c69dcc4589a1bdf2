"""One call for each dialect, whose right answer is known: what the fault matrix and the tests of repetition ask.

A probe's program runs a case's preamble first and ends in a number of its own, so that no two are the same work. A
probe of the reward model has the case's text instead, and its right answer is the one that it gets again in calm.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

ASSERTS = "assert f() == {}"
PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Case:
    """What a program does first, what that prints, and what stands in a text for the reward model."""

    before: str = ""
    printed: str = ""
    text: str = "text"


@dataclass(frozen=True, slots=True)
class Probe:
    """`read` takes out of an answer what a trainer takes; `right` is what that must be, if it is known beforehand."""

    path: str
    body: Callable[[Case, int], dict[str, Any]]
    read: Callable[[Any], Any]
    right: Callable[[Case, int], Any] | None = None

    def ask(self, url: str, case: Case, number: int, headers: dict[str, str] | None = None) -> httpx.Response:
        """Over the wire; a task that is handed in is polled until it has ended."""
        headers = {"Content-Type": "application/json", **(headers or {})}
        content = json.dumps(self.body(case, number))  # halves of surrogate pairs stay escaped
        answer = httpx.post(f"{url}{self.path}", content=content, headers=headers, timeout=200, trust_env=False)
        if not answer.is_success or self.path != "/roll/submit_task":
            return answer
        poll = {"reward_request_id": answer.json()["reward_request_id"]}
        while True:
            answer = httpx.request("GET", f"{url}/roll/task_result", json=poll, timeout=60, trust_env=False)
            if not answer.is_success or answer.json()["errcode"] != 1:
                return answer
            time.sleep(PAUSE_S)

    def outcome(self, url: str, case: Case, number: int, retry_status: int | None, tries: int = 100) -> Any:
        """What a client ends up with that comes back whenever it is asked to; an error status, or what it reads."""
        for _ in range(tries):
            answer = self.ask(url, case, number)
            if answer.status_code != retry_status:
                break
            time.sleep(PAUSE_S)
        return self.read(answer.json()) if answer.is_success else answer.status_code


def _program(case: Case, number: int) -> str:
    return f"{case.before}\nprint({number})"


def _function(case: Case, number: int) -> str:
    return f"{case.before}\ndef f():\n    return {number}"


def _fenced(case: Case, number: int) -> str:
    return f"```python\n{_function(case, number)}\n```"


def _asserts(number: int) -> list[str]:
    return [ASSERTS.format(number)]


def _text(case: Case, number: int) -> str:
    return f"{case.text} {number}"


def _message(case: Case, number: int) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": _fenced(case, number)}]}


def _printed(case: Case, number: int) -> str:
    return f"{case.printed}{number}\n"


def _one(case: Case, number: int) -> Any:
    return 1.0


PROBES = {
    "sandbox_fusion": Probe(
        "/run_code",
        lambda case, number: {"code": _program(case, number), "language": "python"},
        lambda answer: answer["run_result"]["stdout"] if answer["run_result"] else answer["status"],
        _printed,
    ),
    "openrlhf": Probe(
        "/get_reward",
        lambda case, number: {"query": [_fenced(case, number)], "prompts": [""], "labels": [_asserts(number)]},
        lambda answer: (answer["rewards"], answer["extra_logs"]["reward_ok"]),
        lambda case, number: ([1.0], [1.0]),
    ),
    "slime": Probe(
        "/slime",
        lambda case, number: {"prompt": "p", "response": _fenced(case, number), "label": _asserts(number)},
        lambda answer: answer,
        _one,
    ),
    "vllm": Probe(
        "/classify",
        lambda case, number: {"input": _text(case, number)},
        lambda answer: answer["data"][-1]["probs"],
    ),
    "rerank": Probe(
        "/v2/rerank",
        lambda case, number: {"query": "q", "documents": [_text(case, number)]},
        lambda answer: [(one["index"], one["relevance_score"]) for one in answer["results"]],
    ),
    "open_r1": Probe(
        "/execute_batch",
        lambda case, number: {
            "scripts": [f"{case.before}\n{number}"],
            "languages": ["python"],
            "timeout": 20,
            "request_timeout": 20,
        },
        lambda answer: answer[0]["text"],
        lambda case, number: str(number),
    ),
    "nemo_gym": Probe(
        "/verify",
        lambda case, number: {
            "responses_create_params": {},
            "response": {"output": [_message(case, number)]},
            "verifier_metadata": {"unit_tests": _asserts(number)},
        },
        lambda answer: (answer["reward"], answer.get("_ng_failure_class")),
        lambda case, number: (1.0, None),
    ),
    "open_instruct": Probe(
        "/test_program",
        lambda case, number: {"program": _function(case, number), "tests": _asserts(number)},
        lambda answer: answer["results"],
        lambda case, number: [1],
    ),
    "llama_factory": Probe(
        "/v1/score/evaluation",
        lambda case, number: {"model": "m", "messages": [_text(case, number)]},
        lambda answer: answer["scores"],
    ),
    "piston": Probe(
        "/api/v2/execute",
        lambda case, number: {"language": "python", "version": "*", "files": [{"content": _program(case, number)}]},
        lambda answer: answer["run"]["stdout"],
        _printed,
    ),
    "roll": Probe(
        "/roll/submit_task",
        lambda case, number: {
            "prompt": "p",
            "response": _fenced(case, number),
            "reward_info": {"test_list": _asserts(number)},
        },
        lambda answer: answer["reward_score"],
        _one,
    ),
}
