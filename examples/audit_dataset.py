"""What the tests of a data set are worth, before a policy is trained on their verdicts.

    python examples/audit_dataset.py examples/problems.jsonl

Reads items of `/rank`. The first completion that passes its own tests serves as the reference; from it plaudit makes
mutants, and counts how many of them the tests catch. Exit code 1 if a suite is weak or broken.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from plaudit import Client
from plaudit.schemas import AuditItem, RewardItem


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", type=Path, metavar="FILE.jsonl")
    options.add_argument("--plaudit", default="http://127.0.0.1:8000", metavar="URL")
    options.add_argument("--budget-cpu-s", type=float, default=20.0, help="of one suite (default: 20)")
    arguments = options.parse_args()
    rows = [RewardItem.model_validate_json(line) for line in arguments.file.read_text("utf-8").splitlines() if line]
    with Client(arguments.plaudit, timeout_s=600) as client:
        ranked = client.rank(rows).results
        items = []
        for row, result in zip(rows, ranked, strict=True):
            verdicts = [completion.components["tests"].verdict for completion in result.completions]
            right = next((index for index, verdict in enumerate(verdicts) if verdict == "passed"), None)
            items.append(
                AuditItem.model_validate(
                    {
                        "id": row.id,
                        "language": row.language,
                        "tests": row.tests,
                        "reference": None if right is None else row.completions[right],
                        "limits": row.limits,
                        "budget_cpu_s": arguments.budget_cpu_s,
                    }
                )
            )
        audited = client.audit(items).results
    print(f"{'problem':<24} {'verdict':<8} {'tests':>5} {'vacuous':>7} {'flaky':>5} {'mutants caught':>14}  hackable")
    for report in audited:
        vacuous = sum(test.vacuous for test in report.tests)
        flaky = sum(bool(test.flaky) for test in report.tests)
        score = report.mutation_score
        caught = "-" if score is None else f"{score.count} of {score.total}"
        hackable = {None: "-", True: "yes", False: "no"}[report.hackable]
        line = f"{report.id or '':<24} {report.verdict:<8} {len(report.tests):>5} {vacuous:>7} {flaky:>5} {caught:>14}"
        print(f"{line}  {hackable}")
        for problem in report.problems:
            print(f"  {problem}")
    weak = sum(report.verdict in ("weak", "broken") for report in audited)
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main())
