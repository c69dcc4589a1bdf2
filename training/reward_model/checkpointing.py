"""The resumable state of a training loop: model, optimiser and step in one file, written every few minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

SAVE_EVERY_S = 120.0


class TrainingState:
    """The state file of one loop. It is replaced as a whole, so a kill leaves the last complete state.

    Args:
        path: the file; it need not exist.
        model: a module whose weights are saved and restored in place.
        optimiser: likewise.
    """

    def __init__(self, path: Path, model: Any, optimiser: Any) -> None:
        self._path, self._model, self._optimiser = path, model, optimiser
        self._saved = time.monotonic()

    def load(self) -> int:
        """Restore the saved state. Returns the step to go on with, 0 without a saved state."""
        if not self._path.is_file():
            return 0
        state = torch.load(self._path, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        return int(state["step"])

    def save_if_due(self, step: int) -> None:
        """Save, with `step` as the step to go on with, if the last save is more than `SAVE_EVERY_S` ago."""
        if time.monotonic() - self._saved <= SAVE_EVERY_S:
            return
        scratch = self._path.with_suffix(".writing")
        state = {"model": self._model.state_dict(), "optimiser": self._optimiser.state_dict(), "step": step}
        torch.save(state, scratch)
        scratch.replace(self._path)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Delete the file; the loop has finished."""
        self._path.unlink(missing_ok=True)
