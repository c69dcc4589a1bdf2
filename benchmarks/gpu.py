"""Scoring on a GPU, in turns in one process: what sharing gains there, and how near it comes to the hardware's ceiling.

    padded    Hugging Face's own forward in arrival order, 8 sequences at a time, padded on the right
    sorted    the same over sequences sorted by length
    unshared  our packed row without any sharing: variable-length kernels, no padding
    shared    as served: every common beginning once

A 0.5 B model of Qwen2.5's shape and one of 7 B, random weights, made in place. `tokens/s` counts all tokens that were
asked for, so sharing may exceed the ceiling of a forward; `FLOP/s` counts those that were computed (2 a weight and
token, and attention's two products), as a share of what a large matrix product reaches in the same run. Scores of the
last three are compared with the first's at a bound that bfloat16 allows; a speed whose scores are off is void.

`--tiny --device cpu` runs all of it in seconds, to see that it does.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch
import transformers
from overhead import machine

from service.scoring.attention import packed
from service.scoring.device import to_device
from service.scoring.packing import Ids, Packing, pack

SHAPES = {  # hidden, intermediate, layers, heads, key heads: Qwen2.5-0.5B and -7B
    "0.5B": (896, 4864, 24, 14, 2),
    "7B": (3584, 18944, 28, 28, 4),
}
TINY = (64, 128, 2, 4, 2)
VOCABULARY = 32_000
PADDED_BATCH = 8
ROW_TOKENS = 16_384
BOUND = 0.1  # of the spread of the scores


def model_of(shape: tuple[int, int, int, int, int], dtype: torch.dtype, device: torch.device) -> Any:
    """A backbone with random weights, and a head."""
    hidden, intermediate, layers, heads, key_heads = shape
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=8192,
        use_cache=False,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with device:
        backbone = transformers.Qwen2Model(config).eval().requires_grad_(requires_grad=False)
        head = torch.randn(hidden)
    torch.set_default_dtype(before)
    return backbone, head


def workload(prompt: int, completions: int, groups: int) -> list[Ids]:
    """Groups of one prompt with completions of log-normal lengths around 130 tokens."""
    draw = random.Random(f"{prompt}x{completions}")
    made = []
    for _ in range(groups):
        beginning = tuple(draw.choices(range(1, VOCABULARY), k=prompt))
        for _ in range(completions):
            length = max(8, min(1024, int(draw.lognormvariate(4.6, 0.6))))
            made.append((*beginning, *draw.choices(range(1, VOCABULARY), k=length)))
    return made


def padded(backbone: Any, head: torch.Tensor, sequences: list[Ids], *, by_length: bool = False) -> torch.Tensor:
    """Scores (N,) as a plain server computes them."""
    order = sorted(range(len(sequences)), key=lambda at: len(sequences[at])) if by_length else range(len(sequences))
    scores = torch.empty(len(sequences))
    for start in range(0, len(sequences), PADDED_BATCH):
        some = list(order)[start : start + PADDED_BATCH]
        longest = max(len(sequences[at]) for at in some)
        ids = to_device([[*sequences[at], *[0] * (longest - len(sequences[at]))] for at in some], head.device)  # (B, L)
        mask = to_device([[1] * len(sequences[at]) + [0] * (longest - len(sequences[at])) for at in some], head.device)
        hidden = backbone(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, L, H)
        last = hidden[torch.arange(len(some), device=head.device), mask.sum(1) - 1]  # (B, H)
        scores[some] = (last.float() @ head.float()).cpu()
    return scores


def row(backbone: Any, head: torch.Tensor, sequences: list[Ids], *, share: bool) -> tuple[torch.Tensor, list[Packing]]:
    """Scores (N,) by packed rows, and the rows."""
    scores, packings, start = torch.empty(len(sequences)), [], 0
    while start < len(sequences):
        stop, room = start, ROW_TOKENS
        while stop < len(sequences) and (stop == start or room >= len(sequences[stop])):
            room -= len(sequences[stop])
            stop += 1
        packing = pack(sequences[start:stop], max_depth=8 if share else 0)
        ids, positions = (to_device([part], head.device) for part in (packing.ids, packing.positions))
        with packed(backbone, packing):
            hidden = backbone(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state  # (1, T, H)
        scores[start:stop] = (hidden[0, to_device(packing.pooled, head.device)].float() @ head.float()).cpu()
        packings.append(packing)
        start = stop
    return scores, packings


def flops(backbone: Any, packings: list[Packing]) -> float:
    """Of these rows: two for each weight of a layer and token, and attention's two products."""
    config = backbone.config
    weights = sum(p.numel() for layer in backbone.layers for p in layer.parameters())
    width = config.num_attention_heads * backbone.layers[0].self_attn.head_dim
    total = 0.0
    for packing in packings:
        seen = sum(position + 1 for position in packing.positions)
        total += 2.0 * weights * len(packing.ids) + 4.0 * seen * width * config.num_hidden_layers
    return total


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ceiling(dtype: torch.dtype, device: torch.device, size: int) -> float:
    """FLOP/s of a square matrix product, the best of ten."""
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return 2.0 * size**3 / min(seconds(lambda: left @ right, device) for _ in range(10))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--prompts", nargs="*", type=int, default=[256, 1024])
    parser.add_argument("--completions", nargs="*", type=int, default=[8, 32, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="a model of two thin layers, one small load")
    flags = parser.parse_args()
    device, dtype = torch.device(flags.device), getattr(torch, flags.dtype)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    top = ceiling(dtype, device, 512 if flags.tiny else 8192)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {name}, torch {torch.__version__}, {flags.dtype}; a matrix product reaches "
        f"{top / 1e12:.3g} TFLOP/s\n"
    )
    print(
        "| model | prompt × completions | padded, tokens/s | sorted | unshared | shared | shared / best other "
        "| FLOP/s of the ceiling, unshared | shared | scores |"
    )
    print("|---|---|" + "---:|" * 8)
    for shape in ["tiny"] if flags.tiny else flags.shapes:
        backbone, head = model_of(TINY if flags.tiny else SHAPES[shape], dtype, device)
        for prompt in [32] if flags.tiny else flags.prompts:
            for completions in [4] if flags.tiny else flags.completions:
                sequences = workload(prompt, completions, 2 if flags.tiny else max(1, 128 // completions))
                found = line(shape, prompt, completions, backbone, head, sequences, flags.rounds, top, device)
                print(found, flush=True)
        del backbone, head


def line(
    shape: str,
    prompt: int,
    completions: int,
    backbone: Any,
    head: torch.Tensor,
    sequences: list[Ids],
    rounds: int,
    top: float,
    device: torch.device,
) -> str:
    """One row of the table: medians over the rounds, the ways in turns."""
    right = padded(backbone, head, sequences)
    found, rows = [padded(backbone, head, sequences, by_length=True)], {}
    for share in (False, True):
        scores, rows[share] = row(backbone, head, sequences, share=share)
        found.append(scores)
    off = float((torch.stack(found) - right).abs().max() / right.std())
    ways: dict[str, Callable[[], Any]] = {
        "padded": lambda: padded(backbone, head, sequences),
        "sorted": lambda: padded(backbone, head, sequences, by_length=True),
        "unshared": lambda: row(backbone, head, sequences, share=False),
        "shared": lambda: row(backbone, head, sequences, share=True),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            times[way].append(seconds(run, device))
    took = {way: statistics.median(values) for way, values in times.items()}
    asked = sum(map(len, sequences))
    best = min(took[way] for way in ways if way != "shared")
    of_peak = {
        kind: flops(backbone, rows[kind]) / took["shared" if kind else "unshared"] / top for kind in (False, True)
    }
    verdict = f"within {off:.2g} of their spread" if off <= BOUND else f"OFF by {off:.2g} of their spread: void"
    cells = [f"{asked / took[way]:,.0f}" for way in ways]
    return (
        f"| {shape} | {prompt} × {completions} | {' | '.join(cells)} | {best / took['shared']:.2f} "
        f"| {of_peak[False]:.0%} | {of_peak[True]:.0%} | {verdict} |"
    )


if __name__ == "__main__":
    main()
