"""Evaluations and trainers as their packages are, each with what it depends on in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.clients import own_environment
from support.pages import blocks
from support.stack import Stack

pytestmark = [pytest.mark.extended, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]


def printed(name: str, child: str, page: str, stack: Stack, wheels: Path, folder: Path) -> Any:
    """What a script of `tests/support` prints, in the package's environment, with the Python of the page in a file."""
    code = [block.code for block in blocks(ROOT / "docs" / "trainers" / page) if block.info == "python"]
    (folder / "page.py").write_text("\n".join(code).replace("http://127.0.0.1:8000", stack.url))
    command = [str(own_environment(name, wheels)), "-W", "ignore", str(ROOT / "tests" / "support" / child), stack.url]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "client"), "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, str(folder / "page.py")], capture_output=True, text=True, timeout=600, env=environ, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def inspect_logs(stack: Stack, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return printed("inspect", "inspect_evals.py", "inspect.md", stack, wheels, tmp_path_factory.mktemp("inspect"))


def values(log: Any) -> list[Any]:
    return [score["value"] for sample in log["samples"] for score in sample["scores"].values()]


def test_inspect_scores_what_passes_by_metadata_and_target(inspect_logs: Any) -> None:
    for name in ("passed", "page"):
        log = inspect_logs[name]
        assert (log["status"], log["scorers"], values(log)) == ("success", ["plaudit"], ["C", "I", "I"])
        assert log["metrics"][0]["accuracy"] == pytest.approx(1 / 3)
        (score,) = log["samples"][0]["scores"].values()
        assert score["answer"] == "def add(a, b):\n    return a + b\n"
        assert score["metadata"] == {"reward": 1.0, "pass_rate": 1.0}
    assert inspect_logs["epochs"]["metrics"][0]["accuracy"] == 1.0  # one of two passes


def test_inspect_has_rewards_as_numbers_of_a_finished_log_too(inspect_logs: Any) -> None:
    for name in ("reward", "again"):
        passed, wrong, none = values(inspect_logs[name])
        assert 1.0 < passed < 1.001
        assert 0.0 < max(wrong, none) < 0.001
        mean = inspect_logs[name]["metrics"][0]["mean"]
        assert mean == pytest.approx((passed + wrong + none) / 3)


def test_inspect_never_has_a_number_where_there_is_none(inspect_logs: Any) -> None:
    broken = inspect_logs["broken"]
    assert (broken["status"], broken["metrics"][0]["accuracy"]) == ("success", 1.0)  # of the sample that has tests
    assert broken["samples"][1]["scores"] == {}
    assert "target: no tests in it that can be read" in broken["samples"][1]["error"]
    for name, status in (("outage", "error"), ("outage, going on", "success")):
        log = inspect_logs[name]
        assert (log["status"], log["metrics"], values(log)) == (status, [], [])
        assert "no answer from http://127.0.0.1:9" in log["samples"][0]["error"]
    silent = inspect_logs["silent"]
    assert silent["metrics"][0]["accuracy"] == 1.0  # of the sample that was answered
    assert [score["reason"] for score in silent["samples"][1]["scores"].values()] == ["no_response"]


def test_inspect_s_logs_hold_no_key_whoever_made_the_scorer(inspect_logs: Any) -> None:
    assert inspect_logs["own"]["scorers"] == ["mine"]
    assert values(inspect_logs["own"]) == ["C", "I", "I"]
    assert not any(log["key"] for log in inspect_logs.values())


@pytest.fixture(scope="module")
def traces(stack: Stack, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("verifiers")
    return printed("verifiers", "verifiers_tasks.py", "verifiers.md", stack, wheels, folder)


def test_verifiers_rewards_the_tasks_of_the_pages_task_set(traces: Any) -> None:
    assert [(trace["ok"], trace["errors"]) for trace in traces["page"]] == [(True, [])] * 3
    assert [trace["metrics"]["pass_rate"] for trace in traces["page"]] == [1.0, 0.5, 0.0]
    passed, half, none = (trace["rewards"]["plaudit"] for trace in traces["page"])
    assert 1.0 < passed < 1.001
    assert 0.5 < half < 0.501
    assert 0.0 < none < 0.001


def test_verifiers_takes_a_reward_by_its_path_with_a_weight(traces: Any) -> None:
    assert [trace["rewards"]["plaudit"] for trace in traces["tests"]] == [2.0, 1.0]
    passed, half = (trace["rewards"]["plaudit"] for trace in traces["both"])
    assert passed - 2.0 < 0.002
    assert half - 1.0 < 0.002


def test_verifiers_task_set_of_nemo_gym_takes_the_service_for_its_server(traces: Any) -> None:
    assert [(trace["ok"], trace["rewards"]) for trace in traces["gym"]] == [
        (True, {"nemo_gym": 1.0}),
        (True, {"nemo_gym": 0.0}),
    ]
    assert [trace["metrics"]["pass_rate"] for trace in traces["gym"]] == [1.0, 0.5]


def test_verifiers_ends_a_rollout_without_a_reward_as_an_error(traces: Any) -> None:
    for name, words in (("broken", "tests: no tests in it that can be read"), ("outage", "no answer from")):
        (trace,) = traces[name]
        assert (trace["ok"], trace["rewards"], trace["metrics"]) == (False, {"plaudit": None}, {})
        assert words in trace["errors"][-1]
