"""The reward model: a checkpoint folder in, one raw score a completion out.

The checkpoint folder is the treaty between training and serving. Beside the weights and the tokenizer it holds
`reward_model.json` (`RewardModelSpec`): the one template, the length limit, which token is pooled, the calibration and
a golden set. Training encodes through the same `Encoder`, so the text that was learnt is the text that is served.

What is promised:
- one template; it owns every special token, so nothing is added twice (the tokenizer's own additions are off);
- the pooled token is the last of the unpadded sequence: padding never exists here, so `pad == eos` cannot matter;
- never a silent cut: `TooLong` by default, `truncate_left` on request and marked in the result;
- a score is a float32 logit that depends on its own tokens only. What sequences begin with in common (their prompt) is
  computed once and their completions attend to it (`packing.py`, `attention.py`), in one batch or in later ones
  (`prompts.py`), which is exact to rounding: within 1e-4 of the sequence alone in float32. `deterministic` scores one
  sequence at a time: the same bits in any company.

What is not promised: equal bits across machines or torch versions (the golden set measures that difference), and text
that contains the template's own special tokens is taken at its word, as Hugging Face does.

This module imports torch; only the scoring worker and training import it.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import __version__ as transformers_version

from plaudit.errors import TooLong, UsageError
from service.scoring import checkpoint, decoder, heads
from service.scoring.device import device_of, sent
from service.scoring.encoder import Encoded, Encoder, Message, Overflow, Prompt, token_id
from service.scoring.engine import Parity, compare, read_golden
from service.scoring.fault_isolation import out_of_memory
from service.scoring.packing import Ids, pack, rows
from service.scoring.prefix_cache import Layers, PromptCache
from service.scoring.spec import SPEC_FILE, Calibration, RewardModelSpec

__all__ = [
    "Calibration",
    "Encoded",
    "Encoder",
    "Message",
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


class RewardModel:
    """A decoder with a head of one number, or an encoder's classifier, loaded once and scoring for a process's life.

    `unshared`: why prompts are not shared; None where they are. `num_computed`, `num_shared`: tokens since the load.
    """

    def __init__(
        self,
        backbone: Any,
        head: heads.Head | None,
        encoder: Encoder,
        folder: Path,
        *,
        revision: str,
        dtype: str,
        parameters: int,
        unshared: str | None,
        prompts: PromptCache,
    ) -> None:
        self.encoder = encoder
        self.spec = encoder.spec
        self.revision = revision
        self.dtype = dtype
        self.engine = f"transformers {transformers_version}"
        self.max_length = encoder.spec.max_length
        self.architecture: str = (backbone.config.architectures or [type(backbone).__name__])[0]
        self.parameters = parameters
        self.unshared = unshared
        self.prompts = prompts
        self.num_computed = 0
        self.num_shared = 0
        self._folder = folder
        self._backbone = backbone  # where there is no head: the whole classifier
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
    ) -> RewardModel:
        """The checkpoint at this folder or hub id: safetensors only, no remote code, every weight accounted for.

        `device`: where its backbone runs (`device_of`); the head, a product of a few rows, runs on the CPU.
        `max_prompt_bytes`: how much is kept of prompts for later batches, where they are shared at all.
        Raises `UsageError` for a checkpoint that cannot be what it is used for, `HostLacks` for one that is not there.
        """
        from transformers import AutoModel, AutoModelForSequenceClassification

        if dtype not in DTYPES:
            raise UsageError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        torch.set_num_threads(threads)
        where = device_of(device)
        folder = checkpoint.locate(path)
        revision = checkpoint.revision_of(folder)
        checkpoint.read_config(folder)
        encoder = Encoder.load(folder)
        name = encoder.spec.head
        if name == heads.CLASSIFIER:
            backbone, head = (
                checkpoint.load(AutoModelForSequenceClassification, folder, DTYPES[dtype], device=where),
                None,
            )
            if backbone.config.num_labels != 1:
                raise UsageError(f"{folder}: {backbone.config.num_labels} labels; a reward model has one")
            unshared: str | None = "an encoder reads both sides of every token: no beginning is independent of the rest"
        else:
            tensors = checkpoint.Tensors(folder)
            if name == heads.LM_HEAD:
                if encoder.spec.labels is None:
                    raise UsageError(f"{SPEC_FILE}: head {name!r} needs `labels`, the tokens for good and bad")
                good, bad = (token_id(encoder.tokenizer, label) for label in encoder.spec.labels)
                head = heads.read_labels(tensors, good, bad)
            else:
                head = heads.read(tensors, name, steps=encoder.spec.steps is not None)
            used = tuple(f"{n}." for n in heads.NAMES)
            backbone = checkpoint.load(AutoModel, folder, DTYPES[dtype], used, where)
            unshared = None
        checkpoint.check_vocabulary(folder, encoder.tokenizer, backbone.get_input_embeddings().num_embeddings)
        checkpoint.check_length(folder, backbone, encoder.spec.max_length)
        parameters: int = sum(p.numel() for p in backbone.parameters()) + (head.parameters if head else 0)
        decoder.speed_up(backbone)
        checkpoint.own(backbone)
        if checkpoint.revision_of(folder) != revision:
            raise UsageError(f"{folder}: was written to while it was loaded")
        prompts = PromptCache()
        if unshared is None and not deterministic:
            from service.scoring.prefix_sharing import token_bytes, why_not

            unshared = why_not(backbone, encoder.spec.max_length)
            if unshared is None and max_prompt_bytes:
                prompts = PromptCache(max_prompt_bytes, token_bytes(backbone, encoder.spec.max_length))
        if unshared is not None:
            log.warning("%s: prompts are not shared: %s", path, unshared)
        elif deterministic:
            unshared = "deterministic: one sequence at a time"
        return cls(
            backbone,
            head,
            encoder,
            folder,
            revision=revision,
            dtype=dtype,
            parameters=parameters,
            unshared=unshared,
            prompts=prompts,
        )

    def encode(self, prompt: Prompt, completion: str, on_overflow: Overflow = "error") -> Encoded:
        """Ids of one prompt and completion; raises `TooLong`. See `Encoder.encode`."""
        return self.encoder.encode(prompt, completion, on_overflow)

    def encode_group(
        self, prompt: Prompt | None, completions: Sequence[str], on_overflow: Overflow = "error"
    ) -> list[Encoded | TooLong]:
        """Ids of every completion of one prompt. See `Encoder.encode_group`."""
        return self.encoder.encode_group(prompt, completions, on_overflow)

    @torch.inference_mode()
    def score(self, batch: Sequence[Encoded]) -> list[float]:
        """Raw logits, in the order of `batch`. What its sequences begin with in common is computed once, and prompts
        that are kept from earlier batches not at all; where memory runs out these go first."""
        if self.unshared is not None:
            return [self._score_alone(encoded) for encoded in batch]
        try:
            return self._score_rows(batch)
        except (RuntimeError, MemoryError) as error:
            if not (out_of_memory(error) and self.prompts.shrink()):
                raise
        log.warning("out of memory: prompts of earlier batches are let go, and the batch is tried again")
        return self._score_rows(batch)

    def _score_rows(self, batch: Sequence[Encoded]) -> list[float]:
        prompts = [encoded.ids[: encoded.prompt_tokens] for encoded in batch]
        found = {prompt: layers for prompt in set(prompts) if (layers := self.prompts.find(prompt)) is not None}
        known = [
            len(prompt) if prompt in found and len(prompt) < len(one.ids) else 0
            for one, prompt in zip(batch, prompts, strict=True)
        ]
        behind = Counter(prompts)
        scores = [math.nan] * len(batch)
        for row in rows([one.ids for one in batch], MAX_ROW_TOKENS, known):
            new = {prompts[at]: n for n, at in enumerate(row) if prompts[at] not in found}
            with self.prompts.admitted({prompt: behind[prompt] for prompt in new}) as admitted:
                kept = {new[prompt]: layers for prompt, layers in admitted.items()}
                of_row = self._score_row([batch[at] for at in row], [known[at] for at in row], found, kept)
            for at, score in zip(row, of_row, strict=True):
                scores[at] = score
        return scores

    def _score_row(
        self, batch: list[Encoded], known: list[int], found: dict[Ids, Layers], kept: dict[int, Layers]
    ) -> list[float]:
        """`known`: how many tokens of each need no computing, as their layers were `found`. `kept`: where the layers
        of the prompt of a sequence go, by the sequence's index."""
        from service.scoring.attention import packed

        assert self._head is not None
        packing = pack([encoded.ids for encoded in batch], known)
        read = [
            [packing.place(at, step) for step in encoded.steps] or [packing.pooled[at]]
            for at, encoded in enumerate(batch)
        ]
        places = sorted({place for one in read for place in one})  # equal beginnings have one, and so the same bits
        tokens, positions = (sent([part], self._backbone.device) for part in (packing.ids, packing.positions))  # (1, T)
        above = [found[one.known] for one in packing.continued]
        beginnings = [(packing.beginning(at, batch[at].prompt_tokens), layers) for at, layers in kept.items()]
        with packed(self._backbone, packing, places, above, beginnings):
            hidden = self._backbone(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state
        self.num_computed += packing.num_computed
        self.num_shared += packing.num_shared
        pooled = hidden[0, sent(places, hidden.device)].cpu()  # (P, H): here a GPU is waited for, and nowhere before
        scores = dict(zip(places, self._head(pooled).tolist(), strict=True))
        return [self._whole([scores[place] for place in one]) for one in read]

    def _whole(self, logits: list[float]) -> float:
        """The score of a sequence from those of its pooled tokens."""
        return logits[0] if self.spec.steps is None else self.spec.steps.whole(logits)

    def _score_alone(self, encoded: Encoded) -> float:
        # No mask: a lone sequence needs none, and its last position is the pooled one by construction.
        tokens = sent([encoded.ids], self._backbone.device)  # (1, T)
        self.num_computed += len(encoded.ids)
        if self._head is not None:
            hidden = self._backbone(input_ids=tokens, use_cache=False).last_hidden_state  # (1, T, H)
            return self._whole(self._head(hidden[0, list(encoded.steps) or [-1]].cpu()).tolist())
        sides: dict[str, torch.Tensor] = {}
        if getattr(self._backbone.config, "type_vocab_size", 1) > 1:  # BERT's: 0 for the prompt, 1 for the completion
            sides["token_type_ids"] = sent(
                [[int(at >= encoded.prompt_tokens) for at in range(len(encoded.ids))]], self._backbone.device
            )  # (1, T)
        return float(self._backbone(input_ids=tokens, **sides).logits.float().item())

    def check_golden(self) -> Parity:
        """Scores the golden set shipped in the checkpoint and compares; a checkpoint without one has nothing to fail
        (but what company does to a score is always measured).

        Every row is scored alone and in the company of all others. A row whose token count differs counts as
        infinitely wrong: the tokenizer or the template is another one. Raises `UsageError` where the spec names a
        golden set that is not in the folder.
        """
        return compare(self, self.encoder, read_golden(self.encoder, self._folder))

    def pass_probability(self, score: float) -> float | None:
        """The shipped calibration's P(the program passes all its tests), or None where none is shipped."""
        return None if self.spec.calibration is None else self.spec.calibration.probability(score)

    def close(self) -> None:
        """Let go of the weights, and of prompts that were kept."""
        self._backbone = self._head = None
        self.prompts.clear()
