"""The two digests of a run: a short key over values, and SHA-256 of a file.

`content_key` is not the digest of `service.jobs`, which names a job on the wire: keys stand in run folders (finished
stages, journals of verdicts and replies), are read by people, and must not depend on the order of a dict.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def content_key(*values: object) -> str:
    """16 hex digits that name these JSON-like values; the order of a dict's keys does not count."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """`sha256:…` of a file's bytes."""
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
