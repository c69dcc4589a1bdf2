"""Generators of `iterate`: loading, sampling, supervised fine-tuning (SFT), and PPO against a reranker.

- A generator is the run's own language model, or any causal language model of transformers (`iterate.generator`);
  `generator_text` makes its token ids.
- Every sample is a function of its seed alone: a step that was killed and is run again samples the same completions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from service.scoring.reward_model import RewardModel
from training.pipeline.config import Recipe, result_fields
from training.pipeline.digests import content_key
from training.pipeline.progress import StageProgress
from training.pipeline.records import Problem
from training.pipeline.run import Run
from training.reward_model.checkpointing import TrainingState
from training.reward_model.metrics_log import MetricsLog
from training.reward_model.objectives import Objectives
from training.reward_model.optimization import cosine_schedule, keep_freed_memory, set_learning_rate
from training.reward_model.pretrain import pack, train_step
from training.rewardranker.generator_text import GeneratorText, completion_text
from training.rewardranker.ppo import ActorCritic, PPOTrainer, generate

SFT_LR = 3e-4  # peak learning rate of the supervised fine-tuning
BATCH = 128  # completions sampled at once


def seed_of(*parts: object) -> int:
    """A 32-bit seed, the digest of these parts."""
    return int(content_key(*parts)[:8], 16)


def load_generator(folder: Path) -> Any:
    """The causal language model in this folder, in float32 and evaluation mode, on one CPU thread."""
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    keep_freed_memory()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def save_generator(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights and tokenizer, as transformers, TRL and vLLM load them."""
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def sample_completions(
    model: Any,
    text: GeneratorText,
    problems: Sequence[Problem],
    num_samples: int,
    recipe: Recipe,
    run: Run,
    name: str,
    *,
    greedy: bool = False,
) -> list[list[str]]:
    """Sample from a generator.

    Args:
        model: the generator.
        text: makes its token ids.
        problems: their prompts are continued.
        num_samples: completions per problem.
        recipe: temperature, `iterate.max_new_tokens`, seed.
        run: for the progress.
        name: of the step; part of the seed.
        greedy: take the most likely token instead of sampling.

    Returns:
        texts of the completions of every problem, in the order of `problems`.
    """
    prompts = [text.prompt_ids(problem) for problem in problems for _ in range(num_samples)]
    progress, texts = StageProgress(run, name, len(prompts)), list[str]()
    for start in range(0, len(prompts), BATCH):
        seed = seed_of(recipe.seed, name, start)
        completions = generate(model, prompts[start : start + BATCH], recipe.iterate, text.end, seed, greedy=greedy)
        texts += [completion_text(text, ids) for ids in completions]
        progress.at(len(texts))
    return [texts[at : at + num_samples] for at in range(0, len(texts), num_samples)]


def fine_tune(
    recipe: Recipe, run: Run, text: GeneratorText, start: Path, documents: Sequence[tuple[Problem, str]]
) -> dict[str, Any]:
    """SFT of the generator in `start` on (problem, completion) pairs by the next-token loss; writes `iterate/sft/`."""
    settings = recipe.iterate
    model = load_generator(start).train()
    rows = [{"ids": text.document_ids(problem, completion)} for problem, completion in documents]
    rng, order = random.Random(recipe.seed), list(range(len(rows)))
    plan: list[list[int]] = []
    for _ in range(settings.sft_epochs):
        rng.shuffle(order)
        plan += pack(order, [len(row["ids"]) for row in rows], recipe.pretrain)
    optimiser = torch.optim.AdamW(model.parameters(), lr=SFT_LR, betas=(0.9, 0.95), weight_decay=0.0)
    objectives, loss = Objectives(model), 0.0
    progress = StageProgress(run, "sft", len(plan))
    for step, batch in enumerate(plan):
        set_learning_rate(optimiser, SFT_LR * cosine_schedule(step / len(plan), 0.05))
        batch_rows = [rows[at] for at in batch]
        loss = train_step(objectives, optimiser, batch_rows, recipe.pretrain.sequence_tokens)["loss"]
        progress.at(step + 1, f"loss {loss:.3f}")
    save_generator(model, text.tokenizer, run.path("iterate/sft/config.json").parent)
    return {"documents": len(rows), "steps": len(plan), "loss": round(loss, 4)}


def score_completions(reranker: RewardModel, prompt: str, completions: Sequence[str]) -> list[float]:
    """The served score of each completion; equal texts are scored once."""
    texts = list(dict.fromkeys(completions))
    scores = reranker.score([reranker.encode(prompt, text, "truncate_left") for text in texts])
    by_text = dict(zip(texts, scores, strict=True))
    return [by_text[text] for text in completions]


def train_ppo(
    recipe: Recipe,
    run: Run,
    text: GeneratorText,
    problems: Sequence[Problem],
    start: Path,
    reranker: RewardModel,
) -> dict[str, Any]:
    """PPO against the reranker; writes `ppo/` and `ppo.jsonl`, a row per iteration.

    Args:
        recipe: the sections `ppo` and `iterate`.
        run: the round's folder.
        text: makes the generator's token ids.
        problems: prompts are drawn from them.
        start: folder of the generator to start from, which is also the reference of the KL penalty.
        reranker: the reward model.
    """
    settings = recipe.ppo
    policy = ActorCritic(load_generator(start), recipe.iterate.temperature)
    reference, end = load_generator(start), text.end
    trainer = PPOTrainer(policy, reference, settings, end, bfloat16=True)
    state = TrainingState(run.path("ppo.state.pt"), policy, trainer.optimiser)
    key = content_key(settings, recipe.iterate, recipe.seed, reranker.revision)
    first = state.load() if run.resumable_key("ppo", key) else 0
    ids = [text.prompt_ids(problem) for problem in problems]
    progress = StageProgress(run, "ppo", settings.iterations)
    with MetricsLog(run, "ppo", first, settings.trackers, result_fields(settings), count="iteration") as log:
        for number in range(first, settings.iterations):
            seed = seed_of(recipe.seed, "ppo", reranker.revision, number)
            picks = random.Random(seed).sample(range(len(problems)), min(settings.prompts, len(problems)))
            picks = [at for at in picks for _ in range(settings.samples)]
            completions = generate(policy.model, [ids[at] for at in picks], recipe.iterate, end, seed)
            texts = [completion_text(text, tokens) for tokens in completions]
            scores = []
            for at in range(0, len(picks), settings.samples):
                prompt = problems[picks[at]].prompt
                scores += score_completions(reranker, prompt, texts[at : at + settings.samples])
            metrics = trainer.step([ids[at] for at in picks], completions, scores, torch.Generator().manual_seed(seed))
            log.add({"iteration": number + 1, **{name: round(value, 5) for name, value in metrics.items()}})
            progress.at(number + 1, json.dumps(log.rows[-1]))
            state.save_if_due(number + 1)
    save_generator(policy.model, text.tokenizer, run.path("ppo/config.json").parent)
    state.remove()
    return {
        "iterations": len(log.rows),
        "first_score": log.rows[0]["score"],
        "last_score": log.rows[-1]["score"],
        "last_kl": log.rows[-1]["kl"],
    }
