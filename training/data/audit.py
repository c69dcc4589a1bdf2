"""`plaudit-train audit FILE.jsonl --out FOLDER`: the audit of every suite of a data set.

- A line of the file is an item of `POST /audit` (`docs/audit.md`), judged here in a sandbox, or by a service (`--url`).
- `FOLDER/reports.jsonl` has a report per item, written as it is done; a killed audit goes on where it was.
- A report with server errors says less than it should. It is in the summary and on the page, and the next run of the
  command makes it again.
- `FOLDER/summary.json` counts the verdicts, and `FOLDER/report.html` shows the worst suites first.
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from plaudit.client import Client
from plaudit.errors import InfraError, UsageError
from plaudit.field_errors import sentence
from plaudit.languages import UnsupportedLanguage, resolve
from plaudit.schemas import AuditItem, AuditReport, ExecuteItem, ExecuteResult, ProgramResult, ResultError, SuiteVerdict
from service.audit.steps import audit_steps
from service.judging import result_of, to_suite
from training.data.judge_local import local_sandbox
from training.pipeline.digests import content_key
from training.pipeline.files import write_text
from training.pipeline.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.sandbox import Sandbox

Audit = Callable[[AuditItem], AuditReport]
MAX_NAMED = 5  # suites that an error names
ORDER: tuple[SuiteVerdict, ...] = ("broken", "weak", "unknown", "good")
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Audit of test suites</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;width:100%}}td,th{{text-align:left;vertical-align:top;padding:.3rem .6rem;
border-bottom:1px solid #ccc}}pre{{overflow:auto;background:#f4f4f4;padding:.5rem}}</style>
<h1>Audit of {total} test suites</h1><p>{counts}</p>
<table><tr><th>suite<th>verdict<th>mutation score<th>problems</tr>{rows}</table></html>
"""


def audit_command(arguments: Sequence[str]) -> None:
    """Run the command.

    Raises `UsageError` for a line that is not an item, `InfraError` after all else is done if suites met server errors,
    and what judging raises.
    """
    parser = argparse.ArgumentParser(prog="plaudit-train audit", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="JSON lines, each an item of POST /audit")
    parser.add_argument("--out", type=Path, required=True, help="folder of the reports; an old one is resumed")
    parser.add_argument("--url", help="a running service that judges; by default a sandbox of this host does")
    options = parser.parse_args(arguments)
    items = _items(options.file)
    unfinished: dict[str, AuditReport] = {}
    options.out.mkdir(parents=True, exist_ok=True)
    with Journal(options.out / "reports.jsonl") as journal:
        left = {key: item for key, item in items.items() if key not in journal}
        print(f"audit: {len(items)} suites, {len(items) - len(left)} audited before", file=sys.stderr)
        if left:
            with _by_service(options.url) if options.url else _by_sandbox() as audit:
                for at, (key, item) in enumerate(left.items(), start=1):
                    report = audit(item)
                    if report.server_errors:
                        unfinished[key] = report
                    else:
                        journal.add({"key": key, **report.model_dump(mode="json")})
                    print(f"audit: {at} of {len(left)}: {item.id}: {report.verdict}", file=sys.stderr)
        reports = [unfinished.get(key) or AuditReport.model_validate(journal[key]) for key in items]
    write_text(options.out / "summary.json", json.dumps(summary_of(reports), indent=1) + "\n")
    write_text(options.out / "report.html", page_of(reports))
    if unfinished:
        names = ", ".join(str(report.id) for report in list(unfinished.values())[:MAX_NAMED])
        raise InfraError(
            f"{len(unfinished)} of {len(items)} suites met server errors ({names}): run the command again, it audits "
            "these only"
        )


def summary_of(reports: Sequence[AuditReport]) -> dict[str, Any]:
    """Verdicts, and how many suites have each kind of weakness; the mutation score is over all mutants."""
    verdicts = Counter(report.verdict for report in reports)
    scores = [report.mutation_score for report in reports if report.mutation_score is not None]
    return {
        "suites": len(reports),
        "verdicts": {verdict: verdicts[verdict] for verdict in ORDER},
        "killed": sum(score.count for score in scores),
        "mutants": sum(score.total for score in scores),
        "hackable": sum(report.hackable is True for report in reports),
        "flaky": sum(any(test.flaky for test in report.tests) for report in reports),
        "vacuous": sum(any(test.vacuous for test in report.tests) for report in reports),
        "server_errors": sum(report.server_errors > 0 for report in reports),
        "duplicates": sum(any(test.duplicate_of is not None for test in report.tests) for report in reports),
        "spent_cpu_s": round(sum(report.spent_cpu_ms for report in reports) / 1000, 2),
    }


def page_of(reports: Sequence[AuditReport]) -> str:
    """One self-contained page, the worst suites first."""
    counts = Counter(report.verdict for report in reports)
    rows = []
    for at, report in sorted(enumerate(reports), key=lambda pair: (ORDER.index(pair[1].verdict), pair[0])):
        score = report.mutation_score
        shown = "–" if score is None else f"{score.count} of {score.total} ({score.low:.2f} to {score.high:.2f})"
        problems = "".join(f"<li>{html.escape(text)}" for text in report.problems)
        survivors = "".join(f"<pre>{html.escape(survivor.diff)}</pre>" for survivor in report.survivors)
        details = f"<details><summary>surviving mutants</summary>{survivors}</details>" if survivors else ""
        name = html.escape(report.id or str(at))
        rows.append(f"<tr><td>{name}<td>{report.verdict}<td>{shown}<td><ul>{problems}</ul>{details}</tr>")
    listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ORDER)
    return PAGE.format(total=len(reports), counts=listed, rows="\n".join(rows))


def _items(path: Path) -> dict[str, AuditItem]:
    if not path.is_file():
        raise UsageError(f"{path} is not a file: give JSON lines, each an item of POST /audit")
    items = {}
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                item = AuditItem.model_validate_json(json.dumps({"id": str(number), **json.loads(line)}))
            except ValidationError as error:
                raise UsageError(f"{path}, line {number}: {sentence(error.errors())}") from error
            except (ValueError, TypeError) as error:
                raise UsageError(f"{path}, line {number}: not a JSON object ({error})") from error
            items[content_key(item.model_dump_json())] = item
    return items


@contextmanager
def _by_service(url: str) -> Iterator[Audit]:
    with Client(url, timeout_s=3600) as client:

        def audit(item: AuditItem) -> AuditReport:
            return client.audit([item]).results[0]

        yield audit


@contextmanager
def _by_sandbox() -> Iterator[Audit]:
    with local_sandbox() as sandbox:
        yield lambda item: _audited_here(item, sandbox)


def _audited_here(item: AuditItem, sandbox: Sandbox) -> AuditReport:
    steps = audit_steps(item)
    try:
        batch = next(steps)
        while True:
            batch = steps.send([_executed(execute_item, sandbox) for execute_item in batch])
    except StopIteration as end:
        report: AuditReport = end.value
        return report


def _executed(item: ExecuteItem, sandbox: Sandbox) -> ExecuteResult:
    return ExecuteResult(best=None, programs=[_judged(item, source, sandbox) for source in item.programs])


def _judged(item: ExecuteItem, source: str, sandbox: Sandbox) -> ProgramResult:
    from sandbox.errors import InvalidSuite, SandboxError
    from sandbox.judge import judge
    from sandbox.types import Limits, Options, Program, Stop

    try:
        program = Program(resolve(item.language), source)
        limits, options = Limits(**item.limits.model_dump()), Options(**item.options.model_dump())
        return result_of(judge(program, to_suite(item.tests), limits, Stop(), sandbox, options))
    except (InvalidSuite, UnsupportedLanguage) as error:
        code = "invalid_tests" if isinstance(error, InvalidSuite) else "language_unknown"
        return ProgramResult(status="invalid", trainable=False, error=ResultError(code=code, detail=str(error)))
    except SandboxError as error:
        detail = f"{type(error).__name__}: {error}"
        return ProgramResult(status="infra_error", trainable=False, error=ResultError(code="sandbox", detail=detail))
