"""How far a score is from the one that the sequence has alone, over random groups on random models of several families.

    reference   Hugging Face's `…ForSequenceClassification`, one sequence at a time, in float32
    alone       the same in the model's own type (in bfloat16 that is what rounding costs with no help of ours)
    shared      our engine, one batch of a group: what begins alike is computed once
    company     the group with one or two others in its batch, against `shared`
    order       the group in another order, against `shared`
    singles     our engine, each sequence in a batch of its own, against `shared`: what sharing alone does
    kept        our engine, the group in pieces of one to four, batches of their own, the prompt kept from the first of
                them (not under a sliding window), against the reference
    fixed       `deterministic` in all of these companies and orders, against itself
    unshared    `deterministic`, one sequence at a time, against the reference

Five families have a hundred groups in float32. Groups have 1 to 64 completions; prompts and completions are random ids,
from one token to the model's maximum, half of the completions with a common beginning. Float32 fails above 1e-4 (exit
code 1). In bfloat16 nothing but `fixed` fails: the largest and the 99th percentile of every difference are printed
beside the spread of the scores, the pairs of a group that change their order (of those that differ at all), and
`parity.max_batch_error`, which a worker publishes for this checkpoint: its own measurement of `singles`.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import random
import statistics
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from shapes import VOCABULARY, write_tokenizer

from service.scoring.reward_model import Encoded, RewardModel, RewardModelSpec

BOUND = 1e-4
LIMIT, WINDOW = 256, 64
Ids = tuple[int, ...]
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_labels": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LIMIT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Qwen2": {},
    "Qwen3": {"head_dim": 24},
    "Llama": {"num_key_value_heads": 4},
    "Mistral": {"sliding_window": WINDOW},
    "Gemma": {"num_key_value_heads": 1, "head_dim": 32},
    "Phi": {},
    "Phi3": {},
    "Gemma3Text": {"head_dim": 16, "sliding_window": WINDOW},
}
FIVE = ("Qwen2", "Qwen3", "Llama", "Mistral", "Gemma")
GROUPS = {"float32": 100, "bfloat16": 20}  # for each of the five
OTHERS = 20  # for each of the other families


def write_family(folder: Path, family: str) -> Path:
    """A checkpoint of this family with random weights, whose scores have a standard deviation of about 4."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SHAPE | FAMILIES[family])
    model = getattr(transformers, f"{family}ForSequenceClassification")(config)
    torch.nn.init.normal_(model.score.weight, std=4 / SHAPE["hidden_size"] ** 0.5)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    RewardModelSpec("{prompt}{completion}", LIMIT, family).write(folder / "reward_model.json")
    return folder


def group(draw: random.Random) -> tuple[Ids, list[Ids]]:
    """A prompt, and sequences that begin with it, but for one now and then that is cut short."""

    def some(most: int) -> Ids:
        length = min(most, int(2 ** draw.uniform(0, most.bit_length())))  # as many short ones as long ones
        return tuple(draw.choices(range(3, VOCABULARY), k=length))

    prompt, stem = some(LIMIT // 2), some(32)
    made = [
        (*prompt, *(stem if draw.random() < 0.5 else ()), *some(LIMIT))[:LIMIT]
        for _ in range(min(64, round(2 ** draw.uniform(0, 6.3))))
    ]
    if draw.random() < 0.2:
        made[0] = made[0][:1]
    return prompt, made


class Differences:
    """Absolute differences by name."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, ours: list[float], theirs: list[float]) -> None:
        self.found[name] += [abs(one - other) for one, other in zip(ours, theirs, strict=True)]

    def worst(self, name: str) -> float:
        return max(self.found[name])

    def tail(self, name: str) -> float:
        return statistics.quantiles(self.found[name], n=100, method="inclusive")[-1]


def flips(scores: list[float], reference: list[float]) -> tuple[int, int]:
    """Pairs whose order is another one, of those that differ in the reference."""
    pairs = [(a, b) for a, b in itertools.combinations(range(len(scores)), 2) if reference[a] != reference[b]]
    return sum((scores[a] - scores[b]) * (reference[a] - reference[b]) < 0 for a, b in pairs), len(pairs)


@torch.inference_mode()
def measure(folder: Path, dtype: str, groups: int) -> dict[str, Any]:
    """Everything about one family in one type."""
    kind = transformers.AutoModelForSequenceClassification
    exact = kind.from_pretrained(folder).eval()
    plain = exact if dtype == "float32" else kind.from_pretrained(folder, dtype=torch.bfloat16).eval()
    shared, fixed = RewardModel.load(folder, dtype=dtype), RewardModel.load(folder, dtype=dtype, deterministic=True)
    kept = RewardModel.load(folder, dtype=dtype, max_prompt_bytes=2**22)
    assert shared.prefix_sharing_disabled_reason is None, shared.prefix_sharing_disabled_reason
    parity = shared.check_golden()
    draw, found = random.Random(folder.name), Differences()
    spread: list[float] = []
    turned, pairs, before = 0, 0, shared.num_shared
    lengths, sizes = set[int](), set[int]()
    for at in range(groups):
        prompt, ids = group(draw)
        others = [one for _ in range(draw.randint(1, 2)) for one in group(draw)[1][:8]]
        order = draw.sample(range(len(ids)), len(ids))
        reference = [exact(torch.tensor([one])).logits.item() for one in ids]
        alone = reference if plain is exact else [plain(torch.tensor([one])).logits.float().item() for one in ids]
        batch, company = encoded(ids), encoded([*others, *ids])
        scores = shared.score(batch)
        found.add("shared", scores, reference)
        found.add("alone", alone, reference)
        found.add("company", shared.score(company)[len(others) :], scores)
        found.add("kept", in_pieces(kept, draw, prompt, ids), reference)
        found.add("order", shared.score([batch[at] for at in order]), [scores[at] for at in order])
        if at % 5 == 0:
            found.add("singles", [shared.score([one])[0] for one in batch], scores)
        bits = fixed.score(batch)
        found.add("unshared", bits, reference)
        if at % 5 == 0:
            found.add("fixed", fixed.score(company)[len(others) :], bits)
            found.add("fixed", fixed.score([batch[at] for at in order]), [bits[at] for at in order])
        spread += reference
        lengths |= set(map(len, ids))
        sizes.add(len(ids))
        one, all_of = flips(scores, reference)
        turned, pairs = turned + one, pairs + all_of
    assert shared.num_shared > before
    assert kept.prompts.hits or groups < 20 or "sliding_window" in FAMILIES[folder.name]
    assert groups < 100 or ({1, LIMIT} <= lengths and {1, 64} <= sizes), "from one to the maximum"
    return {
        "found": found,
        "sd": statistics.pstdev(spread),
        "company": parity.max_batch_error,
        "flips": turned / pairs,
        "n": len(spread),
    }


def in_pieces(model: RewardModel, draw: random.Random, prompt: Ids, ids: list[Ids]) -> list[float]:
    batch = [Encoded(one, min(len(prompt), len(one)), truncated=False) for one in ids]
    scores: list[float] = []
    while len(scores) < len(batch):
        scores += model.score(batch[len(scores) : len(scores) + draw.randint(1, 4)])
    return scores


def encoded(sequences: list[Ids]) -> list[Encoded]:
    return [Encoded(ids, 0, truncated=False) for ids in sequences]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--groups", type=int, help="for each family, instead of the usual")
    parser.add_argument("--out", type=Path, help="write the tables here as well")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    names = ("shared", "kept", "unshared", "company", "order", "singles", "fixed")
    lines, failed, total = [], False, 0
    with tempfile.TemporaryDirectory() as temporary:
        folders = {family: write_family(Path(temporary, family), family) for family in FAMILIES}
        for dtype, groups in GROUPS.items():
            rough = dtype != "float32"
            columns = [*names, *(["alone", "published `max_batch_error`", "pairs turned"] if rough else [])]
            lines += [
                "",
                f"## {dtype}",
                "",
                "| family | scores | sd | " + " | ".join(columns) + " |",
                "|---" * (len(columns) + 3) + "|",
            ]
            for family, folder in folders.items():
                many = flags.groups or (groups if family in FIVE else OTHERS)
                one = measure(folder, dtype, many)
                print(f"{family}: {many} groups in {dtype}", file=sys.stderr, flush=True)
                found = one["found"]
                cells = [
                    f"{found.worst(name):.1e}" if not rough else f"{found.worst(name):.2g} ({found.tail(name):.2g})"
                    for name in names
                ]
                if rough:
                    cells += [
                        f"{found.worst('alone'):.2g} ({found.tail('alone'):.2g})",
                        f"{one['company']:.2g}",
                        f"{one['flips']:.2%}",
                    ]
                else:
                    failed |= max(found.worst(name) for name in names) > BOUND
                    total += many
                failed |= found.worst("fixed") > 0
                lines.append(f"| {family} | {one['n']:,} | {one['sd']:.1f} | " + " | ".join(cells) + " |")
                gc.collect()
    from overhead import machine

    lines[1:1] = [
        "",
        f"{total} groups in float32: **{'FAILED' if failed else 'every difference within 1e-4'}**; "
        "`fixed` must be exactly 0. In bfloat16: largest difference (99th percentile).",
        "",
    ]
    text = "\n".join(lines).strip()
    note = (
        f"One torch thread. {machine()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{datetime.now(UTC):%Y-%m-%d}."
    )
    print(f"{text}\n\n{note}")
    if flags.out:
        about = (__doc__ or "").strip().replace("\n    ", "\n- ")
        head = f"# Exactness of scoring\n\n`python benchmarks/exactness.py`. {about}"
        flags.out.write_text(f"{head}\n\n{text}\n\n{note}\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
