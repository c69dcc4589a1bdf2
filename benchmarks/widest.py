"""verl at its widest: 64 calls in flight in each of eight workers, each a test of a program with ten, no second try.

verl's client waits 30 s for a call and takes whatever else happens for a failed test. Every program is new and has its
ten tests in flight at once. The same calls again, as trainers do, are answered from what is remembered. A program's
compilation is told by the time it took, the same for all answers that shared it. The client is aiohttp: httpx with 512
connections needs more of the two cores than the service does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from overhead import ROOT, machine, service

NUM_PROGRAMS, NUM_TESTS = 52, 10
CLIENT_TIMEOUT_S = 30.0
SOURCES = {
    "python": "print(int(input()) + {number})  # {salt}",
    "cpp": "#include <iostream>\nint main() {{ int a; std::cin >> a; std::cout << a + {number} << '\\n'; }} // {salt}",
}


@dataclass
class Rush:
    """All calls sent at once: how long each took, those that were not right, and the compilers that ran."""

    took: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    compiled: set[tuple[int, float]] = field(default_factory=set)

    def cut(self, share: float) -> float:
        return sorted(self.took)[int(share * (len(self.took) - 1))]


async def rush(http: aiohttp.ClientSession, language: str, salt: str) -> Rush:
    """Every test of every program at the same time."""
    found = Rush()

    async def call(number: int, given: int) -> None:
        body: dict[str, Any] = {
            "code": SOURCES[language].format(number=number, salt=salt),
            "stdin": f"{given}\n",
            "language": language,
            "compile_timeout": 10,
            "run_timeout": 10,
            "memory_limit_MB": 1024,
            "files": {},
            "fetch_files": [],
        }
        began = time.monotonic()
        try:
            async with http.post("/run_code", json=body) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            found.wrong.append(repr(error))
            return
        finally:
            found.took.append(time.monotonic() - began)
        told = json.loads(text) if answer.ok else {}
        if (told.get("run_result") or {}).get("stdout") != f"{number + given}\n":
            found.wrong.append(text)
        if told.get("compile_result"):
            found.compiled.add((number, told["compile_result"]["execution_time"]))

    await asyncio.gather(*(call(number, given) for number in range(NUM_PROGRAMS) for given in range(NUM_TESTS)))
    return found


async def twice(url: str, language: str) -> tuple[Rush, Rush]:
    """New programs, and the same calls again."""
    salt, timeout = uuid.uuid4().hex, aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S)
    async with aiohttp.ClientSession(url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        return await rush(http, language, salt), await rush(http, language, salt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executors", type=int, default=2)
    flags = parser.parse_args()
    print(f"| language | calls | wrong | compilers | p50 s | p99 s | longest s | again p99 s |\n{'|---' * 8}|")
    with service(ROOT / "models" / "plaudit-mini", executors=flags.executors) as url:
        for language in SOURCES:
            first, again = asyncio.run(twice(url, language))
            wrong = len(first.wrong + again.wrong)
            cells = [
                language,
                NUM_PROGRAMS * NUM_TESTS,
                wrong,
                len(first.compiled),
                *(f"{cut:.1f}" for cut in (first.cut(0.5), first.cut(0.99), first.cut(1.0), again.cut(0.99))),
            ]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {machine()}; {flags.executors} executors")


if __name__ == "__main__":
    main()
