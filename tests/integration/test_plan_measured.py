"""`plaudit plan --measure`: a service of its own is measured and ended, and its costs can be planned with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.plan.costs import read_costs


@pytest.mark.extended
@pytest.mark.timeout(600)
def test_the_costs_of_this_host_are_measured_and_planned_with(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    words = [sys.executable, "-m", "service.cli", "plan"]
    measuring = [*words, "--measure", "--isolation-accept", "userns", "--costs", str(path)]
    told = subprocess.run(measuring, capture_output=True, text=True, timeout=500)
    assert told.returncode == 0, told.stderr
    costs = read_costs(path)
    for program in costs.programs.values():
        assert 0 < program.cpu_ms(1) < program.cpu_ms(100)
    assert costs.queue.commands > 1
    assert costs.queue.bytes_kept > 100
    assert costs.score is not None
    assert costs.score.tokens_per_s > 10
    planned = subprocess.run(
        [*words, "--rollouts", "512", "--costs", str(path), "--json"], capture_output=True, timeout=60
    )
    assert json.loads(planned.stdout)["start"]["executors"] >= 1
