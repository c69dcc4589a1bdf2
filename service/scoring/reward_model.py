"""The reward model: a checkpoint folder in, one raw score per completion out.

The checkpoint folder is the contract between training and serving. Beside the weights and the tokenizer it holds
`reward_model.json` (`RewardModelSpec`): the one template, the length limit, which token is pooled, the calibration and
a golden set. Training encodes through the same `Encoder`, so the text that was trained on is the text that is served.

Promised:
- There is one template and it owns every special token, so nothing is added twice (the tokenizer's own additions are
  off).
- The pooled token is the one that the checkpoint's own class pools; scores of a few examples are compared with that
  class at load (`own_class.py`). There is no padding.
- Nothing is cut silently: `TooLong` by default, `truncate_left` on request and marked in the result.
- A score is a float32 logit that depends on its own tokens only. What sequences begin with in common (their prompt) is
  computed once per batch (`packing.py`, `attention.py`) or once for several batches (`prefix_cache.py`). That is exact
  to rounding: within 1e-4 of the sequence alone in float32. `deterministic` scores one sequence at a time: the same
  bits, whatever else is in the batch.

Not promised:
- Equal bits across machines or torch versions; the golden set measures that difference.
- Protection from special tokens inside a text: they are encoded as special tokens, as Hugging Face does.

This module imports torch; only the scoring worker and training import it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel
from transformers import __version__ as transformers_version

from plaudit.errors import Invalid, TooLong, UsageError
from service.jobs import Completion
from service.scoring import adapters, checkpoint, decoder, heads, own_class, quantized
from service.scoring.attention import packed
from service.scoring.conversation import ChatMessage
from service.scoring.device import device_of, to_device
from service.scoring.encoder import Encoded, Encoder, Overflow, Prompt
from service.scoring.fault_isolation import out_of_memory
from service.scoring.packing import Ids, pack, rows
from service.scoring.parity import Parity, compare, read_golden
from service.scoring.prefix_cache import Layers, PromptCache
from service.scoring.prefix_sharing import cache_bytes_per_token, why_not
from service.scoring.process_rewards import StepScores
from service.scoring.shared_base import Weights, open_shared
from service.scoring.spec import SPEC_FILE, Calibration, RewardModelSpec
from service.scoring.tokenizer import token_id

__all__ = [
    "Calibration",
    "ChatMessage",
    "Encoded",
    "Encoder",
    "Overflow",
    "Parity",
    "Prompt",
    "RewardModel",
    "RewardModelSpec",
]

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Tokens of one packed row. Shorter rows compute long prompts again (1,024 tokens: a fifth slower at 4,096), longer ones
# were no faster on a CPU, and activations grow with them.
MAX_ROW_TOKENS = 8192
DETERMINISTIC = "deterministic: one sequence at a time"


class RewardModel:
    """A decoder with a head of one number, or an encoder's classifier, loaded once per process. An `Engine`.

    Attributes:
        prefix_sharing_disabled_reason: why prompts are not shared; None where they are.
        num_computed: tokens computed since the load.
        num_shared: tokens that sharing saved since the load.
        own_class_error: largest difference to what the checkpoint's own Hugging Face class scored a few examples; None:
            transformers has none.
    """

    is_remote = False
    depends_on_group = False
    _weights = Weights(None)

    def __init__(
        self,
        weights: Weights,
        head: heads.RewardHead | heads.GatedHead | None,
        encoder: Encoder,
        folder: Path,
        *,
        revision: str,
        dtype: str,
        parameters: int,
        prefix_sharing_disabled_reason: str | None,
        prompts: PromptCache,
        quantization: str | None = None,
    ) -> None:
        self.encoder = encoder
        self.spec = encoder.spec
        self.revision = revision
        self.dtype = dtype
        self.quantization = quantization
        self.engine = f"transformers {transformers_version}"
        self.max_length = encoder.spec.max_length
        self.tokenizer_digest = encoder.tokenizer_digest
        self.architecture: str = (weights.whole.config.architectures or [type(weights.whole).__name__])[0]
        self.parameters = parameters
        self.prefix_sharing_disabled_reason = prefix_sharing_disabled_reason
        self.prompts = prompts
        self.num_computed = 0
        self.num_shared = 0
        self.own_class_error: float | None = None
        self.good_label = head.good_label if isinstance(head, heads.RewardHead) else None
        self._folder = folder
        self._weights = weights
        self._backbone = weights.whole  # the whole classifier if there is no head
        self._head = head

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        dtype: str = "float32",
        threads: int = 1,
        deterministic: bool = False,
        max_prompt_bytes: int = 0,
        device: str = "cpu",
        share_base: bool = False,
    ) -> RewardModel:
        """The model of a checkpoint: safetensors only, no remote code, every weight accounted for.

        Args:
            path: checkpoint folder or hub id.
            dtype: "float32" or "bfloat16", for the backbone; the head is always float32.
            threads: torch's threads, for the whole process.
            deterministic: score one sequence at a time, without sharing prompts.
            max_prompt_bytes: how much is cached of prompts for later batches, where prompts are shared at all.
            device: where the backbone runs (`device_of`); the head, a product of a few rows, runs on the CPU.
            share_base: keep an adapter beside its base, which other adapters in this process share.

        Raises:
            UsageError: the checkpoint or the dtype is invalid.
            HostLacks: the checkpoint or the device is missing, or the memory is too small.
        """
        if dtype not in DTYPES:
            raise UsageError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        torch.set_num_threads(threads)
        torch_device = device_of(device)
        folder = adapters.locate(path)
        revision = checkpoint.revision_of(folder)
        config = checkpoint.read_config(folder)
        quantization = quantized.method(folder, config)
        encoder = Encoder.load(folder)
        max_length = encoder.spec.max_length
        weights, head = _read_weights(folder, config, encoder, DTYPES[dtype], torch_device, share_base=share_base)
        with contextlib.ExitStack() as undo:
            undo.callback(weights.close)
            with weights.active():
                whole = weights.whole
                checkpoint.check_vocabulary(folder, encoder.tokenizer, whole.get_input_embeddings().weight.shape[0])
                checkpoint.check_length(folder, whole, max_length)
                if quantization is not None:
                    whole = quantized.finish(whole, quantization, DTYPES[dtype], folder)
                own_scores = _own_scores(whole, encoder)
                backbone = whole if head is None else whole.base_model
                del whole
                weights = dataclasses.replace(weights, whole=backbone)
                parameters = weights.num_parameters(backbone) + (head.parameters if head else 0)
                if weights.base is None:
                    if quantization is None:  # a package's own layers, or its hooks on torch's
                        decoder.speed_up(backbone)
                    checkpoint.copy_mapped_weights(backbone)
                if checkpoint.revision_of(folder) != revision:
                    raise UsageError(f"{folder}: the checkpoint was written to while it was loaded")
                reason = _why_prompts_are_not_shared(backbone, head, max_length, deterministic=deterministic)
                if reason not in (None, DETERMINISTIC):
                    log.warning("%s: prompts are not shared: %s", path, reason)
                prompts = PromptCache()
                if reason is None and max_prompt_bytes:
                    prompts = PromptCache(max_prompt_bytes, cache_bytes_per_token(backbone, max_length))
                model = cls(
                    weights,
                    head,
                    encoder,
                    folder,
                    revision=revision,
                    dtype=dtype,
                    parameters=parameters,
                    prefix_sharing_disabled_reason=reason,
                    prompts=prompts,
                    quantization=quantization,
                )
                model._compare_with_own_class(own_scores, derived=not (folder / SPEC_FILE).is_file())
            undo.pop_all()
        return model

    def encode(self, prompt: Prompt, completion: Completion, on_overflow: Overflow = "error") -> Encoded:
        """Ids of one prompt and completion; raises `TooLong`. See `Encoder.encode`."""
        return self.encoder.encode(prompt, completion, on_overflow)

    def encode_group(
        self, prompt: Prompt | None, completions: Sequence[Completion], on_overflow: Overflow = "error"
    ) -> list[Encoded | TooLong]:
        """Ids of every completion of one prompt. See `Encoder.encode_group`."""
        return self.encoder.encode_group(prompt, completions, on_overflow)

    @torch.inference_mode()
    def score(self, batch: Sequence[Encoded]) -> list[float]:
        """Raw logits, in the order of `batch`.

        What its sequences begin with in common is computed once, and cached prompts not at all. If memory runs out,
        the cache is emptied and the batch is tried again before the error is raised.
        """
        with self._weights.active():
            scores = self._score(batch)
        if self.spec.surface is None:
            return scores
        return [score + self.encoder.surface_score(encoded) for score, encoded in zip(scores, batch, strict=True)]

    def _score(self, batch: Sequence[Encoded]) -> list[float]:
        if self.prefix_sharing_disabled_reason is not None:
            return [self._score_alone(encoded) for encoded in batch]
        try:
            return self._score_shared(batch)
        except (RuntimeError, MemoryError) as error:
            if not (out_of_memory(error) and self.prompts.shrink()):
                raise
        log.warning("out of memory: the prompt cache is emptied and the batch is tried again")
        return self._score_shared(batch)

    def _score_shared(self, batch: Sequence[Encoded]) -> list[float]:
        """Score a batch in as many packed rows as it needs."""
        prompts = [encoded.ids[: encoded.prompt_tokens] for encoded in batch]
        cached = {prompt: layers for prompt in set(prompts) if (layers := self.prompts.find(prompt)) is not None}
        num_cached = [
            len(prompt) if prompt in cached and len(prompt) < len(encoded.ids) else 0
            for encoded, prompt in zip(batch, prompts, strict=True)
        ]
        num_completions = Counter(prompts)
        scores = [math.nan] * len(batch)
        for row in rows([encoded.ids for encoded in batch], MAX_ROW_TOKENS, num_cached):
            new = {prompts[index]: n for n, index in enumerate(row) if prompts[index] not in cached}
            with self.prompts.admitted({prompt: num_completions[prompt] for prompt in new}) as admitted:
                to_cache = {new[prompt]: layers for prompt, layers in admitted.items()}
                row_scores = self._score_row(
                    [batch[index] for index in row], [num_cached[index] for index in row], cached, to_cache
                )
            for index, score in zip(row, row_scores, strict=True):
                scores[index] = score
        return scores

    def _score_row(
        self, batch: list[Encoded], num_cached: list[int], cached: dict[Ids, Layers], to_cache: dict[int, Layers]
    ) -> list[float]:
        """One forward over one packed row.

        Args:
            batch: the sequences of the row.
            num_cached: tokens of each that need no computing, because their keys and values are `cached`.
            cached: keys and values by prompt.
            to_cache: lists to fill with the keys and values of a sequence's prompt, by the sequence's index.
        """
        assert self._head is not None
        packing = pack([encoded.ids for encoded in batch], num_cached)
        pooled_places = [
            [packing.place(index, step) for step in encoded.steps] or [packing.pooled[index]]
            for index, encoded in enumerate(batch)
        ]
        places = sorted(
            {place for own in pooled_places for place in own}
        )  # equal sequences share one, so the same bits
        tokens, positions = (to_device([values], self._backbone.device) for values in (packing.ids, packing.positions))
        above = [cached[stretch.known] for stretch in packing.continued]
        prompts = [(packing.beginning(index, batch[index].prompt_tokens), layers) for index, layers in to_cache.items()]
        with packed(self._backbone, packing, places, above, prompts):
            hidden = self._backbone(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state
        self.num_computed += packing.num_computed
        self.num_shared += packing.num_shared
        pooled = hidden[0, to_device(places, hidden.device)].cpu()  # (P, H): the only wait for a GPU
        outputs = dict(zip(places, self._head(pooled).tolist(), strict=True))
        return [self._sequence_score([outputs[place] for place in own]) for own in pooled_places]

    def _sequence_score(self, rows: list[list[float]]) -> float:
        """The score of a sequence from what its head gives at the positions that are read."""
        assert self._head is not None
        logits = self._head.sequence_logits(rows)
        return logits[0] if self.spec.steps is None else self.spec.steps.aggregated(logits)

    def _score_alone(self, encoded: Encoded) -> float:
        # No mask: a lone sequence needs none, and its last position is the pooled one by construction.
        tokens = to_device([encoded.ids], self._backbone.device)  # (1, T)
        self.num_computed += len(encoded.ids)
        if self._head is not None:
            hidden = self._backbone(input_ids=tokens, use_cache=False).last_hidden_state  # (1, T, H)
            return self._sequence_score(self._head(hidden[0, list(encoded.steps) or [-1]].cpu()).tolist())
        inputs: dict[str, torch.Tensor] = {}
        if (types := self.encoder.token_types(encoded)) is not None:
            inputs["token_type_ids"] = to_device([types], self._backbone.device)  # (1, T)
        logits = self._backbone(input_ids=tokens, **inputs).logits[0].float().cpu()  # (K)
        return float(logits @ torch.tensor(self.spec.weights or (1.0,)))

    @torch.inference_mode()
    def _compare_with_own_class(self, own_scores: list[Any], *, derived: bool) -> None:
        """Score the examples and compare. Raises `UsageError` for a derived spec that gives other scores; a spec that
        was written wins, and the difference is logged."""
        compared: list[tuple[str, float, float]] = []  # completion, served, own
        for (prompt, completion), own in zip(example_texts(self.encoder), own_scores, strict=False):
            encoded = self.encoder.encode(prompt, completion)
            score = self._score_alone(encoded)
            if isinstance(own, list):  # a number per token
                steps = score.steps if isinstance(score, StepScores) else (score,)
                places = encoded.steps or (-1,)
                compared += [(completion, step, own[at]) for step, at in zip(steps, places, strict=True)]
            else:
                compared.append((completion, float(score), own))
        self.num_computed = 0
        if not compared:
            return
        scale = max(abs(own) for _, _, own in compared)
        self.own_class_error = max(abs(served - own) for _, served, own in compared)
        for completion, served, own in compared:
            if own_class.differs(served, own, scale, self.dtype):
                self._tell_difference(completion, served, own, derived=derived)
                return

    def _tell_difference(self, completion: str, served: float, own: float, *, derived: bool) -> None:
        message = (
            f"{self._folder}: {self.architecture}, its own class, scores an example ({completion!r}) {own:.6g}, and "
            f"under {'the derived spec' if derived else SPEC_FILE} (pooled {self.spec.pooled!r}, head "
            f"{self.spec.head!r}) it is {served:.6g}"
        )
        if self.spec.head == heads.LM_HEAD:  # the same token's logit: nothing that a spec says explains it
            raise UsageError(f"{message}; what this class does to its logits is not supported")
        if derived:
            raise UsageError(f"{message}; write {SPEC_FILE} with the template and the pooling that it was trained with")
        log.warning("%s; %s decides", message, SPEC_FILE)

    def check_golden(self) -> Parity:
        """Score the golden set shipped in the checkpoint and compare (`parity.compare`).

        A checkpoint without a golden set passes; its `max_batch_error` is measured all the same. Raises `UsageError`
        for a golden set that the spec names and that is missing or invalid.
        """
        return compare(self, self.encoder, read_golden(self.encoder, self._folder))

    def pass_probability(self, score: float) -> float | None:
        """The calibrated P(the program passes all its tests), or None for a checkpoint without a calibration."""
        return None if self.spec.calibration is None else self.spec.calibration.probability(score)

    def close(self) -> None:
        """Release the weights and the cached prompts."""
        self._weights.close()
        self._weights = RewardModel._weights
        self._backbone = self._head = None
        self.prompts.clear()


def _read_weights(
    folder: Path,
    config: dict[str, Any],
    encoder: Encoder,
    dtype: torch.dtype,
    device: torch.device | None,
    *,
    share_base: bool,
) -> tuple[Weights, heads.RewardHead | heads.GatedHead | None]:
    """The checkpoint's own class, or its backbone if transformers has none, and the head that the spec names; None: the
    own class runs whole."""
    spec = encoder.spec
    tensors = checkpoint.Tensors(folder)
    own = own_class.auto_class(config, spec, list(tensors))
    head = None if spec.head == heads.CLASSIFIER else _read_head(tensors, config, encoder)
    used = [f"{name}." for name in (*heads.NAMES, spec.head)]
    if spec.gating is not None:
        used += [name for name in (f"{spec.gating.network}.", spec.gating.scale, spec.gating.transform) if name]
    adapted = adapters.auto_class(folder)
    kind = adapted or own
    options = {"num_labels": tensors.shape("score.weight")[0]} if kind in own_class.LABELLED and head else {}

    def load() -> Any:
        return checkpoint.load(kind, folder, dtype, tuple(used), device, tensors.saved, **options)

    def load_base() -> Any:
        model = load()
        checkpoint.copy_mapped_weights(model)
        return model

    if adapted is not None and share_base:
        key = (checkpoint.weights_digest(folder), kind, dtype, device, *options.values(), *sorted(tensors.saved))
        weights = open_shared(key, load_base, folder)
    else:
        weights = Weights(load() if adapted is None else adapters.merge(load(), folder))
    if own is AutoModel:
        weights = dataclasses.replace(weights, whole=weights.whole.base_model)
    num_labels = weights.whole.config.num_labels
    if head is None and num_labels != len(spec.weights or (1.0,)):
        weights.close()
        raise UsageError(
            f"{folder}: {num_labels} labels; a reward model has one, or `weights` in {SPEC_FILE} gives each a weight"
        )
    return weights, head


def _own_scores(model: Any, encoder: Encoder) -> list[Any]:
    """What the checkpoint's own class scores the examples; nothing if this model is only a backbone."""
    if not own_class.has_head(model):
        return []
    texts = [encoder.own_inputs(*text) for text in example_texts(encoder)]
    return own_class.scores(model, texts, encoder.spec, _label_ids(encoder))


def _label_ids(encoder: Encoder) -> list[int]:
    return [token_id(encoder.tokenizer, label) for label in encoder.spec.labels or ()]


def _read_head(
    tensors: checkpoint.Tensors, config: dict[str, Any], encoder: Encoder
) -> heads.RewardHead | heads.GatedHead:
    spec, labels = encoder.spec, _label_ids(encoder)
    if spec.head == heads.LM_HEAD:
        if not labels:
            raise UsageError(
                f"{SPEC_FILE}: head {spec.head!r} needs `labels`: the token for good, or those for good and bad"
            )
        with_defaults = AutoConfig.from_pretrained(tensors.folder, local_files_only=True).get_text_config()
        return heads.read_labels(tensors, labels, with_defaults)
    if spec.gating is not None:
        return heads.read_gated(tensors, spec.head, spec.gating)
    normalize = bool(config.get("normalize_reward")) if spec.normalize is None else spec.normalize
    return heads.read(tensors, spec.head, steps=spec.steps is not None, weights=spec.weights, normalize=normalize)


def example_texts(encoder: Encoder) -> list[tuple[str, str]]:
    """The examples that the checkpoint's own class is compared on: those that its template and its limit take."""
    prompt, completions = own_class.EXAMPLES
    try:
        group = encoder.encode_group(prompt, completions)
    except Invalid:  # the chat template rejects the conversation
        return []
    return [(prompt, text) for text, encoded in zip(completions, group, strict=True) if isinstance(encoded, Encoded)]


def _why_prompts_are_not_shared(
    backbone: Any, head: heads.RewardHead | heads.GatedHead | None, max_length: int, *, deterministic: bool
) -> str | None:
    if head is None:
        return "its own class runs whole: no beginning is known to be independent of the rest, as in an encoder"
    if deterministic:
        return DETERMINISTIC
    return why_not(backbone, max_length)
