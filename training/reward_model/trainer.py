"""`fit`: the reward model, by a Bradley-Terry loss over every pair inside a group of completions.

The loss of a pair is -log sigmoid(score of the chosen - score of the rejected) in float32 (`loss.py` has its options),
averaged over a group's pairs so that a group counts once however many pairs it holds. A small pass / fail cross-entropy
on the same scores puts their zero near even odds, which the calibration then fits exactly on validation problems.

A group is one prompt with up to a dozen of its programs; `forward.group_scores` computes the prompt once. Some groups
are shown as whole functions, bare or fenced, because clients send those too. Each epoch ends with a line about the
validation fold; nothing here reads a test problem.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.errors import TooLong, UsageError
from service.scoring.checkpoint import locate, revision_of
from service.scoring.encoder import load_tokenizer
from training.pipeline.config import Recipe
from training.pipeline.digests import content_key, file_digest
from training.pipeline.files import read_jsonl
from training.pipeline.metrics import auc, mean
from training.pipeline.progress import StageProgress
from training.pipeline.records import Problem, ProgramRecord, read_problems, read_programs
from training.pipeline.run import Run
from training.reward_model.base_model import check_base, encoder_of, load_base, pad_token, write_checkpoint
from training.reward_model.finalize import finish_checkpoint, golden_texts
from training.reward_model.metrics_log import Course
from training.reward_model.pretrain import SAVE_EVERY_S, keep_freed_memory, load_state, save_state, schedule
from training.reward_model.tokenizer import load_encoder, presented, spec

if TYPE_CHECKING:
    import torch

    from service.scoring.reward_model import Encoder

ARCHITECTURE = "Qwen2ForSequenceClassification"
FORMS = ("program", "fenced")
GROUPED = ("llama", "qwen2")  # whose layers `forward.py` walks through
LONGEST = 640  # tokens; a training program with more is left out, so that one does not cost what ten do
PACK = 6144  # tokens of a forward


@dataclass(frozen=True, slots=True)
class Group:
    """Program numbers of one problem that are scored together, in one form."""

    task_id: str
    programs: tuple[str, ...]
    form: str


def fit(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `checkpoint/`, a folder that the service serves, and `fit.jsonl`, a line an epoch."""
    if recipe.fit.loop not in ("pairs", "groups"):
        raise UsageError(f"fit.loop is pairs or groups, not {recipe.fit.loop!r}")
    if recipe.fit.base and recipe.fit.loop == "pairs":
        from training.reward_model.trainer_hf import fit_pretrained

        return fit_pretrained(recipe, run)
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
    settings = recipe.fit
    problems = read_problems(run.path("problems.jsonl"))
    programs = {p.program_id: p for p in read_programs(run.path("verified.jsonl"))}
    better, held = preferences_of(run)
    base = locate(settings.base) if settings.base else None
    if base is not None and settings.lora_rank:
        raise UsageError("fit.lora_rank: fit.loop groups trains every weight; LoRA is for pairs")
    encoder = load_encoder(recipe, run.path("tokenizer")) if base is None else encoder_of(recipe, base)
    encoded = encode_programs(encoder, problems, [programs[name] for name in _members(better)])
    plan = [group for epoch in range(settings.epochs) for group in epoch_groups(better, encoded, recipe, epoch)]
    steps = [plan[at : at + settings.groups_per_step] for at in range(0, len(plan), settings.groups_per_step)]

    torch.manual_seed(recipe.seed)
    golden_texts(encoder)
    model = new_model(recipe, run) if base is None else base_model(base)
    if base is not None:
        check_base(base, model, encoder)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=settings.weight_decay, fused=True
    )
    origin = [revision_of(base)] if base is not None else []
    resumed = run.resumable_key(
        "fit", content_key(settings, recipe.seed, file_digest(run.path("pairs.jsonl")), *origin)
    )
    state_path = run.path("fit.state.pt")
    first = load_state(state_path, model, optimiser) if resumed else 0
    if not first:
        run.path("fit.jsonl").unlink(missing_ok=True)  # rows of another fit
    progress, saved = StageProgress(run, "fit", len(steps)), time.monotonic()
    per_epoch = max(1, len(steps) // settings.epochs)
    with Course(run, "fit", first) as course:
        for step, groups in enumerate(steps[first:], start=first):
            for parameters in optimiser.param_groups:
                parameters["lr"] = settings.lr * schedule(step / len(steps), settings.warmup)
            loss = train_step(model, optimiser, groups, encoded, programs, better, recipe)
            progress.at(step + 1, f"loss {loss:.3f}")
            if (step + 1) % per_epoch == 0 or step + 1 == len(steps):
                row = {"step": step + 1, "loss": round(loss, 4)}
                course.add({**row, **validate(model, encoder, problems, programs, held)})
                run.say(f"fit: {course.rows[-1]}")
            if time.monotonic() - saved > SAVE_EVERY_S:
                save_state(state_path, model, optimiser, step + 1)
                saved = time.monotonic()
    if base is None:
        save_checkpoint(model, recipe, run)
    else:
        closing = {own[-1] for _, own in encoded.values()}
        write_checkpoint(run, base, model.eval(), encoder, pad_token(encoder.tokenizer, closing))
    state_path.unlink(missing_ok=True)
    calibration = finish_checkpoint(run, problems, programs.values())
    return {"groups": len(plan), "steps": len(steps), "programs": len(encoded), **course.rows[-1], **calibration}


def preferences_of(run: Run) -> tuple[dict[str, set[tuple[str, str]]], set[str]]:
    """Training pairs (chosen, rejected) by problem, and the validation problems that have pairs."""
    better: dict[str, set[tuple[str, str]]] = defaultdict(set)
    held: set[str] = set()
    for r in read_jsonl(run.path("pairs.jsonl")):
        if r["fold"] == "train":
            better[r["task_id"]].add((r["chosen"], r["rejected"]))
        else:
            held.add(r["task_id"])
    return dict(better), held


def _members(better: dict[str, set[tuple[str, str]]]) -> list[str]:
    return sorted({name for pairs in better.values() for pair in pairs for name in pair})


Encodings = dict[tuple[str, str], tuple[tuple[int, ...], tuple[int, ...]]]


def encode_programs(encoder: Encoder, problems: dict[str, Problem], programs: Sequence[ProgramRecord]) -> Encodings:
    """(program, form) → (ids of the prompt, ids of the rest), for every program that is not too long."""
    made: Encodings = {}
    for program in programs:
        problem = problems[program.task_id]
        for form in ("body", *FORMS):
            prompt, completion = presented(program, problem.prompt, problem.entry_point, form)
            encoded = encoder.encode_group(prompt, [completion])[0]
            if not isinstance(encoded, TooLong) and len(encoded.ids) <= LONGEST:
                cut = encoded.prompt_tokens
                made[program.program_id, form] = encoded.ids[:cut], encoded.ids[cut:]
    return made


def epoch_groups(
    better: dict[str, set[tuple[str, str]]], encoded: Encodings, recipe: Recipe, epoch: int
) -> list[Group]:
    """The groups of one epoch in their order: each problem's programs dealt into at most `max_groups` groups.

    A third of a group is chosen programs (fewer where there are fewer), and every group holds both kinds.
    """
    settings = recipe.fit
    draw = random.Random(f"{recipe.seed}:{epoch}")
    groups = []
    for task_id in sorted(better):
        chosen = sorted({a for a, _ in better[task_id]})
        rejected = sorted({b for _, b in better[task_id]} - set(chosen))
        draw.shuffle(chosen)
        draw.shuffle(rejected)
        num_chosen = min(len(chosen), max(settings.group_size // 3, settings.group_size - len(rejected)))
        num_rejected = settings.group_size - num_chosen
        count = min(settings.max_groups, -(-len(rejected) // num_rejected))
        for number in range(count):
            low = rejected[number::count][:num_rejected]
            high = [chosen[(number * num_chosen + at) % len(chosen)] for at in range(num_chosen)]
            form = draw.choice(FORMS) if draw.random() < settings.presentation else "body"
            names = tuple(name for name in dict.fromkeys([*high, *low]) if (name, form) in encoded)
            if any((a, b) in better[task_id] for a in names for b in names):
                groups.append(Group(task_id, names, form))
    draw.shuffle(groups)
    return groups


def train_step(
    model: Any,
    optimiser: Any,
    groups: Sequence[Group],
    encoded: Encodings,
    programs: dict[str, ProgramRecord],
    better: dict[str, set[tuple[str, str]]],
    recipe: Recipe,
) -> float:
    """One optimiser step over these groups; their mean loss."""
    import torch

    from training.reward_model.packed_forward import group_scores

    settings = recipe.fit
    total = 0.0
    for pack in packs(groups, encoded):
        with torch.autocast("cpu", torch.bfloat16):
            scores = group_scores(model, [ids_of(group, encoded) for group in pack])  # (N,)
        losses = []
        for group, own in zip(pack, torch.split(scores, [len(group.programs) for group in pack]), strict=True):
            pairs = [
                (i, j)
                for i, a in enumerate(group.programs)
                for j, b in enumerate(group.programs)
                if (a, b) in better[group.task_id]
            ]
            rates = [programs[name].pass_rate for name in group.programs]
            margins = margins_of(settings.margin, [(rates[i], rates[j]) for i, j in pairs]) if settings.margin else None
            passed = [rate == 1.0 for rate in rates]
            losses.append(
                bradley_terry(own, pairs, margins, settings.centre) + settings.pointwise * pointwise(own, passed)
            )
        loss = torch.stack(losses).sum() / len(groups)
        torch.autograd.backward(loss)
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return total


def ids_of(group: Group, encoded: Encodings) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The group's prompt and its programs, as `group_scores` takes them."""
    parts = [encoded[name, group.form] for name in group.programs]
    return parts[0][0], [own for _, own in parts]


def packs(groups: Sequence[Group], encoded: Encodings) -> list[list[Group]]:
    """Runs of groups that go through the model together: up to `PACK` tokens, counted with the attention's padding."""
    made: list[list[Group]] = [[]]
    rows = longest = 0
    for group in groups:
        prompt, owns = ids_of(group, encoded)
        length = len(prompt) + max(map(len, owns))
        if made[-1] and max(longest, length) * (rows + len(owns)) > PACK:
            made.append([])
            rows = longest = 0
        made[-1].append(group)
        rows, longest = rows + len(owns), max(longest, length)
    return made


def bradley_terry(
    scores: torch.Tensor, pairs: Sequence[tuple[int, int]], margins: Sequence[float] | None = None, centre: float = 0.0
) -> torch.Tensor:
    """`preference_loss` over index pairs (better, worse) of these scores."""
    import torch

    from training.reward_model.loss import preference_loss

    better, worse = torch.tensor(pairs).T
    margin = None if margins is None else torch.tensor(margins)
    return preference_loss(scores[better], scores[worse], margin=margin, centre=centre)


def margins_of(factor: float, rates: Sequence[tuple[float | None, float | None]]) -> list[float]:
    """The margins of pairs with these pass rates (better, worse). Raises `UsageError` where there are none."""
    if any(rate is None for pair in rates for rate in pair):
        raise UsageError("fit.margin needs pass rates, and programs of these pairs have none")
    return [factor * (high - low) for high, low in rates if high is not None and low is not None]


def pointwise(scores: torch.Tensor, passed: Sequence[bool]) -> torch.Tensor:
    """Mean cross-entropy of the scores read as log-odds of passing."""
    import torch

    target = torch.tensor(passed, dtype=torch.float32)
    return torch.nn.functional.binary_cross_entropy_with_logits(scores.float(), target)


def new_model(recipe: Recipe, run: Run) -> Any:
    """The pretrained backbone under a new head."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    config = Qwen2Config.from_pretrained(run.path("pretrained"), num_labels=1, tie_word_embeddings=False)
    model = Qwen2ForSequenceClassification(config)
    pretrained = Qwen2ForCausalLM.from_pretrained(run.path("pretrained"), dtype=torch.float32)
    model.model.load_state_dict(pretrained.model.state_dict())
    torch.nn.init.normal_(model.score.weight, std=0.02)
    return model.train()


def base_model(base: Path) -> Any:
    """A decoder of Llama's build, or an encoder, under a head of one number.

    Raises `UsageError` for another decoder, whose layers the group loop does not know.
    """
    import torch

    model = load_base(base)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # as TRL has it: what is learnt is what is scored, and a resumed fit draws nothing
    if hasattr(model, "score") and model.config.model_type not in GROUPED:
        known = ", ".join(GROUPED)
        raise UsageError(f"{base}: fit.loop groups knows {known} and encoders, no {model.config.model_type}")
    return model.train()


def validate(
    model: Any, encoder: Encoder, problems: dict[str, Problem], programs: dict[str, ProgramRecord], held: set[str]
) -> dict[str, float]:
    """Mean within-problem AUC on the validation fold, apart for sampled problems and the others."""
    import torch

    from training.reward_model.packed_forward import group_scores

    by_task: dict[str, list[ProgramRecord]] = defaultdict(list)
    for program in programs.values():
        if program.task_id in held and program.origin != "mutant":
            by_task[program.task_id].append(program)
    found: dict[str, list[float]] = defaultdict(list)
    for members in by_task.values():
        sampled = any(program.iid_copies for program in members)
        if sampled:
            members = [program for program in members if program.iid_copies]
        encoded = encode_programs(encoder, problems, members)
        members = [program for program in members if (program.program_id, "body") in encoded]
        parts = [encoded[program.program_id, "body"] for program in members]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            scores = [
                score
                for at in range(0, len(parts), 16)
                for score in group_scores(model, [(parts[0][0], [own for _, own in parts[at : at + 16]])]).tolist()
            ]
        value = auc(scores, [program.pass_rate == 1.0 for program in members])
        if value is not None:
            found["validation_auc_sampled" if sampled else "validation_auc_other"].append(value)
    return {name: round(mean(values), 4) for name, values in sorted(found.items())}


def save_checkpoint(model: Any, recipe: Recipe, run: Run) -> None:
    folder = run.path("checkpoint/config.json").parent
    model.config.use_cache = False
    (folder / "golden.jsonl").unlink(missing_ok=True)
    model.eval().save_pretrained(folder)
    load_tokenizer(run.path("tokenizer")).save_pretrained(folder)
    spec(recipe, ARCHITECTURE).write(folder / "reward_model.json")
