"""Requests whose right answers are known beforehand, and a crowd that sends them all at once.

An answer is *right* (it says what is known), or *put off* (a typed, retryable refusal, or a result that says itself
that it is none and must not be trained on); anything else fails the test that asked.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from service.scoring.reward_model import RewardModel

TOLERANCE = 1e-4
OURS = ("infra_error", "timeout_queue", "cancelled")
Outcome = Literal["right", "put off", "reset"]
STDIO = {"kind": "stdio", "cases": [{"stdin": "2\n3\n", "stdout": "5\n"}, {"stdin": "4\n4\n", "stdout": "8\n"}]}
PROGRAMS = {
    "passed": "print(int(input()) + int(input()))",
    "wrong_answer": "print(int(input()) * int(input()))",
    "runtime_error": "raise SystemExit(3)",
}
PASS_RATES = {"passed": 1.0, "wrong_answer": 0.0, "runtime_error": 0.0}


@dataclass
class Ask:
    """A request and what is known of its answer: `values(answer)` must be `want`, number by number."""

    path: str
    body: dict[str, Any]
    want: list[Any]
    values: Callable[[dict[str, Any]], list[Any]]
    statuses: Callable[[dict[str, Any]], list[dict[str, Any]]]
    key: str | None = None
    later: bool = False
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        named = {} if self.key is None else {"Idempotency-Key": self.key}
        return named | ({"Prefer": "respond-async"} if self.later else {})

    def judge(self, response: httpx.Response) -> Outcome:
        """What a response is worth. Fails on one that is neither right nor honestly put off."""
        if response.status_code != 200:
            assert response.headers["content-type"] == "application/problem+json", response.text
            problem = response.json()
            assert problem["retryable"] is True, problem
            assert response.status_code in (429, 503), problem
            return "put off"
        return self.judge_answer(response.json())

    def judge_answer(self, answer: dict[str, Any]) -> Outcome:
        parts = self.statuses(answer)
        failed = [part for part in parts if part["status"] != "ok"]
        for part in failed:
            assert part["status"] in OURS, part
            assert part.get("trainable", False) is False, part
            assert [part.get(name) for name in ("score", "reward", "pass_rate", "verdict")] == [None] * 4, part
        if failed:
            return "put off"
        values = self.values(answer)
        assert len(values) == len(self.want), answer
        for value, want in zip(values, self.want, strict=True):
            same = math.isclose(value, want, abs_tol=TOLERANCE) if isinstance(want, float) else value == want
            assert same, (values, self.want, answer)
        return "right"


def _completions(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for result in answer["results"] for one in result["completions"]]


def _programs(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for result in answer["results"] for one in result["programs"]]


class Asks:
    """Makes requests that nobody has sent before, with their right answers; scores come from the checkpoint itself."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model
        self.salt = uuid.uuid4().hex[:8]

    def _scores(self, prompt: str, completions: Sequence[str]) -> list[float]:
        encoded: Any = self.model.encode_group(prompt, list(completions), "error")
        return self.model.score(encoded)

    def score(self, number: int, completions: int = 2) -> Ask:
        prompt = f"Task {number} of {self.salt}: add two numbers.\n"
        texts = [f"print(sum(map(int, open(0))))  # way {at} of {prompt}" for at in range(completions)]
        body = {"items": [{"prompt": prompt, "completions": texts}]}
        want = self._scores(prompt, texts)
        return Ask("/score", body, want, lambda answer: [one["score"] for one in _completions(answer)], _completions)

    def _program(self, verdict: str, number: int | str) -> str:
        return f"{PROGRAMS[verdict]}  # {number} of {self.salt}\n"

    def execute(self, number: int) -> Ask:
        verdict = list(PROGRAMS)[number % len(PROGRAMS)]
        body = {"items": [{"language": "python", "programs": [self._program(verdict, number)], "tests": STDIO}]}
        want = [verdict, PASS_RATES[verdict]]
        return Ask(
            "/execute",
            body,
            want,
            lambda answer: [one[name] for one in _programs(answer) for name in ("verdict", "pass_rate")],
            _programs,
        )

    def slow(self, number: int) -> Ask:
        """A program that takes half a second of the wall and no CPU: behind a few of these others have to wait."""
        program = f"import time; time.sleep(0.5); {self._program('passed', f'slow {number}')}"
        ask = self.execute(number)
        ask.body["items"][0] |= {"programs": [program], "tests": {"kind": "stdio", "cases": STDIO["cases"][:1]}}
        ask.want = ["passed", 1.0]
        return ask

    def rank(self, number: int) -> Ask:
        """Two programs, of which the second passes, by a sum that needs both: without a score, no reward."""
        prompt = f"Task {number} of {self.salt}: add two numbers.\n"
        texts = [self._program(verdict, f"ranked {number}") for verdict in ("wrong_answer", "passed")]
        terms = [
            {"name": "tests", "type": "execute", "weight": 0.7},
            {"name": "rm", "type": "score", "weight": 0.3, "transform": "sigmoid"},
        ]
        item = {"prompt": prompt, "completions": texts, "language": "python", "tests": STDIO}
        body = {"spec": {"terms": terms}, "items": [item]}
        shares = [0.3 / (1 + math.exp(-score)) for score in self._scores(prompt, texts)]
        rewards = [shares[0], 0.7 + shares[1]]
        order = sorted(range(2), key=lambda at: -rewards[at])
        return Ask(
            "/rank",
            body,
            [*rewards, *order],
            lambda answer: [*(one["reward"] for one in _completions(answer)), *answer["results"][0]["order"]],
            _completions,
        )

    def mix(self, scores: int, executes: int, ranks: int) -> list[Ask]:
        """Every request twice, kinds and manners mixed: plain, under an idempotency key, asynchronous, or both."""
        kinds = [(self.score, scores), (self.execute, executes), (self.rank, ranks)]
        asks: list[tuple[float, Ask]] = []
        for make, count in kinds:
            for number in range(count):
                for twin in range(2):
                    ask = make(number)
                    manner = (number + 2 * twin) % 4
                    ask.key = f"{self.salt}-{ask.path}-{number}-{twin}" if manner in (1, 3) else None
                    ask.later = manner in (2, 3)
                    asks.append(((number + twin / 2) / count, ask))
        return [ask for _, ask in sorted(asks, key=lambda pair: pair[0])]


async def send(client: httpx.AsyncClient, ask: Ask, *, resets: bool) -> Outcome:
    """Ask once and judge what comes. `resets`: a broken connection is an outcome, too, not a failure."""
    try:
        response = await client.post(ask.path, json=ask.body, headers=ask.headers)
    except httpx.TransportError:
        assert resets, f"{ask.path}: the connection broke, and the API was never killed"
        return "reset"
    if response.status_code != 202:
        return ask.judge(response)
    return await follow(client, ask, response.json()["status_url"], resets=resets)


async def follow(client: httpx.AsyncClient, ask: Ask, status_url: str, *, resets: bool) -> Outcome:
    """An accepted request is looked after until it has ended, whatever happens to the connection meanwhile."""
    while True:
        try:
            response = await client.get(status_url, params={"wait_ms": 5000})
        except httpx.TransportError:
            assert resets, f"{status_url}: the connection broke, and the API was never killed"
            await asyncio.sleep(0.2)
            continue
        if response.status_code != 200:
            ask.judge(response)
            await asyncio.sleep(0.2)
            continue
        status = response.json()
        if status["state"] == "failed":
            assert status["error"]["retryable"] is True, status
            return "put off"
        if status["state"] != "running":
            assert status["state"] == "done", status
            return ask.judge_answer(status["answer"])


async def crowd(
    client: httpx.AsyncClient, asks: Sequence[Ask], *, resets: bool = False, disturb: Callable[[], None] | None = None
) -> None:
    """Send all at once, and disturb (in a thread) meanwhile. Every ask gets its outcome."""

    async def one(ask: Ask) -> None:
        ask.outcomes.append(await send(client, ask, resets=resets))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(ask)) for ask in asks]
        if disturb is not None:
            await asyncio.to_thread(disturb)
            assert not all(task.done() for task in tasks), "too late: everything was answered"


async def insist(client: httpx.AsyncClient, asks: Sequence[Ask], seconds: float = 30.0) -> None:
    """Retry, under the same keys, whoever has no right answer yet; fails when somebody has none by then."""
    until = asyncio.get_running_loop().time() + seconds
    while left := [ask for ask in asks if ask.outcomes[-1] != "right"]:
        assert asyncio.get_running_loop().time() < until, f"{len(left)} got no answer: {left[0]}"
        await crowd(client, left)
        await asyncio.sleep(0.2)
