"""The scoring worker with a model that is a few lines and a queue that is a list."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from service import metrics
from service.jobs import Failed, JobState, Scored, ScoreTask
from service.queue.consumer import FinishedJob, Lease
from service.queue.protocol import now_ms
from service.scoring.prefix_cache import PromptCache
from service.scoring.reward_model import Encoded, Parity, RewardModelSpec
from service.settings import Settings
from service.worker.model_manager import ModelManager
from service.worker.score import ScoreRunner

FAR = 10**15


class Model:
    """A letter is a token; the score is the number of letters; "?" is poison, and memory holds `room` tokens."""

    revision, architecture, dtype, parameters, max_length = "sha256:0", "Letters", "float32", 0, 100
    spec = RewardModelSpec(template="{prompt}{completion}", max_length=100, architecture="Letters")
    prefix_sharing_disabled_reason: str | None = None
    engine = "letters"

    def __init__(self, room: int = 10**6) -> None:
        self.room = room
        self.num_computed = self.num_shared = 0
        self.prompts = PromptCache()
        self.batches: list[int] = []

    def encode_group(self, prompt: str, completions: list[str], on_overflow: str) -> list[Encoded]:
        return [Encoded(tuple(map(ord, prompt + text)), len(prompt), truncated=False) for text in completions]

    def score(self, batch: list[Encoded]) -> list[float]:
        if any(ord("?") in one.ids for one in batch):
            raise IndexError("index out of range in self")
        if sum(len(one.ids) for one in batch) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        self.batches.append(len(batch))
        self.num_computed += 1
        self.num_shared += 2
        return [float(len(one.ids)) for one in batch]

    def pass_probability(self, score: float) -> None:
        return None


class Context:
    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}

    def answer(self, lease: Lease, body: Any, **times: Any) -> None:
        assert lease.id not in self.answers
        self.answers[lease.id] = body

    def answer_all(self, endings: list[FinishedJob]) -> None:
        for ending in endings:
            self.answer(ending.lease, ending.body)


def lease(name: str, prompt: str, *completions: str, deadline_ms: int = FAR, revision: str = "sha256:0") -> Lease:
    task = ScoreTask(model="default", revision=revision, prompt=prompt, completions=list(completions))
    return Lease(name, name, "score:default", "s:score:default:normal", task, deadline_ms, 1, now_ms())


def work(model: Model, max_batch_tokens: int = 1000) -> ScoreRunner:
    settings = Settings(max_batch_tokens=max_batch_tokens)
    models, loaded = ModelManager(settings), cast(Any, model)
    models.add("default", loaded, Parity(0.0, 0, 1e-4, ok=True, max_batch_error=0.0))
    return ScoreRunner(models, settings)


def run(worker: ScoreRunner, *leases: Lease) -> dict[str, Any]:
    context: Any = Context()
    worker.step(list(leases), context)
    while worker.num_held:
        worker.step([], context)
    answers: dict[str, Any] = context.answers
    return answers


def test_single_completions_of_one_prompt_are_one_batch() -> None:
    model = Model()
    answers = run(work(model), *(lease(str(at), "a prompt", "x" * at) for at in range(1, 6)))

    assert model.batches == [5]
    assert [answers[str(at)].scores for at in range(1, 6)] == [[8.0 + at] for at in range(1, 6)]


def test_tokens_computed_and_shared_are_counted() -> None:
    def count(kind: str) -> float:
        return float(metrics.score_tokens.labels(kind)._value.get())

    before = count("computed"), count("shared")
    run(work(Model()), lease("a", "p", "x", "y"))

    assert (count("computed"), count("shared")) == (before[0] + 1, before[1] + 2)


def test_prompts_that_were_kept_are_counted_with_what_they_take() -> None:
    class Keeping(Model):
        """Keeps the prompt of every batch."""

        def score(self, batch: list[Encoded]) -> list[float]:
            prompt = batch[0].ids[: batch[0].prompt_tokens]
            if self.prompts.find(prompt) is None:
                with self.prompts.admitted({prompt: len(batch)}):
                    pass
            return super().score(batch)

    def count(outcome: str) -> float:
        return float(metrics.prompt_cache_lookups.labels(outcome)._value.get())

    before, model = (count("hit"), count("miss")), Keeping()
    model.prompts = PromptCache(10**6, 100)
    worker = work(model)
    for at in range(3):
        run(worker, lease(str(at), "a prompt that is long enough", "x" * (at + 1)))

    assert (count("hit"), count("miss")) == (before[0] + 2, before[1] + 1)
    assert float(metrics.prompt_cache_bytes._value.get()) == model.prompts.nbytes > 0


def test_a_poisoned_completion_is_a_problem_of_its_own() -> None:
    answers = run(work(Model()), lease("bad", "p", "x", "?", "xyz"), lease("good", "p", "xy"))

    assert isinstance(answers["bad"], Scored)
    assert answers["bad"].scores == [2.0, None, 4.0]
    assert answers["bad"].problems == [None, "invalid: the model cannot score this text: IndexError", None]
    assert answers["good"].scores == [3.0]


def test_out_of_memory_is_learnt_from() -> None:
    model = Model(room=50)
    worker = work(model)
    answers = run(worker, *(lease(str(at), "p" * 9, "x") for at in range(16)))

    assert all(answers[str(at)].scores == [10.0] for at in range(16))
    assert worker.models["default"]["sha256:0"].scheduler.max_batch_tokens <= 50


def test_what_is_too_much_alone_fails_as_ours_and_takes_nobody_with_it() -> None:
    answers = run(work(Model(room=20)), lease("large", "p", "x" * 40), lease("small", "p", "x"))

    assert answers["small"].scores == [2.0]
    failed = answers["large"]
    assert isinstance(failed, Failed)
    assert (failed.state, failed.code) == (JobState.FAILED, "out_of_memory")


def test_a_model_without_sharing_is_scheduled_by_whole_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "prefix_sharing_disabled_reason", "an encoder")
    model = Model()
    run(work(model, max_batch_tokens=30), *(lease(str(at), "p" * 9, "x") for at in range(6)))

    assert model.batches == [3, 3]


def test_what_expired_in_the_queue_is_not_scored() -> None:
    model = Model()
    answers = run(work(model), lease("late", "p", "x", deadline_ms=1), lease("good", "p", "x"))

    assert answers["late"].state is JobState.TIMEOUT
    assert model.batches == [1]


def test_what_comes_while_a_batch_waits_is_encoded_beside_it_and_loses_nothing() -> None:
    """The next leases are encoded while a batch is computed, wherever that leads: scores, refusals, a full drain."""
    model = Model()
    worker = work(model, max_batch_tokens=11)
    context: Any = Context()
    worker.step([lease(str(at), "p" * 9, "x") for at in range(4)], context)
    coming = [lease("late", "q", "xy"), lease("gone", "q", "x", revision="sha256:1")]
    worker.step(coming, context)
    assert [one.id for one, *_ in worker.encoding] == ["late"]
    assert worker.num_held == len(worker.pending) + 1
    while worker.num_held:
        worker.step([], context)

    assert {name: answer.scores for name, answer in context.answers.items() if isinstance(answer, Scored)} == {
        **{str(at): [10.0] for at in range(4)},
        "late": [3.0],
    }
    assert (context.answers["gone"].code, context.answers["gone"].retryable) == ("revision_moved", True)


def test_what_is_being_encoded_is_not_forgotten_when_the_work_fails() -> None:
    worker = work(Model(), max_batch_tokens=10)
    context: Any = Context()
    worker.step([lease("one", "p" * 9, "x"), lease("two", "q" * 9, "x")], context)
    worker.step([lease("three", "p", "x")], context)

    assert {one.id for one in worker.reset()} | set(context.answers) == {"one", "two", "three"}
    assert worker.num_held == 0
