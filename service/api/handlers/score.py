"""A scoring request as jobs, and replies as scores.

- Equal completions of a group are scored once. Scores that are remembered (`score_cache`) are not computed again.
- One job per group, with what is not remembered of it.
- A group that is late is answered with what is finished of it.
- All of a request is scored under one revision of the model. When another revision takes over before all of it is
  admitted, RevisionMoved is raised and the whole request is planned again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from plaudit.errors import BrokerUnavailable, RevisionMoved
from plaudit.schemas import CompletionScore, Message, ModelRef, Prompt, ResultError, ScoreItem, ScoreResult, Status
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.shards import Shards
from service.api.dispatch.submission import Submission
from service.api.dispatch.tasks import gather_or_cancel, off_loop
from service.api.handlers import slow_samples
from service.api.handlers.plan import best_index, problem_of
from service.api.handlers.score_cache import ScoreCache
from service.jobs import (
    Completion,
    Failed,
    Job,
    JobState,
    OnOverflow,
    Reply,
    Scored,
    ScoreTask,
    TokenIds,
    Turns,
    encode,
    score_job_id,
)
from service.queue.cached_scores import CachedScore
from service.queue.keys import queue_of_model

BYTES_PER_TOKEN = 3  # for the estimate at admission; the worker counts
MAX_KEYS_AT_ADMISSION = 64  # looked up in the step that admits the jobs, during which Redis serves nobody else

Computed = dict[Completion, CachedScore | ResultError]


class ScoreGroup:
    """One item: its unique completions, those whose scores are cached, and the job for the rest.

    Args:
        item: as the request has it.
        whole_texts: whether the completions are whole texts, which are scored without the item's prompt. Token ids
            always are.
    """

    def __init__(
        self,
        item: ScoreItem,
        model: str,
        revision: str,
        on_overflow: OnOverflow,
        cache: ScoreCache,
        *,
        whole_texts: bool = False,
    ) -> None:
        self.item = item
        self.model = model
        self.revision = revision
        self.on_overflow = on_overflow
        self.completions = _completions(item)
        self.prompt = None if whole_texts or item.token_ids is not None else _plain_prompt(item.prompt)
        # Groups of one prompt are on one shard, where the scores of their completions are cached.
        if self.prompt is None:
            self.shard = cache.shards.place("texts", self.completions)
        else:
            self.shard = prompt_shard(cache.shards, item.prompt)
        unique = list(dict.fromkeys(self.completions))
        self.keys = dict(zip(unique, cache.keys(revision, self.prompt, on_overflow, unique), strict=True))
        self.cached: dict[Completion, CachedScore] = {}
        self.job: Job | None = None

    @property
    def missing(self) -> list[Completion]:
        return [completion for completion in self.keys if completion not in self.cached]

    def make_job(self, context: RequestContext) -> Job | None:
        """The job for what is missing; None where nothing is."""
        self.job = None
        if missing := self.missing:
            task = encode(ScoreTask(self.model, self.revision, self.prompt, missing, self.on_overflow))
            num_bytes = len(encode(self.prompt)) * len(missing) + sum(map(_num_bytes, missing))
            self.job = Job(
                score_job_id(task),
                "score",
                queue_of_model(self.model),
                context.lane,
                task,
                num_bytes / BYTES_PER_TOKEN + len(missing),
                context.deadline_ms,
                tag=self.revision,
                tenant=context.tenant,
                shard=self.shard,
            )
        return self.job


class ScorePlan:
    """The groups of a request under one revision.

    `submit`, `look_up` and `result` raise RevisionMoved when another revision has taken over.
    """

    def __init__(
        self,
        model: ModelRef,
        items: Sequence[ScoreItem],
        on_overflow: OnOverflow,
        context: RequestContext,
        cache: ScoreCache,
        *,
        calibrated: bool = False,
        whole_texts: bool = False,
    ) -> None:
        assert model.revision is not None
        self.model = model
        self.revision = model.revision
        self.context = context
        self.cache = cache
        self.calibrated = calibrated
        self.groups = [
            ScoreGroup(item, model.name, model.revision, on_overflow, cache, whole_texts=whole_texts) for item in items
        ]

    def __len__(self) -> int:
        return len(self.groups)

    async def submit(self, submission: Submission) -> None:
        """Admit the jobs for what is not cached. Where nothing is cached, look-up and admission are one step."""
        keys = self._keys(self.groups)
        shard = self.groups[0].shard
        if (
            len(keys) > MAX_KEYS_AT_ADMISSION
            or any(group.shard != shard for group in self.groups)
            or self.cache.is_storing(shard, keys)
            or submission.would_miss_deadline(shard, queue_of_model(self.model.name))
        ):
            await self.look_up()
        else:
            frames = await submission.submit_unless_cached(await off_loop(self.jobs), keys)
            if frames is None:
                return
            self._use(self.groups, self.cache.decode(frames))
        await submission.submit(await off_loop(self.jobs))

    async def look_up(self) -> None:
        """Find what has been scored before under this revision.

        Of several shards, one that does not answer knows nothing; whether it takes jobs is seen when they are admitted.
        """
        by_shard: dict[int, list[ScoreGroup]] = {}
        for group in self.groups:
            by_shard.setdefault(group.shard, []).append(group)

        async def look_up_on(shard: int, groups: list[ScoreGroup]) -> None:
            try:
                scores = await self.cache.look_up(shard, self.model.name, self.revision, self._keys(groups))
            except BrokerUnavailable:
                if len(by_shard) == 1:
                    raise
            else:
                self._use(groups, scores)

        await gather_or_cancel(look_up_on(shard, groups) for shard, groups in by_shard.items())

    @staticmethod
    def _keys(groups: Sequence[ScoreGroup]) -> list[str]:
        return [key for group in groups for key in group.keys.values()]

    @staticmethod
    def _use(groups: Sequence[ScoreGroup], scores: Sequence[CachedScore | None]) -> None:
        """Take the cached score of each of their `_keys`."""
        wanted = [(group, completion) for group in groups for completion in group.keys]
        for (group, completion), score in zip(wanted, scores, strict=True):
            if score is not None:
                group.cached[completion] = score

    def jobs(self) -> list[Job]:
        return [job for group in self.groups if (job := group.make_job(self.context))]

    async def result(self, submission: Submission, index: int) -> ScoreResult:
        group = self.groups[index]
        if group.job is None:
            return self._noted(group, index, self._result(group, {}, None), None)
        reply = await submission.reply(group.job.id)
        if isinstance(reply.body, Failed):
            if reply.body.code == RevisionMoved.code and self.context.restartable:
                raise RevisionMoved(reply.body.detail)
            return self._result(group, await self._finished(group, reply.body), reply.body)
        assert isinstance(reply.body, Scored)
        computed = _computed(group.missing, reply.body)
        if reply.body.cacheable:
            self.cache.store(
                group.shard,
                {group.keys[one]: score for one, score in computed.items() if isinstance(score, CachedScore)},
            )
        return self._noted(group, index, self._result(group, computed, None), reply)

    def _noted(self, group: ScoreGroup, index: int, result: ScoreResult, reply: Reply | None) -> ScoreResult:
        slow_samples.scored(group.item, index, self.model.name, reply, result)
        return result

    async def _finished(self, group: ScoreGroup, failed: Failed) -> Computed:
        """What a scorer has finished of a late group: the slices before the one that it was at."""
        missing = group.missing
        if failed.state is not JobState.TIMEOUT or len(missing) == 1:
            return {}
        scores = await self.cache.look_up_late(group.shard, [group.keys[completion] for completion in missing])
        return {completion: score for completion, score in zip(missing, scores, strict=True) if score is not None}

    def _result(self, group: ScoreGroup, computed: Computed, failed: Failed | None) -> ScoreResult:
        completions = []
        for completion in group.completions:
            score = group.cached.get(completion) or computed.get(completion)
            if isinstance(score, CachedScore):
                completions.append(self._completion_score(score, cached=completion in group.cached))
            elif isinstance(score, ResultError):
                completions.append(no_score("invalid", score))
            else:
                assert failed is not None
                completions.append(no_score(failed.state.value, problem_of(failed)))  # type: ignore[arg-type]
        best = best_index([completion.score for completion in completions])
        return ScoreResult(id=group.item.id, best=best, completions=completions)

    def _completion_score(self, score: CachedScore, *, cached: bool) -> CompletionScore:
        return CompletionScore(
            status="ok",
            score=score.score,
            tokens=score.tokens,
            truncated=score.truncated,
            trainable=True,
            cached=cached,
            steps=score.steps,
            pass_probability=score.pass_probability if self.calibrated else None,
        )


def _computed(completions: Sequence[Completion], scored: Scored) -> Computed:
    """What a job found out about each of its completions."""
    computed: Computed = {}
    for index, completion in enumerate(completions):
        score = scored.scores[index]
        if score is None:
            code, _, detail = (scored.problems[index] or "invalid: no score").partition(": ")
            computed[completion] = ResultError(code=code, detail=detail)
        else:
            computed[completion] = CachedScore(
                score,
                scored.tokens[index],
                scored.truncated[index],
                scored.pass_probabilities[index],
                scored.steps[index] if scored.steps else None,
            )
    return computed


def no_score(status: Status, problem: ResultError) -> CompletionScore:
    return CompletionScore(status=status, score=None, pass_probability=None, steps=None, trainable=False, error=problem)


def prompt_shard(shards: Shards, prompt: Prompt) -> int:
    """The index of the Redis of the groups of a prompt."""
    return 0 if len(shards) == 1 else shards.place("prompt", _plain_prompt(prompt))


def _plain_prompt(prompt: Prompt) -> str | list[dict[str, Any]]:
    return prompt if isinstance(prompt, str) else [_fields(message) for message in prompt]


def _fields(message: Message) -> dict[str, Any]:
    """A message as it travels: arguments of calls as JSON text, because msgpack has no integers beyond 64 bits."""
    fields = message.fields()
    for call in fields.get("tool_calls", ()):
        if not isinstance(call["function"].get("arguments", ""), str):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return fields


def _completions(item: ScoreItem) -> list[Completion]:
    if item.token_ids is not None:
        return [TokenIds(tuple(ids)) for ids in item.token_ids]
    return [text if isinstance(text, str) else _turns(text) for text in item.completions]


def _turns(messages: Sequence[Message]) -> Completion:
    """Messages that follow the prompt. One of an assistant that is only text is that text."""
    first, *more = messages
    if not more and first.role == "assistant" and first.is_plain:
        return first.text
    return Turns(json.dumps([message.fields() for message in messages], ensure_ascii=False, separators=(",", ":")))


def _num_bytes(completion: Completion) -> int:
    if isinstance(completion, TokenIds):
        return len(completion.ids) * BYTES_PER_TOKEN
    return len((completion if isinstance(completion, str) else completion.messages).encode())
