"""The README, followed to the letter by `benchmarks/studies/newcomer.py` in a bare Debian 12."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MIRROR = "deb.debian.org"


def lacks() -> str:
    """What this host lacks for it."""
    if os.geteuid() != 0:
        return "root"
    if shutil.which("debootstrap") is None:
        return "debootstrap; apt-get install debootstrap"
    try:
        socket.create_connection((MIRROR, 80), timeout=5).close()
    except OSError:
        return f"a connection to {MIRROR}"
    return ""


@pytest.mark.extended
@pytest.mark.timeout(3600)
@pytest.mark.skipif(bool(lacks()), reason=f"needs {lacks()}")
def test_a_newcomer_gets_a_ranked_answer_by_the_readme_alone() -> None:
    argv = [sys.executable, str(ROOT / "benchmarks" / "studies" / "newcomer.py")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=3500)
    assert done.returncode == 0, done.stderr[-4000:]
    times = {
        step: float(seconds) for step, seconds in re.findall(r"^\| (.+) \| ([\d.]+) \|$", done.stdout, re.MULTILINE)
    }
    assert times["make run: the first ranked answer"] < 3600
    assert "shell block 1: order [1, 0]" in times
