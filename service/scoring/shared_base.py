"""One base in memory under several adapters of it (`--share-bases`), in place of a merged copy for each.

- peft keeps the adapters beside the base's layers. Before a batch, its adapter is made the active one; scoring, and
  loading another adapter, take turns under one lock.
- A base is found again by the digest of its weights and its config, the class and the dtype. It is released with the
  last model on it.
- The layers are peft's, so they are not replaced by faster ones (`decoder.py`), and every layer computes the adapter's
  two small products beside its own.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.scoring import adapters

_bases: weakref.WeakValueDictionary[Hashable, SharedBase] = weakref.WeakValueDictionary()
_opening = threading.Lock()
_names = itertools.count(1)


class SharedBase:
    """A base, and the adapters on it by name. `model` is peft's as soon as there is one."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class Weights:
    """What a model computes with: weights of its own, or one adapter of a shared base.

    Attributes:
        whole: the model that computes.
        base: None: the weights are its own.
        name: of the adapter.
    """

    whole: Any
    base: SharedBase | None = None
    name: str = ""

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The adapter is the active one while the context is open; others wait."""
        if self.base is None:
            yield
            return
        with self.base.lock:
            if self.base.model.active_adapter != self.name:
                self.base.model.set_adapter(self.name, inference_mode=True)
            yield

    def num_parameters(self, backbone: Any) -> int:
        """Elements of its weights, without those of other adapters."""
        others = set() if self.base is None else set(self.base.model.peft_config) - {self.name}
        return sum(weight.numel() for name, weight in backbone.named_parameters() if not others & set(name.split(".")))

    def close(self) -> None:
        """Release the adapter; with the last one, the base goes."""
        if self.base is not None:
            with self.base.lock:
                adapters.detach(self.base.model, self.name)


def open_shared(key: Hashable, load: Callable[[], Any], folder: Path) -> Weights:
    """An adapter on a base that is in memory, or that is loaded now.

    Args:
        key: what decides whether two bases are the same.
        load: loads the base.
        folder: of the base and the adapter.

    Raises:
        UsageError: it is not an adapter of this base.
    """
    with _opening:
        base = _bases.get(key)
        if base is None:
            base = _bases[key] = SharedBase(load())
    name = f"adapter{next(_names)}"
    with base.lock:
        base.model = adapters.attach(base.model, folder, name)
        return Weights(base.model.get_base_model(), base, name)
