"""An auditing request: all its items' audits go forward together, a batch of ordinary execute jobs at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from plaudit.errors import InvalidTests
from plaudit.schemas import AuditReport, AuditRequest, Completeness, ExecuteItem, ExecuteResult
from service.api.dispatch.tasks import off_loop
from service.api.handlers.validation import RequestValidator
from service.audit.report import rejected_report
from service.audit.steps import AuditSteps, audit_steps

Execute = Callable[[Sequence[ExecuteItem]], Awaitable[list[ExecuteResult]]]
Report = Callable[[int, AuditReport], None]


async def audited(
    request: AuditRequest, validator: RequestValidator, execute: Execute, report: Report
) -> tuple[list[AuditReport], Completeness]:
    """Audit the items of a request.

    Args:
        request: whose bounds are checked here. A suite that can assert nothing is a finding, not an error.
        validator: knows the bounds.
        execute: carries out one batch.
        report: is given each finished item.

    Returns:
        A report per item; "partial" if a run was cut short by the deadline.

    Raises:
        TooLarge, Invalid: for an item past a bound.
        PlauditError: what `execute` raises.
    """
    await off_loop(validator.check_audit, request)
    reports: dict[int, AuditReport] = {}
    completeness: Completeness = "complete"
    running: dict[int, AuditSteps] = {}
    batches: dict[int, list[ExecuteItem]] = {}

    def finish(index: int, finished: AuditReport) -> None:
        reports[index] = finished
        report(index, finished)

    def go_on(index: int, results: list[ExecuteResult] | None) -> AuditReport | None:
        """The report, or None where there is another batch."""
        steps = running[index]
        try:
            batches[index] = next(steps) if results is None else steps.send(results)
        except StopIteration as end:
            del running[index]
            finished: AuditReport = end.value
            return finished
        return None

    for index, item in enumerate(request.items):
        try:
            await off_loop(validator.check_tests, f"items.{index}.tests", item.tests, item.language, limits=item.limits)
        except InvalidTests as error:
            finish(index, rejected_report(item, error.detail))
            continue
        running[index] = audit_steps(item)
        await off_loop(go_on, index, None)  # the first step only plans
    while running:
        order = list(running)
        results = await execute([execute_item for index in order for execute_item in batches[index]])
        if any(program.status == "timeout_queue" for result in results for program in result.programs):
            completeness = "partial"
        parts = iter(results)
        for index in order:
            own = [next(parts) for _ in batches[index]]
            if (finished := await off_loop(go_on, index, own)) is not None:
                finish(index, finished)
    return [reports[index] for index in range(len(request.items))], completeness
