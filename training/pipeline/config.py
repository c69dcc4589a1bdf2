"""A recipe: one TOML file, read once at the edge into a frozen value. Unknown keys fail; nobody else reads the
environment.

A flag `--fit.epochs 3` (or `--seed 7` for a key of no section) overrides the file; `PLAUDIT_DATA` overrides the data
folder that the file names.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError


def _doc(text: str, default: Any) -> Any:
    return field(default=default, metadata={"doc": text})


@dataclass(frozen=True, slots=True)
class Split:
    test: int = _doc("sampled (HumanEval) problems held out for the report", 40)
    validation: int = _doc("sampled problems held out for choosing and calibrating", 18)
    validation_other: int = _doc("problems of the other source (MBPP) held out for choosing and calibrating", 60)
    near_duplicate: float = _doc("word overlap (Jaccard) from which two problems share a fold", 0.6)
    validation_share: float = _doc("share of the remaining problems held out for choosing and calibrating", 0.0)
    ngram: int = _doc("corpus functions sharing this many tokens in a row with a held-out problem are dropped", 13)


@dataclass(frozen=True, slots=True)
class Tokenize:
    vocab_size: int = _doc("byte-level BPE entries, special tokens included", 4096)


@dataclass(frozen=True, slots=True)
class Pretrain:
    hidden_size: int = _doc("width", 256)
    intermediate_size: int = _doc("width of the gated layer", 640)
    num_layers: int = _doc("depth", 6)
    num_heads: int = _doc("attention heads", 4)
    max_tokens: int = _doc("tokens to train on, repeats included", 2_600_000)
    solution_passes: int = _doc("how often the training problems' passing programs are repeated in the text", 2)
    sequence_tokens: int = _doc("longest sequence; longer functions are cut here", 320)
    batch_tokens: int = _doc("tokens in an optimiser step", 4096)
    lr: float = _doc("peak learning rate", 2e-3)
    warmup: float = _doc("share of the steps that warms up", 0.04)


@dataclass(frozen=True, slots=True)
class Hub:
    adapter: str = _doc("data set of the hub that `collect` reads instead of `data`, by its schema", "")
    path: str = _doc("name at the hub, or a local file of the same schema", "")
    name: str = _doc("configuration of the data set, as humaneval-cpp of MultiPL-E", "")
    split: str = _doc("split of the data set", "train")
    most: int = _doc("problems to take; 0 takes all", 0)
    programs: bool = _doc("take the data set's own candidates; they are held in memory when they are verified", True)
    shipped_rates: bool = _doc("take pass rates over as they are shipped, instead of running the tests", False)


@dataclass(frozen=True, slots=True)
class Source:
    kind: str = _doc("openai (a server), hf (a model in this process) or recorded (a file)", "openai")
    url: str = _doc("base URL of an OpenAI-compatible server, its version included", "http://127.0.0.1:8000/v1")
    model: str = _doc("the model's name at the server, and in the data", "")
    path: str = _doc("model folder or hub name (hf), or file of completions (recorded)", "")
    key_file: str = _doc("file with the server's API key", "")
    chat: bool = _doc("ask by chat messages; false: let the model continue the prompt", True)
    json_mode: bool = _doc("ask the server for a JSON object (synthesize)", False)
    temperature: float = _doc("sampling temperature; 0 is greedy", 1.0)
    top_p: float = _doc("nucleus sampling", 1.0)
    max_tokens: int = _doc("most tokens of a completion", 1024)
    stop: tuple[str, ...] = _doc("strings that end a completion", ())
    concurrency: int = _doc("requests in flight", 16)
    max_tries: int = _doc("failures of a request that name no wait before it is given up", 6)
    timeout_s: float = _doc("time of a request over all its tries", 600.0)
    prompt_price: float = _doc("price of a million prompt tokens", 0.0)
    completion_price: float = _doc("price of a million completion tokens", 0.0)


@dataclass(frozen=True, slots=True)
class Synthesize:
    seeds: str = _doc("JSONL of seed programs: program, and optionally id, instruction, source, license", "")
    tests: int = _doc("tests asked for", 20)
    min_tests: int = _doc("tests that must be left of a question", 5)
    cpu_s: float = _doc("CPU seconds of one test of the oracle's program", 2.0)
    mutant_cpu_s: float = _doc("CPU seconds of one test of its mutants: the original needs milliseconds", 0.5)
    mutants: int = _doc("wrong programs made from the oracle's, to measure a suite with", 12)
    min_killed: float = _doc("share of the mutants that a suite kills, below which it is weak", 0.7)
    extend: int = _doc("times that more tests are asked for a weak suite", 1)
    keep_weak: bool = _doc("keep questions whose suite stays weak, flagged in suites.jsonl", True)
    evaluation: tuple[str, ...] = _doc("evaluation sets to keep out: problem files, or adapter=path", ())
    ngram: int = _doc("a question that shares this many tokens in a row with an evaluation problem is dropped", 13)
    near_duplicate: float = _doc("word overlap (Jaccard) from which the later of two questions is dropped", 0.7)
    max_infra_errors: float = _doc("share of the runs that may fail by our fault before the stage fails", 0.01)


@dataclass(frozen=True, slots=True)
class Sample:
    n: int = _doc("candidates of a problem (AceCoder: 16)", 16)
    greedy: bool = _doc("ask for one greedy program a problem, too, for the report", False)
    shards: int = _doc("files that the candidates are spread over, by problem; --shard does one alone", 1)


@dataclass(frozen=True, slots=True)
class Mutate:
    per_problem: int = _doc("mutants made from each training problem's reference solution", 4)


@dataclass(frozen=True, slots=True)
class Verify:
    check: int = _doc("samples with a shipped label that the sandbox judges again, to measure agreement", 500)
    processes: int = _doc("sandboxes at work at once", 1)
    service: str = _doc("URL of a running plaudit that judges instead of sandboxes of our own", "")
    key_file: str = _doc("file with the service's API key", "")
    in_flight: int = _doc("groups of programs that the service has at once", 4)
    group: int = _doc("most programs of one problem in a request to the service", 32)
    timeout_s: float = _doc("time of a request to the service over all its tries", 600.0)
    cpu_s: float = _doc("CPU seconds of one test of a sample", 5.0)
    mutant_cpu_s: float = _doc("CPU seconds of one test of a mutant: its original needs milliseconds", 0.5)
    max_infra_errors: float = _doc("share of programs the sandbox may fail to judge before the stage fails", 0.01)


@dataclass(frozen=True, slots=True)
class Pair:
    min_chosen: float = _doc("lowest pass rate of a chosen program", 0.8)
    min_gap: float = _doc("smallest difference of the pass rates", 0.4)
    rejected_above_zero: bool = _doc("require that the rejected program passes something, as AceCoder does", True)
    max_per_problem: int = _doc("most pairs kept of one problem, drawn by seed; 0 keeps all", 2000)
    weighted: bool = _doc("give a pair the weight 1 / pairs of its problem; false: 1, as in AceCoder", True)


@dataclass(frozen=True, slots=True)
class Fit:
    base: str = _doc("pretrained checkpoint (hub id or folder) to fit; empty: this run's own, by the group loop", "")
    loop: str = _doc("pairs (TRL's trainer, many processes), or groups (one CPU, prompts once) (base)", "pairs")
    epochs: int = _doc("passes over the groups or the pairs", 2)
    lr: float = _doc("peak learning rate", 5e-4)
    weight_decay: float = _doc("AdamW weight decay", 0.05)
    warmup: float = _doc("share of the steps that warms up", 0.06)
    margin: float = _doc("margin of a pair: this times the gap of its pass rates; 0: none", 0.0)
    centre: float = _doc("weight of (chosen + rejected)², which draws scores to zero; 0.01 is usual", 0.0)
    presentation: float = _doc("share of groups or pairs shown as a whole function, half of them fenced", 0.2)
    max_length: int = _doc("longest sequence that the checkpoint scores; pairs with a longer one are dropped", 1024)
    group_size: int = _doc("completions under one prompt in a forward (group loop)", 12)
    max_groups: int = _doc("groups of one problem in an epoch (group loop)", 8)
    groups_per_step: int = _doc("groups in an optimiser step (group loop)", 8)
    pointwise: float = _doc("weight of the pass / fail cross-entropy beside the Bradley-Terry loss (group loop)", 0.5)
    template: str = _doc("{prompt} and {completion} in text (base); empty: the base's chat template, or BOS … EOS", "")
    system: str = _doc("system message of a conversation without one (base); empty: the chat template's own", "")
    batch: int = _doc("pairs in an optimiser step, over all processes (base)", 128)
    micro_batch: int = _doc("pairs in a forward of one process (base)", 4)
    precision: str = _doc("bfloat16 (autocast over float32 weights) or float32 (base)", "bfloat16")
    gradient_checkpointing: bool = _doc("compute activations twice instead of keeping them (base)", False)
    lora_rank: int = _doc("rank of LoRA's matrices, merged at the end (base); 0 trains every weight", 0)
    lora_alpha: float = _doc("LoRA's scale is this over the rank (base)", 32.0)
    lora_targets: tuple[str, ...] = _doc("modules that LoRA adapts, by name; all-linear (base)", ("all-linear",))
    log_steps: int = _doc("steps from one row of fit.jsonl to the next (base)", 10)
    eval_steps: int = _doc("steps from one look at the validation pairs to the next (base)", 200)
    save_steps: int = _doc("steps from one resumable state to the next (base)", 200)


@dataclass(frozen=True, slots=True)
class Evaluate:
    num_candidates: tuple[int, ...] = _doc("the N of best-of-N", (1, 2, 4, 8, 16, 32, 64))
    resamples: int = _doc("bootstrap resamples over problems", 2000)
    draws: int = _doc("subsets drawn per problem and N for rankers that look at the set", 100)
    dtype: str = _doc("type in which the checkpoint is scored, as served: float32 or bfloat16", "float32")
    generated_tests: int = _doc("model-written tests of a problem that `agreement` runs; 0 leaves the row out", 20)


@dataclass(frozen=True, slots=True)
class World:
    problems: int = _doc("tasks of the micro-world; 0: the problems come from `collect`", 0)
    programs: int = _doc("programs in the generator's text for each training task", 3)
    slip: float = _doc("chance that a step of a program in that text is written wrongly", 0.15)
    tests: int = _doc("tests of a task", 5)
    test: float = _doc("share of the families held out for the report", 0.15)
    validation: float = _doc("share of the families held out for choosing and calibrating", 0.1)


@dataclass(frozen=True, slots=True)
class PPO:
    iterations: int = _doc("rounds of sampling and learning", 40)
    prompts: int = _doc("prompts of an iteration", 32)
    samples: int = _doc("completions of each of them", 2)
    epochs: int = _doc("passes over an iteration's completions", 2)
    minibatch: int = _doc("completions in an optimiser step", 32)
    lr: float = _doc("learning rate, constant", 1e-4)
    kl: float = _doc("weight of the per-token KL penalty against the reference", 0.05)
    clip: float = _doc("how far the ratio of new to old probability counts", 0.2)
    value_clip: float = _doc("how far a value may move in one iteration", 0.2)
    value_weight: float = _doc("weight of the value loss", 0.1)
    gamma: float = _doc("discount", 1.0)
    lam: float = _doc("GAE's lambda", 0.95)
    whiten: bool = _doc("bring the scores of an iteration to mean 0 and variance 1", True)
    no_end_penalty: float = _doc("taken off the score of a completion that does not end", 1.0)


@dataclass(frozen=True, slots=True)
class Iterate:
    mode: str = _doc("what a round adds: self_training (positives too) or hard_negatives", "self_training")
    rounds: int = _doc("rounds of reranker and PPO", 2)
    seed: int = _doc("seed of rerankers, PPO and mining, over the same data; 0: the recipe's", 0)
    sft_epochs: int = _doc("passes over passing solutions of training problems before the first sample", 1)
    sft_lr: float = _doc("peak learning rate of these", 3e-4)
    problems: int = _doc("training problems whose completions are executed", 1200)
    samples: int = _doc("completions of each before the first round", 6)
    mined_problems: int = _doc("training problems mined in a round", 400)
    mined_samples: int = _doc("completions of each of them", 6)
    hard_quantile: float = _doc("a failure is high-scoring from this quantile of the passing programs' scores", 0.25)
    max_positives: int = _doc("most mined positives kept of a problem and a round", 2)
    recorded: str = _doc("a JSONL of completions (task_id, completion) mined in every round; empty: none", "")
    seen: str = _doc("folder of the service's candidate logs, mined in every round; empty: none", "")
    held_out: int = _doc("test problems of the report", 120)
    candidates: int = _doc("completions of each of them", 16)
    max_new_tokens: int = _doc("longest completion", 72)
    temperature: float = _doc("sampling temperature everywhere", 1.0)


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str = _doc("name of the checkpoint", "mini")
    seed: int = _doc("seed of every draw", 1)
    data: str = _doc("folder of the public data; PLAUDIT_DATA overrides it", "../shared/data")
    publish: str = _doc("folder that `publish` writes; empty: models/NAME", "")
    stages: tuple[str, ...] = _doc(
        "what `all` runs; a stage reads the files of those before it that are named here",
        ("collect", "tokenize", "pretrain", "mutate", "verify", "pair", "fit", "evaluate", "publish"),
    )
    shard: str = _doc("`3/16`: only this part of a stage that is done in parts; the stage ends without it", "")
    split: Split = Split()
    tokenize: Tokenize = Tokenize()
    pretrain: Pretrain = Pretrain()
    hub: Hub = Hub()
    synthesize: Synthesize = Synthesize()
    sample: Sample = Sample()
    sampler: Source = Source()
    writer: Source = Source(temperature=0.7, max_tokens=8192, json_mode=True)
    oracle: Source = Source(temperature=0.0)
    mutate: Mutate = Mutate()
    verify: Verify = Verify()
    pair: Pair = Pair()
    fit: Fit = Fit()
    evaluate: Evaluate = Evaluate()
    world: World = World()
    ppo: PPO = PPO()
    iterate: Iterate = Iterate()


def read_recipe(path: Path, flags: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Recipe:
    """The recipe in this file under these `--field value` flags; raises `UsageError` naming what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"no recipe at {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    if environ and environ.get("PLAUDIT_DATA"):
        values["data"] = environ["PLAUDIT_DATA"]
    recipe = typing.cast(Recipe, _build(Recipe(), values, str(path)))
    return override(recipe, flags)


def override(recipe: Recipe, flags: Sequence[str]) -> Recipe:
    """`recipe` with `--field value` or `--section.field value` applied in order."""
    if len(flags) % 2:
        raise UsageError(f"{flags[-1]} has no value")
    for flag, text in zip(flags[::2], flags[1::2], strict=True):
        section, _, name = flag.removeprefix("--").replace("-", "_").rpartition(".")
        owner: Any = getattr(recipe, section, None) if section else recipe
        known = {f.name for f in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else set()
        if not flag.startswith("--") or name not in known or dataclasses.is_dataclass(getattr(owner, name)):
            raise UsageError(f"unknown flag {flag}")
        changed = dataclasses.replace(owner, **{name: _parse(getattr(owner, name), text, flag)})
        recipe = dataclasses.replace(recipe, **{section: changed}) if section else changed
    return recipe


def field_lines(sections: Sequence[str]) -> list[str]:
    """One help line a field: the recipe's own, then those of these sections."""
    default = Recipe()
    lines = []
    for owner, prefix in [(default, ""), *((getattr(default, name), f"{name}.") for name in sections)]:
        for f in dataclasses.fields(owner):
            value = getattr(owner, f.name)
            if not dataclasses.is_dataclass(value):
                lines.append(f"  --{prefix}{f.name:<{28 - len(prefix)}} {f.metadata['doc']} (default {value})")
    return lines


def _build(default: Any, values: dict[str, Any], where: str) -> Any:
    known = {f.name for f in dataclasses.fields(default)}
    if unknown := sorted(set(values) - known):
        raise UsageError(f"{where}: unknown keys {', '.join(unknown)}")
    made = {}
    for name, value in values.items():
        current = getattr(default, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise UsageError(f"{where}: {name} is a section")
            made[name] = _build(current, value, f"{where} [{name}]")
        else:
            made[name] = _typed(current, value, f"{where}: {name}")
    return dataclasses.replace(default, **made)


def _typed(current: Any, value: Any, where: str) -> Any:
    if isinstance(current, tuple) and isinstance(value, list):
        kind = type(current[0]) if current else str
        if all(type(part) is kind for part in value):
            return tuple(value)
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(current):
        raise UsageError(f"{where} must be {type(current).__name__}, not {value!r}")
    return value


def _parse(current: Any, text: str, flag: str) -> Any:
    try:
        if isinstance(current, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(current, tuple):
            return tuple((type(current[0]) if current else str)(part) for part in text.split(",") if part)
        return type(current)(text)
    except (ValueError, KeyError) as error:
        raise UsageError(f"{flag}: {text!r} is no {type(current).__name__}") from error
