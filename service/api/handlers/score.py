"""A scoring request as jobs, and replies as scores: the bookkeeping between the contract's types and the queue's.

Equal completions of a group are one piece of work; what has been scored before is recalled, not done again. Scores are
remembered by completion: revision, prompt, text, overflow rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from plaudit.errors import RevisionMoved
from plaudit.schemas import (
    CompletionScore,
    ModelRef,
    Prompt,
    ResultError,
    ScoreItem,
    ScoreResult,
)
from service import metrics
from service.api.dispatch.request_context import Context
from service.api.dispatch.submission import Errand
from service.jobs import (
    Failed,
    Job,
    Scored,
    ScoreTask,
    digest,
    encode,
    score_job_id,
)
from service.queue.keys import queue_of_model
from service.queue.producer import Queue, Remembered

BYTES_PER_TOKEN = 3  # for the estimate at the door; the worker counts
ONE_STEP = 64  # completions that are looked up by the step that admits them; the broker serves nobody else meanwhile


def told(failed: Failed) -> ResultError:
    """A job's failure in the words of an answer."""
    return ResultError(code=failed.code, detail=failed.detail, retryable=failed.retryable)


class _Entry(msgspec.Struct, frozen=True):
    """A remembered score."""

    score: float
    tokens: int
    truncated: bool
    pass_probability: float | None
    steps: list[float] | None = None


_entry_decoder = msgspec.msgpack.Decoder(_Entry)


class WholeTexts(ScoreItem):
    """Completions that are whole texts, written by somebody else's template: scored as they are, no prompt added."""

    prompt: Prompt = ""


class ScoreGroup:
    """One item: its unique completions, those known already, and the job for the rest."""

    def __init__(self, item: ScoreItem, model: str, revision: str, on_overflow: Any) -> None:
        self.item = item
        self.prompt = None if isinstance(item, WholeTexts) else _plain(item.prompt)
        self.on_overflow = on_overflow
        self.model = model
        self.unique = list(dict.fromkeys(item.completions))
        prefix = digest("score", revision, self.prompt, on_overflow)
        self.keys = {text: digest(prefix, text) for text in self.unique}
        self.known: dict[str, _Entry] = {}
        self.job: Job | None = None

    @property
    def missing(self) -> list[str]:
        return [text for text in self.unique if text not in self.known]

    def make_job(self, revision: str, context: Context) -> Job | None:
        missing = self.missing
        if not missing:
            self.job = None
            return None
        task = encode(ScoreTask(self.model, revision, self.prompt, missing, self.on_overflow))
        cost = len(encode(self.prompt)) * len(missing) + sum(len(text.encode()) for text in missing)
        self.job = Job(
            score_job_id(task),
            "score",
            queue_of_model(self.model),
            context.lane,
            task,
            cost / BYTES_PER_TOKEN + len(missing),
            context.deadline_ms,
            tag=revision,
            tenant=context.tenant,
        )
        return self.job


class ScorePlan:
    """The groups of a request under one revision; scores that are remembered are not asked for again.

    `submit`, `recall`, the errand's `submit` and `item` raise RevisionMoved when another revision has taken over and
    this one cannot score any more: the whole request begins anew, so that no answer has two.
    """

    def __init__(
        self, model: str, revision: str, items: Sequence[ScoreItem], on_overflow: str, calibrated: bool
    ) -> None:
        self.model = model
        self.revision = revision
        self.calibrated = calibrated
        self.groups = [ScoreGroup(item, model, revision, on_overflow) for item in items]

    async def submit(self, errand: Errand, queue: Queue) -> None:
        """Have scored what has not been scored before; in one step with the look-up where nothing has."""
        keys = self._keys(queue)
        if len(keys) > ONE_STEP or queue.remembers(keys) or errand.hopeless(queue_of_model(self.model)):
            await self.recall(queue)
        else:
            try:
                await errand.submit(self.jobs(errand.context), unless=keys)
                return
            except Remembered as known:
                self._learn(known.frames)
        await errand.submit(self.jobs(errand.context))

    async def recall(self, queue: Queue) -> None:
        """Look up what has been scored before under this revision, which must still be the active one."""
        self._learn(await queue.recall(queue_of_model(self.model), self.revision, self._keys(queue)))

    def _keys(self, queue: Queue) -> list[str]:
        return [self._cache_key(queue, group.keys[text]) for group in self.groups for text in group.unique]

    def _learn(self, frames: Sequence[bytes | None]) -> None:
        """What was remembered under each of `_keys`."""
        wanted = [(group, text) for group in self.groups for text in group.unique]
        for (group, text), frame in zip(wanted, frames, strict=True):
            if frame is None:
                continue
            try:
                group.known[text] = _entry_decoder.decode(frame)
            except msgspec.DecodeError:  # kept by another version: a miss
                metrics.unreadable.labels("remembered_score").inc()
            else:
                metrics.cache_hits.labels("score").inc()

    def jobs(self, context: Context) -> list[Job]:
        return [job for group in self.groups if (job := group.make_job(self.revision, context))]

    async def item(self, errand: Errand, index: int, queue: Queue, keep_s: int) -> ScoreResult:
        """Wait for one item and answer it."""
        group = self.groups[index]
        if group.job is None:
            return self._result(group, {}, None)
        reply = await errand.reply(group.job.id)
        if not isinstance(reply.body, Scored):
            assert isinstance(reply.body, Failed)
            if reply.body.code == RevisionMoved.code and not errand.context.told:
                raise RevisionMoved(reply.body.detail)
            return self._result(group, {}, reply.body)
        scored = reply.body
        fresh: dict[str, _Entry | ResultError] = {}
        for at, text in enumerate(group.missing):
            score, problem = scored.scores[at], scored.problems[at]
            if score is None:
                code, _, detail = (problem or "invalid: no score").partition(": ")
                fresh[text] = ResultError(code=code, detail=detail)
            else:
                fresh[text] = _Entry(
                    score,
                    scored.tokens[at],
                    scored.truncated[at],
                    scored.pass_probabilities[at],
                    scored.steps[at] if scored.steps else None,
                )
        found = {
            self._cache_key(queue, group.keys[text]): encode(entry)
            for text, entry in fresh.items()
            if isinstance(entry, _Entry)
        }
        queue.remember(found, keep_s)
        return self._result(group, fresh, None)

    def model_ref(self) -> ModelRef:
        return ModelRef(name=self.model, revision=self.revision)

    @staticmethod
    def _cache_key(queue: Queue, key: str) -> str:
        return f"{queue.keys.prefix}score:{key}"

    def _result(self, group: ScoreGroup, fresh: dict[str, _Entry | ResultError], failed: Failed | None) -> ScoreResult:
        completions = []
        for text in group.item.completions:
            entry = group.known.get(text) or fresh.get(text)
            if isinstance(entry, _Entry):
                completions.append(
                    CompletionScore(
                        status="ok",
                        score=entry.score,
                        tokens=entry.tokens,
                        truncated=entry.truncated,
                        trainable=True,
                        cached=text in group.known,
                        steps=entry.steps,
                        pass_probability=entry.pass_probability if self.calibrated else None,
                    )
                )
            elif isinstance(entry, ResultError):
                completions.append(no_score("invalid", entry))
            else:
                assert failed is not None
                completions.append(no_score(failed.state.value, told(failed)))
        return ScoreResult(id=group.item.id, best=best([one.score for one in completions]), completions=completions)


def no_score(status: Any, problem: ResultError) -> CompletionScore:
    return CompletionScore(status=status, score=None, pass_probability=None, steps=None, trainable=False, error=problem)


def _plain(prompt: Prompt) -> str | list[dict[str, str]]:
    if isinstance(prompt, str):
        return prompt
    return [{"role": message.role, "content": message.content} for message in prompt]


def best(values: Sequence[float | None]) -> int | None:
    """Index of the highest value, the first of equals; None where there is none."""
    return max(
        (at for at, value in enumerate(values) if value is not None), key=lambda at: (values[at], -at), default=None
    )
