"""The scoring worker: leases in, batches through the reward model, scores out. The only room with a GPU."""

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
from service.queue.consumer import Ending, Lease
from service.queue.keys import queue_of_model
from service.queue.protocol import KEEP_REPLY_MS, now_ms
from service.scoring.encoder import Encoded
from service.scoring.fault_isolation import score_apart
from service.scoring.process_rewards import StepScores
from service.scoring.scheduler import ScheduledBatch, Scheduler, Score, ScoreFailure, SequenceGroup
from service.settings import Settings
from service.worker.loop import Hands, failure
from service.worker.model_manager import Place, Shelf

log = logging.getLogger("plaudit.score")

HOLD_BATCHES = 2  # encode this many budgets ahead, no more: what waits here cannot be taken by another worker


Codes = list[Encoded | TooLong]


class Pending:
    """A leased group between encoding and its last score."""

    def __init__(self, lease: Lease, encoded: Codes, place: Place, started_ms: int) -> None:
        self.lease = lease
        self.encoded = encoded
        self.place = place
        self.started_ms = started_ms
        self.compute_ms = 0.0


class ScoreWork:
    """One model a queue; models take turns by step, and so do the revisions of one."""

    kind: Kind = "score"
    patience_s = 600.0  # a batch is bounded in tokens

    def __init__(self, shelf: Shelf, settings: Settings) -> None:
        self.shelf = shelf
        for tokens in ("computed", "padding", "shared"):
            metrics.score_tokens.labels(tokens)  # shown from the first scrape on, padding at zero because there is none
        self.max_batch_tokens = settings.max_batch_tokens
        self.pending: dict[str, Pending] = {}
        self.coming: deque[tuple[Lease, Place, int, Future[Codes]]] = deque()  # being encoded while a batch is computed
        self.encoders = ThreadPoolExecutor(1, "encoder")
        self.queues = [queue_of_model(name) for name in shelf.names]
        self.info = shelf.info

    @property
    def held(self) -> int:
        return len(self.pending) + len(self.coming)

    def abandon(self) -> list[Lease]:
        leases = [*(pending.lease for pending in self.pending.values()), *(lease for lease, *_ in self.coming)]
        self.pending.clear()
        self.coming.clear()
        self.shelf.reset()
        return leases

    def lost(self, lease: Lease) -> None:
        """Its batch mates need the batch; the answer will find no job, and that is all."""

    def appetite(self) -> int:
        self.shelf.follow()
        waiting = sum(place.scheduler.waiting_tokens for _, place in self.shelf)
        return 64 - len(self.coming) if waiting < HOLD_BATCHES * self.max_batch_tokens else 0

    def step(self, leases: list[Lease], hands: Hands) -> None:
        """One batch of each place. While it is computed the new leases are encoded, for the next step; where there is
        nothing to compute they are encoded first."""
        while self.coming:
            lease, place, started, codes = self.coming[0]
            self._take_in(lease, place, started, codes.result, hands)
            self.coming.popleft()
        busy = any(len(place.scheduler) for _, place in self.shelf)
        for lease in leases:
            self._begin(lease, hands, later=busy)
        for name, place in self.shelf:
            self._end_expired(place.scheduler, hands)
            batch = place.scheduler.schedule()
            if batch.slices:
                self._run(name, place, batch, hands)

    def _begin(self, lease: Lease, hands: Hands, *, later: bool) -> None:
        task = lease.task
        assert isinstance(task, ScoreTask)
        started = now_ms()
        place = self.shelf[task.model].get(task.revision)
        if place is None:
            hands.answer(lease, _gone(task), started_ms=started)
            return
        prompt: Any = task.prompt
        encode_group = functools.partial(place.model.encode_group, prompt, task.completions, task.on_overflow)
        if later:
            self.coming.append((lease, place, started, self.encoders.submit(encode_group)))
        else:
            self._take_in(lease, place, started, encode_group, hands)

    def _take_in(self, lease: Lease, place: Place, started: int, codes: Callable[[], Codes], hands: Hands) -> None:
        """An encoded group: what is too long already has its answer, what is left is scheduled."""
        task = lease.task
        assert isinstance(task, ScoreTask)
        if self.shelf[task.model].get(task.revision) is not place:  # its time to drain was over
            hands.answer(lease, _gone(task), started_ms=started)
            return
        try:
            encoded = codes()
        except Invalid as error:
            hands.answer(lease, Failed(JobState.INVALID, error.code, error.detail, False), started_ms=started)
            return
        pending = Pending(lease, encoded, place, started)
        sequences = [one for one in encoded if isinstance(one, Encoded)]
        if not sequences:
            hands.answer_all([self._ending(pending, [])])
            return
        self.pending[lease.key] = pending
        lane = LANES.index(lease.lane)
        group = SequenceGroup(lease.key, sequences, lane, lease.deadline_ms, alone=lease.deliveries > 1)
        place.scheduler.add(group)

    def _end_expired(self, scheduler: Scheduler[Encoded], hands: Hands) -> None:
        for group in scheduler.drop_expired(now_ms()):
            pending = self.pending.pop(group.key)
            body = Failed(JobState.TIMEOUT, "deadline", "the deadline passed in the queue", True)
            hands.answer(pending.lease, body, started_ms=pending.started_ms)

    def _run(self, name: str, place: Place, batch: ScheduledBatch[Encoded], hands: Hands) -> None:
        model, scheduler = place.model, place.scheduler
        computed, shared, prompts = model.num_computed, model.num_shared, model.prompts
        hits, misses = prompts.hits, prompts.misses
        began = time.perf_counter()
        outcome = score_apart(model.score, batch.sequences)
        elapsed_ms = (time.perf_counter() - began) * 1000
        if outcome.halvings:
            scheduler.max_batch_tokens = max(1, min(scheduler.max_batch_tokens, batch.tokens >> outcome.halvings))
            log.warning(
                "out of memory",
                extra={"model": name, "tokens": batch.tokens, "max_batch_tokens": scheduler.max_batch_tokens},
            )
        for part in batch.slices:
            self.pending[part.group.key].compute_ms += elapsed_ms
        done = scheduler.finish(batch, outcome.scores)
        hands.answer_all([self._ending(self.pending.pop(group.key), group.scores) for group in done])
        metrics.score_batch_tokens.observe(batch.tokens)  # nobody waits for these
        metrics.score_batch_groups.observe(len(batch.slices))
        metrics.score_tokens.labels("computed").inc(model.num_computed - computed)
        metrics.score_tokens.labels("shared").inc(model.num_shared - shared)
        metrics.prompt_cache_lookups.labels("hit").inc(prompts.hits - hits)
        metrics.prompt_cache_lookups.labels("miss").inc(prompts.misses - misses)
        metrics.prompt_cache_bytes.set(sum(place.model.prompts.nbytes for _, place in self.shelf))
        for score in outcome.scores:
            if not isinstance(score, ScoreFailure):
                metrics.score_value.labels(name).observe(score)

    def _ending(self, pending: Pending, scores: list[Score]) -> Ending:
        fault = next((one for one in scores if isinstance(one, ScoreFailure) and one.is_server_error), None)
        if fault is not None:  # ours, and no number
            body = failure(fault.code, fault.detail)
            return Ending(pending.lease, body, 0, pending.compute_ms, pending.started_ms)
        task = pending.lease.task
        assert isinstance(task, ScoreTask)
        model = pending.place.model
        left = iter(scores)
        ends = [one if isinstance(one, TooLong) else next(left) for one in pending.encoded]
        values = [float(end) if isinstance(end, float) else None for end in ends]
        scored = Scored(
            revision=model.revision,
            scores=values,
            tokens=[one.tokens if isinstance(one, TooLong) else len(one.ids) for one in pending.encoded],
            truncated=[isinstance(one, Encoded) and one.truncated for one in pending.encoded],
            problems=[None if isinstance(end, float) else f"{end.code}: {end.detail}" for end in ends],
            pass_probabilities=[None if value is None else model.pass_probability(value) for value in values],
            steps=[list(end.steps) if isinstance(end, StepScores) else None for end in ends],
        )
        # Who asks again before the API has remembered these scores gets them from the queue.
        asked = score_job_id(encode(task)) == pending.lease.id and None not in values
        cache_ms = KEEP_REPLY_MS if asked else 0
        return Ending(pending.lease, scored, cache_ms, pending.compute_ms, pending.started_ms)


def _gone(task: ScoreTask) -> Failed:
    """Whoever asked asks again, for the revision that is active now."""
    return failure(RevisionMoved.code, f"this worker does not serve {task.revision} of {task.model!r} any more")
