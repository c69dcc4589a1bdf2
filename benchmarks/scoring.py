"""What sharing a prompt is worth: ways to score groups of completions, in one process, on one thread, in turns.

Every way scores the same groups with the same weights, from token ids. The groups are new in every round, the ways
change places from round to round, and a round counts only if all ways agree with Hugging Face's plain forward, one
sequence at a time, within 1e-4. Time is CPU time of the process, so that neighbours on the machine weigh less.

    padded    Hugging Face, 32 sequences a batch, in the order of arrival, padded to the longest
    sorted    Hugging Face, sorted by length, padded batches of at most 4,096 tokens
    alone     Hugging Face, one sequence at a time
    unshared  plaudit, deterministic: one sequence at a time, only the pooled token meets the head
    shared    plaudit as served: what sequences begin with in common is computed once
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from service.scoring.packing import pack
from service.scoring.reward_model import Encoded, RewardModel, RewardModelSpec

ROOT = Path(__file__).resolve().parent.parent
MINI = ROOT / "models" / "plaudit-mini"
BOUND = 1e-4
BATCH, BUDGET = 32, 4096
UNSHARED = ("padded", "sorted", "alone", "unshared")
VOCABULARY = 8192
# layers, width: 17 million parameters with their embeddings, and 42 million
SHAPES = {"17M": (8, 384), "42M": (12, 512)}
Ids = tuple[int, ...]


def write_random(folder: Path, layers: int, width: int) -> Path:
    """A checkpoint folder of Qwen2's shape with random weights, and a tokenizer that knows its ids by number."""
    from tokenizers import Tokenizer, models

    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 128, max_position_embeddings=2048, num_labels=1,
        pad_token_id=0,
    )  # fmt: skip
    model = transformers.Qwen2ForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=0.05)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({str(at): at for at in range(VOCABULARY)}, unk_token="0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0").save_pretrained(folder)
    RewardModelSpec("{prompt}{completion}", 2048, "Qwen2ForSequenceClassification").write(folder / "reward_model.json")
    return folder


class Ways:
    """The five ways over one checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.plain: Any = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self.plain.eval()
        self.pad: int = self.plain.config.pad_token_id
        self.served = RewardModel.load(folder)
        self.bare = RewardModel.load(folder, deterministic=True)
        if self.served.unshared is not None:
            raise SystemExit(f"{folder.name} is not shared: {self.served.unshared}")
        self.by_name: dict[str, Callable[[list[Ids]], list[float]]] = {
            "padded": self.padded, "sorted": self.sorted, "alone": self.alone,
            "unshared": lambda batch: self.bare.score([Encoded(ids, 0, truncated=False) for ids in batch]),
            "shared": lambda batch: self.served.score([Encoded(ids, 0, truncated=False) for ids in batch]),
        }  # fmt: skip

    @torch.inference_mode()
    def rectangle(self, batch: list[Ids]) -> list[float]:
        longest = max(map(len, batch))
        ids = torch.tensor([[*one, *[self.pad] * (longest - len(one))] for one in batch])  # (B, T)
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in batch])  # (B, T)
        logits = self.plain(input_ids=ids, attention_mask=mask, use_cache=False).logits  # (B, 1)
        return [float(score) for score in logits[:, 0]]

    def padded(self, batch: list[Ids]) -> list[float]:
        return [score for at in range(0, len(batch), BATCH) for score in self.rectangle(batch[at : at + BATCH])]

    def sorted(self, batch: list[Ids]) -> list[float]:
        order = sorted(range(len(batch)), key=lambda at: len(batch[at]))
        scores = [0.0] * len(batch)
        while order:
            count = 1
            while count < len(order) and len(batch[order[count]]) * (count + 1) <= BUDGET:
                count += 1
            part, order = order[:count], order[count:]
            for at, score in zip(part, self.rectangle([batch[at] for at in part]), strict=True):
                scores[at] = score
        return scores

    def alone(self, batch: list[Ids]) -> list[float]:
        return [self.rectangle([ids])[0] for ids in batch]


@dataclass
class Cell:
    """One shape of group, and the CPU-seconds of every way in every round."""

    prompt: int
    completions: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in (*UNSHARED, "shared")})
    tokens: list[int] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)  # tokens given over tokens computed
    worst: float = 0.0

    def ratio(self, over: tuple[str, ...]) -> float:
        """Median over rounds of the best of these ways over the shared one."""
        rounds = zip(*(self.seconds[name] for name in over), strict=True)
        return statistics.median(min(r) / s for r, s in zip(rounds, self.seconds["shared"], strict=True))

    def row(self) -> str:
        rates = (statistics.median(t / s for t, s in zip(self.tokens, self.seconds[name], strict=True))
                 for name in self.seconds)  # fmt: skip
        return (f"| {self.prompt} | {self.completions} | " + " | ".join(f"{rate:,.0f}" for rate in rates)
                + f" | **{self.ratio(UNSHARED):.2f}** | {self.ratio(('padded',)):.2f} | "
                f"{statistics.median(self.bounds):.2f} | {self.worst:.1e} |")  # fmt: skip


def group(draw: random.Random, cell: Cell, limit: int) -> list[Ids]:
    """A prompt with log-normal completions (median 100 tokens), none of them with the pad token."""
    prompt = draw.choices(range(1, 4096), k=cell.prompt)
    lengths = [max(8, min(int(draw.lognormvariate(4.6, 0.6)), limit - cell.prompt)) for _ in range(cell.completions)]
    return [(*prompt, *draw.choices(range(1, 4096), k=length)) for length in lengths]


def measure(ways: Ways, cells: list[Cell], rounds: int, limit: int) -> None:
    draw = random.Random(0)
    names = list(ways.by_name)
    for name in names:
        ways.by_name[name](group(draw, Cell(16, 2), limit))
    for turn in range(rounds):
        for cell in cells:
            batch = group(draw, cell, limit)
            scores: dict[str, list[float]] = {}
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                began = time.process_time()
                scores[name] = ways.by_name[name](batch)
                cell.seconds[name].append(time.process_time() - began)
            worst = max(abs(a - b) for name in names for a, b in zip(scores[name], scores["alone"], strict=True))
            if worst > BOUND:
                raise SystemExit(f"prompt {cell.prompt}, {cell.completions} completions: scores differ by {worst:.2g}")
            cell.worst = max(cell.worst, worst)
            packing = pack(batch)
            cell.tokens.append(packing.num_given)
            cell.bounds.append(packing.num_given / packing.num_computed)


def table(title: str, cells: list[Cell]) -> str:
    head = ("| prompt | N | padded | sorted | alone | unshared | shared | shared ÷ best other | shared ÷ padded "
            "| token bound | max \\|Δ\\| |")  # fmt: skip
    return "\n".join([f"**{title}**", "", head, "|--:" * 11 + "|", *(cell.row() for cell in cells)])


def cpu() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small model, two shapes, a minute or so")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mini", type=Path, default=MINI, help="a checkpoint to measure as well, if it is there")
    parser.add_argument("--out", type=Path, help="write the tables here as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    shapes = [(64, 4), (256, 8)] if arguments.quick else [(64, 1), (64, 16), (256, 8), (256, 32), (256, 64), (1024, 8)]
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        runs: list[tuple[str, Path, list[tuple[int, int]], int]] = [
            ("Random weights, 17M parameters", write_random(Path(folder, "17M"), *SHAPES["17M"]), shapes, 2048)
        ]
        if not arguments.quick:
            runs.append(("Random weights, 42M parameters", write_random(Path(folder, "42M"), *SHAPES["42M"]),
                         [(256, 32)], 2048))  # fmt: skip
            if arguments.mini.is_dir():
                runs.append((arguments.mini.name, arguments.mini, [(256, 8), (256, 32)], 1024))
        for title, path, chosen, limit in runs:
            cells = [Cell(*shape) for shape in chosen]
            measure(Ways(path), cells, arguments.rounds, limit)
            parts.append(table(title, cells))
            print(parts[-1], end="\n\n", flush=True)
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    note = (f"Real tokens per CPU-second (a prompt counts for every completion), float32, one torch thread, median of "
            f"{arguments.rounds} rounds; ratios are medians of the rounds' own. {cpu()}, torch {torch.__version__}, "
            f"transformers {transformers.__version__}, {when}; a shared machine.")  # fmt: skip
    print(note)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        command = "python benchmarks/scoring.py" + (" --quick" if arguments.quick else "")
        text = "\n\n".join(["# Scoring in one process", f"`{command}`. {(__doc__ or '').strip()}", *parts, note])
        arguments.out.write_text(text.replace("\n    ", "\n- ") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
