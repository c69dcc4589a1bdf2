"""The scoring worker: jobs in, batches through the engine, scores out. The only process with a GPU."""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from plaudit.errors import Invalid, RevisionMoved, TooLong
from service import metrics
from service.jobs import LANES, Failed, JobState, Kind, Scored, ScoreTask, encode, score_job_id
from service.queue.consumer import FinishedJob, Lease
from service.queue.keys import queue_of_model
from service.queue.protocol import KEEP_REPLY_MS, now_ms
from service.scoring.encoder import Encoded
from service.scoring.fault_isolation import Outcome, score_apart
from service.scoring.process_rewards import StepScores
from service.scoring.scheduler import ScheduledBatch, Scheduler, Score, ScoreFailure, SequenceGroup
from service.settings import Settings
from service.worker.loop import WorkerContext, failure
from service.worker.model_manager import LoadedModel, ModelManager

log = logging.getLogger("plaudit.score")

MAX_HELD_BATCHES = 2  # how many batches are encoded ahead; no other worker can take what is held here
MAX_ENCODING = 64  # jobs that are being encoded


EncodedGroup = list[Encoded | TooLong]


class PendingGroup:
    """A leased group between encoding and its last score."""

    def __init__(self, lease: Lease, encoded: EncodedGroup, loaded: LoadedModel, started_ms: int) -> None:
        self.lease = lease
        self.encoded = encoded
        self.loaded = loaded
        self.started_ms = started_ms
        self.compute_ms = 0.0


class ScoreRunner:
    """One queue per model. A step computes one batch per loaded revision, so models take turns."""

    kind: Kind = "score"
    stuck_after_s = 600.0  # a batch is bounded in tokens

    def __init__(self, models: ModelManager, settings: Settings) -> None:
        self.models = models
        for tokens in ("computed", "padding", "shared"):
            metrics.score_tokens.labels(tokens)  # present from the first scrape on; padding stays 0, there is none
        self.max_batch_tokens = settings.max_batch_tokens
        self.pending: dict[str, PendingGroup] = {}
        self.encoding: deque[tuple[Lease, LoadedModel, int, Future[EncodedGroup]]] = deque()  # during a batch
        self.encoders = ThreadPoolExecutor(1, "encoder")
        self.queues = [queue_of_model(name) for name in models.names]
        self.info = models.info

    @property
    def num_held(self) -> int:
        return len(self.pending) + len(self.encoding)

    def reset(self) -> list[Lease]:
        leases = [*(pending.lease for pending in self.pending.values()), *(lease for lease, *_ in self.encoding)]
        self.pending.clear()
        self.encoding.clear()
        self.models.reset()
        return leases

    def on_cancelled(self, lease: Lease) -> None:
        """Nothing: other groups need the batch, and the answer is dropped because the job has ended."""

    def capacity(self) -> int:
        self.models.sync()
        waiting = sum(loaded.scheduler.waiting_tokens for _, loaded in self.models)
        return MAX_ENCODING - len(self.encoding) if waiting < MAX_HELD_BATCHES * self.max_batch_tokens else 0

    def step(self, leases: list[Lease], context: WorkerContext) -> None:
        """Compute one batch per loaded revision.

        While it is computed the new leases are encoded for the next step. If there is nothing to compute they are
        encoded first.
        """
        while self.encoding:
            lease, loaded, started_ms, encoded = self.encoding[0]
            self._schedule(lease, loaded, started_ms, encoded.result, context)
            self.encoding.popleft()
        busy = any(len(loaded.scheduler) for _, loaded in self.models)
        for lease in leases:
            self._encode(lease, context, later=busy)
        for name, loaded in self.models:
            self._end_expired(loaded.scheduler, context)
            batch = loaded.scheduler.schedule()
            if batch.slices:
                self._compute(name, loaded, batch, context)

    def _encode(self, lease: Lease, context: WorkerContext, *, later: bool) -> None:
        task = lease.task
        assert isinstance(task, ScoreTask)
        started_ms = now_ms()
        loaded = self.models[task.model].get(task.revision)
        if loaded is None:
            context.answer(lease, _not_served(task), started_ms=started_ms)
            return
        prompt: Any = task.prompt
        encode_group = functools.partial(loaded.engine.encode_group, prompt, task.completions, task.on_overflow)
        if later:
            self.encoding.append((lease, loaded, started_ms, self.encoders.submit(encode_group)))
        else:
            self._schedule(lease, loaded, started_ms, encode_group, context)

    def _schedule(
        self,
        lease: Lease,
        loaded: LoadedModel,
        started_ms: int,
        encode_group: Callable[[], EncodedGroup],
        context: WorkerContext,
    ) -> None:
        """Schedule what is to be scored of an encoded group; if all of it is too long, answer."""
        task = lease.task
        assert isinstance(task, ScoreTask)
        if self.models[task.model].get(task.revision) is not loaded:  # it has drained meanwhile
            context.answer(lease, _not_served(task), started_ms=started_ms)
            return
        try:
            encoded = encode_group()
        except Invalid as error:
            context.answer(lease, Failed(JobState.INVALID, error.code, error.detail, False), started_ms=started_ms)
            return
        pending = PendingGroup(lease, encoded, loaded, started_ms)
        sequences = [sequence for sequence in encoded if isinstance(sequence, Encoded)]
        if not sequences:
            context.answer_all([_finished(pending, [])])
            return
        self.pending[lease.key] = pending
        lane = LANES.index(lease.lane)
        group = SequenceGroup(lease.key, sequences, lane, lease.deadline_ms, alone=lease.deliveries > 1)
        loaded.scheduler.add(group)

    def _end_expired(self, scheduler: Scheduler[Encoded], context: WorkerContext) -> None:
        for group in scheduler.drop_expired(now_ms()):
            pending = self.pending.pop(group.key)
            body = Failed(JobState.TIMEOUT, "deadline", "the deadline passed in the queue", True)
            context.answer(pending.lease, body, started_ms=pending.started_ms)

    def _compute(self, name: str, loaded: LoadedModel, batch: ScheduledBatch[Encoded], context: WorkerContext) -> None:
        engine, scheduler = loaded.engine, loaded.scheduler
        before = _counters(loaded)
        began = time.perf_counter()
        outcome = score_apart(engine.score, batch.sequences)
        elapsed_ms = (time.perf_counter() - began) * 1000
        if outcome.halvings:
            scheduler.max_batch_tokens = max(1, min(scheduler.max_batch_tokens, batch.tokens >> outcome.halvings))
            log.warning(
                "out of memory",
                extra={"model": name, "tokens": batch.tokens, "max_batch_tokens": scheduler.max_batch_tokens},
            )
        for piece in batch.slices:
            self.pending[piece.group.key].compute_ms += elapsed_ms
        done = scheduler.finish(batch, outcome.scores)
        context.answer_all([_finished(self.pending.pop(group.key), group.scores) for group in done])
        self._count(name, loaded, batch, outcome, before)  # after the answers, which clients wait for

    def _count(
        self,
        name: str,
        loaded: LoadedModel,
        batch: ScheduledBatch[Encoded],
        outcome: Outcome,
        before: tuple[int, int, int, int],
    ) -> None:
        computed, shared, hits, misses = (now - then for now, then in zip(_counters(loaded), before, strict=True))
        metrics.score_batch_tokens.observe(batch.tokens)
        metrics.score_batch_groups.observe(len(batch.slices))
        metrics.score_tokens.labels("computed").inc(computed)
        metrics.score_tokens.labels("shared").inc(shared)
        metrics.prompt_cache_lookups.labels("hit").inc(hits)
        metrics.prompt_cache_lookups.labels("miss").inc(misses)
        metrics.prompt_cache_bytes.set(sum(loaded.engine.prompts.nbytes for _, loaded in self.models))
        for score in outcome.scores:
            if not isinstance(score, ScoreFailure):
                metrics.score_value.labels(name).observe(score)


def _counters(loaded: LoadedModel) -> tuple[int, int, int, int]:
    """Tokens computed and shared, prompts found in the cache and not, since the load."""
    engine = loaded.engine
    return engine.num_computed, engine.num_shared, engine.prompts.hits, engine.prompts.misses


def _finished(pending: PendingGroup, scores: list[Score]) -> FinishedJob:
    """The result of a group, from the scores of those of its sequences that were not too long."""
    server_error = next((score for score in scores if isinstance(score, ScoreFailure) and score.is_server_error), None)
    if server_error is not None:
        body = failure(server_error.code, server_error.detail)
        return FinishedJob(pending.lease, body, 0, pending.compute_ms, pending.started_ms)
    task = pending.lease.task
    assert isinstance(task, ScoreTask)
    engine = pending.loaded.engine
    remaining = iter(scores)
    ends = [sequence if isinstance(sequence, TooLong) else next(remaining) for sequence in pending.encoded]
    values = [float(end) if isinstance(end, float) else None for end in ends]
    scored = Scored(
        revision=engine.revision,
        scores=values,
        tokens=[
            sequence.tokens if isinstance(sequence, TooLong) else len(sequence.ids) for sequence in pending.encoded
        ],
        truncated=[isinstance(sequence, Encoded) and sequence.truncated for sequence in pending.encoded],
        problems=[None if isinstance(end, float) else f"{end.code}: {end.detail}" for end in ends],
        pass_probabilities=[None if value is None else engine.pass_probability(value) for value in values],
        steps=[list(end.steps) if isinstance(end, StepScores) else None for end in ends],
    )
    # A client that asks again before the API has cached these scores gets them from the queue.
    complete = score_job_id(encode(task)) == pending.lease.id and None not in values
    cache_ms = KEEP_REPLY_MS if complete else 0
    return FinishedJob(pending.lease, scored, cache_ms, pending.compute_ms, pending.started_ms)


def _not_served(task: ScoreTask) -> Failed:
    """The API asks again, for the revision that is active now."""
    return failure(RevisionMoved.code, f"this worker no longer serves revision {task.revision} of model {task.model!r}")
