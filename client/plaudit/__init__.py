"""The client of plaudit, the reward service for code. Needs httpx and pydantic, which are loaded on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plaudit.client import AsyncClient, Client
    from plaudit.errors import PlauditError

__all__ = ["AsyncClient", "Client", "PlauditError"]
__version__ = "0.1.0"

_WHERE = {"AsyncClient": "plaudit.client", "Client": "plaudit.client", "PlauditError": "plaudit.errors"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'plaudit' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
