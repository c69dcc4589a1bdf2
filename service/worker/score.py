"""The scoring worker: leases in, batches through the reward model, scores out. The only room with a GPU."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from service import metrics
from service.errors import Invalid, TooLong
from service.jobs import LANES, Failed, JobState, Kind, Scored, ScoreTask, encode, score_job_id
from service.queue.consumer import Lease
from service.queue.keys import queue_of_model
from service.queue.producer import KEEP_REPLY_MS, now_ms
from service.scoring.encoder import Encoded
from service.scoring.engine import Engine, open_engine
from service.scoring.isolation import score_apart
from service.scoring.scheduler import Batch, Group, Refused, Scheduler, Score
from service.settings import Settings
from service.worker.loop import Hands, failure

log = logging.getLogger("plaudit.score")

HOLD_BATCHES = 2  # encode this many budgets ahead, no more: what waits here cannot be taken by another worker


class Pending:
    """A leased group between encoding and its last score."""

    def __init__(self, lease: Lease, encoded: list[Encoded | TooLong], started_ms: int) -> None:
        self.lease = lease
        self.encoded = encoded
        self.started_ms = started_ms
        self.compute_ms = 0.0


class ScoreWork:
    """One model a queue; models take turns by step."""

    kind: Kind = "score"
    patience_s = 600.0  # a batch is bounded in tokens

    def __init__(self, models: dict[str, Engine], settings: Settings) -> None:
        self.models = models
        for tokens in ("computed", "padding", "shared"):
            metrics.score_tokens.labels(tokens)  # shown from the first scrape on, padding at zero because there is none
        self.max_batch_tokens = settings.max_batch_tokens
        self.schedulers = self._schedulers()
        self.pending: dict[str, Pending] = {}
        self.queues = [queue_of_model(name) for name in models]
        self.info: dict[str, Any] = {"models": [self._describe(name) for name in models], "torch": torch.__version__}

    @classmethod
    def open(cls, settings: Settings) -> ScoreWork:
        """Load every model and prove it against its golden set; raises HostLacks on drift."""
        return cls({name: open_engine(name, path, settings)[0] for name, path in settings.models.items()}, settings)

    def _describe(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        parity = model.check_golden()
        return {
            "name": name, "revision": model.revision, "architecture": model.architecture, "dtype": model.dtype,
            "parameters": model.parameters, "max_length": model.max_length,
            "calibrated": model.spec.calibration is not None, "unshared": model.unshared, "engine": model.engine,
            "parity": {"max_abs_error": parity.max_abs_error, "n": parity.n, "tolerance": parity.tolerance},
        }  # fmt: skip

    def _schedulers(self) -> dict[str, Scheduler[Encoded]]:
        return {
            name: Scheduler[Encoded](self.max_batch_tokens, sharing=model.unshared is None)
            for name, model in self.models.items()
        }

    @property
    def held(self) -> int:
        return len(self.pending)

    def abandon(self) -> list[Lease]:
        leases = [pending.lease for pending in self.pending.values()]
        self.pending.clear()
        self.schedulers = self._schedulers()
        return leases

    def lost(self, lease: Lease) -> None:
        """Its batch mates need the batch; the answer will find no job, and that is all."""

    def appetite(self) -> int:
        waiting = sum(scheduler.waiting_tokens for scheduler in self.schedulers.values())
        return 64 if waiting < HOLD_BATCHES * self.max_batch_tokens else 0

    def step(self, leases: list[Lease], hands: Hands) -> None:
        for lease in leases:
            self._take_in(lease, hands)
        for name, scheduler in self.schedulers.items():
            self._end_expired(scheduler, hands)
            batch = scheduler.schedule()
            if batch.slices:
                self._run(name, batch, hands)

    def _take_in(self, lease: Lease, hands: Hands) -> None:
        """Encode a group; what is too long already has its answer, what is left is scheduled."""
        task = lease.task
        assert isinstance(task, ScoreTask)
        started = now_ms()
        try:
            prompt: Any = task.prompt
            encoded = self.models[task.model].encode_group(prompt, task.completions, task.on_overflow)
        except Invalid as error:
            hands.answer(lease, Failed(JobState.INVALID, error.code, error.detail, False), started_ms=started)
            return
        pending = Pending(lease, encoded, started)
        sequences = [one for one in encoded if isinstance(one, Encoded)]
        if not sequences:
            self._answer(pending, [], hands)
            return
        self.pending[lease.key] = pending
        lane = LANES.index(lease.lane)
        group = Group(lease.key, sequences, lane, lease.deadline_ms, alone=lease.deliveries > 1)
        self.schedulers[task.model].add(group)

    def _end_expired(self, scheduler: Scheduler[Encoded], hands: Hands) -> None:
        for group in scheduler.drop_expired(now_ms()):
            pending = self.pending.pop(group.key)
            body = Failed(JobState.TIMEOUT, "deadline", "the deadline passed in the queue", True)
            hands.answer(pending.lease, body, started_ms=pending.started_ms)

    def _run(self, name: str, batch: Batch[Encoded], hands: Hands) -> None:
        model, scheduler = self.models[name], self.schedulers[name]
        computed, shared = model.num_computed, model.num_shared
        began = time.perf_counter()
        outcome = score_apart(model.score, batch.sequences)
        elapsed_ms = (time.perf_counter() - began) * 1000
        if outcome.halvings:
            scheduler.max_batch_tokens = max(1, min(scheduler.max_batch_tokens, batch.tokens >> outcome.halvings))
            log.warning("out of memory", extra={"model": name, "tokens": batch.tokens,
                                                "max_batch_tokens": scheduler.max_batch_tokens})  # fmt: skip
        metrics.score_batch_tokens.observe(batch.tokens)
        metrics.score_batch_groups.observe(len(batch.slices))
        metrics.score_tokens.labels("computed").inc(model.num_computed - computed)
        metrics.score_tokens.labels("shared").inc(model.num_shared - shared)
        for part in batch.slices:
            self.pending[part.group.key].compute_ms += elapsed_ms
        for group in scheduler.finish(batch, outcome.scores):
            pending = self.pending.pop(group.key)
            fault = next((one for one in group.scores if isinstance(one, Refused) and one.fault), None)
            if fault is not None:  # ours, and no number
                hands.answer(pending.lease, failure(fault.code, fault.detail), compute_ms=pending.compute_ms,
                             started_ms=pending.started_ms)  # fmt: skip
                continue
            for score in group.scores:
                if not isinstance(score, Refused):
                    metrics.score_value.labels(name).observe(score)
            self._answer(pending, group.scores, hands)

    def _answer(self, pending: Pending, scores: list[Score], hands: Hands) -> None:
        task = pending.lease.task
        assert isinstance(task, ScoreTask)
        model = self.models[task.model]
        left = iter(scores)
        ends = [one if isinstance(one, TooLong) else next(left) for one in pending.encoded]
        values = [end if isinstance(end, float) else None for end in ends]
        body = Scored(
            revision=model.revision,
            scores=values,
            tokens=[one.tokens if isinstance(one, TooLong) else len(one.ids) for one in pending.encoded],
            truncated=[isinstance(one, Encoded) and one.truncated for one in pending.encoded],
            problems=[None if isinstance(end, float) else f"{end.code}: {end.detail}" for end in ends],
            pass_probabilities=[None if value is None else model.pass_probability(value) for value in values],
        )
        # Who asks again before the API has remembered these scores gets them from the queue, if they are what was
        # asked for: another revision may have taken over since.
        asked = score_job_id(model.revision, encode(task)) == pending.lease.id and None not in values
        hands.answer(pending.lease, body, cache_ms=KEEP_REPLY_MS if asked else 0, compute_ms=pending.compute_ms,
                     started_ms=pending.started_ms)  # fmt: skip
