"""Reference programs of public problem sets pass in every language, but for those that are known and explained."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("PLAUDIT_DATA", ROOT / ".." / "shared" / "data"))

pytestmark = [
    pytest.mark.data,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (DATA / "problems.multilang.jsonl.gz").exists(),
        reason=f"needs the public data folder (PLAUDIT_DATA): {DATA}",
    ),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("bwrap") is None, reason="needs root and bubblewrap (isolation level strong)"
    ),
]


def test_the_first_three_reference_programs_of_each_set_pass() -> None:
    """All of them: `python benchmarks/languages.py`."""
    line = [sys.executable, str(ROOT / "benchmarks" / "languages.py"), "--each", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PLAUDIT_DATA": str(DATA)}
    done = subprocess.run(line, capture_output=True, text=True, timeout=800, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
