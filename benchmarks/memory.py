"""What scoring takes in memory, each claim in a fresh process of its own, on one thread.

    peak     64 completions of one 1,024-token prompt: the largest resident size while they are scored, less that of
             the process before this model (a tiny one of its kind was loaded), against weights + packed activations;
             the cache of prompts as it is by default
    prompts  single completions of 1,024-token prompts, each new, until four times the cache's bound (its default) have
             passed: resident size at the end, against that before, and that bound
    growth   10,000 batches of random shapes, as the worker runs them: resident size at the end, against that after the
             first 1,000, at which the cache of prompts (8 MiB here) is full
    swaps    forty activations between two checkpoints: resident size after the last, against that after the second,
             which is of the same checkpoint

Packed activations are what the widest moment of a layer holds for one row of T tokens: the residual stream and its
normalised copy (T × hidden each), and three of the feed-forward block's (T × intermediate: the gate, the value, their
product), in the model's own type. Resident size is VmRSS and VmHWM of /proc, the latter reset before it is read.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shapes import SHAPES, write_random  # before `overhead`, whose imports take this folder off the path

PROMPT, COMPLETIONS = 1024, 64
MIB = 2**20


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process, now or (VmHWM) at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


def peak(folder: Path, tiny: Path) -> dict[str, Any]:
    import torch

    from service.scoring.packing import pack
    from service.scoring.reward_model import MAX_ROW_TOKENS, Encoded, RewardModel
    from service.settings import Settings

    torch.set_num_threads(1)
    draw = random.Random(0)
    warm = [tuple(draw.choices(range(1, 4096), k=8))]
    prompt = draw.choices(range(1, 4096), k=PROMPT)
    lengths = [max(8, min(int(draw.lognormvariate(4.6, 0.6)), 1000)) for _ in range(COMPLETIONS)]
    texts = [(*prompt, *draw.choices(range(1, 4096), k=length)) for length in lengths]
    RewardModel.load(tiny).score([Encoded(ids, 0, truncated=False) for ids in warm])  # the code, and what it makes once
    before = resident()
    model = RewardModel.load(folder, max_prompt_bytes=Settings().max_prompt_cache_bytes)
    model.score([Encoded(ids, 0, truncated=False) for ids in warm])
    loaded = resident()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM from here on
    scores = model.score([Encoded(ids, PROMPT, truncated=False) for ids in texts])
    assert len(scores) == COMPLETIONS
    config: Any = model._backbone.config
    row = min(pack(texts).num_computed, MAX_ROW_TOKENS)
    size = next(model._backbone.parameters()).element_size()
    weights = model.parameters * size
    activations = row * (2 * config.hidden_size + 3 * config.intermediate_size) * size
    used = resident("VmHWM") - before
    return {
        "weights": weights,
        "activations": activations,
        "loaded": loaded - before,
        "used": used,
        "tokens": row,
        "ratio": used / (weights + activations),
    }


def prompts(folder: Path) -> dict[str, Any]:
    import torch

    from service.scoring.reward_model import Encoded, RewardModel
    from service.settings import Settings

    torch.set_num_threads(1)
    draw, bound = random.Random(0), Settings().max_prompt_cache_bytes
    model = RewardModel.load(folder, max_prompt_bytes=bound)

    def score(prompt_tokens: int) -> None:
        ids = tuple(draw.choices(range(1, 4096), k=PROMPT + 100))
        model.score([Encoded(ids, prompt_tokens, truncated=False)])

    for _ in range(10):
        score(0)
    before = resident()
    score(PROMPT)
    count = 4 * bound // model.prompts.nbytes
    for _ in range(count - 1):
        score(PROMPT)
    return {"prompts": count, "bound": bound, "held": model.prompts.nbytes, "grown": resident() - before}


class Context:
    """Takes answers and forgets them."""

    def answer_all(self, endings: list[Any]) -> None:
        assert None not in [score for ending in endings for score in ending.body.scores]


def growth(folder: Path, batches: int) -> dict[str, Any]:
    from service.jobs import ScoreTask
    from service.queue.consumer import Lease
    from service.scoring.factory import open_engine
    from service.settings import Settings
    from service.worker.model_manager import ModelManager
    from service.worker.score import ScoreRunner

    settings = Settings(max_batch_tokens=2048, max_prompt_cache_bytes=8 * MIB)
    models = ModelManager(settings)
    models.add("default", *open_engine("default", str(folder), settings))
    work, context, draw = ScoreRunner(models), Context(), random.Random(0)
    revision = next(iter(models["default"]))
    after: dict[int, int] = {}
    for at in range(1, batches + 1):
        prompt = "".join(f"{draw.randrange(4096)} " for _ in range(draw.randint(4, 64)))
        texts: list[Any] = [" ".join(str(draw.randrange(4096)) for _ in range(draw.randint(1, 40))) for _ in range(4)]
        task = ScoreTask("default", revision, prompt, texts)
        name = str(at)
        lease = Lease(name, name, "score:default", "s:score:default:normal", task, 10**15, 1, 0)
        work.step([lease], context)  # type: ignore[arg-type]
        assert not work.num_held
        if at in (batches // 10, batches):
            after[at] = resident()
    first, last = after.values()
    return {"batches": batches, "first": first, "last": last, "grown": last - first}


def swaps(folder: Path, other: Path, count: int) -> dict[str, Any]:
    """`count` is even: checkpoints of other sizes are not compared with each other."""
    from service.queue.activation import ActiveRevision, ModelState
    from service.scoring.factory import open_engine
    from service.settings import Settings
    from service.worker.model_manager import ModelManager

    settings = Settings()
    models = ModelManager(settings)
    sizes = []
    for at in range(count + 1):
        engine, parity = open_engine("default", str((folder, other)[at % 2]), settings)
        models.add("default", engine, parity)
        active = models._active["default"] = ActiveRevision(engine.revision, "", engine.revision)
        both = resident()
        del engine
        models._drain("default", ModelState(active, None, {}))
        assert len(models["default"]) == 1
        sizes.append(resident())
    return {"swaps": count, "one": sizes[2], "last": sizes[-1], "both": both, "grown": sizes[-1] - sizes[2]}


CLAIMS: dict[str, Callable[..., dict[str, Any]]] = {"peak": peak, "prompts": prompts, "growth": growth, "swaps": swaps}


def apart(claim: str, *arguments: object) -> dict[str, Any]:
    """A claim's numbers, from a process of its own."""
    argv = [sys.executable, __file__, "--claim", claim, json.dumps([str(one) for one in arguments])]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="write the tables here as well")
    parser.add_argument("--claim", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.claim:
        name, arguments = flags.claim[0], json.loads(flags.claim[1])
        print(json.dumps(CLAIMS[name](*[int(one) if one.isdigit() else Path(one) for one in arguments])))
        return
    lines = ["| claim | model | measured | bound | |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: write_random(Path(temporary, name), *SHAPES[name]) for name in SHAPES}
        tiny = write_random(Path(temporary, "tiny"), 2, 128)
        other = write_random(Path(temporary, "other"), 11, 512)
        for name, folder in folders.items():
            found = apart("peak", folder, tiny)
            lines.append(
                f"| peak | {name} | {found['used'] / MIB:.0f} MiB for {found['tokens']:,} tokens | "
                f"{found['weights'] / MIB:.0f} MiB weights + {found['activations'] / MIB:.0f} MiB activations | "
                f"**{found['ratio']:.2f}** (at most 1.2) |"
            )
        found = apart("prompts", folders["42M"])
        lines.append(
            f"| prompts | 42M | {found['grown'] / MIB:.0f} MiB more after {found['prompts']} prompts, "
            f"{found['held'] / MIB:.0f} MiB of them held | {found['bound'] / MIB:.0f} MiB | "
            f"**{found['grown'] / found['bound']:.2f}** |"
        )
        found = apart("growth", tiny, flags.batches)
        lines.append(
            f"| growth | 2 layers of 128 | {found['first'] / MIB:.1f} → {found['last'] / MIB:.1f} MiB over "
            f"{found['batches']:,} batches | none | **{found['grown'] / MIB:+.1f} MiB** |"
        )
        found = apart("swaps", folders["42M"], other, 40)
        lines.append(
            f"| swaps | 42M | {found['one'] / MIB:.0f} → {found['last'] / MIB:.0f} MiB over {found['swaps']} "
            f"activations ({found['both'] / MIB:.0f} with both) | none | "
            f"**{found['grown'] / MIB:+.1f} MiB** |"
        )
    import torch
    from overhead import machine

    when = datetime.now(UTC).strftime("%Y-%m-%d")
    note = f"float32, one torch thread. {machine()}, torch {torch.__version__}, {when}."
    text = "\n".join(lines)
    print(f"{text}\n\n{note}")
    if flags.out:
        about = (__doc__ or "").strip().replace("\n    ", "\n- ").replace("-          ", "  ")
        flags.out.write_text(f"# Memory of scoring\n\n`python benchmarks/memory.py`. {about}\n\n{text}\n\n{note}\n")


if __name__ == "__main__":
    main()
