"""Another checkpoint takes over while requests come in: no answer has two revisions, and a bad one changes nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoConfig, Qwen2ForTokenClassification

from service.queue.activation import ModelRegistry
from service.queue.connections import connect
from service.queue.keys import Keys
from service.queue.protocol import now_ms
from service.scoring.encoder import Encoded
from service.scoring.process_rewards import Steps
from service.scoring.reward_model import RewardModel
from service.settings import Settings
from service.worker.loop import StopSignal
from service.worker.model_manager import register_models
from support.broker import Broker
from support.checkpoints import checkpoint
from support.stack import Stack, wait_for

REQUESTS, ACTIVATIONS, AT_ONCE = 1000, 5, 24
PROMPTS = [f"Write a function that returns {number}.\n" for number in range(400)]
WAYS = ["    return {}\n", "    x = {}\n    return x\n", "    pass\n"]


class Versions:
    """Three checkpoints of one shape, loaded here: what each of them says to every prompt with every way."""

    def __init__(self, folder: Path) -> None:
        self.folders = [checkpoint(folder / str(seed), seed=seed) for seed in (1, 2, 3)]
        self.models = [RewardModel.load(one) for one in self.folders]
        self.revisions = [model.revision for model in self.models]
        self.scores = {
            model.revision: list(
                zip(*(model.score([model.encode(prompt, way) for prompt in PROMPTS]) for way in WAYS), strict=True)
            )
            for model in self.models
        }

    def check(self, answer: dict[str, Any], numbers: list[int], path: str = "/score") -> str:
        """The one revision of an answer, if its scores are that revision's."""
        model = answer["model"] if path == "/score" else answer["models"][0]
        want = [self.scores[model["revision"]][number] for number in numbers]
        name = "score" if path == "/score" else "reward"
        got = [[one[name] for one in result["completions"]] for result in answer["results"]]
        assert len(got) == len(want)
        for ours, theirs in zip(want, got, strict=True):
            assert theirs == pytest.approx(ours, abs=1e-4), (model, answer)
        return str(model["revision"])


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return Versions(tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="module")
def whole(versions: Versions) -> Iterator[Stack]:
    with Broker() as broker, Stack(broker, versions.folders[0], scorers=2, executors=0) as one:
        wait_for(lambda: served(one).get("workers") == 2, 60, "both scorers")
        yield one
    shutil.rmtree(one.folder, ignore_errors=True)


def served(stack: Stack) -> dict[str, Any]:
    with stack.client() as http:
        models = http.get("/models").json()["models"]
    return models[0] if models else {}


def activate(stack: Stack, **body: Any) -> httpx.Response:
    with stack.client() as http:
        return http.post("/models/default/activate", json=body)


def swap(stack: Stack, versions: Versions, to: int) -> dict[str, Any]:
    response = activate(stack, path=str(versions.folders[to]), revision=versions.revisions[to])
    assert response.status_code == 200, response.text
    return dict(response.json())


def request(numbers: list[int], **more: Any) -> dict[str, Any]:
    return {"items": [{"prompt": PROMPTS[number], "completions": WAYS} for number in numbers], **more}


def score(stack: Stack, versions: Versions, *numbers: int) -> str:
    with stack.client() as http:
        response = http.post("/score", json=request(list(numbers)))
        assert response.status_code == 200, response.text
        return versions.check(response.json(), list(numbers))


@pytest.mark.extended
async def test_a_thousand_requests_over_five_swaps_have_one_revision_each_and_its_scores(
    whole: Stack, versions: Versions
) -> None:
    """Some ask for scores, some for rewards, for one group or for several, for new texts and for texts seen before."""
    seen: list[str] = []
    swapped = asyncio.Event()
    spec = {"terms": [{"name": "one", "type": "score"}, {"name": "two", "type": "score", "weight": 0.0}]}

    async with whole.async_client() as http:

        async def ask(at: int) -> None:
            path = "/reward" if at % 5 == 0 else "/score"
            numbers = [(at * 7 + step) % len(PROMPTS) for step in range(1 + at % 3)]
            body = request(numbers, **({"spec": spec} if path == "/reward" else {}))
            response = await http.post(path, json=body)
            assert response.status_code == 200, response.text
            seen.append(versions.check(response.json(), numbers, path))

        async def crowd(name: int) -> None:
            for at in itertools.count(name, AT_ONCE):
                if at >= REQUESTS and swapped.is_set():
                    return
                await ask(at)

        async def swaps() -> None:
            for turn in range(1, ACTIVATIONS + 1):
                while len(seen) < turn * REQUESTS / (ACTIVATIONS + 2):
                    await asyncio.sleep(0.005)
                to = turn % 3
                response = await http.post("/models/default/activate", json={"path": str(versions.folders[to])})
                assert response.status_code == 200, response.text
                assert response.json()["revision"] == versions.revisions[to]
                after = await http.post("/score", json=request([turn]))  # whoever asks from now on gets the new one
                assert versions.check(after.json(), [turn]) == versions.revisions[to]
            swapped.set()

        async with asyncio.TaskGroup() as group:
            for name in range(AT_ONCE):
                group.create_task(crowd(name))
            group.create_task(swaps())

    assert len(seen) >= REQUESTS
    assert {revision: revision in seen for revision in versions.revisions} == dict.fromkeys(versions.revisions, True)
    assert sum(a != b for a, b in itertools.pairwise(seen)) >= ACTIVATIONS


def test_the_old_one_is_released_once_its_work_is_done(whole: Stack, versions: Versions) -> None:
    now = versions.revisions.index(served(whole)["revision"])
    swap(whole, versions, (now + 1) % 3)

    def released() -> bool:
        lines = [line for worker in whole.of_kind("score") for line in worker.logged()]
        return (
            sum(
                line.get("revision") == versions.revisions[now] for line in lines if line["message"] == "model released"
            )
            >= 2
        )

    wait_for(released, 15, "both workers to release it")


def test_a_bad_checkpoint_says_why_and_the_one_before_goes_on(whole: Stack, versions: Versions, tmp_path: Path) -> None:
    before, nothing = served(whole)["revision"], "sha256:" + "0" * 64
    torn = Path(shutil.copytree(versions.folders[2], tmp_path / "torn"))
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    drifted = checkpoint(tmp_path / "drifted", seed=9, golden="golden.jsonl")
    row = {"prompt": "p", "completion": "c", "score": 123.0, "tokens": 5}
    (drifted / "golden.jsonl").write_text(json.dumps(row) + "\n")

    for body, status, code, words in (
        ({"path": str(torn)}, 422, "checkpoint_refused", "damaged safetensors"),
        ({"path": str(drifted)}, 422, "checkpoint_refused", "golden set"),
        ({"path": str(tmp_path / "nowhere")}, 422, "checkpoint_refused", "no checkpoint folder"),
        ({"path": str(versions.folders[2]), "revision": nothing}, 422, "checkpoint_refused", "not sha256:"),
        ({"revision": nothing}, 404, "revision_unknown", "give its `path`"),
        ({}, 422, "invalid", "give `revision`, or `path`, or both"),
    ):
        response = activate(whole, **body)
        problem = response.json()
        assert (response.status_code, problem["code"]) == (status, code), problem
        assert words in problem["detail"]
        assert score(whole, versions, 5, 6) == before
    assert served(whole)["revision"] == before


def test_a_known_revision_is_activated_by_its_digest_alone(whole: Stack, versions: Versions) -> None:
    for to in (0, 1, 1):
        before = served(whole)["revision"]
        answer = activate(whole, revision=versions.revisions[to]).json()
        assert {name: answer[name] for name in ("name", "revision", "previous", "workers")} == {
            "name": "default",
            "revision": versions.revisions[to],
            "previous": before,
            "workers": 2,
        }
        assert score(whole, versions, to) == versions.revisions[to]


def test_a_process_reward_model_answers_with_its_steps(whole: Stack, tmp_path: Path) -> None:
    before = served(whole)["revision"]
    folder = checkpoint(tmp_path / "steps", seed=4, pooled="steps", steps=Steps("<|user|>", "\n\n"))
    model = RewardModel.load(folder)
    texts = ["Take a.\n\nTake b.\n\nreturn a + b", "pass"]
    want: Any = model.score([model.encode("Add.", text) for text in texts])
    assert activate(whole, path=str(folder)).status_code == 200
    with whole.client() as http:
        for cached in (False, True):
            answer = http.post("/score", json={"items": [{"prompt": "Add.", "completions": texts}]}).json()
            for one, scores in zip(answer["results"][0]["completions"], want, strict=True):
                assert one["steps"] == pytest.approx(scores.steps, abs=1e-4)
                assert one["score"] == min(one["steps"])
                assert one["cached"] is cached
            if not cached:
                time.sleep(0.1)  # remembered soon, not at once
        rerank = http.post(
            "/reward",
            json={
                "spec": {"terms": [{"name": "rm", "type": "score"}]},
                "items": [{"prompt": "Add.", "completions": texts}],
            },
        ).json()
    assert [one["reward"] for one in rerank["results"][0]["completions"]] == pytest.approx(list(want), abs=1e-4)
    assert activate(whole, revision=before).status_code == 200


def test_pooling_lists_the_steps_of_a_process_reward_model(whole: Stack, tmp_path: Path) -> None:
    """One label: the logit or its sigmoid. Two labels: their probabilities; their two logits are nowhere."""
    before = served(whole)["revision"]
    text = "Add.<|user|>return a + b<|user|>"
    one = checkpoint(tmp_path / "one", seed=4, pooled="steps", steps=Steps("<|user|>"))
    two = checkpoint(tmp_path / "two", seed=4, pooled="steps", steps=Steps("<|user|>"))
    classifier = Qwen2ForTokenClassification(AutoConfig.from_pretrained(two, id2label={0: "bad", 1: "good"})).eval()
    classifier.save_pretrained(two)
    scores: Any
    with whole.client() as http:
        assert activate(whole, path=str(one)).status_code == 200
        model = RewardModel.load(one)
        (scores,) = model.score(model.encode_group(None, [text]))
        answer = http.post("/pooling", json={"input": text, "use_activation": False})
        assert answer.status_code == 200, answer.text
        raw = answer.json()["data"][0]["data"]
        assert raw == [[pytest.approx(step, abs=1e-4)] for step in scores.steps]
        ((first,), (second,)) = http.post("/pooling", json={"input": text}).json()["data"][0]["data"]
        assert (first, second) == pytest.approx([1 / (1 + math.exp(-step)) for step in scores.steps], abs=1e-4)

        assert activate(whole, path=str(two)).status_code == 200
        (encoded,) = RewardModel.load(two).encode_group(None, [text])
        assert isinstance(encoded, Encoded)
        with torch.no_grad():
            want = classifier(torch.tensor([encoded.ids])).logits[0].softmax(-1)[list(encoded.steps)]
        both = http.post("/pooling", json={"input": [text]}).json()["data"][0]["data"]
        assert both == [pytest.approx(row, abs=1e-4) for row in want.tolist()]
        refused = http.post("/pooling", json={"input": text, "use_activation": False})
        assert refused.status_code == 422
        assert "log-odds of two labels" in refused.text
    assert activate(whole, revision=before).status_code == 200


def test_a_model_that_nobody_serves_is_not_found(whole: Stack) -> None:
    with whole.client() as http:
        response = http.post("/models/other/activate", json={"path": "anywhere"})
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_a_worker_that_comes_later_and_one_that_comes_again_serve_what_is_active(
    whole: Stack, versions: Versions
) -> None:
    """The workers are told of the first checkpoint on their command lines."""
    swap(whole, versions, 2)
    first, second = whole.of_kind("score")
    first.kill()
    third = whole.start_scorer()
    wait_for(lambda: served(whole).get("workers") == 2, 60, "the new worker, and the death of the old one")
    second.stop()  # now there is only the one that came later
    wait_for(lambda: served(whole).get("workers") == 1, 30, "the second to leave")

    assert score(whole, versions, 11, 12, 13) == versions.revisions[2]
    wait_for(lambda: served(whole).get("revision") == versions.revisions[2], 30, "the newcomer to be seen serving")
    third.kill()
    whole.start_scorer()
    wait_for(lambda: served(whole).get("workers") == 1, 60, "the last one to be started again")
    assert score(whole, versions, 14, 15) == versions.revisions[2]


def test_a_worker_that_is_configured_with_another_checkpoint_waits_for_its_turn(
    broker: Broker, versions: Versions
) -> None:
    """While somebody serves what is active; then it takes over."""
    client = connect(broker.url)
    keys, registry = Keys("plaudit"), ModelRegistry(client, "plaudit", "second")
    paths = [str(one) for one in versions.folders]

    class Waiting(StopSignal):
        naps = 0

        def sleep(self, seconds: float) -> None:
            self.naps += 1
            if self.naps == 3:
                client.delete(keys.workers, keys.workers_info)

    def come(path: str, stop: StopSignal) -> str:
        settings = Settings(model={"default": path}, redis_url=broker.url)
        return register_models(settings, registry, lambda call: call(), stop)["default"].revision

    assert come(paths[0], StopSignal()) == versions.revisions[0]
    info = {"kind": "score", "models": [{"name": "default", "revision": versions.revisions[0]}]}
    client.hset(keys.workers_info, "first", json.dumps(info))
    client.zadd(keys.workers, {"first": now_ms() + 60_000})
    stop = Waiting()

    assert come(paths[1], stop) == versions.revisions[1]
    assert stop.naps == 3
    assert come(paths[1], StopSignal()) == versions.revisions[1]
    client.close()
