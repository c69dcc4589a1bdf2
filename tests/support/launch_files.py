"""The launch files of `training/rl/recipes`, run with a `python` that prints what it was asked to start."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "training" / "rl" / "recipes"


def launched(script: str, folder: Path, **environ: str) -> list[str]:
    """What the script would start: the arguments that its `python` is given."""
    fake = folder / "python"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    values = {"PATH": f"{folder}:{os.environ['PATH']}", "MODEL": "a/model", "TRAIN": "t", "VAL": "v", **environ}
    done = subprocess.run(["sh", str(RECIPES / script)], env=values, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
