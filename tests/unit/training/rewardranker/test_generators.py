"""Generators from anywhere: their own tokenizer, architectures other than ours, and sets to fine-tune them on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from plaudit.errors import UsageError
from support.checkpoints import write_tokenizer
from training.pipeline.config import IterateConfig, PPOConfig, Recipe
from training.pipeline.files import read_jsonl
from training.pipeline.records import Problem
from training.pipeline.run import Run
from training.rewardranker import policy
from training.rewardranker.generator_text import PretrainedText, completion_text
from training.rewardranker.iterate_report import table_columns
from training.rewardranker.mining import program_text
from training.rewardranker.sft_data import generator_digest, sft_solutions

CODE = 'def twice(x):\n    """Double x."""\n'
WORDS = "Write a program that doubles."


def problem(prompt: str, name: str = "a", **fields: Any) -> Problem:
    row = {"entry_point": "twice", "canonical": None, "test_setup": "", "tests": ("assert True",), "source": "own"}
    return Problem(name, name, prompt, license="MIT", **{"fold": "train", **row, **fields})


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def generator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model of another architecture than ours, as a folder of the hub's form."""
    folder = tmp_path_factory.mktemp(request.param)
    write_tokenizer(folder)
    torch.manual_seed(3)
    if request.param == "gpt2":
        config: Any = GPT2Config(vocab_size=400, n_embd=32, n_layer=1, n_head=2, n_positions=256)
        model: Any = GPT2LMHeadModel(config)
    else:
        config = LlamaConfig(
            vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
        )
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder


class Shortest:
    """In the reranker's place: a shorter completion scores more."""

    revision = "shortest"

    def encode(self, prompt: str, completion: str, overflow: str) -> str:
        return completion

    def score(self, batch: list[str]) -> list[float]:
        return [-float(len(text)) for text in batch]


def test_a_pretrained_generator_is_fine_tuned_sampled_and_trained_by_ppo(generator: Path, tmp_path: Path) -> None:
    settings = IterateConfig(max_new_tokens=8, sft_epochs=2)
    recipe = Recipe(iterate=settings, ppo=PPOConfig(iterations=2, prompts=2, samples=2, minibatch=4, trackers=()))
    run, text = Run(tmp_path, quiet=True), PretrainedText(generator)
    documents = [(problem(CODE, str(at)), f"    return x + {at}\n") for at in range(4)]
    told = policy.fine_tune(recipe, run, text, generator, documents)
    assert told["documents"] == 4
    sft = run.path("iterate/sft/config.json").parent
    assert type(policy.load_generator(sft)) is type(policy.load_generator(generator))
    asked = [one for one, _ in documents]
    samples = policy.sample_completions(policy.load_generator(sft), PretrainedText(sft), asked, 2, recipe, run, "s")
    assert [len(texts) for texts in samples] == [2] * 4
    summary = policy.train_ppo(recipe, run, PretrainedText(sft), asked, sft, Shortest())  # type: ignore[arg-type]
    assert summary["iterations"] == 2
    assert [row["iteration"] for row in read_jsonl(tmp_path / "ppo.jsonl")] == [1, 2]
    before, after = (policy.load_generator(folder).state_dict() for folder in (sft, tmp_path / "ppo"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_fine_tuning_lowers_the_loss_of_what_is_fine_tuned_on(generator: Path, tmp_path: Path) -> None:
    documents = [(problem(CODE, str(at)), "    return 2 * x\n") for at in range(8)]
    losses = [
        policy.fine_tune(
            Recipe(iterate=IterateConfig(sft_epochs=epochs)),
            Run(tmp_path / str(epochs), quiet=True),
            PretrainedText(generator),
            generator,
            documents,
        )["loss"]
        for epochs in (1, 12)
    ]
    assert losses[1] < losses[0]


def test_code_is_continued_and_a_question_is_asked(generator: Path) -> None:
    text = PretrainedText(generator)
    tokenizer = text.tokenizer
    assert tokenizer.decode(text.prompt_ids(problem(CODE))) == f"<s>{CODE}"
    assert tokenizer.decode(text.prompt_ids(problem(WORDS))) == f"<s><|user|>\n{WORDS}<|end|>\n<|assistant|>\n"
    ids = text.document_ids(problem(CODE), "    return x\n")
    assert ids[-1] == text.end
    assert completion_text(text, ids[len(text.prompt_ids(problem(CODE))) :]) == "    return x\n"
    assert program_text(problem(CODE), "    return x\n") == f"{CODE}    return x\n"
    assert program_text(problem(WORDS), "Here:\n```python\nprint(2)\n```") == "print(2)\n"


def test_sets_to_fine_tune_on_lose_what_is_held_out(tmp_path: Path) -> None:
    rows = [
        {
            "name": name,
            "description": statement,
            "public_tests": {"input": ["1\n"], "output": ["2\n"]},
            "private_tests": {"input": [], "output": []},
            "generated_tests": {"input": [], "output": []},
            "solutions": {"language": [3], "solution": [f"print(2 * int(input()))  # {name}"]},
            "incorrect_solutions": {"language": [], "solution": []},
        }
        for name, statement in (("free", "Double a number that you read."), ("taken", WORDS * 4))
    ]
    path = tmp_path / "contests.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held = problem(WORDS * 4, "held", fold="test")
    found = sft_solutions([f"codecontests={path}"], [held], 8)
    assert [(one.prompt, completion) for one, completion in found] == [
        ("Double a number that you read.", "print(2 * int(input()))  # free")
    ]
    for entry in ("contests.jsonl", "nobody=x"):
        with pytest.raises(UsageError, match="adapter=FILE"):
            sft_solutions([entry], [], 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no weights"):
        generator_digest(tmp_path / "empty")


def test_the_table_s_columns_are_languages_where_there_are_several() -> None:
    problems = [
        dataclasses.replace(problem(CODE, f"{language}/{at}"), language=language)
        for at, language in enumerate(("javascript", "cpp", "python", "lua"))
    ]
    columns = table_columns(problems)
    assert list(columns) == ["python", "cpp", "javascript", "lua"]  # the paper's order, then others
    assert columns["cpp"]("cpp/1")
    assert not columns["cpp"]("python/2")
    assert list(table_columns(problems[:1])) == ["own"]
