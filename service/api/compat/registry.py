"""Which dialects there are, and which are switched on."""

from __future__ import annotations

from fastapi import FastAPI

from plaudit.errors import UsageError
from service.api.compat import (
    llama_factory,
    nemo_gym,
    open_instruct,
    open_r1,
    openrlhf,
    piston,
    rerank,
    roll,
    sandbox_fusion,
    slime,
    vllm,
)
from service.api.compat.base import Dialect

_MODULES = (
    sandbox_fusion,
    openrlhf,
    slime,
    vllm,
    rerank,
    open_r1,
    nemo_gym,
    open_instruct,
    llama_factory,
    piston,
    roll,
)
DIALECTS: dict[str, Dialect] = {module.DIALECT.name: module.DIALECT for module in _MODULES}


def enabled(off: list[str]) -> list[Dialect]:
    """All but those that are switched off. Raises UsageError for an unknown name."""
    if unknown := sorted(set(off) - set(DIALECTS)):
        raise UsageError(f"dialects_off: {', '.join(unknown)}: unknown; the dialects are {', '.join(DIALECTS)}")
    return [dialect for name, dialect in DIALECTS.items() if name not in off]


def install(app: FastAPI, off: list[str]) -> None:
    """Add the dialects' routes to the application, beside the native ones."""
    for dialect in enabled(off):
        app.include_router(dialect.router)
    if vllm.DIALECT.name not in off:
        app.add_middleware(vllm.ScoreSwitch)
