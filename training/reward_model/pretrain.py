"""`pretrain`: a small Qwen2 language model from nothing, on functions in the reward model's form.

One thread, bfloat16 products under float32 weights, sequences sorted into batches of like length so that little is
padded. Right padding needs no mask: attention is causal, and padded targets are left out of the loss. The state is
saved every few minutes; a killed run goes on from there with the same order of batches.
"""

from __future__ import annotations

import ctypes
import math
import random
import time
from pathlib import Path
from typing import Any

from service.scoring.encoder import load_tokenizer
from training.pipeline.config import Recipe
from training.pipeline.digests import content_key
from training.pipeline.files import read_jsonl
from training.pipeline.progress import StageProgress
from training.pipeline.run import Run

IGNORED = -100
SAVE_EVERY_S = 120.0
SOLUTION_PASSES = 2  # how often the training problems' passing programs are repeated in a pass


def pretrain(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `pretrained/`: weights and tokenizer of the language model."""
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
    settings = recipe.pretrain
    tokenizer = load_tokenizer(run.path("tokenizer"))
    rows = list(read_jsonl(run.path("text.jsonl")))
    plan = batches(rows, recipe)
    torch.manual_seed(recipe.seed)
    model = new_model(recipe, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    state_path = run.path("pretrain.state.pt")
    resumed = run.resumable_key("pretrain", content_key(settings, recipe.seed, len(rows)))
    first = load_state(state_path, model, optimiser) if resumed else 0
    progress = StageProgress(run, "pretrain", sum(map(len, plan)))
    saved, done, loss_sum, loss_steps = time.monotonic(), sum(map(len, plan[:first])), 0.0, 0
    tail = max(1, len(plan) // 20)
    for step, batch in enumerate(plan[first:], start=first):
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * schedule(step / len(plan), settings.warmup)
        loss = train_step(model, optimiser, [rows[at]["ids"] for at in batch], settings.sequence_tokens)
        done += len(batch)
        if step >= len(plan) - tail:
            loss_sum, loss_steps = loss_sum + loss, loss_steps + 1
        progress.at(done, f"loss {loss:.3f}")
        if time.monotonic() - saved > SAVE_EVERY_S:
            save_state(state_path, model, optimiser, step + 1)
            saved = time.monotonic()
    model.save_pretrained(run.path("pretrained"))
    tokenizer.save_pretrained(run.path("pretrained"))
    state_path.unlink(missing_ok=True)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": len(plan),
        "sequences": done,
        "tokens": sum(min(len(rows[at]["ids"]), settings.sequence_tokens) for batch in plan for at in batch),
        "final_loss": round(loss_sum / max(loss_steps, 1), 4),
    }


def new_model(recipe: Recipe, vocab_size: int, pad_token_id: int, eos_token_id: int) -> Any:
    """A Qwen2 causal language model with tied embeddings and random weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

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
    """Indices of the rows of every step, up to `max_tokens`: shuffled passes, cut into batches of like length."""
    settings = recipe.pretrain
    draw = random.Random(recipe.seed)
    lengths = [min(len(row["ids"]), settings.sequence_tokens) for row in rows]
    corpus = [at for at, row in enumerate(rows) if row["kind"] != "solution"]
    solutions = [at for at, row in enumerate(rows) if row["kind"] == "solution"]
    plan: list[list[int]] = []
    budget = settings.max_tokens
    while budget > 0 and rows:
        order = corpus + solutions * SOLUTION_PASSES
        draw.shuffle(order)
        # Sorting inside a window of many batches keeps padding low and the order of lengths random.
        window = 16 * settings.batch_tokens // max(1, sum(lengths) // len(lengths))
        a_pass: list[list[int]] = []
        for start in range(0, len(order), window):
            a_pass += pack(sorted(order[start : start + window], key=lambda at: lengths[at]), lengths, settings)
        draw.shuffle(a_pass)
        for batch in a_pass:
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


def train_step(model: Any, optimiser: Any, sequences: list[list[int]], limit: int) -> float:
    """One optimiser step on these sequences; the mean next-token loss."""
    import torch
    from torch.nn import functional

    longest = min(limit, max(map(len, sequences)))
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)  # (B, T)
    targets = torch.full((len(sequences), longest), IGNORED)  # (B, T)
    for at, sequence in enumerate(sequences):
        cut = torch.tensor(sequence[:longest])
        ids[at, : len(cut)] = cut
        targets[at, : len(cut)] = cut
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state  # (B, T, H)
        known = targets[:, 1:] != IGNORED
        logits = model.lm_head(hidden[:, :-1][known])  # (K, V)
    loss = functional.cross_entropy(logits.float(), targets[:, 1:][known])
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return float(loss.detach())


def keep_freed_memory() -> None:
    """Tell glibc to keep large blocks: batches of ever new shapes otherwise pay for fresh pages each time (a tenth)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def schedule(at: float, warmup: float) -> float:
    """Share of the peak learning rate: linear up, then a cosine down to a twentieth."""
    if at < warmup:
        return (at + 1e-3) / (warmup + 1e-3)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (at - warmup) / (1 - warmup)))


def save_state(path: Path, model: Any, optimiser: Any, step: int) -> None:
    import torch

    scratch = path.with_suffix(".writing")
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, scratch)
    scratch.replace(path)


def load_state(path: Path, model: Any, optimiser: Any) -> int:
    """Restore a saved state; the step to go on with, 0 if none was saved."""
    import torch

    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
