"""The table: which dialects there are, and which are spoken here."""

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
    sandbox_fusion_data,
    slime,
    vllm,
)
from service.api.compat.base import Dialect

_MODULES = (
    sandbox_fusion_data,
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


def spoken(off: list[str]) -> list[Dialect]:
    """All but those that are switched off. Raises UsageError for a name that is none."""
    if unknown := sorted(set(off) - set(DIALECTS)):
        raise UsageError(f"dialects_off: {', '.join(unknown)}: there are {', '.join(DIALECTS)}")
    return [dialect for name, dialect in DIALECTS.items() if name not in off]


def install(app: FastAPI, off: list[str]) -> None:
    """Put the dialects' routes into the application, beside the native ones."""
    for dialect in spoken(off):
        app.include_router(dialect.router)
    if vllm.DIALECT.name not in off:
        app.add_middleware(vllm.ScoreSwitch)
