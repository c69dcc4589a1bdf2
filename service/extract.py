"""How code is taken out of a completion. One module, so that every door and every training stage agree."""

from __future__ import annotations

import re

# A fence opens with at least three backticks or tildes and closes with at least as many of the same at a line start.
_FENCE = re.compile(r"^[ \t]{0,3}(?P<mark>`{3,}|~{3,})[^\n`]*\n(?P<code>.*?)(?:^[ \t]{0,3}(?P=mark)[`~]*[ \t]*\r?$|\Z)",
                    re.MULTILINE | re.DOTALL)  # fmt: skip


def fences(completion: str) -> list[str]:
    """The contents of all fenced blocks, in order; a fence that the completion never closes ends with it."""
    return [match["code"] for match in _FENCE.finditer(completion)]


def last_fence(completion: str) -> str | None:
    """The last fenced block with anything in it, None where there is none."""
    blocks = [block for block in fences(completion) if block.strip()]
    return blocks[-1] if blocks else None
