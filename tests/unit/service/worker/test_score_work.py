"""The scoring worker with a model that is a few lines and a queue that is a list."""

from __future__ import annotations

import threading
import time
from typing import Any, cast

import pytest
import torch

from service import metrics
from service.jobs import Failed, JobState, Scored, ScoreTask
from service.queue.cached_scores import CachedScore
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
    tokenizer_digest, is_remote, depends_on_group = "sha256:1", False, False
    spec = RewardModelSpec(template="{prompt}{completion}", max_length=100, architecture="Letters")
    prefix_sharing_disabled_reason: str | None = None
    own_class_error: float | None = None
    good_label: int | None = None
    quantization: str | None = None
    engine = "letters"

    def __init__(self, room: int = 10**6) -> None:
        self.room = room
        self.num_computed = self.num_shared = 0
        self.prompts = PromptCache()
        self.batches: list[int] = []
        self.encoding = threading.Event()
        self.encoding.set()

    def hold_encoding(self) -> threading.Event:
        """Nothing is encoded from now on, until the event is set."""
        self.encoding = threading.Event()
        return self.encoding

    def encode_group(self, prompt: str, completions: list[str], on_overflow: str) -> list[Encoded]:
        assert self.encoding.wait(10)
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
    """`ended`: jobs whose clients hung up. `moved`: deadlines that later waiters have moved."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.cached: dict[str, CachedScore] = {}
        self.ended: set[str] = set()
        self.moved: dict[str, int] = {}
        self.dropped: list[str] = []

    def deadlines(self, leases: list[Lease]) -> list[int | None]:
        return [None if one.id in self.ended else self.moved.get(one.id, one.deadline_ms) for one in leases]

    def drop(self, lease: Lease) -> None:
        self.dropped.append(lease.id)

    def cache_scores(self, lease: Lease, scores: dict[str, CachedScore]) -> None:
        self.cached |= scores

    def answer(self, lease: Lease, body: Any, **times: Any) -> None:
        assert lease.id not in self.answers
        self.answers[lease.id] = body

    def answer_all(self, endings: list[FinishedJob]) -> None:
        for ending in endings:
            self.answer(ending.lease, ending.body)


def lease(
    name: str,
    prompt: str,
    *completions: str,
    deadline_ms: int = FAR,
    revision: str = "sha256:0",
    lane: str = "normal",
    model: str = "default",
) -> Lease:
    task = ScoreTask(model=model, revision=revision, prompt=prompt, completions=list(completions))
    return Lease(name, name, f"score:{model}", f"s:score:{model}:{lane}", task, deadline_ms, 1, now_ms())


def work(model: Model, max_batch_tokens: int = 1000, **others: Model) -> ScoreRunner:
    models = ModelManager(Settings(max_batch_tokens=max_batch_tokens))
    for name, engine in {"default": model, **others}.items():
        models.add(name, cast(Any, engine), Parity(0.0, 0, 1e-4, ok=True, max_batch_error=0.0))
    return ScoreRunner(models)


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
    worker.step([lease(str(at), "p" * 9, "x") for at in range(6)], context)
    coming = [lease("late", "q", "xy"), lease("gone", "q", "x", revision="sha256:1")]
    encoding = model.hold_encoding()
    worker.step(coming, context)
    assert [one.id for one, *_ in worker.encoding] == ["late"]
    assert worker.num_held == len(worker.pending) + 1
    encoding.set()
    while worker.num_held:
        worker.step([], context)

    assert {name: answer.scores for name, answer in context.answers.items() if isinstance(answer, Scored)} == {
        **{str(at): [10.0] for at in range(6)},
        "late": [3.0],
    }
    assert (context.answers["gone"].code, context.answers["gone"].retryable) == ("revision_moved", True)


def test_what_is_being_encoded_is_not_forgotten_when_the_work_fails() -> None:
    model = Model()
    worker = work(model, max_batch_tokens=10)
    context: Any = Context()
    worker.step([lease(name, name[0] * 9, "x") for name in ("one", "two", "four")], context)
    encoding = model.hold_encoding()
    worker.step([lease("three", "p", "x")], context)

    assert len(worker.encoding) == 1
    assert {one.id for one in worker.reset()} | set(context.answers) == {"one", "two", "three", "four"}
    assert worker.num_held == 0
    encoding.set()


# --- between two slices ----------------------------------------------------------------------------------------------

LARGE = ["x" * at for at in range(1, 7)]  # six slices of one completion each, if a batch has ten tokens


def test_a_group_nobody_waits_for_runs_no_further_slice() -> None:
    model, context = Model(), cast(Any, Context())
    worker = work(model, max_batch_tokens=10)
    worker.step([lease("large", "p" * 9, *LARGE), lease("other", "q" * 9, "x")], context)
    worker.step([], context)
    context.ended.add("large")
    while worker.num_held:
        worker.step([], context)

    assert model.batches == [1, 1, 1]
    assert context.dropped == ["large"]
    assert context.answers.keys() == {"other"}


def test_the_finished_slices_of_a_group_are_cached_one_by_one() -> None:
    model, context = Model(), cast(Any, Context())
    worker = work(model, max_batch_tokens=10)
    worker.step([lease("large", "p" * 9, "?", *LARGE)], context)
    assert context.cached == {}, "it has no score"
    worker.step([], context)
    worker.step([], context)

    assert context.cached == {"x": CachedScore(10.0, 10, False, None), "xx": CachedScore(11.0, 11, False, None)}


def test_a_group_that_is_late_ends_between_two_slices() -> None:
    model, context = Model(), cast(Any, Context())
    worker = work(model, max_batch_tokens=10)
    worker.step([lease("large", "p" * 9, *LARGE)], context)
    worker.step([], context)
    context.moved["large"] = now_ms() - 1
    worker.step([], context)

    assert worker.num_held == 0
    assert context.answers["large"].state is JobState.TIMEOUT
    assert context.cached.keys() == {"x", "xx"}


def test_a_deadline_that_a_later_waiter_moved_is_kept() -> None:
    model, context = Model(), cast(Any, Context())
    worker = work(model, max_batch_tokens=10)
    soon = now_ms() + 200
    worker.step([lease("large", "p" * 9, *LARGE, deadline_ms=soon)], context)
    context.moved["large"] = FAR
    time.sleep(0.25)
    while worker.num_held:
        worker.step([], context)

    assert context.answers["large"].scores == [9.0 + at for at in range(1, 7)]


def test_what_is_ended_while_it_is_encoded_is_not_scored() -> None:
    model, context = Model(), cast(Any, Context())
    worker = work(model, max_batch_tokens=10)
    worker.step([lease("large", "p" * 9, *LARGE)], context)
    encoding = model.hold_encoding()
    worker.step([lease("first", "q", "x"), lease("second", "r", "x")], context)
    context.ended |= {"first", "second"}
    worker.step([], context)
    encoding.set()
    while worker.num_held:
        worker.step([], context)

    assert context.answers.keys() == {"large"}
    assert sorted(context.dropped) == ["first", "second"]


def test_a_higher_lane_is_taken_and_runs_before_the_next_slice() -> None:
    model, context = Model(), cast(Any, Context())
    worker = work(model, max_batch_tokens=10)
    worker.step([lease("large", "p" * 9, *LARGE)], context)
    taken = {lane: worker.takes("score:default", cast(Any, lane)) for lane in ("high", "normal", "low")}
    assert taken == {"high": True, "normal": False, "low": False}
    worker.step([lease("high", "q", "x", lane="high")], context)

    assert context.answers.keys() == {"high"}
    assert len(model.batches) == 2


def test_models_take_turns_by_computing_time() -> None:
    """A slow model's group beside a quick one's: both have used the same time whenever both have work."""

    class Slow(Model):
        def score(self, batch: list[Encoded]) -> list[float]:
            time.sleep(0.04)
            return super().score(batch)

    class Slower(Model):
        def score(self, batch: list[Encoded]) -> list[float]:
            time.sleep(0.12)
            return super().score(batch)

    quick, slow, context = Slow(), Slower(), cast(Any, Context())
    worker = work(quick, max_batch_tokens=10, slow=slow)
    worker.step([lease("slow", "p" * 9, *LARGE, model="slow")], context)
    worker.step([lease("quick", "p" * 9, *LARGE)], context)
    while "quick" not in context.answers:
        worker.step([], context)

    assert 3 <= len(slow.batches) <= 5


def test_another_model_has_its_turn_after_at_most_two_slices() -> None:
    model, other, context = Model(), Model(), cast(Any, Context())
    worker = work(model, max_batch_tokens=10, other=other)
    worker.step([lease("large", "p" * 9, *LARGE)], context)
    worker.step([], context)
    assert worker.takes("score:other", "low")
    worker.step([lease("small", "q", "x", model="other")], context)
    before = len(model.batches)
    while "small" not in context.answers:
        worker.step([], context)

    assert len(model.batches) - before <= 1
