"""What sharing a prompt is worth: ways to score groups of completions, on one thread each, in turns, in one run.

Every way scores the same texts with the same weights in float32. The groups are new in every round (no cache of scores
can answer, and no prompt is warm), the ways change places from round to round, and a way's time counts only where its
scores agree with Hugging Face's plain forward, one sequence at a time, within 1e-4. Time is CPU time, of this process
or of all processes of a server, so that neighbours on the machine weigh less.

    padded          Hugging Face, 32 sequences a batch, in the order of arrival, padded to the longest
    sorted          Hugging Face, sorted by length, padded batches of at most 4,096 tokens
    alone           Hugging Face, one sequence at a time
    unshared        plaudit, deterministic: one sequence at a time, only the pooled token meets the head
    shared          plaudit as served: what sequences begin with in common is computed once
    service         `plaudit up` over HTTP, a group a request: text in, scores out
    singles         `plaudit up` over HTTP, every completion a request of its own, all at once
    vllm            vLLM's CPU build over HTTP, token ids in, a group a request, prefix cache on
    infinity        infinity-emb over HTTP, `/rerank`, a group a request
    openrlhf-style  a synchronous reward server as OpenRLHF describes its own (peers/synchronous.py)
    litserve        LitServe over HTTP, every completion a request of its own, all at once

The first five run in this process and begin with token ids. infinity, the synchronous server and LitServe are tried
with batches of 1, 8 and 32 before the run and measured with their fastest. `--install` makes the environments of the
peers under `--environments`; a peer that is not there has a line that says so.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import platform
import random
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from peers.serving import PEERS, SIZES, Broken, Group, Server, install, interpreter, serving, told, versions

from service.scoring.packing import pack
from service.scoring.reward_model import Encoded, RewardModel, RewardModelSpec
from service.scoring.tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parent.parent
MINI = ROOT / "models" / "plaudit-mini"
BOUND = 1e-4
BATCH, BUDGET = 32, 4096
UNSHARED = ("padded", "sorted", "alone", "unshared")
OURS = (*UNSHARED, "shared", "service", "singles")
# 60 million parameters, of which 13 million are embeddings; mini's tokenizer fills the first 4,096 of them
LAYERS, WIDTH, VOCABULARY, LONGEST = 12, 512, 24576, 2048
# (of, over, at least): what is aimed at for prompts of 256 tokens with 32 completions
TARGETS = (
    ("shared", UNSHARED, 3.0),
    ("shared", ("padded",), 8.0),
    ("service", ("shared",), 0.9),
    ("singles", ("service",), 0.8),
    ("service", ("vllm",), 1.2),
    ("service", ("infinity",), 3.0),
)
AIMED = (256, 32)
Ids = tuple[int, ...]


def write_tokenizer(source: Path, folder: Path, longest: int) -> None:
    """The checkpoint's tokenizer, so that transformers 4 (infinity's) gives the same ids."""
    load_tokenizer(source).backend_tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": longest,
        "pad_token": "<|pad|>",
        "eos_token": "<|end|>",
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_mini(source: Path, folder: Path) -> Path:
    """The shipped checkpoint under that tokenizer's configuration."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(source / name, folder / name)
    spec = RewardModelSpec.read(source / "reward_model.json")  # what the peers compute: without the text's surface
    dataclasses.replace(spec, surface=None, golden=None).write(folder / "reward_model.json")
    write_tokenizer(source, folder, spec.max_length)
    return folder


def write_random(source: Path, folder: Path) -> Path:
    """A checkpoint of Qwen2's shape with random weights, under the template of the shipped one."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // 64,
        num_key_value_heads=WIDTH // 128,
        max_position_embeddings=LONGEST,
        num_labels=1,
        pad_token_id=0,
        dtype="float32",
    )
    model = transformers.Qwen2ForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=0.05)
    model.save_pretrained(folder)
    write_tokenizer(source, folder, LONGEST)
    template = RewardModelSpec.read(source / "reward_model.json").template
    RewardModelSpec(template, LONGEST, "Qwen2ForSequenceClassification").write(folder / "reward_model.json")
    return folder


class Texts:
    """Groups of real text, this repository's own sources, each of them new."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model
        self.draw = random.Random(0)
        packages = ("service", "sandbox", "training")
        sources = sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))
        text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
        self.corpus = model.encoder.tokenizer.encode(text, add_special_tokens=False, verbose=False)

    def cut(self, tokens: int) -> str:
        at = self.draw.randrange(len(self.corpus) - tokens)
        return str(self.model.encoder.tokenizer.decode(self.corpus[at : at + tokens]))

    def group(self, prompt: int, completions: int) -> Group:
        """A prompt of about so many tokens with log-normal completions (median 100 tokens)."""
        limit = self.model.max_length - prompt - 24  # what is cut out may be a few tokens longer when read again
        lengths = [max(8, min(int(self.draw.lognormvariate(4.6, 0.6)), limit)) for _ in range(completions)]
        text, answers = self.cut(prompt), [self.cut(length) for length in lengths]
        encoder = self.model.encoder
        ids = [encoder.encode(text, answer).ids for answer in answers]
        return Group(text, answers, [encoder.full_text(text, answer) for answer in answers], ids)


class Ways:
    """What runs in this process, over one checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.plain: Any = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self.plain.eval()
        self.pad: int = self.plain.config.pad_token_id
        self.served = RewardModel.load(folder)
        self.bare = RewardModel.load(folder, deterministic=True)
        if self.served.prefix_sharing_disabled_reason is not None:
            raise SystemExit(f"{folder.name} is not shared: {self.served.prefix_sharing_disabled_reason}")
        self.by_name: dict[str, Callable[[list[Ids]], list[float]]] = {
            "padded": self.padded,
            "sorted": self.sorted,
            "alone": self.alone,
            "unshared": lambda batch: self.bare.score([Encoded(ids, 0, truncated=False) for ids in batch]),
            "shared": lambda batch: self.served.score([Encoded(ids, 0, truncated=False) for ids in batch]),
        }

    def ask(self, name: str, group: Group) -> tuple[list[float], float]:
        began = time.process_time()
        scores = self.by_name[name](group.ids)
        return scores, time.process_time() - began

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
    seconds: dict[str, list[float]] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)  # tokens given over tokens computed
    worst: float = 0.0

    def rate(self, name: str) -> str:
        """Median of real tokens per CPU-second; a dash for what was not measured."""
        if name not in self.seconds:
            return "–"
        return f"{statistics.median(t / s for t, s in zip(self.tokens, self.seconds[name], strict=True)):,.0f}"

    def ratio(self, of: str, over: tuple[str, ...]) -> float:
        """Median over rounds of the best of those ways' time over this one's; NaN where one was not measured."""
        if not {of, *over} <= self.seconds.keys():
            return math.nan
        rounds = zip(*(self.seconds[name] for name in over), strict=True)
        return float(statistics.median(min(r) / s for r, s in zip(rounds, self.seconds[of], strict=True)))

    def row(self, names: Iterable[str]) -> str:
        return (
            f"| {self.prompt} | {self.completions} | "
            + " | ".join(map(self.rate, names))
            + f" | {statistics.median(self.bounds):.2f} | {self.worst:.1e} |"
        )

    def ratios(self) -> str:
        parts = [f"{self.ratio(of, over):.2f}".replace("nan", "–") for of, over, _ in TARGETS]
        return f"| {self.prompt} | {self.completions} | " + " | ".join(parts) + " |"


class Run:
    """Every way over one checkpoint. `missing`: peers without a time, and why."""

    def __init__(self, ways: Ways, folder: Path) -> None:
        self.ways = ways
        self.folder = folder
        self.texts = Texts(ways.served)
        self.servers: dict[str, Server] = {}
        self.missing: dict[str, str] = {}
        self.notes: list[str] = []

    @property
    def names(self) -> list[str]:
        return [*self.ways.by_name, *self.servers]

    def ask(self, name: str, group: Group) -> tuple[list[float], float]:
        if name in self.servers:
            return self.servers[name].ask(group)
        return self.ways.ask(name, group)

    def open(self, stack: contextlib.ExitStack, environments: Path, only: set[str], batch: int | None) -> None:
        """Start every peer that can be, the ones with batch sizes at their fastest unless one is given."""
        for peer in PEERS:
            if peer.name not in only:
                continue
            python = interpreter(peer, environments)
            if python is None:
                self.missing[peer.name] = f"{' '.join(peer.packages)} not in {environments}: run with --install"
                continue
            try:
                tried = len(peer.sizes) > 1
                size = peer.sizes[0] if not tried else batch or self.fastest(peer, python)
                self.servers[peer.name] = stack.enter_context(serving(peer, python, self.folder, size))
            except Broken as error:
                self.missing[peer.name] = told(error)
                continue
            if peer.environment or size:
                self.notes.append(f"{peer.name} {f'with batches of {size} ' if size else ''}({versions(peer, python)})")

    def fastest(self, peer: Any, python: str) -> int:
        """The batch size of the fewest CPU-seconds on the same group of 8."""
        taken: dict[int, float] = {}
        for size in peer.sizes:
            with serving(peer, python, self.folder, size) as server:
                server.ask(self.texts.group(16, 2))
                self.texts.draw.seed(1)
                taken[size] = server.ask(self.texts.group(AIMED[0], 8))[1]
        return min(taken, key=taken.__getitem__)

    def measure(self, cells: list[Cell], rounds: int) -> None:
        for _ in range(2):
            group = self.texts.group(16, 3)
            for name in self.names:
                self._checked(name, group, Cell(16, 3), self.ways.alone(group.ids))
        for turn in range(rounds):
            for cell in cells:
                self._round(cell, turn)
                print(f"  round {turn + 1}: prompt {cell.prompt}, N {cell.completions}", flush=True)

    def _round(self, cell: Cell, turn: int) -> None:
        group = self.texts.group(cell.prompt, cell.completions)
        scores, took = self.ask("alone", group)
        cell.seconds.setdefault("alone", []).append(took)
        others = [name for name in self.names if name != "alone"]
        for name in others[turn % len(others) :] + others[: turn % len(others)]:
            if name in self.names:
                self._checked(name, group, cell, scores)
        packing = pack(group.ids)
        cell.tokens.append(packing.num_given)
        cell.bounds.append(packing.num_given / packing.num_computed)

    def _checked(self, name: str, group: Group, cell: Cell, right: list[float]) -> None:
        """One way once. A peer whose scores differ, or that fails, has no time in any cell from here on."""
        try:
            scores, took = self.ask(name, group)
            off = max(abs(a - b) for a, b in zip(scores, right, strict=True))
            if not off <= BOUND:
                raise Broken(f"scores differ by {off:.2g} (prompt {cell.prompt}, N {cell.completions})")
        except (Broken, ValueError) as error:
            if name in OURS:
                raise SystemExit(f"{name}: {error}") from error
            self.missing[name] = told(error)
            del self.servers[name]
            return
        cell.worst = max(cell.worst, off)
        cell.seconds.setdefault(name, []).append(took)


def tables(title: str, cells: list[Cell], run: Run) -> str:
    """Rates, then ratios, then who is missing. A peer that fell out half-way has no column."""
    names = [name for name in (*OURS, *(peer.name for peer in PEERS if peer.name not in OURS)) if name in run.names]
    ratios = [f"{of} ÷ {'best unshared' if over == UNSHARED else over[0]}" for of, over, _ in TARGETS]
    lines = [
        f"## {title}",
        "",
        "Real tokens per CPU-second:",
        "",
        "| prompt | N | " + " | ".join(names) + " | token bound | max \\|Δ\\| |",
        "|--:" * (len(names) + 4) + "|",
        *(cell.row(names) for cell in cells),
        "",
        "Ratios, medians of the rounds' own:",
        "",
        "| prompt | N | " + " | ".join(ratios) + " |",
        "|--:" * (len(ratios) + 2) + "|",
        *(cell.ratios() for cell in cells),
    ]
    aimed = next((cell for cell in cells if (cell.prompt, cell.completions) == AIMED), None)
    if aimed is not None:
        reached = [
            (label, aimed.ratio(of, over), least) for label, (of, over, least) in zip(ratios, TARGETS, strict=True)
        ]
        told_ = [
            f"{label} {ratio:.2f} of {least:g}" + ("" if ratio >= least else " **(missed)**")
            for label, ratio, least in reached
            if not math.isnan(ratio)
        ]
        lines += ["", f"Against the targets, at prompt {AIMED[0]} and N {AIMED[1]}: {'; '.join(told_)}."]
    lines += ["", *(f"- {name}: not measured: {why}" for name, why in run.missing.items())]
    return "\n".join([*lines, "", f"Peers: {'; '.join(run.notes)}." if run.notes else ""]).strip()


def cpu() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the shipped model, two shapes, no peers: some minutes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", metavar="PxN", help="prompt tokens x completions, instead of the usual")
    parser.add_argument("--models", nargs="+", choices=["mini", "60M"], default=["mini", "60M"])
    parser.add_argument("--peers", nargs="*", choices=[peer.name for peer in PEERS], help="only these servers")
    parser.add_argument("--batch", type=int, choices=SIZES, help="no trial: this batch size for peers that have one")
    parser.add_argument("--install", action="store_true", help="make the peers' environments first (5 GB)")
    parser.add_argument("--environments", type=Path, default=Path("~/.cache/plaudit-peers").expanduser())
    parser.add_argument("--out", type=Path, help="write the tables here as well")
    arguments = parser.parse_args()
    if arguments.install:
        install(arguments.environments)
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    shapes = {
        "mini": [(64, 1), (64, 16), (256, 8), AIMED, (256, 64), (768, 8)],
        "60M": [(64, 1), (64, 16), AIMED, (1024, 8)],
    }
    if arguments.quick:
        arguments.models, shapes["mini"] = ["mini"], [(64, 4), (256, 8)]
    if arguments.shapes:
        given = [tuple(map(int, shape.split("x"))) for shape in arguments.shapes]
        shapes = {name: [(prompt, count) for prompt, count in given] for name in shapes}
    only = set(arguments.peers if arguments.peers is not None else [] if arguments.quick else [p.name for p in PEERS])
    write: dict[str, Callable[[Path, Path], Path]] = {"mini": write_mini, "60M": write_random}
    title = {"mini": "plaudit-mini, 5.6 million parameters", "60M": "Qwen2's shape, 60 million parameters, random"}
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    note = (
        f"Real tokens: a prompt counts for every completion. float32, one torch thread each, median of "
        f"{arguments.rounds} rounds. {cpu()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{when}; a shared machine."
    )
    command = shlex.join(["python", "benchmarks/scoring.py", *sys.argv[1:]])
    parts = ["# Scoring", f"`{command}`. {(__doc__ or '').strip()}".replace("\n    ", "\n- "), note]
    with tempfile.TemporaryDirectory() as home:
        for name in arguments.models:
            folder = write[name](MINI, Path(home, name))
            with contextlib.ExitStack() as stack:
                run = Run(Ways(folder), folder)
                run.open(stack, arguments.environments, only, arguments.batch)
                cells = [Cell(*shape) for shape in shapes[name]]
                run.measure(cells, arguments.rounds)
                parts.append(tables(title[name], cells, run))
            print(parts[-1], end="\n\n", flush=True)
            if arguments.out:
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                arguments.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(note)


if __name__ == "__main__":
    main()
