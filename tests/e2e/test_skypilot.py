"""deploy/skypilot, read by SkyPilot itself: its schema, its parser, and what it makes of secrets.

SkyPilot's pins are not ours, so it needs an environment of its own: SKYPILOT_PYTHON names the interpreter there.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("SKYPILOT_PYTHON", "")
TASKS = sorted((Path(__file__).resolve().parents[2] / "deploy" / "skypilot").glob("*.yaml"))
READ = """
import json, sys
from sky import Task
task = Task.from_yaml(sys.argv[1])
task.update_secrets({"PLAUDIT_REDIS_URL": "rediss://executor:hidden@h:6380/0"})
resources = [str(one) for one in task.resources]
shown = json.dumps(task.to_yaml_config(use_user_specified_yaml=True))
print(json.dumps({"nodes": task.num_nodes, "resources": resources, "leaks": "hidden" in shown, "run": task.run}))
"""

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(not PYTHON, reason="needs SKYPILOT_PYTHON, an interpreter with the package skypilot"),
]


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in TASKS])
def test_skypilot_reads_the_task_and_hides_its_secret(path: Path) -> None:
    command = [PYTHON, "-c", READ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=path.parents[2])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["nodes"] == 1
    assert told["leaks"] is False
    assert "worker" in told["run"]
    assert told["resources"]


def test_skypilot_refuses_a_task_with_a_typo(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(TASKS[0].read_text().replace("resources:", "resource:"))
    done = subprocess.run([PYTHON, "-c", READ, str(broken)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "resource" in done.stderr
