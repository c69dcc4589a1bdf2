"""Files of a run folder: written whole or not at all, read up to the last whole line.

- A file is written under a scratch name with this host and process in it, then renamed to its own.
- What a killed process left under a scratch name is removed by the next stage (`remove_unfinished`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file, gzipped or not; a last line without a line break is left out."""
    import gzip

    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            yield json.loads(line)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write all rows or nothing. Returns how many."""
    count = 0
    scratch = _scratch(path)
    with scratch.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    scratch.replace(path)
    return count


def write_text(path: Path, text: str) -> None:
    """Write the whole text or nothing."""
    scratch = _scratch(path)
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def remove_unfinished(folder: Path) -> None:
    """Remove the scratch files of this host's processes that have ended."""
    for path in folder.rglob(f".*.{os.uname().nodename}.*"):
        pid = path.name.rpartition(".")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
