"""The client of plaudit, the reward service for code models.

    import plaudit

    with plaudit.Client("http://127.0.0.1:8000") as client:
        answer = client.rank([{"prompt": prompt, "completions": completions, "tests": tests}])

- `Client` and `AsyncClient` have every call of the API; `best_of_n` is one call without a client.
- `plaudit.schemas` has the contract's types, `plaudit.errors` the errors.
- `plaudit.integrations` has the reward functions of TRL, verl, OpenRLHF, slime, AReaL, SkyRL and verifiers.

httpx and pydantic are loaded when the first name that needs them is used, not by `import plaudit`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from plaudit import errors, integrations, schemas
    from plaudit.async_client import AsyncClient
    from plaudit.calls import BestOfN, StreamedItem
    from plaudit.client import Client
    from plaudit.errors import (
        InfraError,
        Invalid,
        InvalidTests,
        NotFound,
        NoWorker,
        Overloaded,
        PlauditError,
        TooLarge,
        TooLong,
        Unauthorized,
        Unreachable,
        UsageError,
    )
    from plaudit.grading import Verdict
    from plaudit.schemas import (
        ExecuteAnswer,
        ExecuteItem,
        ExecuteRequest,
        RankAnswer,
        RankRequest,
        RewardAnswer,
        RewardItem,
        RewardRequest,
        RewardSpec,
        ScoreAnswer,
        ScoreItem,
        ScoreRequest,
    )
    from plaudit.single_call import best_of_n

__all__ = [
    "AsyncClient",
    "BestOfN",
    "Client",
    "ExecuteAnswer",
    "ExecuteItem",
    "ExecuteRequest",
    "InfraError",
    "Invalid",
    "InvalidTests",
    "NoWorker",
    "NotFound",
    "Overloaded",
    "PlauditError",
    "RankAnswer",
    "RankRequest",
    "RewardAnswer",
    "RewardItem",
    "RewardRequest",
    "RewardSpec",
    "ScoreAnswer",
    "ScoreItem",
    "ScoreRequest",
    "StreamedItem",
    "TooLarge",
    "TooLong",
    "Unauthorized",
    "Unreachable",
    "UsageError",
    "Verdict",
    "__version__",
    "best_of_n",
    "errors",
    "integrations",
    "schemas",
]

_MODULES = ("errors", "integrations", "schemas")
_PLACES = {
    "AsyncClient": "async_client",
    "BestOfN": "calls",
    "Client": "client",
    "StreamedItem": "calls",
    "Verdict": "grading",
    "best_of_n": "single_call",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("plaudit")
    if name in _MODULES:
        return importlib.import_module(f"plaudit.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'plaudit' has no attribute {name!r}")
    place = _PLACES.get(name) or ("schemas" if name.endswith(("Item", "Request", "Answer", "Spec")) else "errors")
    value = getattr(importlib.import_module(f"plaudit.{place}"), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
