"""Makes the modules of `benchmarks/` importable from the studies; the repository, with its `sandbox`, comes first."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "benchmarks")]
