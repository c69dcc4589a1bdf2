"""The interface of a request's work: its jobs, and one result per item.

`ScorePlan`, `ExecutePlan`, `RunPlan` and `RewardPlan` are plans. The words that their results share are here, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from plaudit.schemas import Completeness, ResultError
from service.api.dispatch.submission import Submission
from service.api.dispatch.tasks import gather_or_cancel
from service.jobs import Failed, Job

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class RequestPlan(Protocol[Result_co]):
    """The jobs of one request, and their replies as results."""

    def __len__(self) -> int:
        """How many items the request has."""

    def jobs(self) -> list[Job]:
        """What has to be done, each job once."""

    async def result(self, submission: Submission, index: int) -> Result_co:
        """Wait for an item's jobs, which have been submitted, and answer it."""


async def collect(plan: RequestPlan[Result], submission: Submission) -> list[Result]:
    """All results of a submitted plan, in order. Each is reported to the request's `progress` as it is done."""

    async def reported(index: int) -> Result:
        result = await plan.result(submission, index)
        submission.context.report(index, result)
        return result

    return await gather_or_cancel(map(reported, range(len(plan))))


def problem_of(failed: Failed) -> ResultError:
    """A job's failure as an answer tells it."""
    return ResultError(code=failed.code, detail=failed.detail, retryable=failed.retryable)


def completeness(statuses: Iterable[str]) -> Completeness:
    return "partial" if any(status == "timeout_queue" for status in statuses) else "complete"


def best_index(values: Sequence[float | None]) -> int | None:
    """Index of the highest value, the first of equals; None where there is none."""
    known = [index for index, value in enumerate(values) if value is not None]
    return max(known, key=lambda index: (values[index], -index), default=None)
