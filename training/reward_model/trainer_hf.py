"""The pair trainer: TRL's RewardTrainer from a pretrained checkpoint, on one process or under `accelerate launch`.

- The trainer gets token ids (`dataset.py`), never texts, so its template is the service's.
- Its model pools the last token that is not padding, so padding must be a token that closes no text. `pad_token` finds
  one, and the checkpoint's config names it for other loaders.
- Weights stay float32 and run under autocast. LoRA is merged at the end: `checkpoint/` is a plain sequence classifier.
- Several processes: rank 0 encodes while the others wait, and alone writes to the run folder; all of them train.
- `fit.trainer/` holds the trainer's states. A state counts once its mark is written, after all its other files.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback, set_seed
from transformers.trainer_utils import IntervalStrategy
from transformers.utils import logging as transformers_logging
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from plaudit.errors import UsageError
from service.scoring.checkpoint import locate, revision_of
from training.pipeline.config import FitConfig, Recipe, result_fields
from training.pipeline.digests import content_key, file_digest
from training.pipeline.progress import StageProgress
from training.pipeline.run import Run
from training.reward_model.base_model import check_base, load_base, pad_token, write_checkpoint
from training.reward_model.dataset import PairDataset, load_pairs
from training.reward_model.finalize import FittedModel, golden_examples
from training.reward_model.loss import preference_loss
from training.reward_model.metrics_log import MetricsLog

LORA_ALPHA = 32.0  # LoRA's scale is this over its rank
COMPLETE = "whole"  # the file that marks a state as complete
NOT_LOGGED = ("_runtime", "_per_second", "num_tokens")  # differ between equal runs
WAIT_S = 6 * 3600  # ranks wait for rank 0's encoding


def fit(recipe: Recipe, run: Run) -> FittedModel | None:
    """Train by pairs from `fit.base`; writes `checkpoint/` and `fit.jsonl`.

    Returns None on ranks other than 0.
    Raises `UsageError` for settings that do not go together, `HostLacks` for a base that is not there.
    """
    states = run.folder / "fit.trainer"
    args = arguments(recipe, states)
    base = locate(recipe.fit.base)
    with args.main_process_first(local=False):
        if args.process_index == 0:
            prepare_states(recipe, run, base, states)
        pairs = load_pairs(recipe, run, base, states / "pairs")
    args.eval_strategy = IntervalStrategy.STEPS if len(pairs.validation) else IntervalStrategy.NO
    pad = pad_token(pairs.encoder.tokenizer, pairs.last_ids)
    golden_examples(pairs.encoder)  # rejects a length limit that no example fits into, before the training
    model = load_classifier(base, recipe)
    check_base(base, model, pairs.encoder)
    pairs.encoder.tokenizer.pad_token = pad
    state = last_state(states)
    first = json.loads((state / "trainer_state.json").read_text(encoding="utf-8"))["global_step"] if state else 0
    with MetricsLog(run, "fit", first, recipe.fit.trackers, result_fields(recipe.fit)) as metrics:
        trainer = pair_trainer(recipe, model, args, pairs, FitCallback(run, metrics))
        trainer.train(resume_from_checkpoint=str(state) if state else None)
    scores = gathered_scores(trainer, pairs.calibration["ids"])
    trained = states / "trained"
    trainer.save_model(str(trained))
    if args.process_index:
        return None
    save_checkpoint(recipe, run, base, trained, pairs, pad)
    summary = {"pairs": len(pairs.train), "too_long": pairs.too_long, "steps": trainer.state.global_step}
    accuracies = [row["validation_accuracy"] for row in metrics.rows if "validation_accuracy" in row]
    if accuracies:
        summary["validation_accuracy"] = accuracies[-1]
    return FittedModel(summary, partial(shutil.rmtree, states), scores)


def prepare_states(recipe: Recipe, run: Run, base: Path, states: Path) -> None:
    """Remove the states of a fit of something else, and those that a kill left incomplete."""
    key = content_key(recipe.fit, recipe.seed, file_digest(run.path("pairs.jsonl")), revision_of(base))
    if not run.resumable_key("fit", key):
        shutil.rmtree(states, ignore_errors=True)
        run.path("fit.jsonl").unlink(missing_ok=True)
    for folder in list(states.glob("checkpoint-*")):
        if not (folder / COMPLETE).is_file():
            shutil.rmtree(folder)


def pair_trainer(recipe: Recipe, model: Any, args: Any, pairs: PairDataset, callback: FitCallback) -> PairTrainer:
    """TRL's trainer over these pairs. Only `callback` reports; stdout is for the stage's summary."""
    tokenizer = pairs.encoder.tokenizer
    trainer = PairTrainer(
        model=model,
        args=args,
        train_dataset=pairs.train,
        eval_dataset=pairs.validation if len(pairs.validation) else None,
        processing_class=tokenizer,
        peft_config=lora(recipe.fit),
        data_collator=PairCollator(tokenizer.pad_token_id, pairs.mean_weight),
        callbacks=[callback],
    )
    trainer.fit_settings = recipe.fit
    trainer.remove_callback(PrinterCallback)
    keep_float32(trainer)
    return trainer


def arguments(recipe: Recipe, states: Path) -> Any:
    """TRL's settings from the recipe's. Made first, because creating them connects the processes.

    Raises `UsageError` if the batch is not a multiple of what the processes take at once.
    """
    settings = recipe.fit
    if settings.precision not in ("bfloat16", "float32"):
        raise UsageError(f"fit.precision is {settings.precision!r}; it must be bfloat16 or float32")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    args = RewardConfig(
        output_dir=str(states),
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
        ddp_timeout=WAIT_S,
        per_device_train_batch_size=settings.micro_batch,
        per_device_eval_batch_size=settings.micro_batch,
        num_train_epochs=settings.epochs,
        learning_rate=settings.lr,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        bf16=settings.precision == "bfloat16",
        activation_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing=settings.gradient_checkpointing,
        max_length=None,
        logging_steps=settings.log_steps,
        eval_strategy="no",
        eval_steps=settings.eval_steps,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        ddp_find_unused_parameters=False,
    )
    pairs_at_once = settings.micro_batch * args.world_size
    if settings.batch % pairs_at_once:
        raise UsageError(
            f"fit.batch {settings.batch} is not a multiple of {args.world_size} processes × fit.micro_batch "
            f"{settings.micro_batch}"
        )
    return dataclasses.replace(args, gradient_accumulation_steps=settings.batch // pairs_at_once)


def load_classifier(base: Path, recipe: Recipe) -> Any:
    """The base under a head whose score stays float32. Raises `UsageError` for a base that is not a decoder."""
    set_seed(recipe.seed)
    model = load_base(base)
    if type(getattr(model, "score", None)) is not torch.nn.Linear:
        raise UsageError(f"{base}: a {type(model).__name__} has no linear `score`: fit.base must be a decoder")
    model.score.__class__ = Float32Head
    return model


def keep_float32(trainer: Any) -> None:
    """Under FSDP in bfloat16: keep outputs, and so scores, in float32, and sum gradients in float32.

    Raises `UsageError` if accelerate has another precision than the recipe.
    """
    configured, wanted = trainer.accelerator.mixed_precision, "bf16" if trainer.args.bf16 else "no"
    if configured != wanted:
        raise UsageError(
            f"accelerate's mixed_precision is {configured}, and fit.precision asks for {wanted}: "
            "set mixed_precision to no in accelerate's configuration"
        )
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    policy = getattr(plugin, "mixed_precision_policy", None)
    if plugin is not None and plugin.fsdp_version == 2 and policy is not None:
        plugin.mixed_precision_policy = dataclasses.replace(
            policy, output_dtype=torch.float32, reduce_dtype=torch.float32
        )


def lora(settings: FitConfig) -> Any:
    """PEFT's configuration, or None to train every weight. The head is trained in full either way."""
    if not settings.lora_rank:
        return None
    from peft import LoraConfig

    return LoraConfig(
        task_type="SEQ_CLS",
        r=settings.lora_rank,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.0,
        target_modules="all-linear",
        modules_to_save=["score"],
    )


@torch.no_grad()
def gathered_scores(trainer: Any, sequences: Sequence[Sequence[int]]) -> list[float]:
    """The trained model's scores of these token ids, in their order, on the devices of the training.

    Every process calls this and runs the same number of forwards, because all of them gather a sharded model for each.
    """
    from accelerate.utils import gather_object

    model, args = trainer.model_wrapped.eval(), trainer.args
    size, pad = 2 * args.per_device_train_batch_size, trainer.processing_class.pad_token_id
    order = sorted(range(len(sequences)), key=lambda at: len(sequences[at]))
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    own: list[tuple[int, float]] = []
    for turn in range(-(-len(batches) // args.world_size)):
        batch = batches[(turn * args.world_size + args.process_index) % len(batches)]
        rows = [torch.tensor(sequences[at]) for at in batch]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)  # (B, T)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)  # (B, T)
        logits = model(input_ids=ids.to(args.device), attention_mask=mask.to(args.device)).logits  # (B, 1)
        own += zip(batch, logits[:, 0].float().tolist(), strict=True)
    scores: dict[int, float] = dict(gather_object(own))
    return [scores[at] for at in range(len(sequences))]


def save_checkpoint(recipe: Recipe, run: Run, base: Path, trained: Path, pairs: PairDataset, pad: str) -> None:
    """Write `checkpoint/`: the trainer's weights with LoRA merged, the base's tokenizer files, the spec."""
    if recipe.fit.lora_rank:
        from peft import PeftModel

        model = PeftModel.from_pretrained(load_classifier(base, recipe), trained).merge_and_unload()
    else:
        model = load_classifier(trained, recipe)
    write_checkpoint(run, base, model, pairs.encoder, pad, recipe.fit.save_dtype)


def last_state(states: Path) -> Path | None:
    """The newest complete state of the trainer."""
    complete = [mark.parent for mark in states.glob(f"checkpoint-*/{COMPLETE}")]
    return max(complete, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


class Float32Head(torch.nn.Linear):
    """A score head that stays float32 under autocast, as in the service: bfloat16 would round small gaps away."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, H) → (B, T, 1)"""
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.nn.functional.linear(hidden.float(), self.weight.float())


class PairCollator:
    """TRL's collator (right padding, chosen before rejected), and weights whose mean over the training set is 1."""

    def __init__(self, pad_token_id: int, mean_weight: float) -> None:
        self._padded = DataCollatorForPreference(pad_token_id=pad_token_id)
        self._mean_weight = mean_weight

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self._padded(rows)
        return {**batch, "weight": torch.tensor([row["weight"] for row in rows]) / self._mean_weight}


class PairTrainer(RewardTrainer):  # type: ignore[misc]
    """TRL's trainer with pair weights, and with the loss of the group trainer."""

    fit_settings: FitConfig

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: `publish` writes the checkpoint's card."""

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["chosen_ids", "rejected_ids", "margin", "weight"]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        weight: Tensor = inputs.pop("weight")  # (P,)
        margin: Tensor = inputs.pop("margin")  # (P,)
        _, outputs = super().compute_loss(model, inputs, return_outputs=True)  # also notes TRL's metrics
        chosen, rejected = outputs.logits.squeeze(-1).chunk(2)  # (P,), (P,)
        loss = preference_loss(chosen, rejected, margin=margin, weight=weight, centre=self.fit_settings.centre)
        return (loss, outputs) if return_outputs else loss


class FitCallback(TrainerCallback):  # type: ignore[misc]
    """Rows of `fit.jsonl`, progress, and the mark on complete states; on rank 0 alone."""

    def __init__(self, run: Run, metrics: MetricsLog) -> None:
        self._run, self._metrics = run, metrics
        self._progress: StageProgress | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._progress = self._progress or StageProgress(self._run, "fit", state.max_steps)
            self._progress.at(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        numbers = {name: value for name, value in (logs or {}).items() if not name.endswith(NOT_LOGGED)}
        if state.is_world_process_zero and ("loss" in numbers or "eval_loss" in numbers):
            row = {name.replace("eval_", "validation_"): round(value, 6) for name, value in numbers.items()}
            self._metrics.add({"step": state.global_step, **row})
            self._run.say(f"fit: {self._metrics.rows[-1]}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()
