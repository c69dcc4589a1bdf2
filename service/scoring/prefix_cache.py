"""A cache of prompts' keys and values, for completions that come in later batches. Bounded, least recently used first.

Clients such as OpenRLHF and verl send one completion per request, and the completions of one prompt arrive over several
batches. Of the later ones only the tokens behind the prompt are computed. A prompt is found by its token ids. A cache
belongs to one loaded model.

A prompt that many completions of one batch shared may never come back, so it is cached only when it is seen a second
time: whole groups leave the cache empty. Plain Python, no torch.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from service.scoring.packing import MIN_SAVED, Ids

MANY = 8  # completions of one batch, after which a prompt is cached at its second sight only
MAX_SEEN = 4096  # prompts whose hash is kept, to recognise one that comes back
ID_BYTES = 36  # of one id in the key: a pointer and an int

Layers = list[Any]


class PromptCache:
    """Keys and values of all layers, by prompt.

    Args:
        max_bytes: of all that is cached; 0: nothing is.
        token_bytes: of one token in all layers.

    Attributes:
        hits, misses: look-ups since it was made.
    """

    def __init__(self, max_bytes: int = 0, token_bytes: int = 0) -> None:
        self._room = max_bytes // (token_bytes + ID_BYTES) if token_bytes else 0  # tokens
        self._token_bytes = token_bytes + ID_BYTES
        self._kept: OrderedDict[Ids, Layers] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._tokens = 0
        self.hits = 0
        self.misses = 0

    def __contains__(self, prompt: Ids) -> bool:
        return prompt in self._kept

    @property
    def nbytes(self) -> int:
        return self._tokens * self._token_bytes

    def find(self, prompt: Ids) -> Layers | None:
        """The layers of a cached prompt, which becomes the most recently used; None if it is not cached."""
        if not (self._room and len(prompt) >= MIN_SAVED):
            return None
        layers = self._kept.get(prompt)
        if layers is None:
            self.misses += 1
            return None
        self._kept.move_to_end(prompt)
        self.hits += 1
        return layers

    @contextlib.contextmanager
    def admitted(self, prompts: Mapping[Ids, int]) -> Iterator[dict[Ids, Layers]]:
        """Make room for prompts before their layers are computed.

        Args:
            prompts: how many completions of the batch each has.

        Yields:
            Empty lists to be filled, for the prompts that are to be cached. If the block raises they are not.
        """
        layers = {prompt: self._admit(prompt) for prompt, count in prompts.items() if self._should_cache(prompt, count)}
        try:
            yield {prompt: lists for prompt, lists in layers.items() if prompt in self._kept}
        except BaseException:
            for prompt in layers:
                if self._kept.pop(prompt, None) is not None:
                    self._tokens -= len(prompt)
            raise

    def _should_cache(self, prompt: Ids, completions: int) -> bool:
        if not MIN_SAVED <= len(prompt) <= self._room or prompt in self._kept:
            return False
        name = hash(prompt)
        back = name in self._seen
        self._seen[name] = None
        self._seen.move_to_end(name)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return back or completions < MANY

    def _admit(self, prompt: Ids) -> Layers:
        while self._tokens + len(prompt) > self._room:
            self._tokens -= len(self._kept.popitem(last=False)[0])
        layers: Layers = []
        self._kept[prompt] = layers
        self._tokens += len(prompt)
        return layers

    def shrink(self) -> bool:
        """Memory ran out: empty the cache and halve its bound. False if it was empty already."""
        if not self._tokens:
            return False
        self._room = self._tokens // 2
        self.clear()
        return True

    def clear(self) -> None:
        """Empty the cache."""
        self._kept.clear()
        self._seen.clear()
        self._tokens = 0
