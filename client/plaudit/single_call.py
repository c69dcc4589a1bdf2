"""`best_of_n` without a client: it opens one for a single call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from pydantic import BaseModel

from plaudit.calls import BestOfN, BestOptions
from plaudit.client import Client
from plaudit.schemas import Message


def best_of_n(
    url: str,
    prompt: str | Sequence[Message | Mapping[str, Any]],
    completions: Sequence[str],
    tests: BaseModel | Mapping[str, Any] | None = None,
    *,
    api_key: str | None = None,
    timeout_s: float = 120.0,
    **options: Unpack[BestOptions],
) -> BestOfN:
    """The best of several completions of one prompt, by the service at `url`. For many calls share a `Client`.

    Args:
        url: Where the service listens, such as "http://127.0.0.1:8000".
        prompt: Text, or chat messages.
        completions: What to choose from.
        tests: Tests of the contract. With them the pass rate decides and the model breaks ties; without them the
            prompt's examples, then what most programs answer alike, then consensus and the model.
        api_key: Key of the service, where it asks for one.
        timeout_s: How long the call may take over all its attempts, in seconds.
        **options: `BestOptions`: language, extract, limits, stop, spec, early_stop, …

    Returns:
        The winner with its index, the whole ranking, and the term that decided.

    Raises:
        InfraError: No completion got a reward, so that any choice would be a guess.
        Invalid: A value that the contract does not allow.
        Unreachable: No answer arrived in time.
        TypeError: An option that does not exist.

    Example:
        >>> import plaudit
        >>> tests = {"kind": "assert", "asserts": ["assert add(1, 2) == 3"]}
        >>> plaudit.best_of_n("http://127.0.0.1:8000", "Add a and b.", completions, tests).completion
    """
    with Client(url, api_key, timeout_s=timeout_s) as client:
        return client.best_of_n(prompt, completions, tests, **options)
