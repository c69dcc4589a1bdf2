"""The scoring worker: jobs in, batches through the engine, scores out. The only process with a GPU."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from plaudit.errors import Invalid, RevisionMoved, TooLong
from sandbox.procfs import waited_s
from service import metrics, slowness, tracing
from service.jobs import LANES, Completion, Failed, JobState, Kind, Lane, Scored, ScoreTask, encode, score_job_id
from service.queue.cached_scores import CachedScore
from service.queue.consumer import FinishedJob, Lease
from service.queue.keys import queue_of_model
from service.queue.protocol import KEEP_REPLY_MS, now_ms
from service.scoring.encoder import Encoded
from service.scoring.fault_isolation import Outcome, score_apart
from service.scoring.judge.engine import JudgedScore
from service.scoring.process_rewards import StepScores
from service.scoring.scheduler import (
    MAX_ENCODING,
    MAX_HELD_BATCHES,
    ScheduledBatch,
    Score,
    ScoreFailure,
    SequenceGroup,
    Slice,
)
from service.worker.loop import WorkerContext, failure
from service.worker.model_manager import LoadedModel, ModelManager

log = logging.getLogger("plaudit.score")

EncodedGroup = list[Encoded | TooLong]


class PendingGroup:
    """A leased group between encoding and its last score. `group`: those of its sequences that are not too long."""

    def __init__(self, lease: Lease, encoded: EncodedGroup, loaded: LoadedModel, started_ms: int) -> None:
        self.lease = lease
        self.encoded = encoded
        self.loaded = loaded
        self.started_ms = started_ms
        self.compute_ms = 0.0
        self.starved_ms = 0.0  # of it: the process was ready to run, and others had the CPU
        self.batch_tokens = 0  # of the batches that it was in
        sequences = [sequence for sequence in encoded if isinstance(sequence, Encoded)]
        lane = LANES.index(lease.lane)
        self.group = SequenceGroup(lease.key, sequences, lane, lease.deadline_ms, alone=lease.deliveries > 1)

    @property
    def parts(self) -> dict[str, float]:
        """Where the time went."""
        num_tokens = sum(len(sequence.ids) for sequence in self.group.sequences)
        return slowness.of_batch(self.compute_ms, self.starved_ms, num_tokens, self.batch_tokens)

    @property
    def task(self) -> ScoreTask:
        assert isinstance(self.lease.task, ScoreTask)
        return self.lease.task


class ScoreRunner:
    """One queue per model. A step computes one batch; what waits elsewhere is looked at between two of them.

    - Jobs that have ended elsewhere (nobody waits for them) and those that are late are dropped, whatever has run of
      them. The scores of their finished slices are cached by then.
    - A lane is read while less than two batches of it and the higher ones wait, so a higher lane is always read.
    - The highest lane goes first; models with work in it take turns by computing time.
    """

    kind: Kind = "score"
    takes_share = False
    stuck_after_s = 600.0  # a batch is bounded in tokens, and on a CPU in time

    def __init__(self, models: ModelManager) -> None:
        self.models = models
        for tokens in ("computed", "padding", "shared"):
            metrics.score_tokens.labels(tokens)  # present from the first scrape on; padding stays 0, there is none
        self.pending: dict[str, PendingGroup] = {}
        self.encoding: deque[tuple[Lease, LoadedModel, int, Future[EncodedGroup]]] = deque()  # during a batch
        self.encoders = ThreadPoolExecutor(1, "encoder")
        self.model_of = {queue_of_model(name): name for name in models.names}
        self.queues = list(self.model_of)
        self.turn_began_s = 0.0  # the `used_s` of the last model that had its turn, before it
        self.info = models.info
        self.info.update(doing=None, num_done=0)

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
        """Nothing: the working thread asks by itself, between two batches."""

    def capacity(self) -> int:
        self.models.sync()
        return MAX_ENCODING - len(self.encoding)

    def takes(self, queue: str, lane: Lane) -> bool:
        return all(
            loaded.scheduler.waiting_tokens(LANES.index(lane)) < MAX_HELD_BATCHES * loaded.budget.tokens
            for loaded in self.models[self.model_of[queue]].values()
        )

    def step(self, leases: list[Lease], context: WorkerContext) -> None:
        """Compute one batch.

        While it is computed the new leases are encoded for the next step. Those of a higher lane than what waits, and
        all if nothing waits, are encoded first.
        """
        self._drop_ended(context)
        next_lane = min((loaded.scheduler.first_lane for _, loaded in self._waiting()), default=len(LANES))
        for lease in leases:
            self._encode(lease, context, later=LANES.index(lease.lane) >= next_lane)
        self._end_expired(context)
        waiting = self._waiting()
        if waiting:
            name, loaded = min(waiting, key=lambda item: (item[1].scheduler.first_lane, item[1].used_s))
            self._compute(name, loaded, loaded.scheduler.schedule(), context)
        while self.encoding and (self.encoding[0][-1].done() or not self._waiting()):
            lease, loaded, started_ms, encoded = self.encoding[0]
            self._schedule(lease, loaded, started_ms, encoded.result, context)
            self.encoding.popleft()

    def _waiting(self) -> list[tuple[str, LoadedModel]]:
        return [(name, loaded) for name, loaded in self.models if len(loaded.scheduler)]

    def _drop_ended(self, context: WorkerContext) -> None:
        """Drop the jobs that have ended elsewhere, and learn which deadlines a later waiter has moved."""
        leases = [*(pending.lease for pending in self.pending.values()), *(lease for lease, *_ in self.encoding)]
        if not leases:
            return
        ended = set()
        for lease, deadline_ms in zip(leases, context.deadlines(leases), strict=True):
            pending = self.pending.get(lease.key)
            if deadline_ms is None:
                log.info("job dropped: nobody waits for it", extra={"job": lease.id})
                ended.add(lease.key)
                context.drop(lease)
                if pending is not None:
                    pending.loaded.scheduler.drop(self.pending.pop(lease.key).group)
            elif pending is not None:
                pending.group.deadline_ms = deadline_ms
        for entry in [entry for entry in self.encoding if entry[0].key in ended]:
            entry[-1].cancel()
            self.encoding.remove(entry)

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
        if not pending.group.sequences:
            context.answer_all([_finished(pending)])
            return
        self._join_turns(loaded)
        self.pending[lease.key] = pending
        loaded.scheduler.add(pending.group)

    def _join_turns(self, loaded: LoadedModel) -> None:
        """A model that had nothing to do has saved up nothing: it begins where the others are."""
        if len(loaded.scheduler):
            return
        others = [other.used_s for _, other in self._waiting()]
        if others:
            loaded.used_s = max(loaded.used_s, min(self.turn_began_s, *others))
        else:
            for _, other in self.models:
                other.used_s = 0.0

    def _end_expired(self, context: WorkerContext) -> None:
        for _, loaded in self.models:
            for group in loaded.scheduler.drop_expired(now_ms()):
                pending = self.pending.pop(group.key)
                body = Failed(JobState.TIMEOUT, "deadline", "not done by the deadline", True)
                context.answer(pending.lease, body, started_ms=pending.started_ms)

    def _compute(self, name: str, loaded: LoadedModel, batch: ScheduledBatch[Encoded], context: WorkerContext) -> None:
        engine, scheduler, budget = loaded.engine, loaded.scheduler, loaded.budget
        before = _counters(loaded)
        task = threading.get_native_id()
        waited_before_s, began_s, began = waited_s(task), time.monotonic(), time.perf_counter()
        self.info["doing"] = {"model": name, "since_ms": now_ms(), "groups": len(batch.slices), "tokens": batch.tokens}
        outcome = score_apart(engine.score, batch.sequences)
        elapsed_s = time.perf_counter() - began
        starved_ms = 1000 * (waited_s(task) - waited_before_s)
        self.info["doing"] = None
        self.turn_began_s = loaded.used_s
        loaded.used_s += elapsed_s
        budget.took(batch.tokens, elapsed_s)
        if outcome.halvings:
            budget.ran_out_of_memory(batch.tokens, outcome.halvings)
            extra = {"model": name, "tokens": batch.tokens, "max_batch_tokens": budget.tokens}
            log.warning("out of memory", extra=extra)
        scheduler.max_batch_tokens = budget.tokens
        for piece in batch.slices:
            pending = self.pending[piece.group.key]
            pending.compute_ms += elapsed_s * 1000
            pending.starved_ms += starved_ms
            pending.batch_tokens += batch.tokens
            if tracing.is_on():
                _record_spans(pending, began_s, batch)
        done = scheduler.finish(batch, outcome.scores)
        context.answer_all([_finished(self.pending.pop(group.key)) for group in done])
        self.info["num_done"] += len(done)
        for piece in batch.slices:
            if not piece.group.done and not engine.depends_on_group:
                pending = self.pending[piece.group.key]
                context.cache_scores(pending.lease, _scores_of_slice(pending, piece))
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


def _record_spans(pending: PendingGroup, began_s: float, batch: ScheduledBatch[Encoded]) -> None:
    """The spans of a group: its wait, once, and each batch that it was in."""
    lease = pending.lease
    if pending.batch_tokens == batch.tokens:  # its first
        queued_s = max(0, now_ms() - lease.queued_ms) / 1000
        now_s = time.monotonic()
        tracing.record("wait in the queue", now_s - queued_s, began_s, parent=lease.trace, queue=lease.queue)
    tracing.record(
        "score batch",
        began_s,
        time.monotonic(),
        parent=lease.trace,
        job=lease.id,
        model=pending.task.model,
        batch_tokens=batch.tokens,
        batch_groups=len(batch.slices),
        own_tokens=sum(len(sequence.ids) for sequence in pending.group.sequences),
    )


def _counters(loaded: LoadedModel) -> tuple[int, int, int, int]:
    """Tokens computed and shared, prompts found in the cache and not, since the load."""
    engine = loaded.engine
    return engine.num_computed, engine.num_shared, engine.prompts.hits, engine.prompts.misses


def _scores_of_slice(pending: PendingGroup, piece: Slice[Encoded]) -> dict[Completion, CachedScore]:
    """The scores of a slice by completion, as they are cached."""
    completions = [
        completion
        for completion, sequence in zip(pending.task.completions, pending.encoded, strict=True)
        if isinstance(sequence, Encoded)
    ]
    scores = {}
    for index in range(piece.start, piece.stop):
        sequence, score = piece.group.sequences[index], piece.group.scores[index]
        if isinstance(score, float):
            scores[completions[index]] = CachedScore(
                float(score),
                _tokens(sequence, score),
                sequence.truncated,
                pending.loaded.engine.pass_probability(float(score)),
                _steps(score),
            )
    return scores


def _tokens(sequence: Encoded, score: object) -> int:
    return score.tokens if isinstance(score, JudgedScore) else len(sequence.ids)


def _steps(score: object) -> list[float] | None:
    return list(score.steps) if isinstance(score, StepScores) else None


def _finished(pending: PendingGroup) -> FinishedJob:
    """The result of a group that is done."""
    scores = pending.group.scores
    server_error = next((score for score in scores if isinstance(score, ScoreFailure) and score.is_server_error), None)
    if server_error is not None:
        body = failure(server_error.code, server_error.detail)
        return FinishedJob(pending.lease, body, 0, pending.compute_ms, pending.started_ms)
    engine = pending.loaded.engine
    remaining = iter(scores)
    ends: list[Score | TooLong] = [
        sequence if isinstance(sequence, TooLong) else next(remaining) for sequence in pending.encoded
    ]
    values = [float(end) if isinstance(end, float) else None for end in ends]
    scored = Scored(
        revision=engine.revision,
        scores=values,
        tokens=[
            sequence.tokens if isinstance(sequence, TooLong) else _tokens(sequence, end)
            for sequence, end in zip(pending.encoded, ends, strict=True)
        ],
        truncated=[isinstance(sequence, Encoded) and sequence.truncated for sequence in pending.encoded],
        problems=[None if isinstance(end, float) else f"{end.code}: {end.detail}" for end in ends],
        pass_probabilities=[None if value is None else engine.pass_probability(value) for value in values],
        steps=[_steps(end) for end in ends],
        cacheable=not engine.depends_on_group,
    )
    # A client that asks again before the API has cached these scores gets them from the queue.
    complete = scored.cacheable and score_job_id(encode(pending.task)) == pending.lease.id and None not in values
    cache_ms = KEEP_REPLY_MS if complete else 0
    return FinishedJob(
        pending.lease, scored, cache_ms, pending.compute_ms, pending.started_ms, parts=pending.parts or None
    )


def _not_served(task: ScoreTask) -> Failed:
    """The API asks again, for the revision that is active now."""
    return failure(RevisionMoved.code, f"this worker no longer serves revision {task.revision} of model {task.model!r}")
