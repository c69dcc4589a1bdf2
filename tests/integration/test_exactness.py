"""What a trainer gets over HTTP: scores that are Hugging Face's, whoever else asked; none where there was no memory."""

from __future__ import annotations

import asyncio
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from support.broker import Broker
from support.checkpoints import write_family
from support.stack import Stack, wait_for

FAMILIES = ["qwen2", "qwen3", "llama", "mistral", "gemma"]
WORDS = ["a", "b", "c", "x", "y", "add", "sum", "max", "min", "def", "for", "in", "if", "list", "not", "return", "pass"]
WIDE = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 4}
POSITIONS = 4096


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {family: write_family(tmp_path_factory.mktemp(family), family) for family in FAMILIES}
    return made | {"wide": write_family(tmp_path_factory.mktemp("wide"), "qwen2", positions=POSITIONS, shape=WIDE)}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> Iterator[Stack]:
    """One scorer with all of them, and nothing of ours in any folder."""
    flags = [flag for name, folder in folders.items() for flag in ("--model", f"{name}={folder}")]
    with Broker() as broker, Stack(broker, folders["qwen2"], scorers=0, executors=0, max_batch_tokens="4096") as stack:
        stack.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # what is freed goes back, and the next needs room anew
        stack.start_scorer(*flags)
        wait_for(lambda: served(stack).keys() >= folders.keys(), 60, "the models to be served")
        yield stack


def served(stack: Stack) -> dict[str, Any]:
    with stack.client() as http:
        return {model["name"]: model for model in http.get("/models").json()["models"]}


def text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words))


class Alone:
    """Hugging Face's own forward of a text alone, under the checkpoint's chat template."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

    @torch.no_grad()
    def score(self, prompt: str, completion: str) -> float:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        ids = self.tokenizer.apply_chat_template(messages, return_tensors="pt")["input_ids"]
        return float(self.model(input_ids=ids).logits.item())


@pytest.mark.extended
async def test_single_completions_of_five_families_score_as_they_do_alone(
    models: Stack, folders: dict[str, Path]
) -> None:
    """One completion a request, those of every prompt and every model mixed, as many at once as there are."""
    draw, asked = random.Random(0), []
    for family in FAMILIES:
        for count in (1, 2, 5, 17, 64):
            prompt = text(draw, draw.randint(1, 25))
            asked += [(family, prompt, text(draw, draw.randint(0, 25))) for _ in range(count)]
    draw.shuffle(asked)
    shared = models.metric('plaudit_score_tokens_total{kind="shared"}')
    async with models.async_client() as http:

        async def score(family: str, prompt: str, completion: str) -> float:
            item = {"prompt": prompt, "completions": [completion]}
            response = await http.post("/score", json={"model": family, "items": [item]})
            (one,) = response.json()["results"][0]["completions"]
            assert one["status"] == "ok", one
            return float(one["score"])

        scores = await asyncio.gather(*(score(*one) for one in asked))
    alone = {family: Alone(folders[family]) for family in FAMILIES}

    for (family, prompt, completion), got in zip(asked, scores, strict=True):
        assert got == pytest.approx(alone[family].score(prompt, completion), abs=1e-4), family
    assert models.metric('plaudit_score_tokens_total{kind="shared"}') > shared, "requests were scored together"
    # A step takes 64 jobs at most, and those of the 64 completions of a prompt are in several.
    assert models.metric('plaudit_prompt_cache_lookups_total{outcome="hit"}') > 0
    assert models.metric("plaudit_prompt_cache_bytes") > 0


@pytest.mark.extended
def test_what_memory_does_not_hold_is_an_error_of_ours_and_the_worker_lives(
    models: Stack, folders: dict[str, Path]
) -> None:
    """The worker's address space is closed behind what it has, so that torch's own allocator fails."""
    draw = random.Random(1)
    prompts = {"long": text(draw, 1500), "again": text(draw, 1500)}
    (worker,) = models.of_kind("score")

    def ask(prompt: str) -> dict[str, Any]:
        with models.client() as http:
            item = {"prompt": prompt, "completions": ["x"]}
            answer: Any = http.post("/score", json={"model": "wide", "items": [item]}).json()
        return dict(answer["results"][0]["completions"][0])

    def memory(pid: int, field: str) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))

    assert ask("short")["status"] == "ok"
    open_end = resource.prlimit(worker.pid, resource.RLIMIT_AS)
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (memory(worker.pid, "VmSize") + 2**22, open_end[1]))
    try:
        starved = ask(prompts["long"])
        small = ask("another short one")
    finally:
        resource.prlimit(worker.pid, resource.RLIMIT_AS, open_end)

    assert (starved["status"], starved["score"], starved["trainable"]) == ("infra_error", None, False)
    logged = [line for line in worker.logged() if line["message"] in ("sequence failed", "work failed")]
    assert starved["error"]["code"] == "out_of_memory", (starved["error"], logged)
    assert small["status"] == "ok"
    after = ask(prompts["again"])
    assert after["score"] == pytest.approx(Alone(folders["wide"]).score(prompts["again"], "x"), abs=1e-4)
    assert worker.popen.poll() is None


def test_in_bfloat16_what_company_does_is_measured_and_published(folders: dict[str, Path], broker: Broker) -> None:
    """Nobody asked for it, and no golden set was shipped."""
    with Stack(broker, folders["llama"], scorers=0, executors=0, dtype="bfloat16") as stack:
        stack.start_scorer()
        model = wait_for(lambda: served(stack).get("default"), 60, "the model to be served")
    assert model["dtype"] == "bfloat16"
    assert 0 < model["parity"]["max_batch_error"] < 0.5
    assert (model["parity"]["n"], model["parity"]["tolerance"]) == (0, 0.5)
