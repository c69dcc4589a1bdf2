"""deploy/slurm on a Slurm of one node: executors join by URL, do work, and leave on SIGTERM."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.settings import bundled_checkpoint
from support.broker import Broker
from support.slurm import Slurm, missing
from support.stack import Stack, wait_for

pytestmark = [pytest.mark.extended, pytest.mark.timeout(600)]
SLURM = Path(__file__).resolve().parents[2] / "deploy" / "slurm"
ITEM = {
    "language": "python",
    "programs": ["def f(x):\n    return 2 * x\n", "def f(x):\n    return x\n"],
    "tests": {"kind": "assert", "asserts": ["assert f(2) == 4"]},
}


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    if lacks := missing():
        pytest.skip(f"needs {lacks}")
    with Slurm() as cluster:
        yield cluster


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """`plaudit` as the nodes have it."""
    path = tmp_path / "plaudit"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m service.cli "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("script", ["executors.sbatch", "scorers.sbatch"])
def test_slurm_accepts_the_script(slurm: Slurm, script: str) -> None:
    text = (SLURM / script).read_text()
    plain = slurm.folder / script
    plain.write_text(text.replace("#SBATCH --gpus-per-task=1\n", ""))  # this node has none
    flags = ["--test-only", "--cpus-per-task=1", "--mem-per-cpu=100M"]
    done = subprocess.run(["sbatch", *flags, str(plain)], env=slurm.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stderr


def test_a_job_without_a_url_ends_and_says_so(slurm: Slurm) -> None:
    job = slurm.submit(SLURM / "executors.sbatch", "--cpus-per-task=1", "--output=none.log")
    wait_for(lambda: slurm.state(job).startswith("FAILED"), 60, "the job's end")
    assert "PLAUDIT_REDIS_URL: the URL of the Redis" in (slurm.folder / "none.log").read_text()


def test_executors_join_by_url_work_and_leave_on_sigterm(slurm: Slurm, command: Path) -> None:
    with Broker() as broker, Stack(broker, bundled_checkpoint(), scorers=0, executors=0) as stack:

        def workers() -> int:
            return int(httpx.get(f"{stack.url}/info", timeout=30).json()["workers"]["execute"])

        assert workers() == 0
        job = slurm.submit(
            SLURM / "executors.sbatch",
            *("--cpus-per-task=2", "--mem-per-cpu=500M", "--output=join.log"),
            PLAUDIT_REDIS_URL=broker.url,
            PLAUDIT=str(command),
        )
        wait_for(lambda: workers() == 2, 120, f"two executors; {(slurm.folder / 'join.log')}")
        answer = httpx.post(f"{stack.url}/execute", json={"items": [ITEM]}, timeout=60)
        assert answer.status_code == 200, answer.text
        programs = answer.json()["results"][0]["programs"]
        assert [program["verdict"] for program in programs] == ["passed", "wrong_answer"]

        slurm.run("scancel", job)
        wait_for(lambda: workers() == 0, 60, "the executors' leaving")
        wait_for(lambda: slurm.state(job).startswith("CANCELLED"), 60, "the job's end")
        log = (slurm.folder / "join.log").read_text()
        assert log.count("worker stopped") == 2  # each has drained, and was not killed
        assert "Traceback" not in log
