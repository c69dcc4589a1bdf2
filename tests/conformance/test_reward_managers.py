"""verl's and OpenRLHF's own reward managers, data sets and batch types around our reward functions, in processes of
their own: from a file that `plaudit-train export` wrote to the tensor that the trainer learns from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.clients import trainer_path
from support.launch_files import RECIPES, launched
from support.stack import Stack
from training.pipeline.cli import main
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, as_row

pytestmark = [pytest.mark.extended, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "models" / "plaudit-mini"
QUESTION = "Write twice(x), which doubles."
TESTS = ("assert twice(2) == 4", "assert twice('ab') == 'abab'")
RIGHT, HALF = "```python\ndef twice(x):\n    return 2 * x\n```", "```python\ndef twice(x):\n    return 4\n```"
ANSWERS = [RIGHT, HALF, "I would rather not."]
RATES = [1.0, 0.5, 0.0]
REWARD_FILE = """
from plaudit.integrations import openrlhf, verl

compute_score = verl.compute_score({url!r}, reward="tests")
blocking = verl.compute_score_blocking({url!r}, reward="tests")
batch = verl.compute_score_batch({url!r}, reward="tests")
reward_func = openrlhf.reward_func({url!r}, reward="tests")
"""


@pytest.fixture
def files(tmp_path: Path, stack: Stack) -> Path:
    """A folder with exported problems, the completions, and a file of reward functions."""
    run = tmp_path / "run"
    run.mkdir()
    problem = Problem("a", "a", QUESTION, "twice", None, "", TESTS, "own", "MIT", "train")  # type: ignore[arg-type]
    write_jsonl(run / "problems.jsonl", [as_row(problem)])
    assert main(["export", str(run), "verl", "--out", str(tmp_path / "train.parquet")]) == 0
    assert main(["export", str(run), "openrlhf", "--out", str(tmp_path / "train.jsonl")]) == 0
    (tmp_path / "completions.json").write_text(json.dumps(ANSWERS))
    (tmp_path / "rewards.py").write_text(REWARD_FILE.format(url=stack.url))
    return tmp_path


def answered(child: str, path: Path, url: str, *arguments: str) -> list[Any]:
    """The lines that the child prints, run with the trainer's own packages first on its path."""
    ours = os.pathsep.join(map(str, (path, ROOT, ROOT / "client")))
    environ = {**os.environ, "PYTHONPATH": ours, "PLAUDIT_URL": url, "REWARD": "combined"}
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "support" / child), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=800, cwd=path)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "["))]


def verl_answer(files: Path, wheels: Path, stack: Stack, reward_file: Path, plan: list[tuple[str, str, str]]) -> Any:
    pytest.importorskip("ray", reason="verl imports ray; make extended installs it")
    (files / "plan.json").write_text(json.dumps(plan))
    data = files / "train.parquet"
    environ = {"MODEL": str(TOKENIZER), "TRAIN": str(data), "VAL": str(data), "REWARD_FILE": str(reward_file)}
    _, _, *overrides = launched("verl_ray.sh", files, **environ)
    read = [str(data), str(TOKENIZER), str(files / "completions.json"), str(files / "plan.json")]
    (found,) = answered("verl_managers.py", trainer_path("verl", wheels), stack.url, *read, *overrides)
    return found


def test_verl_s_launch_file_pays_by_tests_first(files: Path, wheels: Path, stack: Stack) -> None:
    (found,) = verl_answer(files, wheels, stack, RECIPES / "reward_func.py", [("loop", "naive", "compute_score")])
    assert found["manager"] == "NaiveRewardManager"
    passed, half, none = found["scores"]
    assert 1.0 <= passed < 1.5
    assert max(half, none) < 0.5  # all or nothing: half of the tests are none
    assert [row["pass_rate"] for row in found["extra"]] == [1.0, 0.0, 0.0]
    assert [row["reward_ok"] for row in found["extra"]] == [1.0] * 3


def test_every_manager_of_verl_that_awaits_or_calls_a_function(files: Path, wheels: Path, stack: Stack) -> None:
    loop = [(name, "compute_score") for name in ("naive", "dapo", "rate_limited")] + [("naive", "blocking")]
    whole = [("naive", "blocking"), ("batch", "batch"), ("dapo", "blocking")]
    plan = [("loop", *row) for row in loop] + [("batch", *row) for row in whole]
    found = verl_answer(files, wheels, stack, files / "rewards.py", plan)
    names = {"NaiveRewardManager", "DAPORewardManager", "RateLimitedRewardManager", "BatchRewardManager"}
    assert {one["manager"] for one in found} == names
    for (kind, *row), one in zip(plan, found, strict=True):
        assert one["scores"] == RATES, row
        assert one["at"][0] > one["at"][2], row  # on a completion's last token, not the padding's
        columns = (
            one["extra"] if kind == "batch" else {name: [r[name] for r in one["extra"]] for name in one["extra"][0]}
        )
        assert columns["reward_ok"] == [1.0] * 3, row
        assert columns["pass_rate"] == RATES, row


def test_openrlhf_s_rollout_from_data_to_advantages(files: Path, wheels: Path, stack: Stack) -> None:
    data = [str(files / "train.jsonl"), str(TOKENIZER), str(files / "completions.json")]
    urls = [str(files / "rewards.py"), f"{stack.url}/get_reward?reward=tests"]
    lines = answered("openrlhf_rollout.py", trainer_path("openrlhf", wheels), stack.url, *data, *urls)
    assert len(lines) == len(urls)
    for found in lines:
        assert QUESTION in found["prompt"]
        assert found["info"]["return"] == found["info"]["reward"] == found["info"]["pass_rate"] == RATES
        assert found["info"]["reward_ok"] == [1.0] * 3
        best, half, worst = found["advantages"]
        assert best > half > worst
