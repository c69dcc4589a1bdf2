"""A rewarding request as jobs, and replies as rewards.

- Scores and executions go out together; an item is joined (`reward_terms`) when both have come back.
- A term's model is asked under one revision for the whole request.
- Under `tests_first` a model only breaks ties: if no worker serves it, the reward stays and its component says why.
- Under `auto` that is so for each term but `execute`: without executors, evidence is passed over.
- One `RewardPlan` is for one attempt. It keeps the results of its parts, for the replay and for the sample log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from plaudit.errors import NoWorker, PlauditError
from plaudit.schemas import (
    ExecuteItem,
    ExecuteResult,
    ModelRef,
    ResultError,
    RewardItem,
    RewardRequest,
    RewardResult,
    RewardSpec,
    ScoreItem,
    ScoreResult,
    ScoreTerm,
)
from service.api.dispatch.fleet import Fleet
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.submission import Dispatcher, Submission
from service.api.dispatch.tasks import gather_or_cancel, in_thread, off_loop
from service.api.handlers.evidence import EvidenceGroup, Observed, continued
from service.api.handlers.execute import ExecutePlan
from service.api.handlers.reward_terms import join
from service.api.handlers.score import ScorePlan, no_score, prompt_shard
from service.api.handlers.score_cache import ScoreCache
from service.jobs import Job

Shaped = TypeVar("Shaped", bound=RewardResult)


@dataclass(slots=True)
class RewardPlan(Generic[Shaped]):
    """The score and execute plans of a request, and how their results become rewards.

    Args:
        items: of the request.
        specs: by which each item is rewarded.
        shape: makes the answer's result of a joined one.
        score_plans: by the score term's name; each scores all items.
        execute_plan: of the items that are executed; None where no term executes.
        executed: the indices of these items.
        unavailable: why a score term that only breaks ties has no scores, by its name.
        scores: of the items that are done.
        executions: of the executed items that are done.
        observed: the items whose programs are observed, by index; or why they cannot be.
    """

    items: Sequence[RewardItem]
    specs: Sequence[RewardSpec]
    shape: Callable[[RewardResult], Shaped]
    score_plans: dict[str, ScorePlan] = field(default_factory=dict)
    execute_plan: ExecutePlan | None = None
    executed: list[int] = field(default_factory=list)
    unavailable: dict[str, NoWorker] = field(default_factory=dict)
    scores: dict[int, dict[str, ScoreResult]] = field(default_factory=dict)
    executions: dict[int, ExecuteResult] = field(default_factory=dict)
    observed: dict[int, EvidenceGroup | NoWorker] = field(default_factory=dict)

    @classmethod
    async def make(
        cls,
        request: RewardRequest,
        shape: Callable[[RewardResult], Shaped],
        dispatcher: Dispatcher,
        cache: ScoreCache,
        context: RequestContext,
        *,
        early_stop: bool,
    ) -> RewardPlan[Shaped]:
        """Plan what the items' terms need. `early_stop`: as in `ExecutePlan`.

        Raises:
            NoWorker: for a model, or executors, that a reward needs.
            NotFound: for a model that is not served while others are.
            RevisionMoved: when a model's active revision changes meanwhile.
            TestsetUnknown: for a reference to a suite that is not stored.
        """
        fleet = dispatcher.fleet
        specs = [request.spec_of(index) for index in range(len(request.items))]
        if request.spec is None:
            specs = [_with_served_model(spec, fleet) for spec in specs]
        plan = cls(request.items, specs, shape)
        await plan._plan_scores(fleet, cache, context)
        plan.executed = [index for index, spec in enumerate(specs) if spec.executes]
        if plan.executed:
            fleet.require_executors()
            execute_items = [_execute_item(request.items[index]) for index in plan.executed]
            shards = [prompt_shard(dispatcher.shards, request.items[index].prompt) for index in plan.executed]
            plan.execute_plan = await ExecutePlan.make(
                execute_items, dispatcher, context, early_stop=early_stop, shards=shards
            )
        await plan._plan_evidence(dispatcher, context)
        return plan

    async def _plan_evidence(self, dispatcher: Dispatcher, context: RequestContext) -> None:
        fleet = dispatcher.fleet
        observed = [index for index, spec in enumerate(self.specs) if spec.observes]
        if not observed:
            return
        try:
            fleet.require_observers()
        except NoWorker as error:
            if any(self.specs[index].combine != "auto" for index in observed):
                raise
            self.observed = dict.fromkeys(observed, error)
            return
        toolchain = fleet.toolchain
        for index in observed:
            item = self.items[index]
            shard = prompt_shard(dispatcher.shards, item.prompt)
            self.observed[index] = await in_thread(EvidenceGroup, item, self.specs[index], toolchain, context, shard)

    async def _plan_scores(self, fleet: Fleet, cache: ScoreCache, context: RequestContext) -> None:
        models, unavailable = _models_of(self.specs, fleet)
        for term in {term.name: term for spec in self.specs for term in _score_terms(spec)}.values():
            if term.model in unavailable:
                self.unavailable[term.name] = unavailable[term.model]
                continue
            score_items = [
                ScoreItem(id=item.id, prompt=item.prompt, completions=[*item.completions]) for item in self.items
            ]
            score_plan = await off_loop(ScorePlan, models[term.model], score_items, term.on_overflow, context, cache)
            await score_plan.look_up()
            self.score_plans[term.name] = score_plan

    def __len__(self) -> int:
        return len(self.items)

    def jobs(self) -> list[Job]:
        jobs = [job for score_plan in self.score_plans.values() for job in score_plan.jobs()]
        groups = [group for group in self.observed.values() if isinstance(group, EvidenceGroup)]
        jobs += [job for group in groups for job in group.jobs.values()]
        return jobs if self.execute_plan is None else [*jobs, *self.execute_plan.jobs()]

    async def result(self, submission: Submission, index: int) -> Shaped:
        scoring = asyncio.ensure_future(self._scores(submission, index))
        try:
            execution = await self._execution(submission, index)
            observed = await self._observed(submission, index)
            scores = await scoring
        finally:
            scoring.cancel()
        joined = await off_loop(join, self.specs[index], self.items[index], scores, execution, observed)
        return self.shape(joined)

    async def _scores(self, submission: Submission, index: int) -> dict[str, ScoreResult]:
        """An item's scores, or why it has none, by term name."""
        results = await gather_or_cancel(
            score_plan.result(submission, index) for score_plan in self.score_plans.values()
        )
        scores = dict(zip(self.score_plans, results, strict=True))
        self.scores[index] = scores
        return scores | {name: _no_scores(self.items[index], error) for name, error in self.unavailable.items()}

    async def _execution(self, submission: Submission, index: int) -> ExecuteResult | None:
        if self.execute_plan is None or index not in self.executed:
            return None
        execution = await self.execute_plan.result(submission, self.executed.index(index))
        self.executions[index] = execution
        return execution

    async def _observed(self, submission: Submission, index: int) -> Observed | None:
        group = self.observed.get(index)
        if isinstance(group, NoWorker):
            problem = ResultError(code=group.code, detail=group.detail, retryable=group.retryable)
            return Observed([None] * len(self.items[index].completions), no_examples=problem, no_inputs=problem)
        return None if group is None else await group.result(submission)

    def models(self) -> list[ModelRef]:
        """The models that scored, each once."""
        by_name = {score_plan.model.name: score_plan.model for score_plan in self.score_plans.values()}
        return list(by_name.values())


def _score_terms(spec: RewardSpec) -> list[ScoreTerm]:
    return [term for term in spec.terms if isinstance(term, ScoreTerm)]


def _with_served_model(spec: RewardSpec, fleet: Fleet) -> RewardSpec:
    """A default spec; where exactly one model is served it asks that one, whatever its name."""
    models = fleet.models
    if "default" in models or len(models) != 1:
        return spec
    (name,) = models
    terms = [term.model_copy(update={"model": name}) if isinstance(term, ScoreTerm) else term for term in spec.terms]
    return spec.model_copy(update={"terms": terms})


def _models_of(specs: Sequence[RewardSpec], fleet: Fleet) -> tuple[dict[str, ModelRef], dict[str, NoWorker]]:
    """The models that specs ask for, with their revisions, and why a model that only breaks ties is missing.

    Raises NoWorker for a model that a reward needs, and NotFound for one that is not served while others are.
    """
    models: dict[str, ModelRef] = {}
    unavailable: dict[str, NoWorker] = {}
    for spec in specs:
        for term in _score_terms(spec):
            if term.model in models:
                continue
            try:
                models[term.model] = ModelRef(name=term.model, revision=fleet.require_model(term.model).revision)
            except NoWorker as error:
                if spec.combine not in ("tests_first", "auto"):
                    raise
                unavailable[term.model] = error
    return models, unavailable


def _execute_item(item: RewardItem) -> ExecuteItem:
    assert item.tests is not None  # the schema requires tests where a term executes
    programs = item.completions
    if item.extract == "continuation":
        programs = [continued(item, completion) for completion in programs]
    return ExecuteItem(
        id=item.id,
        language=item.language,
        programs=programs,
        extract="last_fence" if item.extract == "last_fence" else "none",
        tests=item.tests,
        limits=item.limits,
        stop=item.stop,
    )


def _no_scores(item: RewardItem, error: PlauditError) -> ScoreResult:
    problem = ResultError(code=error.code, detail=error.detail, retryable=error.retryable)
    missing = no_score("infra_error", problem)
    return ScoreResult(id=item.id, best=None, completions=[missing] * len(item.completions))
