"""Keys and values of prompts that were computed, for completions of them that come later. Bounded, the oldest go first.

Clients such as OpenRLHF and verl send one completion a request, and those of one prompt arrive over several batches.
Of the later ones only what is behind the prompt is computed. A prompt is found by its ids alone; a cache belongs to one
loaded model, and what it holds never outlives it.

A prompt that many completions of one batch shared has paid for itself and may never come back, so it is kept only when
it is seen a second time: traffic of whole groups leaves the cache empty. Plain Python, no torch.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from service.scoring.packing import MIN_SAVED, Ids

MANY = 8  # completions
SEEN = 4096  # prompts whose hash is remembered, to know one that comes back
ID_BYTES = 36  # of one id in the key: a pointer and an int

Layers = list[Any]


class PromptCache:
    """Layers by prompt, `max_bytes` at most; 0: none. `token_bytes`: what a token takes in all layers.

    `hits`, `misses`: prompts that were looked up, since it was made.
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
        """What is kept of this prompt, which makes it the last to go."""
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
        """Makes room for those of these prompts that are wanted, by how many completions each has, before there is
        anything to put there: empty lists, to be filled inside. Where that raises they are not kept."""
        layers = {prompt: self._admit(prompt) for prompt, count in prompts.items() if self._wants(prompt, count)}
        try:
            yield {prompt: these for prompt, these in layers.items() if prompt in self._kept}
        except BaseException:
            for prompt in layers:
                if self._kept.pop(prompt, None) is not None:
                    self._tokens -= len(prompt)
            raise

    def _wants(self, prompt: Ids, completions: int) -> bool:
        if not MIN_SAVED <= len(prompt) <= self._room or prompt in self._kept:
            return False
        name = hash(prompt)
        back = name in self._seen
        self._seen[name] = None
        self._seen.move_to_end(name)
        if len(self._seen) > SEEN:
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
        """Memory ran out: let go of everything, and keep half of that at most from now on; answers whether that was
        anything."""
        if not self._tokens:
            return False
        self._room = self._tokens // 2
        self.clear()
        return True

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        self._seen.clear()
        self._tokens = 0
