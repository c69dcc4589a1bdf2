"""Opens the engine that the settings name with a checkpoint in it, and proves it against the golden set."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from plaudit.errors import HostLacks, PlauditError, UsageError
from service.scoring.engine import Engine, EngineUnavailable
from service.scoring.fault_isolation import out_of_memory
from service.scoring.foreign_errors import one_line
from service.scoring.judge.spec import is_judge
from service.scoring.parity import Parity

if TYPE_CHECKING:
    from service.settings import Settings

log = logging.getLogger("plaudit.score")


def open_engine(name: str, path: str, settings: Settings) -> tuple[Engine, Parity]:
    """The engine for one model, ready to serve, and the parity that it was measured to have.

    Args:
        name: the model's name, for messages and `--vllm-url`.
        path: checkpoint folder or hub id.
        settings: `engine`, `dtype`, `device` and what else an engine reads.

    Raises:
        HostLacks: scores differ from the golden set, or the checkpoint, GPU or server is missing.
        UsageError: the checkpoint or the settings are invalid.
    """
    engine = _open(name, path, settings)
    with contextlib.ExitStack() as undo:
        undo.callback(engine.close)
        try:
            parity = engine.check_golden()
        except EngineUnavailable as error:
            raise HostLacks(f"model {name!r}: {error}") from error
        if not parity.ok:
            raise HostLacks(
                f"model {name!r}: scores here differ from its golden set by {parity.max_abs_error:.3g} "
                f"(at most {parity.tolerance:g}); not served"
            )
        undo.pop_all()
    return engine, parity


def _open(name: str, path: str, settings: Settings) -> Engine:
    try:
        return _load(name, path, settings)
    except (HostLacks, UsageError, OSError):
        raise
    except Exception as error:  # the code of a checkpoint's class, of a tokenizer or of a quantiser
        log.debug("model %r: %s cannot be loaded", name, path, exc_info=True)
        if out_of_memory(error):
            raise HostLacks(f"model {name!r}: {path} does not fit into memory: {one_line(error)}") from error
        reason = error.detail if isinstance(error, PlauditError) else one_line(error)
        raise UsageError(f"model {name!r}: {path} cannot be loaded: {reason}") from error


def _load(name: str, path: str, settings: Settings) -> Engine:
    if is_judge(folder := Path(path)):
        from service.scoring.judge.engine import JudgeEngine

        return JudgeEngine.open(name, folder)
    if settings.engine == "vllm":
        from service.scoring.vllm import VllmEngine

        return VllmEngine.open(name, path, settings)
    from service.scoring.reward_model import RewardModel

    return RewardModel.load(
        path,
        dtype=settings.dtype,
        threads=settings.torch_threads,
        deterministic=settings.deterministic,
        max_prompt_bytes=settings.max_prompt_cache_bytes,
        device=settings.device,
        share_base=settings.share_bases,
    )
