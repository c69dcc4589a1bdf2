"""The one line from a request to its answer: score, execute, reward, rank.

Every door (native routes, later the dialects) comes through here: refuse what cannot be (`door`), turn the rest into
jobs (`plans`, `executions`), admit them all or none and wait for them (`errand`), join what comes back (`reward`). What
is done by the deadline comes back; what is not is `timeout_queue`, and the answer says `partial`. Cancelling the
coroutine (the client went away) takes the jobs back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from plaudit.errors import NoWorker, PlauditError, RevisionMoved
from plaudit.schemas import (
    Completeness,
    ExecuteAnswer,
    ExecuteItem,
    ExecuteRequest,
    ExecuteResult,
    ModelRef,
    RankAnswer,
    RankRequest,
    ResultError,
    RewardAnswer,
    RewardItem,
    RewardRequest,
    RewardResult,
    RewardSpec,
    ScoreAnswer,
    ScoreItem,
    ScoreRequest,
    ScoreResult,
    ScoreTerm,
)
from sandbox.types import AssertSuite, Limits
from service.api.dispatch.fleet import Fleet
from service.api.dispatch.reply_router import Mailbox
from service.api.dispatch.request_context import Context, new_request_id
from service.api.dispatch.submission import Errand
from service.api.handlers import reward as rewards
from service.api.handlers.execute import ExecutePlan
from service.api.handlers.replays import Replays
from service.api.handlers.run import Order, Ran, RunPlan
from service.api.handlers.score import ScorePlan, no_score
from service.api.handlers.validation import Door
from service.api.stores.sample_log import Candidates
from service.jobs import Executed, ExecuteTask, Job, Scored, ScoreTask, digest, encode, encode_suite
from service.queue.keys import EXECUTE_QUEUE, queue_of_model
from service.queue.producer import Queue, now_ms
from service.settings import Settings

log = logging.getLogger("plaudit.desk")

Shaped = TypeVar("Shaped", bound=RewardResult)
Result = TypeVar("Result")
PROBE_S = 30.0
MAX_ATTEMPTS = 4


@dataclass(slots=True)
class Desk:
    queue: Queue
    mailbox: Mailbox
    fleet: Fleet
    settings: Settings
    door: Door
    replays: Replays
    candidates: Candidates

    async def score(self, request: ScoreRequest, context: Context) -> ScoreAnswer:
        self.door.check_score(request)
        return await self._of_one_revision(lambda: self._score(request, context))

    async def _score(self, request: ScoreRequest, context: Context) -> ScoreAnswer:
        plan = ScorePlan(
            request.model,
            self.door.model(request.model).revision,
            request.items,
            request.on_overflow,
            request.calibrated,
        )
        async with self._errand(context) as errand:
            await plan.submit(errand, self.queue)
            results = await _gather(context, (self._scored(plan, errand, at) for at in range(len(request.items))))
        statuses = (one.status for result in results for one in result.completions)
        return ScoreAnswer(
            request_id=context.request_id,
            status=_completeness(statuses),
            model=plan.model_ref(),
            results=results,
            timing=context.timing,
        )

    async def execute(self, request: ExecuteRequest, context: Context) -> ExecuteAnswer:
        self.door.check_execute(request)
        self.door.executors()
        plan = await ExecutePlan.make(request.items, self.fleet, self.queue, self.settings, context)
        async with self._errand(context) as errand:
            await errand.submit(plan.jobs(), use_cache=request.use_cache)
            results = await _gather(context, (plan.item(errand, at) for at in range(len(request.items))))
        self.replays.keep(context, plan.toolchain, plan.groups, results)
        statuses = (one.status for result in results for one in result.programs)
        return ExecuteAnswer(
            request_id=context.request_id, status=_completeness(statuses), results=results, timing=context.timing
        )

    async def run(self, orders: Sequence[Order], context: Context) -> list[Ran]:
        """Run without judging; for dialects whose clients compare by themselves."""
        self.door.check_orders(orders)
        self.door.executors()
        plan = RunPlan.make(orders, self.fleet.toolchain, context)
        async with self._errand(context) as errand:
            await errand.submit(plan.jobs)
            return await plan.results(errand)

    async def reward(self, request: RewardRequest, context: Context) -> RewardAnswer:
        results, models = await self._rewarded(request, context, lambda result: result, early_stop=False)
        return RewardAnswer(
            request_id=context.request_id,
            status=_joined_completeness(results),
            models=models,
            results=results,
            timing=context.timing,
        )

    async def rank(self, request: RankRequest, context: Context) -> RankAnswer:
        results, models = await self._rewarded(request, context, rewards.ranked, early_stop=request.early_stop)
        return RankAnswer(
            request_id=context.request_id,
            status=_joined_completeness(results),
            models=models,
            results=results,
            timing=context.timing,
        )

    async def _rewarded(
        self, request: RewardRequest, context: Context, shape: Callable[[RewardResult], Shaped], *, early_stop: bool
    ) -> tuple[list[Shaped], list[ModelRef]]:
        self.door.check_reward(request)
        return await self._of_one_revision(lambda: self._joined(request, context, shape, early_stop=early_stop))

    async def _joined(
        self, request: RewardRequest, context: Context, shape: Callable[[RewardResult], Shaped], *, early_stop: bool
    ) -> tuple[list[Shaped], list[ModelRef]]:
        """Scores and executions go out together; each item is joined when both have come."""
        named = request.spec is not None
        specs = [self._named(request.spec_of(at), explicit=named) for at in range(len(request.items))]
        terms = {term.name: term for spec in specs for term in spec.terms if isinstance(term, ScoreTerm)}
        revisions, without = self._revisions(specs)
        scoring: dict[str, ScorePlan] = {}
        for term in terms.values():
            if term.model not in revisions:
                continue
            items = [ScoreItem(prompt=item.prompt, completions=item.completions) for item in request.items]
            plan = ScorePlan(term.model, revisions[term.model], items, term.on_overflow, False)
            await plan.recall(self.queue)
            scoring[term.name] = plan
        executing: ExecutePlan | None = None
        place: dict[int, int] = {}  # of an item among those that are run
        if any(spec.executes for spec in specs):
            self.door.executors()
            items_to_run = [
                ExecuteItem(
                    language=item.language,
                    programs=item.completions,
                    extract=item.extract,
                    tests=item.tests,
                    limits=item.limits,
                    stop=item.stop,
                )
                for item, spec in zip(request.items, specs, strict=True)
                if spec.executes and item.tests is not None
            ]
            executed = [at for at, spec in enumerate(specs) if spec.executes]
            place = {at: where for where, at in enumerate(executed)}
            executing = await ExecutePlan.make(items_to_run, self.fleet, self.queue, self.settings, context)

        ran: dict[int, ExecuteResult] = {}
        rated: dict[int, dict[str, ScoreResult]] = {}

        async def joined(errand: Errand, at: int) -> Shaped:
            scored = asyncio.ensure_future(_all(self._scored(plan, errand, at) for plan in scoring.values()))
            try:
                run = None
                if executing is not None and at in place:
                    run = await executing.item(errand, place[at], early_stop=early_stop)
                scores = dict(zip(scoring, await scored, strict=True))
            finally:
                scored.cancel()
            ran.update({at: run} if run else {})
            rated[at] = scores
            missing = {
                name: _unscored(request.items[at], without[term.model])
                for name, term in terms.items()
                if term.model in without
            }
            return shape(rewards.join(specs[at], request.items[at], scores | missing, run))

        async with self._errand(context) as errand:
            jobs = [job for plan in scoring.values() for job in plan.jobs(context)]
            await errand.submit([*jobs, *(executing.jobs() if executing else [])])
            results = await _gather(context, (joined(errand, at) for at in range(len(request.items))))
        if executing is not None:
            runs = [ran[at] for at in place]
            self.replays.keep(context, executing.toolchain, executing.groups, runs)
            by_term = {name: plan.model_ref() for name, plan in scoring.items()}
            self.candidates.keep([request.items[at] for at in place], [rated[at] for at in place], runs, by_term)
        models = {plan.model: plan.model_ref() for plan in scoring.values()}
        return results, list(models.values())

    def _named(self, spec: RewardSpec, *, explicit: bool) -> RewardSpec:
        """A default spec asks the model that is served where there is one, whatever its name."""
        served = self.fleet.models
        if explicit or "default" in served or len(served) != 1:
            return spec
        (name,) = served
        return spec.model_copy(
            update={
                "terms": [
                    term.model_copy(update={"model": name}) if isinstance(term, ScoreTerm) else term
                    for term in spec.terms
                ]
            }
        )

    def _revisions(self, specs: Sequence[RewardSpec]) -> tuple[dict[str, str], dict[str, NoWorker]]:
        """The models' revisions, all of one moment; and why a model that only breaks ties has none.

        Raises NoWorker for a model that a reward cannot do without, and NotFound for a name that is not served while
        others are.
        """
        revisions: dict[str, str] = {}
        without: dict[str, NoWorker] = {}
        for spec in specs:
            for term in spec.terms:
                if not isinstance(term, ScoreTerm) or term.model in revisions:
                    continue
                try:
                    revisions[term.model] = self.door.model(term.model).revision
                except NoWorker as error:
                    if spec.combine != "tests_first":
                        raise
                    without[term.model] = error
        return revisions, without

    async def _of_one_revision(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Do it, anew whenever a model's active revision changed before all of it had been admitted.

        Raises RevisionMoved, a 503 that the client may retry, if that happens again and again.
        """
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return await attempt()
            except RevisionMoved as error:
                log.info("request begins anew: %s", error.detail)
                await self.fleet.look()
        return await attempt()

    async def _scored(self, plan: ScorePlan, errand: Errand, at: int) -> ScoreResult:
        return await plan.item(errand, at, self.queue, self.settings.cache_s)

    def _errand(self, context: Context) -> Errand:
        return Errand(self.queue, self.mailbox, self.fleet, self.settings, context)

    # --- readiness ---------------------------------------------------------------------------------------------------

    async def prove(self) -> None:
        """Send one real job to each kind of worker of which none that lives has done a job."""
        for kind in ("score", "execute"):
            if self.fleet.broker and self.fleet.of_kind(kind) and not self.fleet.proven(kind):
                context = Context(new_request_id(), now_ms() + int(PROBE_S * 1000), lane="high")
                try:
                    job = await self._probe(kind, context)
                    async with self._errand(context) as errand:
                        await errand.submit([job], use_cache=False, unbounded=True)
                        reply = await errand.reply(job.id)
                except PlauditError as error:
                    log.warning("probe of %s workers failed: %s", kind, error.detail)
                    continue
                if not isinstance(reply.body, Scored | Executed):
                    log.warning("probe of %s workers failed: %s", kind, reply.body.detail)

    async def _probe(self, kind: str, context: Context) -> Job:
        """A tiny job of its own identity, so that no stored answer can stand for it."""
        nonce = context.request_id
        if kind == "score":
            model = next(iter(self.fleet.models.values()), None)
            if model is None:
                raise NoWorker("no worker serves the active revision yet")
            task = encode(ScoreTask(model.name, model.revision, "Say yes.", [f"yes {nonce}"]))
            return Job(
                digest(nonce),
                "score",
                queue_of_model(model.name),
                "high",
                task,
                16.0,
                context.deadline_ms,
                tag=model.revision,
            )
        suite = encode_suite(AssertSuite(("assert one() == 1",), entry_point="one"))
        await self.queue.put_suite(f"probe-{nonce}", suite, 120)
        program = "def one():\n    return 1\n"
        task = encode(ExecuteTask("python", program, f"probe-{nonce}", Limits()))
        return Job(digest(nonce), "execute", EXECUTE_QUEUE, "high", task, 5.0, context.deadline_ms)


async def _gather(context: Context, items: Iterable[Awaitable[Result]]) -> list[Result]:
    """All items, in order; `context.progress` hears of each as it is done."""

    async def told(at: int, item: Awaitable[Result]) -> Result:
        result = await item
        if context.progress is not None:
            context.told = True
            context.progress(at, result)
        return result

    return await _all(told(at, item) for at, item in enumerate(items))


async def _all(these: Iterable[Awaitable[Result]]) -> list[Result]:
    """Like `asyncio.gather`, but nothing goes on when one of them fails."""
    tasks = [asyncio.ensure_future(one) for one in these]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _unscored(item: RewardItem, error: PlauditError) -> ScoreResult:
    """No scores for an item, and why."""
    problem = ResultError(code=error.code, detail=error.detail, retryable=error.retryable)
    none = no_score("infra_error", problem)
    return ScoreResult(id=item.id, best=None, completions=[none] * len(item.completions))


def _completeness(statuses: Iterable[str]) -> Completeness:
    return "partial" if any(status == "timeout_queue" for status in statuses) else "complete"


def _joined_completeness(results: Sequence[RewardResult]) -> Completeness:
    return _completeness(
        part.status for result in results for one in result.completions for part in one.components.values()
    )
