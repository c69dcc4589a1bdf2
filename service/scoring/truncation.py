"""Token ids cut as `service.jobs.Truncation` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from plaudit.errors import Invalid, TooLong
from service.jobs import Truncation
from service.scoring.packing import num_common

Frame = tuple[int, int]  # tokens before the completion, and behind it


def cut_text(ids: list[int], truncation: Truncation, limit: int) -> tuple[list[int], int]:
    """The first or last `limit` ids, and how many were removed before them."""
    removed = max(0, len(ids) - limit)
    return (ids[removed:], removed) if truncation.side == "left" else (ids[: len(ids) - removed], 0)


def cut_completion(ids: list[int], truncation: Truncation, limit: int, frame: Callable[[], Frame]) -> list[int]:
    """Without as many tokens of the completion as are too many.

    Args:
        ids: of prompt, completion and closing.
        truncation: whose `cut` is "completion" or "nothing".
        limit: of all tokens.
        frame: which of the ids are not the completion's; asked only if something is cut.

    Raises:
        TooLong: nothing may be cut, or none of the completion would be left.
    """
    most = truncation.max_completion_tokens
    if len(ids) <= limit and most is None:
        return ids
    before, behind = frame()
    completion = ids[before : len(ids) - behind]
    kept = completion if most is None else completion[:most]
    room = limit - before - behind
    if len(kept) > room:
        if truncation.cut == "nothing":
            raise TooLong(tokens=before + len(kept) + behind, limit=limit)
        if room < 1:
            raise TooLong(tokens=before + behind, limit=limit - 1, part="the prompt (or query) alone has ")
        kept = kept[:room] if truncation.side == "right" else kept[-room:]
    return [*ids[:before], *kept, *ids[len(ids) - behind :]]


def frame_of(ids: Sequence[int], before: Sequence[int], behind: Sequence[int]) -> Frame:
    """How many ids a text has in common with what the template writes before and behind the completion."""
    first = num_common(tuple(before), tuple(ids))
    rest = tuple(reversed(ids[first:]))
    return first, num_common(tuple(reversed(behind)), rest)


def first_tokens(tokenizer: Any, text: str, count: int) -> str:
    """The beginning of a text that its first `count` tokens stand for. Raises Invalid without a fast tokenizer."""
    if not getattr(tokenizer, "is_fast", False):
        raise Invalid("max_tokens_per_query: this model's tokenizer does not tell where its tokens are in a text")
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return text if len(places) <= count else text[: places[count - 1][1]]
