"""Does any public suite check nothing? Each meets the program that answers nothing, once.

Every suite is read as at the API's door and goes through its control run, those of literal calls too, which need none
in service. What is refused, vacuous or unjudgeable is listed by name, and what the run costs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agreement import machine, read, suites

from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.judge.control_run import ControlResult, ControlResults, control_result
from sandbox.judge.request import JudgeRequest
from sandbox.judge.suite_checks import suite_flaw
from sandbox.judge.suite_kinds import count_tests
from sandbox.judge.suite_plan import CodeSuite, plan_of
from sandbox.open import open_sandbox
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, CheckSuite, Limits, Program, ScriptSuite, Stop

LIMITS = Limits(cpu_s=5)
SCRIPTS = ("javascript", "ruby", "perl", "php", "lua", "bash")  # whose scripts always meet the control program


@dataclass
class Found:
    """What the control runs of one kind of suites have shown."""

    suites: int = 0
    tests: int = 0
    refused: list[str] = field(default_factory=list)
    vacuous: list[str] = field(default_factory=list)
    unjudgeable: list[str] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        counts = f"{self.suites} | {self.tests} | {len(self.refused)} | {len(self.vacuous)} | {len(self.unjudgeable)}"
        return f"| {name} | {counts} | {statistics.median(self.ms):.1f} |"


def plain_suites() -> Iterator[tuple[str, str, CodeSuite]]:
    """Kind, name and suite of everything public that Python's test process judges."""
    problems = {problem["task_id"]: problem for problem in read("problems.python.jsonl.gz")}
    for name, problem in problems.items():
        single, own = suites(problem)
        if isinstance(single, AssertSuite):
            yield "problems, `assert`", name, single
        if isinstance(own, CheckSuite):
            yield "problems, `check`", name, own
    for kind, file in (("model-written", "generated_tests.jsonl.gz"), ("plus tests", "plus_tests.jsonl.gz")):
        for row in read(file):
            known = problems.get(row["task_id"])
            if known is not None and row["tests"]:
                setup, entry_point = known["test_setup"], known["entry_point"]
                yield kind, row["task_id"], AssertSuite(tuple(row["tests"]), setup, entry_point)


def look(sandbox: Sandbox, name: str, suite: CodeSuite, found: Found) -> None:
    found.suites += 1
    found.tests += count_tests(suite)
    flaw = suite_flaw(suite, "python")
    if flaw is not None:
        found.refused.append(f"{name}: {flaw}")
        return
    sandbox.cached(ControlResults).close()  # or a suite that stands in two sets would be looked up
    request = JudgeRequest(sandbox, b"", "python", suite, LIMITS, Stop())
    began = time.perf_counter()
    try:
        control: ControlResult = control_result(request, plan_of(suite))
    except InvalidSuite as error:
        found.refused.append(f"{name}: {error}")
        return
    finally:
        found.ms.append(1000 * (time.perf_counter() - began))
    texts = suite.asserts if isinstance(suite, AssertSuite) else ("check",)
    found.vacuous += [f"{name}: `{texts[number]}`" for number in sorted(control.vacuous)]
    found.unjudgeable += [f"{name}: `{texts[at]}`: {why}" for at, why in sorted(control.unjudgeable.items())]


def look_at_script(sandbox: Sandbox, problem: dict[str, str], found: Found) -> None:
    """A script's control run, and the run of an empty program after it."""
    found.suites += 1
    found.tests += 1
    began = time.perf_counter()
    try:
        suite = ScriptSuite(problem["test_code"])
        judge(Program(problem["language"], " "), suite, LIMITS, Stop(), sandbox)
    except InvalidSuite as error:
        found.refused.append(f"{problem['task_id']}: {error}")
    finally:
        found.ms.append(1000 * (time.perf_counter() - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scripts", action="store_true", help="also the scripts of other languages that start quickly")
    flags = parser.parse_args()
    found: dict[str, Found] = {}
    with open_sandbox(accept="userns") as sandbox:
        for kind, name, suite in plain_suites():
            look(sandbox, name, suite, found.setdefault(kind, Found()))
        if flags.scripts:
            installed = {language.name for language in sandbox.languages()}
            for file in ("problems.multilang.jsonl.gz", "problems.more_languages.jsonl.gz"):
                for problem in read(file):
                    language = problem["language"]
                    if language in SCRIPTS and language in installed and problem["test_code"]:
                        look_at_script(sandbox, problem, found.setdefault(f"{language}, `script`", Found()))
    print(f"# The control run over public suites\n\n{datetime.now(UTC):%Y-%m-%d}, {machine()}\n")
    print("| suites | number | tests | refused | vacuous | unjudgeable | control run, ms (median) |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, one in found.items():
        print(one.row(name))
    for title in ("refused", "vacuous", "unjudgeable"):
        lines = [line.replace("\n", " ⏎ ") for one in found.values() for line in getattr(one, title)]
        if lines:
            print(f"\n## {title.capitalize()}\n")
            print("\n".join(f"- {line[:240]}" for line in lines))


if __name__ == "__main__":
    main()
