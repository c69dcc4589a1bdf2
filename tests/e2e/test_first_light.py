"""`make run`'s demo and `plaudit rank`, against the whole service as a user starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plaudit.schemas import RewardItem
from service.up.procfs import start_time

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DATA = Path(os.environ.get("PLAUDIT_DATA", ROOT.parent / "shared" / "data"))
FLAGS = ["--", "--port", "0", "--executors", "1", "--isolation-accept", "userns"]


def first_light(*words: str) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
    argv = [sys.executable, str(EXAMPLES / "first_light.py"), *words, *FLAGS]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environ, start_new_session=True)


def descendants(pid: int) -> list[int]:
    try:
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return found + [grand for child in found for grand in descendants(child)]


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The demo, serving; what it printed up to there."""
    with first_light() as process:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if line.startswith("Ctrl-C"):
                break
        try:
            yield process, text
        finally:
            process.terminate()


def test_the_examples_are_requests_of_the_contract_with_a_label_for_each_completion() -> None:
    meant = json.loads((EXAMPLES / "meant.json").read_text())
    items = [RewardItem.model_validate_json(line) for line in (EXAMPLES / "problems.jsonl").read_text().splitlines()]
    assert [item.id for item in items] == list(meant)
    assert [len(item.completions) for item in items] == [len(labels) for labels in meant.values()]
    assert len(items[0].completions) == 8
    assert all(set(labels) == {"right", "wrong", "slow", "cheat"} for labels in meant.values())


def test_the_demo_ranks_eight_programs_with_a_right_one_first(demo: tuple[subprocess.Popen[str], str]) -> None:
    _, text = demo
    rows = [line.split() for line in text.splitlines() if re.match(r"\*? +\d", line)]
    assert len(rows) == 8
    assert rows[0][:5] == ["*", "1", rows[0][2], "right", "passed"]
    assert sum(row[3] == "passed" for row in rows[1:]) == 1
    assert "curl -s http://127.0.0.1:" in text


def test_the_command_line_judges_every_example_as_it_is_meant(
    demo: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    url = re.search(r"http://[\d.]+:\d+", demo[1])
    assert url is not None
    out = tmp_path / "out.jsonl"
    argv = [
        sys.executable,
        "-P",
        "-m",
        "service.cli",
        "rank",
        str(EXAMPLES / "problems.jsonl"),
        "--url",
        url[0],
        "--out",
        str(out),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")
    assert "100%  3 items  16 completions" in done.stderr
    results = [json.loads(line) for line in out.read_text().splitlines()]
    meant = json.loads((EXAMPLES / "meant.json").read_text())
    for result in results:
        verdicts = [one["components"]["tests"]["verdict"] for one in result["completions"]]
        judged = list(zip(meant[result["id"]], verdicts, strict=True))
        assert all((verdict == "passed") == (label == "right") for label, verdict in judged), judged
        assert all(verdict == "time_limit" for label, verdict in judged if label == "slow"), judged
        assert meant[result["id"]][result["group"]["best"]] == "right"


def test_ctrl_c_stops_everything_that_the_demo_started(demo: tuple[subprocess.Popen[str], str]) -> None:
    process, _ = demo
    everyone = descendants(process.pid)
    assert len(everyone) >= 6  # plaudit up, reaper, broker, API, scorer, executor
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 0
    until = time.monotonic() + 20
    while left := [pid for pid in everyone if start_time(pid)]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


@pytest.mark.extended
@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the public data folder; set PLAUDIT_DATA")
def test_real_samples_of_a_model_get_the_verdicts_that_were_recorded_for_them() -> None:
    with first_light("--once", "--data", str(DATA)) as process:
        text, _ = process.communicate(timeout=150)
    assert process.returncode == 0
    rows = [line.replace("*", " ").split() for line in text.splitlines() if re.match(r"\*? +\d", line)]
    assert [row[2] for row in rows] == ["pass"] * 4 + ["fail"] * 4
    assert [row[3] == "passed" for row in rows] == [True] * 4 + [False] * 4
