"""Where the group trainer starts from: this run's own pretrained backbone, or a pretrained checkpoint (`fit.base`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification
from transformers.utils import logging as transformers_logging

from plaudit.errors import UsageError
from service.scoring.checkpoint import locate, revision_of
from service.scoring.encoder import Encoder
from service.scoring.tokenizer import load_tokenizer
from training.pipeline.config import Recipe
from training.pipeline.digests import file_digest
from training.pipeline.run import Run
from training.reward_model.base_model import check_base, encoder_of, load_base, pad_token, write_checkpoint
from training.reward_model.template import load_encoder, spec

GROUPED = ("llama", "qwen2")  # decoders whose layers `packed_forward` computes


class InitialModel(Protocol):
    """A start of a fit. `identity` is what tells it from other starts when a killed fit is resumed."""

    encoder: Encoder
    identity: tuple[str, ...]

    def load(self) -> Any:
        """The model in training mode, a new head drawn by torch's generator."""

    def write(self, model: Any, last_ids: set[int]) -> None:
        """Write `checkpoint/` from the trained model. `last_ids`: the last token ids of the training sequences."""


def initial_model(recipe: Recipe, run: Run) -> InitialModel:
    """The start that the recipe names.

    Raises `UsageError` for LoRA, which the group trainer does not have, and `HostLacks` for a base that is not there.
    """
    if not recipe.fit.base:
        return OwnBackbone(recipe, run)
    if recipe.fit.lora_rank:
        raise UsageError("fit.lora_rank: LoRA is for fit.loop pairs; the other loops train every weight, or the head")
    return PretrainedBase(recipe, run)


class OwnBackbone:
    """The backbone that `pretrain` wrote, under a new head, with the recipe's own template."""

    def __init__(self, recipe: Recipe, run: Run) -> None:
        self._recipe, self._run = recipe, run
        self.identity: tuple[str, ...] = (file_digest(run.path("pretrained/model.safetensors")),)
        self.encoder = load_encoder(recipe, run.path("tokenizer"))

    def load(self) -> Any:
        transformers_logging.disable_progress_bar()
        folder = self._run.path("pretrained")
        config = Qwen2Config.from_pretrained(folder, num_labels=1, tie_word_embeddings=False)
        model = Qwen2ForSequenceClassification(config)
        pretrained = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model.model.load_state_dict(pretrained.model.state_dict())
        torch.nn.init.normal_(model.score.weight, std=0.02)
        return model.train()

    def write(self, model: Any, last_ids: set[int]) -> None:
        folder = self._run.path("checkpoint/config.json").parent
        model.config.use_cache = False
        (folder / "golden.jsonl").unlink(missing_ok=True)
        model.eval().save_pretrained(folder)
        load_tokenizer(self._run.path("tokenizer")).save_pretrained(folder)
        spec(self._recipe).write(folder / "reward_model.json")


class PretrainedBase:
    """`fit.base`: a decoder of Llama's architecture, or an encoder, with its own tokenizer and template."""

    def __init__(self, recipe: Recipe, run: Run) -> None:
        self._run = run
        self._base: Path = locate(recipe.fit.base)
        self.encoder = encoder_of(recipe, self._base)
        self.identity: tuple[str, ...] = (revision_of(self._base),)

    def load(self) -> Any:
        """Raises `UsageError` for a decoder of another architecture, and for what the service would reject."""
        model = load_base(self._base)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # as TRL does; and a resumed fit draws no random numbers
        if hasattr(model, "score") and model.config.model_type not in GROUPED:
            known = ", ".join(GROUPED)
            raise UsageError(f"{self._base}: fit.loop groups fits {known} and encoders, not {model.config.model_type}")
        check_base(self._base, model, self.encoder)
        return model.train()

    def write(self, model: Any, last_ids: set[int]) -> None:
        pad = pad_token(self.encoder.tokenizer, last_ids)
        write_checkpoint(self._run, self._base, model.eval(), self.encoder, pad)
