"""Completions from a causal language model in this process, by transformers' own `generate`.

For small models and for tests; a large one belongs behind vLLM. Every request is generated alone from its own seed, so
a run that was killed and started again gives the same texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from plaudit.errors import Invalid
from service.scoring.checkpoint import locate
from service.scoring.tokenizer import load_tokenizer
from training.generation.sources.base import CompletionReply, CompletionRequest, before_stop
from training.pipeline import config


class LocalSource:
    """`path` is a model folder or hub name; the device is a GPU where torch sees one (only the CPU has been run)."""

    def __init__(self, settings: config.SourceConfig) -> None:
        self.settings = settings

    @property
    def name(self) -> str:
        label = self.settings.model or self.settings.path
        return f"{label} T={self.settings.temperature:g} p={self.settings.top_p:g}"

    def __enter__(self) -> Self:
        import torch
        from transformers import AutoModelForCausalLM

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        folder = locate(self.settings.path)
        self._tokenizer: Any = load_tokenizer(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        self._model.to(self._device).eval()
        return self

    def __exit__(self, *error: object) -> None:
        del self._model

    def replies(self, requests: Iterable[CompletionRequest]) -> Iterator[CompletionReply]:
        for request in requests:
            yield self._reply(request)

    def _reply(self, request: CompletionRequest) -> CompletionReply:
        import torch

        settings = self.settings
        inputs = self._encoded(request)
        length = inputs["input_ids"].shape[1]
        longest = getattr(self._model.config, "max_position_embeddings", None) or length + settings.max_tokens
        room = min(settings.max_tokens, longest - length)
        if room < 1:
            raise Invalid(
                f"{request.key}: the prompt has {length} tokens, and the model takes {longest} with the completion"
            )
        do_sample = settings.temperature > 0
        options: dict[str, Any] = {}
        if do_sample:
            options = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
        stops = (*settings.stop, *request.stop)
        if stops:
            options |= {"stop_strings": list(stops), "tokenizer": self._tokenizer}
        torch.manual_seed(request.seed)
        with torch.no_grad():
            generated = self._model.generate(
                **inputs,
                do_sample=do_sample,
                num_return_sequences=request.n if do_sample else 1,
                max_new_tokens=room,
                pad_token_id=self._pad(),
                **options,
            )[:, length:]
        texts, endings, tokens = [], [], 0
        for ids in generated.tolist():
            end = next((at for at, token in enumerate(ids) if token in self._ends()), len(ids))
            text = self._tokenizer.decode(ids[:end], skip_special_tokens=True)
            texts.append(before_stop(text, stops))
            endings.append("stop" if end < len(ids) or len(texts[-1]) < len(text) else "length")
            tokens += min(end + 1, len(ids))
        copies = request.n // len(texts)  # greedy: the same text n times
        return CompletionReply(request.key, tuple(texts * copies), tuple(endings * copies), length, tokens)

    def _encoded(self, request: CompletionRequest) -> Any:
        if isinstance(request.prompt, str):
            encoded = self._tokenizer(request.prompt, return_tensors="pt", return_token_type_ids=False)
        else:
            messages = [{"role": role, "content": content} for role, content in request.prompt]
            encoded = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        return encoded.to(self._device)

    def _ends(self) -> set[int]:
        ids = self._model.generation_config.eos_token_id
        return {self._tokenizer.eos_token_id} | set([ids] if isinstance(ids, int) else ids or [])

    def _pad(self) -> int | None:
        pad: int | None = self._tokenizer.pad_token_id
        end: int | None = self._tokenizer.eos_token_id
        return end if pad is None else pad
