"""`pretrain`: a small Qwen2 language model from scratch, on functions in the reward model's form.

- One thread, bfloat16 products under float32 weights, batches of similar length so that little is padded.
- Beside the next token it learns what `objectives` names, where the text has targets for that.
- The state is saved every few minutes; a killed run resumes there, with the same order of batches.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from service.scoring.tokenizer import load_tokenizer
from training.pipeline.config import Recipe
from training.pipeline.digests import content_key
from training.pipeline.files import read_jsonl
from training.pipeline.progress import StageProgress
from training.pipeline.run import Run
from training.reward_model.checkpointing import TrainingState
from training.reward_model.objectives import Objectives, SummaryHead
from training.reward_model.optimization import cosine_schedule, keep_freed_memory, set_learning_rate

SOLUTION_PASSES = 2  # how often the training problems' passing programs are repeated in a pass


def pretrain(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `pretrained/`: weights and tokenizer of the language model. `final_*`: means over the last twentieth."""
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = recipe.pretrain
    tokenizer = load_tokenizer(run.path("tokenizer"))
    rows = list(read_jsonl(run.path("text.jsonl")))
    plan = batches(rows, recipe)
    torch.manual_seed(recipe.seed)
    model = new_model(recipe, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    told = settings.summary and any("flaw" in row for row in rows)
    summary = SummaryHead(settings.hidden_size, rows) if told else None
    objectives = Objectives(model, summary, settings.summary)
    optimiser = torch.optim.AdamW(
        objectives.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    state = TrainingState(run.path("pretrain.state.pt"), objectives, optimiser)
    first = state.load() if run.resumable_key("pretrain", content_key(settings, recipe.seed, len(rows))) else 0
    progress = StageProgress(run, "pretrain", sum(map(len, plan)))
    num_sequences, tail = sum(map(len, plan[:first])), max(1, len(plan) // 20)
    final: dict[str, list[float]] = defaultdict(list)
    for step, batch in enumerate(plan[first:], start=first + 1):
        set_learning_rate(optimiser, settings.lr * cosine_schedule((step - 1) / len(plan), settings.warmup))
        losses = train_step(objectives, optimiser, [rows[at] for at in batch], settings.sequence_tokens)
        num_sequences += len(batch)
        if step > len(plan) - tail:
            for name, value in losses.items():
                final[f"final_{name}"].append(value)
        progress.at(num_sequences, ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))
        state.save_if_due(step)
    model.save_pretrained(run.path("pretrained"))
    tokenizer.save_pretrained(run.path("pretrained"))
    state.remove()
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": len(plan),
        "sequences": num_sequences,
        "tokens": sum(min(len(rows[at]["ids"]), settings.sequence_tokens) for batch in plan for at in batch),
        **{name: round(sum(values) / len(values), 4) for name, values in final.items()},
    }


def new_model(recipe: Recipe, vocab_size: int, pad_token_id: int, eos_token_id: int) -> Any:
    """A Qwen2 causal language model with tied embeddings and random weights."""
    shape = recipe.pretrain
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            num_key_value_heads=shape.num_heads,
            max_position_embeddings=recipe.fit.max_length,
            tie_word_embeddings=True,
            pad_token_id=pad_token_id,
            eos_token_id=eos_token_id,
            use_cache=False,
            bos_token_id=None,
        )
    )


def batches(rows: list[dict[str, Any]], recipe: Recipe) -> list[list[int]]:
    """Row indices of every step, up to `max_tokens` in all: shuffled passes, cut into batches of similar length.

    Args:
        rows: `ids` (token ids) and `kind`; solutions are repeated `solution_passes` times per pass.
    """
    settings = recipe.pretrain
    rng = random.Random(recipe.seed)
    lengths = [min(len(row["ids"]), settings.sequence_tokens) for row in rows]
    corpus = [at for at, row in enumerate(rows) if row["kind"] != "solution"]
    solutions = [at for at, row in enumerate(rows) if row["kind"] == "solution"]
    plan: list[list[int]] = []
    budget = int(sum(lengths) * settings.passes) or settings.max_tokens
    while budget > 0 and rows:
        order = corpus + solutions * SOLUTION_PASSES
        rng.shuffle(order)
        # Sorting inside a window of many batches keeps padding low and the order of lengths random
        window = 16 * settings.batch_tokens // max(1, sum(lengths) // len(lengths))
        batches_of_pass: list[list[int]] = []
        for start in range(0, len(order), window):
            batches_of_pass += pack(
                sorted(order[start : start + window], key=lambda at: lengths[at]), lengths, settings
            )
        rng.shuffle(batches_of_pass)
        for batch in batches_of_pass:
            if budget <= 0:
                break
            plan.append(batch)
            budget -= sum(lengths[at] for at in batch)
    return plan


def pack(order: list[int], lengths: list[int], settings: Any) -> list[list[int]]:
    """Runs of `order` whose padded rectangle holds at most `batch_tokens`."""
    packed: list[list[int]] = [[]]
    longest = 0
    for at in order:
        longest = max(longest, lengths[at])
        if packed[-1] and longest * (len(packed[-1]) + 1) > settings.batch_tokens:
            packed.append([])
            longest = lengths[at]
        packed[-1].append(at)
    return [batch for batch in packed if batch]


def train_step(objectives: Objectives, optimiser: Any, rows: list[dict[str, Any]], limit: int) -> dict[str, float]:
    """One optimiser step on rows of the text, each cut at `limit` tokens. Returns the mean losses by name."""
    losses = objectives(rows, limit)
    torch.autograd.backward(losses.pop("total"))
    torch.nn.utils.clip_grad_norm_(objectives.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return {name: float(loss.detach()) for name, loss in losses.items()}
