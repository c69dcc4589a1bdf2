"""The one path from a request to its answer: score, execute, run, reward, rank, audit, activate.

- Native routes, durable requests and the compatibility endpoints all call these methods.
- Each rejects what cannot be done (`validation`, `Fleet.require_*`), plans the jobs (`plan`), submits them and collects
  the results (`submission`).
- What is done by the deadline is answered. The rest is `timeout_queue`, and the answer's status is `partial`.
- Cancelling the coroutine (the client has gone) takes its jobs out of the queue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from plaudit.errors import (
    ActivationRunning,
    CheckpointRefused,
    Invalid,
    PlauditError,
    RevisionMoved,
    RevisionUnknown,
)
from plaudit.schemas import (
    ActivateAnswer,
    ActivateRequest,
    AuditAnswer,
    AuditRequest,
    Completeness,
    ExecuteAnswer,
    ExecuteItem,
    ExecuteRequest,
    ExecuteResult,
    ModelInfo,
    ModelRef,
    RankAnswer,
    RankRequest,
    RewardAnswer,
    RewardRequest,
    RewardResult,
    ScoreAnswer,
    ScoreRequest,
)
from service import metrics
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.submission import Dispatcher
from service.api.dispatch.tasks import off_loop
from service.api.handlers.audit import audited
from service.api.handlers.execute import ExecutePlan
from service.api.handlers.plan import RequestPlan, collect, completeness
from service.api.handlers.replays import Replays
from service.api.handlers.reward import RewardPlan, Shaped
from service.api.handlers.reward_terms import ranked
from service.api.handlers.run import RunPlan, RunRequest, RunResult
from service.api.handlers.score import ScorePlan
from service.api.handlers.score_cache import ScoreCache
from service.api.handlers.validation import RequestValidator
from service.api.stores.sample_log import SampleLog
from service.jobs import Truncation
from service.queue.protocol import now_ms

log = logging.getLogger("plaudit.reward_service")

Result = TypeVar("Result")
MAX_ATTEMPTS = 4  # of a request whose model's revision changes while it is planned


@dataclass(frozen=True, slots=True)
class RewardService:
    """One per API process."""

    dispatcher: Dispatcher
    validator: RequestValidator
    score_cache: ScoreCache
    replays: Replays
    sample_log: SampleLog

    async def score(
        self,
        request: ScoreRequest,
        context: RequestContext,
        *,
        whole_texts: bool = False,
        truncation: Truncation | None = None,
    ) -> ScoreAnswer:
        """Score completions.

        Args:
            request: what to score.
            context: deadline, tenant, … of the request.
            whole_texts: whether completions are texts of a client's own template, scored without the prompts.
            truncation: what a dialect says about texts that are too long, in place of the request's `on_overflow`.
        """
        await off_loop(self.validator.check_score, request)

        async def attempt() -> ScoreAnswer:
            served = self.dispatcher.fleet.require_model(request.model)
            _check_tokenizer(request, served)
            model = ModelRef(name=request.model, revision=served.revision)
            plan = await off_loop(
                ScorePlan,
                model,
                request.items,
                truncation or request.on_overflow,
                context,
                self.score_cache,
                calibrated=request.calibrated,
                whole_texts=whole_texts,
            )
            async with self.dispatcher.submission(context) as submission:
                await plan.submit(submission)
                results = await collect(plan, submission)
            return ScoreAnswer(
                request_id=context.request_id,
                status=completeness(score.status for result in results for score in result.completions),
                model=model,
                results=results,
                timing=context.timing,
            )

        return await self._with_one_revision(attempt)

    async def execute(self, request: ExecuteRequest, context: RequestContext) -> ExecuteAnswer:
        """Run programs against tests."""
        await off_loop(self.validator.check_execute, request)
        self.dispatcher.fleet.require_executors()
        plan = await ExecutePlan.make(request.items, self.dispatcher, context)
        results = await self._collect(plan, context, use_cache=request.use_cache)
        self.replays.keep(context, plan.toolchain, plan.groups, results)
        return ExecuteAnswer(
            request_id=context.request_id,
            status=completeness(program.status for result in results for program in result.programs),
            results=results,
            timing=context.timing,
        )

    async def run(self, run_requests: Sequence[RunRequest], context: RequestContext) -> list[RunResult]:
        """Run without judging, for compatibility endpoints whose clients compare by themselves."""
        await off_loop(self.validator.check_runs, run_requests)
        self.dispatcher.fleet.require_executors()
        toolchain, shards = self.dispatcher.fleet.toolchain, self.dispatcher.shards
        return await self._collect(RunPlan(run_requests, toolchain, context, shards), context)

    async def reward(self, request: RewardRequest, context: RequestContext) -> RewardAnswer:
        """Join terms into rewards."""
        results, models = await self._rewarded(request, context, lambda result: result, early_stop=False)
        return RewardAnswer(
            request_id=context.request_id,
            status=_reward_completeness(results),
            models=models,
            results=results,
            timing=context.timing,
        )

    async def rank(self, request: RankRequest, context: RequestContext) -> RankAnswer:
        """Rewards, and the order they make."""
        results, models = await self._rewarded(request, context, ranked, early_stop=request.early_stop)
        return RankAnswer(
            request_id=context.request_id,
            status=_reward_completeness(results),
            models=models,
            results=results,
            timing=context.timing,
        )

    async def audit(self, request: AuditRequest, context: RequestContext) -> AuditAnswer:
        """Say what test suites are worth."""
        self.dispatcher.fleet.require_executors()
        runs_context = replace(context, progress=None)  # an audit's runs are not items of its answer

        async def execute(items: Sequence[ExecuteItem]) -> list[ExecuteResult]:
            plan = await ExecutePlan.make(items, self.dispatcher, runs_context)
            return await self._collect(plan, runs_context, use_cache=request.use_cache)

        reports, status = await audited(request, self.validator, execute, context.report)
        context.add_timing(runs_context.queue_ms, runs_context.compute_ms)
        return AuditAnswer(request_id=context.request_id, status=status, results=reports, timing=context.timing)

    async def _rewarded(
        self,
        request: RewardRequest,
        context: RequestContext,
        shape: Callable[[RewardResult], Shaped],
        *,
        early_stop: bool,
    ) -> tuple[list[Shaped], list[ModelRef]]:
        await off_loop(self.validator.check_reward, request)

        async def attempt() -> tuple[list[Shaped], list[ModelRef]]:
            plan = await RewardPlan.make(
                request, shape, self.dispatcher, self.score_cache, context, early_stop=early_stop
            )
            results = await self._collect(plan, context)
            self._keep_executions(plan, context)
            return results, plan.models()

        return await self._with_one_revision(attempt)

    def _keep_executions(self, plan: RewardPlan[Shaped], context: RequestContext) -> None:
        """Keep a replay of what was executed, and a sample of what was scored, too."""
        if plan.execute_plan is None:
            return
        executions = [plan.executions[index] for index in plan.executed]
        self.replays.keep(context, plan.execute_plan.toolchain, plan.execute_plan.groups, executions)
        self.sample_log.keep(
            [plan.items[index] for index in plan.executed],
            [plan.scores[index] for index in plan.executed],
            executions,
            {name: score_plan.model for name, score_plan in plan.score_plans.items()},
        )

    async def _collect(
        self, plan: RequestPlan[Result], context: RequestContext, *, use_cache: bool = True
    ) -> list[Result]:
        """Submit a plan's jobs, all or none, and wait for its results."""
        async with self.dispatcher.submission(context) as submission:
            await submission.submit(await off_loop(plan.jobs), use_cache=use_cache)
            return await collect(plan, submission)

    async def _with_one_revision(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Repeat an attempt while a model's active revision changes before all of it is admitted.

        Raises RevisionMoved, a 503 that the client may retry, after MAX_ATTEMPTS.
        """
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return await attempt()
            except RevisionMoved as error:
                log.info("the request is planned again: %s", error.detail)
                await self.dispatcher.fleet.look()
        return await attempt()

    # --- models ------------------------------------------------------------------------------------------------------

    async def activate(self, name: str, request: ActivateRequest, deadline_ms: int) -> ActivateAnswer:
        """Swap all workers of a model to another revision. The one before goes on serving unless this returns.

        A request without a path names a revision that is known here: configured for any model, or activated before.

        Raises:
            RevisionUnknown: when no checkpoint of this revision is known.
            ActivationRunning: when another activation of the model is under way.
            CheckpointRefused: when a worker cannot load the checkpoint or its golden set fails.
            NotFound, NoWorker: for a model that nobody serves.
        """
        started = time.perf_counter()
        fleet = self.dispatcher.fleet
        before = fleet.require_model(name)
        if request.path is None and request.revision == before.revision:
            return ActivateAnswer(name=name, revision=before.revision, previous=before.revision, workers=before.workers)
        path = request.path or (await fleet.activations.sources()).get(request.revision or "")
        if path is None:
            raise RevisionUnknown(f"no checkpoint {request.revision} is known here; give its `path`, too")
        deadline_s = time.monotonic() + (deadline_ms - now_ms()) / 1000
        try:
            revision, num_workers = await fleet.activations.activate(name, path, request.revision, deadline_s)
        except PlauditError as error:
            outcome = "refused" if isinstance(error, CheckpointRefused | ActivationRunning) else "failed"
            metrics.activations.labels(name, outcome).inc()
            raise
        metrics.activations.labels(name, "done").inc()
        await fleet.look()
        return ActivateAnswer(
            name=name,
            revision=revision,
            previous=before.revision,
            workers=num_workers,
            took_ms=round((time.perf_counter() - started) * 1000, 1),
        )


def _check_tokenizer(request: ScoreRequest, served: ModelInfo) -> None:
    """Raises Invalid for token ids of another tokenizer than the served model's."""
    digest = request.tokenizer_digest
    if digest is not None and digest != served.tokenizer_digest:
        raise Invalid(
            f"tokenizer_digest: {digest} is not the tokenizer of model {served.name!r}, which is "
            f"{served.tokenizer_digest or 'unknown'}; encode with that model's tokenizer, or send text"
        )


def _reward_completeness(results: Sequence[RewardResult]) -> Completeness:
    return completeness(
        component.status
        for result in results
        for completion in result.completions
        for component in completion.components.values()
    )
