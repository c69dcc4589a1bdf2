"""A recipe: one TOML file, read once at the edge into a frozen value.

- A flag `--fit.epochs 3` (or `--seed 7` for a key outside of the sections) overrides the file.
- `PLAUDIT_DATA` overrides the data folder that the file names; nothing else reads the environment.
- Unknown keys and flags fail, and the nearest name is suggested; so do values of the wrong type.
- Fields that change what is shown and nothing that is written into a result, as `trackers`, are left out of `repr` and
  so of every key: a run goes on under another value.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from plaudit.errors import UsageError


def _doc(text: str, default: Any, *, least: float = 0.0, most: float = math.inf, shown: bool = False) -> Any:
    """A field with its help, and the least and the most that a number may be. `shown`: it changes no result."""
    return field(default=default, repr=not shown, metadata={"doc": text, "least": least, "most": most})


TRACKERS = "where the curves are shown, too: tensorboard, wandb (offline), trackio, mlflow"


@dataclass(frozen=True, slots=True)
class SplitConfig:
    test: int = _doc("sampled (HumanEval) problems held out for the report", 40)
    test_share: float = _doc("share of all problems held out for the report, whatever set they are of", 0.0, most=1.0)
    validation: int = _doc("sampled problems held out for choosing and calibrating", 18)
    validation_other: int = _doc("problems of the other source (MBPP) held out for choosing and calibrating", 60)
    near_duplicate: float = _doc("word overlap (Jaccard) from which two problems share a fold", 0.6, most=1.0)
    validation_share: float = _doc(
        "share of the remaining problems held out for choosing and calibrating", 0.0, most=1.0
    )
    parts: int = _doc("cut the sampled problems into this many parts, one of which is the test fold; 0: by `test`", 0)
    part: int = _doc("which of the parts, from 0, is the test fold", 0)
    ngram: int = _doc("corpus functions sharing this many tokens in a row with a held-out problem are dropped", 13)


@dataclass(frozen=True, slots=True)
class CollectConfig:
    generated: int = _doc("most problems of the public data whose tests the sandbox makes by input generators", 0)
    extra_tests: bool = _doc("judge MBPP's programs by EvalPlus's tests, too", False)
    languages: tuple[str, ...] = _doc(
        "other languages whose labelled samples are learnt from: cpp, java, javascript", ()
    )


@dataclass(frozen=True, slots=True)
class TokenizeConfig:
    vocab_size: int = _doc("byte-level BPE entries, special tokens included", 4096, least=1)
    without_sampled: bool = _doc("leave problems with independent samples out, as crossval needs it", False)
    flawed: bool = _doc("a flawed copy beside each document, and what there is to learn about both", False)


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    hidden_size: int = _doc("width", 256, least=1)
    intermediate_size: int = _doc("width of the gated layer", 640)
    num_layers: int = _doc("depth", 6, least=1)
    num_heads: int = _doc("attention heads", 4, least=1)
    max_tokens: int = _doc("tokens to train on, repeats included", 2_600_000)
    sequence_tokens: int = _doc("longest sequence; longer functions are cut here", 320)
    batch_tokens: int = _doc("tokens in an optimiser step", 4096)
    lr: float = _doc("peak learning rate", 2e-3)
    warmup: float = _doc("share of the steps that warms up", 0.04, most=1.0)
    passes: float = _doc("passes over the text, instead of `max_tokens`; 0: by `max_tokens`", 0.0)
    summary: float = _doc("weight of telling flaws and surface at the last token, and undefined names at theirs", 0.5)


@dataclass(frozen=True, slots=True)
class HubConfig:
    adapter: str = _doc("schema of the hub data set that `collect` reads instead of `data`", "")
    path: str = _doc("name at the hub, or a local file of the same schema", "")
    name: str = _doc("configuration of the data set, as humaneval-cpp of MultiPL-E", "")
    languages: tuple[str, ...] = _doc(
        "MultiPL-E: several languages in one run, or `all`; name is then humaneval or mbpp", ()
    )
    sources: str = _doc("EvoCodeBench: folder of the repositories that its rows name", "")
    split: str = _doc("split of the data set", "train")
    files: tuple[str, ...] = _doc("files of the data set to read, in this order; without: all of its split", ())
    version: str = _doc("LiveCodeBench's release, as release_v4: its first four files", "")
    most: int = _doc("problems to take; 0 takes all", 0)
    programs: bool = _doc("keep the data set's own candidates; `verify` holds them in memory", True)
    evaluation: tuple[str, ...] = _doc("evaluation sets to keep out: problem files, or adapter=path", ())
    ngram: int = _doc("a problem that shares this many tokens in a row with an evaluation problem is left out", 13)
    shipped_rates: bool = _doc("use the pass rates that are shipped, instead of running the tests", False)


@dataclass(frozen=True, slots=True)
class SourceConfig:
    kind: str = _doc("openai (a server), hf (a model in this process) or recorded (a file)", "openai")
    url: str = _doc("base URL of an OpenAI-compatible server, its version included", "http://127.0.0.1:8000/v1")
    model: str = _doc("the model's name at the server, and in the data", "")
    path: str = _doc("model folder or hub name (hf), or file of completions (recorded)", "")
    key_file: str = _doc("file with the server's API key", "")
    chat: bool = _doc("send chat messages; false: let the model continue the prompt", True)
    json_mode: bool = _doc("ask the server for a JSON object (synthesize)", False)
    temperature: float = _doc("sampling temperature; 0 is greedy", 1.0)
    top_p: float = _doc("nucleus sampling", 1.0, most=1.0)
    max_tokens: int = _doc("most tokens of a completion", 1024)
    stop: tuple[str, ...] = _doc("strings that end a completion", ())
    concurrency: int = _doc("requests in flight", 16, least=1)
    max_tries: int = _doc(
        "tries of a request before it fails; tries that the server asked to repeat do not count", 6, least=1
    )
    timeout_s: float = _doc("seconds for a request over all its tries", 600.0)
    prompt_price: float = _doc("price per million prompt tokens", 0.0)
    completion_price: float = _doc("price per million completion tokens", 0.0)


@dataclass(frozen=True, slots=True)
class SynthesizeConfig:
    seeds: str = _doc("JSONL of seed programs: program; optional id, instruction, source, license", "")
    tests: int = _doc("tests asked for", 20)
    min_tests: int = _doc("fewest tests of a kept question", 5)
    cpu_s: float = _doc("CPU seconds of one test of the oracle's program", 2.0)
    mutants: int = _doc("wrong programs made from the oracle's, to measure a suite with", 12)
    min_killed: float = _doc("a suite that kills a smaller share of the mutants is weak", 0.7, most=1.0)
    extend: int = _doc("how often more tests are requested for a weak suite", 1)
    evaluation: tuple[str, ...] = _doc("evaluation sets to keep out: problem files, or adapter=path", ())
    ngram: int = _doc("a question that shares this many tokens in a row with an evaluation problem is dropped", 13)
    near_duplicate: float = _doc(
        "word overlap (Jaccard) from which the later of two questions is dropped", 0.7, most=1.0
    )
    max_infra_errors: float = _doc(
        "share of the runs that may be impossible to judge before the stage fails", 0.01, most=1.0
    )


@dataclass(frozen=True, slots=True)
class SampleConfig:
    n: int = _doc("candidates per problem (AceCoder: 16)", 16, least=1)
    greedy: bool = _doc("sample one greedy program per problem, too, for the report", False)
    shards: int = _doc("files that the candidates are spread over, by problem; --shard does one alone", 1, least=1)


@dataclass(frozen=True, slots=True)
class MutateConfig:
    per_problem: int = _doc("mutants made from each training problem's reference solution", 4)
    rewrites: int = _doc("copies of it with other local names", 0)
    strangers: int = _doc("reference solutions of other problems shown under its signature", 0)


@dataclass(frozen=True, slots=True)
class VerifyConfig:
    check: int = _doc("samples with a shipped label that the sandbox judges again, to measure agreement", 500)
    processes: int = _doc("sandboxes at work at once", 1, least=1)
    service: str = _doc("URL of a running plaudit that judges instead of local sandboxes", "")
    key_file: str = _doc("file with the service's API key", "")
    in_flight: int = _doc("requests to the service in flight, each a group of programs", 4, least=1)
    group: int = _doc("most programs of one problem in a request to the service", 32, least=1)
    timeout_s: float = _doc("seconds for a request to the service over all its tries", 600.0)
    cpu_s: float = _doc("CPU seconds of one test of a sample", 5.0)
    max_infra_errors: float = _doc(
        "share of programs the sandbox may fail to judge before the stage fails", 0.01, most=1.0
    )


@dataclass(frozen=True, slots=True)
class PairConfig:
    min_chosen: float = _doc("lowest pass rate of a chosen program", 0.8, most=1.0)
    min_gap: float = _doc("smallest difference of the pass rates", 0.4, most=1.0)
    rejected_above_zero: bool = _doc("require that the rejected program passes something, as AceCoder does", True)
    max_per_problem: int = _doc("most pairs kept per problem, drawn by seed; 0 keeps all", 2000)
    weighted: bool = _doc("give a pair the weight 1 / pairs of its problem; false: 1, as in AceCoder", True)


@dataclass(frozen=True, slots=True)
class FitConfig:
    base: str = _doc("pretrained checkpoint (hub id or folder) to fit; empty: this run's own, by the group loop", "")
    loop: str = _doc("pairs (TRL's trainer), groups (one CPU, prompts once), or head (states once)", "pairs")
    epochs: int = _doc("passes over the groups or the pairs", 2, least=1)
    lr: float = _doc("peak learning rate", 5e-4)
    weight_decay: float = _doc("AdamW weight decay", 0.05)
    warmup: float = _doc("share of the steps that warms up", 0.06, most=1.0)
    margin: float = _doc("margin of a pair: this times the gap of its pass rates; 0: none", 0.0)
    scale: float = _doc(
        "weight of a pair beside its own: this times the gap of its pass rates (ScaleBT: 3); 0: none", 0.0
    )
    centre: float = _doc("weight of (chosen + rejected)², which draws scores to zero; 0.01 is usual", 0.0)
    forms: tuple[str, ...] = _doc("how the rest is shown: program, fenced, chat (in an answer)", ("program", "fenced"))
    longest: int = _doc("longest program in tokens, prompt included; others are left out (group loop)", 640, least=1)
    presentation: float = _doc("share of groups or pairs shown in another form than the data has", 0.2, most=1.0)
    max_length: int = _doc(
        "longest sequence that the checkpoint scores; pairs with a longer one are dropped", 1024, least=1
    )
    group_size: int = _doc("completions under one prompt in a forward (group loop)", 12, least=1)
    max_groups: int = _doc("groups of one problem in an epoch (group loop)", 8)
    singles: float = _doc("share of the problems with a single group that an epoch visits (group loop)", 1.0, most=1.0)
    groups_per_step: int = _doc("groups in an optimiser step (group loop)", 8)
    pointwise: float = _doc("weight of the pass / fail cross-entropy beside the Bradley-Terry loss (group loop)", 0.5)
    surface: float = _doc(
        "weight of a linear head on numbers of the text's surface, beside the model's own score; 0: none", 0.0
    )
    surface_answers: float = _doc(
        "what other models' programs, in any language, count for that head, beside independent samples at 1", 0.3
    )
    head_steps: int = _doc("optimiser steps (head loop)", 400, least=1)
    head_lr: float = _doc("first learning rate (head loop)", 3e-3)
    template: str = _doc("{prompt} and {completion} in text (base); empty: the base's chat template, or BOS … EOS", "")
    system: str = _doc("system message of a conversation without one (base); empty: the chat template's own", "")
    date: str = _doc("date that the chat template prints as today's, YYYY-MM-DD; empty: it prints none", "")
    batch: int = _doc("pairs in an optimiser step, over all processes (base)", 128, least=1)
    micro_batch: int = _doc("pairs in a forward of one process (base)", 4, least=1)
    precision: str = _doc("bfloat16 (autocast over float32 weights) or float32 (base)", "bfloat16")
    save_dtype: str = _doc(
        "type of the weights in the checkpoint: float32 or bfloat16, half the size (base)", "float32"
    )
    gradient_checkpointing: bool = _doc("compute activations twice instead of keeping them (base)", False)
    lora_rank: int = _doc("rank of LoRA's matrices, merged at the end (base); 0 trains every weight", 0)
    log_steps: int = _doc("steps from one row of fit.jsonl to the next (base)", 10)
    eval_steps: int = _doc("steps from one look at the validation pairs to the next (base)", 200)
    save_steps: int = _doc("steps from one resumable state to the next (base)", 200)
    trackers: tuple[str, ...] = _doc(TRACKERS, ("tensorboard",), shown=True)


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    num_candidates: tuple[int, ...] = _doc("the N of best-of-N", (1, 2, 4, 8, 16, 32, 64))
    resamples: int = _doc("bootstrap resamples over problems", 2000, least=1)
    draws: int = _doc("subsets drawn per problem and N for rankers that look at the set", 100, least=1)
    checkpoint: str = _doc("folder or hub id of the checkpoint to report on; empty: the run's own", "")
    service: str = _doc("URL of a running plaudit that scores instead", "")
    model: str = _doc("which of the service's models", "default")
    key_file: str = _doc("file with the service's API key", "")
    timeout_s: float = _doc("seconds for a request to the service over all its tries", 600.0)
    dtype: str = _doc("type in which the checkpoint is scored, as served: float32 or bfloat16", "float32")
    device: str = _doc("where the checkpoint is scored: auto, cpu or cuda", "auto")
    threads: int = _doc("torch's threads for scoring", 1, least=1)
    generated_tests: int = _doc("model-written tests of a problem that `agreement` runs; 0 leaves the row out", 20)
    evidence_inputs: int = _doc("inputs on which samples are compared, beside the prompt's examples; 0: neither", 0)
    pairs: tuple[str, ...] = _doc("pair sets: rm-bench=FILE, reward-bench=FILE or pairs=FILE, or a name at the hub", ())


@dataclass(frozen=True, slots=True)
class CrossvalConfig:
    parts: int = _doc("parts of the sampled problems, each held out once", 5, least=2)
    seeds: tuple[int, ...] = _doc("seeds of the fits, each over all parts", (1, 2, 3))


@dataclass(frozen=True, slots=True)
class WorldConfig:
    problems: int = _doc("tasks of the micro-world; 0: the problems come from `collect`", 0)
    programs: int = _doc("programs in the generator's text for each training task", 3)
    slip: float = _doc("chance that a step of a program in that text is written wrongly", 0.15, most=1.0)
    tests: int = _doc("tests of a task", 5)
    test: float = _doc("share of the families held out for the report", 0.15)
    validation: float = _doc("share of the families held out for choosing and calibrating", 0.1)


@dataclass(frozen=True, slots=True)
class PPOConfig:
    iterations: int = _doc("rounds of sampling and learning", 40)
    prompts: int = _doc("prompts of an iteration", 32)
    samples: int = _doc("completions of each of them", 2)
    epochs: int = _doc("passes over an iteration's completions", 2, least=1)
    minibatch: int = _doc("completions in an optimiser step", 32, least=1)
    micro_batch: int = _doc("completions in a forward, which bounds the memory; 0: a whole minibatch", 0)
    lr: float = _doc("learning rate, constant", 1e-4)
    kl: float = _doc("weight of the per-token KL penalty against the reference", 0.05)
    clip: float = _doc("how far the ratio of new to old probability counts", 0.2)
    gamma: float = _doc("discount", 1.0, most=1.0)
    lam: float = _doc("GAE's lambda", 0.95, most=1.0)
    trackers: tuple[str, ...] = _doc(TRACKERS, ("tensorboard",), shown=True)


@dataclass(frozen=True, slots=True)
class IterateConfig:
    mode: str = _doc("what a round adds: self_training (positives too) or hard_negatives", "self_training")
    rounds: int = _doc("rounds of reranker and PPO, at most: one that mines nothing is the last", 2)
    shared_process: bool = _doc("train on problems whose tests run in the program's process (MultiPL-E), too", False)
    seed: int = _doc("seed of rerankers, PPO and mining, over the same data; 0: the recipe's", 0)
    generator: str = _doc("causal language model to start from, a hub id or a folder; empty: the run's own", "")
    sft: tuple[str, ...] = _doc("further sets whose right solutions are fine-tuned on: adapter=FILE, or a hub name", ())
    sft_epochs: int = _doc("passes over passing solutions of training problems before the first sample", 1)
    problems: int = _doc("training problems whose completions are executed", 1200)
    samples: int = _doc("completions of each before the first round", 6)
    mined_problems: int = _doc("training problems mined in a round", 400)
    mined_samples: int = _doc("completions of each of them", 6)
    hard_quantile: float = _doc(
        "a failure is high-scoring from this quantile of the passing programs' scores", 0.25, most=1.0
    )
    max_positives: int = _doc("most mined positives kept of a problem and a round", 2)
    recorded: str = _doc("a JSONL of completions (task_id, completion) mined in every round; empty: none", "")
    seen: str = _doc("folder of the service's candidate logs, mined in every round; empty: none", "")
    held_out: int = _doc("test problems of the report", 120)
    candidates: int = _doc("completions of each of them", 16)
    max_new_tokens: int = _doc("longest completion", 72)
    temperature: float = _doc("sampling temperature everywhere", 1.0)


@dataclass(frozen=True, slots=True)
class RayConfig:
    address: str = _doc("of a running cluster, or auto; empty: one on this host, for as long as the command runs", "")
    executors: int = _doc("executors at most; 0: as many as the cluster has room for, also as nodes come and go", 0)
    cpus: float = _doc("CPUs of an executor", 1.0, least=0.01)
    gpus: float = _doc("GPUs of an executor that holds a model (evaluate, sample with kind hf)", 0.0)
    chunk: int = _doc("programs, questions or problems that an executor gets at once", 16, least=1)
    max_tries: int = _doc("executors that may end on one chunk before the stage fails", 3, least=1)


@dataclass(frozen=True, slots=True)
class CardConfig:
    license: str = _doc("the checkpoint's licence by its id at the hub, as apache-2.0; empty: other", "")
    tags: tuple[str, ...] = _doc("further tags of the card", ())


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
    shard: str = _doc("`3/16`: only this shard of a stage; the command without it ends the stage", "")
    engine: Literal["", "local", "service", "ray"] = _doc(
        "who does the work: local, service (what the recipe names) or ray; empty: a service where one is named", ""
    )
    split: SplitConfig = SplitConfig()
    collect: CollectConfig = CollectConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    pretrain: PretrainConfig = PretrainConfig()
    hub: HubConfig = HubConfig()
    synthesize: SynthesizeConfig = SynthesizeConfig()
    sample: SampleConfig = SampleConfig()
    sampler: SourceConfig = SourceConfig()
    writer: SourceConfig = SourceConfig(temperature=0.7, max_tokens=8192, json_mode=True)
    oracle: SourceConfig = SourceConfig(temperature=0.0)
    mutate: MutateConfig = MutateConfig()
    verify: VerifyConfig = VerifyConfig()
    pair: PairConfig = PairConfig()
    fit: FitConfig = FitConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    crossval: CrossvalConfig = CrossvalConfig()
    world: WorldConfig = WorldConfig()
    ppo: PPOConfig = PPOConfig()
    iterate: IterateConfig = IterateConfig()
    ray: RayConfig = RayConfig()
    card: CardConfig = CardConfig()


def read_recipe(path: Path, flags: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Recipe:
    """The recipe in a TOML file, or in a run's `recipe.json`.

    Args:
        path: the file.
        flags: `--field value` and `--section.field value`, which override the file.
        environ: where `PLAUDIT_DATA` is looked up, which overrides the file's `data`.

    Raises:
        UsageError: for a file that cannot be read, an unknown key or flag, and a value of the wrong type.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"no recipe at {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    if environ and environ.get("PLAUDIT_DATA"):
        values["data"] = environ["PLAUDIT_DATA"]
    return override(_build(Recipe(), values, path), flags)


def override(recipe: Recipe, flags: Sequence[str]) -> Recipe:
    """`recipe` with `--field value` or `--section.field value` applied in order. Raises `UsageError`."""
    if len(flags) % 2:
        raise UsageError(f"{flags[-1]} has no value")
    known = {f"{prefix}{field.name}": (prefix, field.name) for _, prefix, field in _fields(_SECTIONS)}
    for flag, text in zip(flags[::2], flags[1::2], strict=True):
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in known:
            raise UsageError(f"unknown flag {flag}{_nearest(name, known, '--')}")
        prefix, field_name = known[name]
        section = prefix.removesuffix(".")
        owner: Any = getattr(recipe, section) if section else recipe
        is_list = isinstance(getattr(owner, field_name), tuple)
        value = [item for item in text.split(",") if item] if is_list else text
        changed = dataclasses.replace(owner, **{field_name: _convert(value, owner, field_name, flag, strict=False)})
        recipe = dataclasses.replace(recipe, **{section: changed}) if section else changed
    return recipe


def result_fields(section: Any) -> dict[str, Any]:
    """The values of a section that a result depends on."""
    return {field.name: getattr(section, field.name) for field in dataclasses.fields(section) if field.repr}


def field_lines(sections: Sequence[str]) -> list[str]:
    """One help line per field: the recipe's own, then those of these sections."""
    return [
        f"  --{prefix}{field.name:<{28 - len(prefix)}} {field.metadata['doc']} (default {getattr(owner, field.name)})"
        for owner, prefix, field in _fields(sections)
    ]


_SECTIONS = tuple(field.name for field in dataclasses.fields(Recipe) if dataclasses.is_dataclass(field.default))


def _fields(sections: Sequence[str]) -> Iterator[tuple[Any, str, dataclasses.Field[Any]]]:
    """(default, prefix of a flag, field) of the recipe's own fields, then of these sections'."""
    default = Recipe()
    yield from ((default, "", field) for field in dataclasses.fields(default) if field.name not in _SECTIONS)
    for name in sections:
        section = getattr(default, name)
        yield from ((section, f"{name}.", field) for field in dataclasses.fields(section))


def _build(default: Any, values: dict[str, Any], path: Path, prefix: str = "") -> Any:
    """`default` with these values of a file. What a file does not name keeps its default, section by section."""
    known = {field.name for field in dataclasses.fields(default)}
    changes = {}
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"{path}: unknown key {prefix}{name}{_nearest(name, known)}")
        current = getattr(default, name)
        if not dataclasses.is_dataclass(current):
            changes[name] = _convert(value, default, name, f"{path}: {prefix}{name}")
        elif isinstance(value, dict):
            changes[name] = _build(current, value, path, f"{name}.")
        else:
            raise UsageError(f"{path}: {name} is a section: write [{name}] and its keys below")
    return dataclasses.replace(default, **changes)


def _convert(value: Any, owner: Any, name: str, where: str, *, strict: bool = True) -> Any:
    """A value of the field's type. Not `strict`: from the text of a flag."""
    import msgspec

    try:
        converted = msgspec.convert(value, typing.get_type_hints(type(owner))[name], strict=strict)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {str(error)[:1].lower()}{str(error)[1:]}; the value is {value!r}") from error
    bounds = next(field.metadata for field in dataclasses.fields(owner) if field.name == name)
    numbers = converted if isinstance(converted, tuple) else (converted,)
    for number in numbers:
        if isinstance(number, int | float) and not bounds["least"] <= number <= bounds["most"]:
            limit = (
                f"from {bounds['least']:g} to {bounds['most']:g}"
                if bounds["most"] < math.inf
                else f"{bounds['least']:g} or more"
            )
            raise UsageError(f"{where}: must be {limit}, and is {number!r}")
    return converted


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    import difflib

    names = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {prefix}{names[0]}?" if names else ""
