"""Generators of `iterate`: loading, drawing completions, supervised fine-tuning, and PPO against a reranker.

A generator reads and writes the reranker's own template, so a prompt's ids are the same in both, and a completion is
everything up to the template's closing token. Every draw is a function of its seed parts alone: a step that was killed
and is run again draws the same completions, whatever it had done before.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.pipeline.config import Recipe
from training.pipeline.records import Problem
from training.pipeline.run import Progress, Run, digest, read_jsonl, write_jsonl
from training.reward_model.checkpointing import TrainingState
from training.reward_model.optimization import cosine_schedule, keep_freed_memory, set_learning_rate
from training.reward_model.pretrain import pack, train_step

if TYPE_CHECKING:
    from service.scoring.reward_model import Encoder, RewardModel

BATCH = 128  # completions drawn at once


def seed_of(*parts: object) -> int:
    """A seed named by these parts."""
    return int(digest(*parts)[:8], 16)


def load_generator(folder: Path) -> Any:
    """The causal language model in this folder, float32, evaluating."""
    import torch
    from transformers import Qwen2ForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    keep_freed_memory()
    return Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def save_generator(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights and tokenizer, loadable by transformers, TRL and vLLM."""
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def prompt_ids(encoder: Encoder, prompt: str) -> list[int]:
    """The ids that a completion is drawn after."""
    return list(encoder.tokenizer.encode(encoder.head_text(prompt), add_special_tokens=False))


def text_of(encoder: Encoder, ids: Sequence[int]) -> str:
    """The completion's text, without its closing token."""
    return str(encoder.tokenizer.decode(ids, skip_special_tokens=True))


def draw(
    model: Any,
    encoder: Encoder,
    problems: Sequence[Problem],
    count: int,
    recipe: Recipe,
    run: Run,
    name: str,
    *,
    greedy: bool = False,
) -> list[list[str]]:
    """`count` completions of every problem, in the order of `problems`."""
    from training.rewardranker.ppo import sample

    end = encoder.tokenizer.eos_token_id
    prompts = [prompt_ids(encoder, problem.prompt) for problem in problems for _ in range(count)]
    progress, made = Progress(run, name, len(prompts)), list[str]()
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        seed = seed_of(recipe.seed, name, start)
        made += [text_of(encoder, ids) for ids in sample(model, part, recipe.iterate, end, seed, greedy=greedy)]
        progress.at(len(made))
    return [made[at : at + count] for at in range(0, len(made), count)]


def fine_tune(recipe: Recipe, run: Run, encoder: Encoder, documents: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Supervised fine-tuning of `pretrained/` on (prompt, completion) pairs: next-token loss, as in pretraining."""
    import torch

    settings = recipe.iterate
    model = load_generator(run.path("pretrained")).train()
    rows = [list(encoder.encode(prompt, completion).ids) for prompt, completion in documents]
    shuffled, order = random.Random(recipe.seed), list(range(len(rows)))
    plan: list[list[int]] = []
    for _ in range(settings.sft_epochs):
        shuffled.shuffle(order)
        plan += pack(order, [len(row) for row in rows], recipe.pretrain)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.sft_lr, betas=(0.9, 0.95), weight_decay=0.0)
    progress, loss = Progress(run, "sft", len(plan)), 0.0
    for step, batch in enumerate(plan):
        set_learning_rate(optimiser, settings.sft_lr * cosine_schedule(step / len(plan), 0.05))
        loss = train_step(model, optimiser, [rows[at] for at in batch], recipe.pretrain.sequence_tokens)
        progress.at(step + 1, f"loss {loss:.3f}")
    save_generator(model, encoder.tokenizer, run.path("iterate/sft/config.json").parent)
    return {"documents": len(rows), "steps": len(plan), "loss": round(loss, 4)}


def scores_of(reranker: RewardModel, prompt: str, completions: Sequence[str]) -> list[float]:
    """The served score of each completion; equal texts are scored once."""
    texts = list(dict.fromkeys(completions))
    found = reranker.score([reranker.encode(prompt, text, "truncate_left") for text in texts])
    by_text = dict(zip(texts, found, strict=True))
    return [by_text[text] for text in completions]


def reinforce(
    recipe: Recipe,
    run: Run,
    encoder: Encoder,
    problems: Sequence[Problem],
    start: Path,
    reranker: RewardModel,
) -> dict[str, Any]:
    """PPO from the generator in `start` against the reranker; writes `ppo/` and `ppo.jsonl`, a line an iteration."""
    import torch

    from training.rewardranker.ppo import ActorCritic, Learner, sample

    settings = recipe.ppo
    policy = ActorCritic(load_generator(start), recipe.iterate.temperature)
    reference, end = load_generator(start), encoder.tokenizer.eos_token_id
    learner = Learner(policy, reference, settings, end, bfloat16=True)
    state = TrainingState(run.path("ppo.state.pt"), policy, learner.optimiser)
    resumed = run.resumable_key("ppo", digest(settings, recipe.iterate, recipe.seed, reranker.revision))
    first = state.load() if resumed else 0
    log = [r for r in read_jsonl(run.path("ppo.jsonl")) if r["iteration"] <= first] if first else []
    ids = [prompt_ids(encoder, problem.prompt) for problem in problems]
    progress = Progress(run, "ppo", settings.iterations)
    for number in range(first, settings.iterations):
        seed = seed_of(recipe.seed, "ppo", reranker.revision, number)
        picks = random.Random(seed).sample(range(len(problems)), min(settings.prompts, len(problems)))
        picks = [at for at in picks for _ in range(settings.samples)]
        made = sample(policy.model, [ids[at] for at in picks], recipe.iterate, end, seed)
        texts = [text_of(encoder, tokens) for tokens in made]
        scores = []
        for at in range(0, len(picks), settings.samples):
            scores += scores_of(reranker, problems[picks[at]].prompt, texts[at : at + settings.samples])
        found = learner.learn([ids[at] for at in picks], made, scores, torch.Generator().manual_seed(seed))
        log.append({"iteration": number + 1, **{name: round(value, 5) for name, value in found.items()}})
        write_jsonl(run.path("ppo.jsonl"), log)
        progress.at(number + 1, json.dumps(log[-1]))
        state.save_if_due(number + 1)
    save_generator(policy.model, encoder.tokenizer, run.path("ppo/config.json").parent)
    state.remove()
    return {
        "iterations": len(log),
        "first_score": log[0]["score"],
        "last_score": log[-1]["score"],
        "last_kl": log[-1]["kl"],
    }
