"""Four kinds of clients at one service: OpenRLHF's singles, verl's sandbox calls, TRL's groups and a reranker.

Each keeps as many calls in flight as its kind does and sends the next when one is answered; every program and every
text is new, so that no cache answers, and what the right answer is, is known. A call is wrong if it says anything else;
it is put off if the service says itself that it has no answer. All programs wait in one queue, so a client's share of
the programs that were run should be its share of those in flight: that is the column `share of its due`. The longest
pause between two answers tells of starvation.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import httpx
from overhead import ROOT, machine, service

from plaudit.errors import PlauditError
from plaudit.integrations import trl
from service.scoring.reward_model import RewardModel

Outcome = Literal["right", "wrong", "put off"]
TESTS = ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]
COMPLETIONS = [("return a + b", 1.0), ("return a - b", 0.5), ("return a - b - 1", 0.0), ("return b + a", 1.0)]
GROUP, DOCUMENTS = 16, 8
SPEC = {
    "terms": [
        {"name": "tests", "type": "execute"},
        {"name": "rm", "type": "score", "weight": 0.1, "transform": "sigmoid"},
    ]
}
CHECKED = 50  # of the reranker's answers, computed again in this process


@dataclass
class Crowd:
    """One kind of client, and what became of its calls."""

    name: str
    in_flight: int
    programs: int  # that a call runs
    call: Callable[[int], Awaitable[Outcome]]
    took: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    async def run(self, until: float) -> None:
        numbers = itertools.count()

        async def one_after_the_other() -> None:
            while (began := time.monotonic()) < until:
                self.outcomes.append(await self.call(next(numbers)))
                self.answered.append(time.monotonic())
                self.took.append(self.answered[-1] - began)

        await asyncio.gather(*(one_after_the_other() for _ in range(self.in_flight)))

    def count(self, outcome: Outcome) -> int:
        return self.outcomes.count(outcome)

    def longest_pause(self, began: float) -> float:
        times = [began, *sorted(self.answered)]
        return max((after - before for before, after in itertools.pairwise(times)), default=math.inf)


def source(number: int, salt: str) -> tuple[str, float]:
    """A completion that nobody has sent before, and its pass rate."""
    body, rate = COMPLETIONS[number % len(COMPLETIONS)]
    return f"```python\ndef add(a, b):\n    {body}  # {number} of {salt}\n```", rate


def openrlhf(http: httpx.AsyncClient) -> Crowd:
    salt = f"openrlhf {uuid.uuid4().hex}"

    async def call(number: int) -> Outcome:
        text, rate = source(number, salt)
        body = {"query": ["Write add.\n" + text], "prompts": ["Write add.\n"], "labels": [TESTS]}
        answer = (await http.post("/get_reward", json=body)).raise_for_status().json()
        if answer["extra_logs"]["reward_ok"] == [0.0]:
            return "put off"
        return "right" if answer["rewards"] == [rate] else "wrong"

    return Crowd("OpenRLHF, singles", 16, 1, call)


def verl(http: httpx.AsyncClient) -> Crowd:
    salt = f"verl {uuid.uuid4().hex}"

    async def call(number: int) -> Outcome:
        body = {
            "code": f"print(int(input()) + {number})  # {salt}",
            "stdin": "7\n",
            "language": "python",
            "compile_timeout": 10,
            "run_timeout": 10,
            "memory_limit_MB": 1024,
            "files": {},
        }
        for pause in (1.0, 2.0, 0.0):
            answer = await http.post("/run_code", json=body)
            if answer.status_code != 504:
                break
            await asyncio.sleep(pause)
        else:
            return "put off"
        ran = answer.raise_for_status().json()["run_result"]
        return "right" if ran["stdout"] == f"{number + 7}\n" else "wrong"

    return Crowd("verl, sandbox", 32, 1, call)


def trl_groups(url: str) -> tuple[Crowd, Any]:
    salt = f"trl {uuid.uuid4().hex}"
    reward: Any = trl.reward_function(url, spec=SPEC, timeout_s=60.0)

    async def call(number: int) -> Outcome:
        prompt = f"Write add, for the {number}th time.\n"
        made = [source(number * GROUP + at, salt) for at in range(GROUP)]
        given: list[float | None] = await asyncio.to_thread(
            reward, prompts=[prompt] * GROUP, completions=[text for text, _ in made], tests=[TESTS] * GROUP
        )
        fits = [one is None or rate < one < rate + 0.1 for one, (_, rate) in zip(given, made, strict=True)]
        return "wrong" if not all(fits) else "put off" if None in given else "right"

    return Crowd(f"TRL, groups of {GROUP}", 2, GROUP, call), reward


def reranker(http: httpx.AsyncClient, answers: list[tuple[str, list[str], list[float]]]) -> Crowd:
    salt = f"rerank {uuid.uuid4().hex}"

    async def call(number: int) -> Outcome:
        query = f"Write add, for the {number}th time.\n"
        documents = [source(number * DOCUMENTS + at, salt)[0] for at in range(DOCUMENTS)]
        body = {"model": "default", "query": query, "documents": documents}
        for _ in range(3):
            answer = await http.post("/v2/rerank", json=body)
            if answer.status_code != 429:
                break
            await asyncio.sleep(float(answer.headers.get("retry-after", 1.0)))
        else:
            return "put off"
        results = answer.raise_for_status().json()["results"]
        scores = [one["relevance_score"] for one in results]
        if sorted(one["index"] for one in results) != list(range(DOCUMENTS)) or scores != sorted(scores, reverse=True):
            return "wrong"
        answers.append(
            (query, documents, [one for _, one in sorted((r["index"], r["relevance_score"]) for r in results)])
        )
        return "right"

    return Crowd(f"reranker, {DOCUMENTS} documents", 4, 0, call)


async def mixed(url: str, seconds: float, model: Path) -> tuple[list[Crowd], float]:
    """All at once; answers the crowds and when they began. Scores of the reranker are checked afterwards."""
    limits = httpx.Limits(max_connections=128)
    answers: list[tuple[str, list[str], list[float]]] = []
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, limits=limits) as http:
        groups, reward = trl_groups(url)
        crowds = [openrlhf(http), verl(http), groups, reranker(http, answers)]
        began = time.monotonic()
        try:
            await asyncio.gather(*(crowd.run(began + seconds) for crowd in crowds))
        finally:
            reward.args[0].close()
    judge = RewardModel.load(model, threads=1)
    step = max(1, len(answers) // CHECKED)
    for query, documents, told in answers[::step][:CHECKED]:
        scores: list[float] = judge.score(judge.encode_group(query, documents, "error"))  # type: ignore[arg-type]
        for score, value in zip(scores, told, strict=True):
            if not math.isclose(1 / (1 + math.exp(-score)), value, abs_tol=1e-3):
                crowds[-1].outcomes.append("wrong")
    return crowds, began


def dues(crowds: list[Crowd]) -> dict[str, float]:
    """Of each client that runs programs: its share of those that were run over its share of those in flight."""
    run = {crowd.name: len(crowd.took) * crowd.programs for crowd in crowds if crowd.programs}
    waiting = {crowd.name: crowd.in_flight * crowd.programs for crowd in crowds if crowd.programs}
    return {name: (run[name] / max(1, sum(run.values()))) / (waiting[name] / sum(waiting.values())) for name in run}


def table(crowds: list[Crowd], began: float, seconds: float) -> str:
    due = dues(crowds)
    lines = [
        "| client | in flight | calls/s | programs/s | p50 s | p95 s | p99 s | longest pause s | share of its due "
        "| put off | wrong |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for crowd in crowds:
        rate = len(crowd.took) / seconds
        cuts = statistics.quantiles(crowd.took, n=100)
        share = f"{due[crowd.name]:.2f}" if crowd.name in due else "none"
        lines.append(
            f"| {crowd.name} | {crowd.in_flight} | {rate:.1f} | {rate * crowd.programs:.1f} | {cuts[49]:.2f} | "
            f"{cuts[94]:.2f} | {cuts[98]:.2f} | {crowd.longest_pause(began):.2f} | {share} | {crowd.count('put off')} "
            f"| {crowd.count('wrong')} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    flags = parser.parse_args()
    model = ROOT / "models" / "plaudit-mini"
    with service(model) as url:
        try:
            crowds, began = asyncio.run(mixed(url, flags.seconds, model))
        except (PlauditError, httpx.HTTPError) as error:
            raise SystemExit(f"a client got an error: {error!r}") from error
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {flags.seconds:g} s, one executor, one scorer, plaudit-mini\n")
    print(table(crowds, began, flags.seconds))


if __name__ == "__main__":
    main()
